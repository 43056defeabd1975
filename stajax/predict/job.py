"""How the videos of a command are predicted, as values that can be given to other processes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from stajax.files import make_folder
from stajax.files.lock import exclusive
from stajax.files.manifest import sha256_of_json
from stajax.inference import Precision
from stajax.media.file import DEFAULT, Decoding
from stajax.predict.api import SaliencyModel, StudentName, load
from stajax.predict.per_video import MAX_SECONDS, MapStream, Sampling, Summary, TimedMap, open_video, write_outputs
from stajax.predict.per_video import USUAL as EVERY_GRID_FRAME
from stajax.predict.wanted import USUAL, Wanted, make_outputs

Watch = Callable[[MapStream], Iterable[TimedMap]]
"""Returns the maps of a video, and may show how far they are."""


@dataclass(frozen=True)
class Job:
  """How videos are predicted.

  Attributes:
    out: The folder for the outputs, which exists.
    model: That of `stajax.predict.api.load`, like the next three.
    student: Likewise.
    centre: Likewise.
    batch: Likewise.
    sampling: When maps are computed.
    wanted: The files that are written.
    decoding: The sound stream to hear, and the hardware that decodes.
    max_seconds: A longer video is refused.
    overwrite: Whether finished outputs are made again.
    precision: That of `stajax.predict.api.load`.
  """

  out: Path
  model: str | None = None
  student: StudentName | None = None
  centre: bool | None = None
  batch: int = 8
  sampling: Sampling = EVERY_GRID_FRAME
  wanted: Wanted = USUAL
  decoding: Decoding = DEFAULT
  max_seconds: float = MAX_SECONDS
  overwrite: bool = False
  precision: Precision | None = None

  def load(self) -> SaliencyModel:
    """Loads the model, which takes seconds; raises what `stajax.predict.api.load` raises."""
    return load(self.model, self.student, self.centre, self.batch, self.precision)

  def settings(self, model: SaliencyModel) -> dict[str, Any]:
    """Returns what the files depend on besides the videos, as flat values for JSON.

    The hardware that decodes is not among them: whoever goes on may choose another one.
    """
    made_with = sha256_of_json(dict(model.predictor.made_with))
    return {"made_with": made_with, "sound": self.decoding.sound, **asdict(self.sampling), **asdict(self.wanted)}

  def predict(self, model: SaliencyModel, path: Path, name: str, watch: Watch = iter) -> Summary:
    """Writes the outputs of one video, the JSON file last.

    Args:
      model: What `load` returned.
      path: The video.
      name: What the names of its outputs begin with, as `stajax.predict.names.choose_names` gives it.
      watch: Shows how far it is.

    Raises:
      MediaError, ValueError, OSError: See `stajax.predict.per_video.write_outputs`.
      BlockingIOError: Another process writes these outputs.
    """
    stream = open_video(model.predictor, path, self.sampling, model.name, self.decoding, self.max_seconds)
    provenance = replace(stream.provenance, settings=self.settings(model))
    target = self.out / name  # whose name may have dots
    make_folder(target.parent)
    outputs = make_outputs(target.parent, target.name, provenance, self.wanted)
    pictures = None
    if stream.frame_times is not None and not any(output.needs_pictures for output in outputs):
      pictures = partial(_without_pictures, stream.frame_times())
    with exclusive(target.with_name(f".{target.name}.lock")):
      return write_outputs(watch(stream), provenance, outputs, pictures)


def _without_pictures(times: Iterator[float]) -> Iterator[tuple[float, None]]:
  return ((time, None) for time in times)
