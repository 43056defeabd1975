"""What the page shows of a video, computed once and kept in files: maps of every view, and what they say together.

`<view>.maps` holds the maps (n, h, w) uint8, as the npz files of `stajax predict` do; `<view>.small` holds them in the
size in which the page draws them.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stajax.demo.limits import UploadLimits
from stajax.maps.pseudo import resize
from stajax.maps.statistics import frame_statistics, moved_share
from stajax.media import isolated
from stajax.predict.api import SaliencyModel
from stajax.predict.outputs import Provenance, to_uint8
from stajax.predict.per_video import TimedMap

SIDE = 64
"""The side of the maps that the page draws. They are smooth, so more would not be seen."""
_READING = 0.4
"""The part of the progress that stands for reading the frames."""
FINAL, NO_SOUND = "final", "_no_sound"


@dataclass
class Analysis:
  """What is known about a video.

  Attributes:
    folder: The folder of the files.
    provenance: What was predicted, and by what.
    side: The (rows, columns) of the maps.
    times: The times of the maps, in seconds.
    concentration: For every view, how concentrated each map is: 1 less its entropy, so 0 for a uniform one.
    moved: The share of each final map's mass that the sound moved; empty where there is none.
    confidence: What each final map can be expected to gain over the centre prior; empty where that was not measured.
  """

  folder: Path
  provenance: Provenance
  side: tuple[int, int] = (0, 0)
  times: list[float] = field(default_factory=list[float])
  concentration: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
  moved: list[float] = field(default_factory=list[float])
  confidence: list[float] = field(default_factory=list[float])

  def fields(self) -> dict[str, Any]:
    """Returns what the page needs to know, as values for JSON."""
    info, provenance = self.provenance.info, self.provenance
    return {
      "size": list(provenance.size),
      "duration": info.duration,
      "rate": info.rate,
      "has_sound": provenance.has_sound,
      "maps_a_second": provenance.rate,
      "side": SIDE,
      "times": [round(time, 6) for time in self.times],
      "concentration": self.concentration,
      "moved": self.moved,
      "confidence": float(np.mean(self.confidence)) if self.confidence else None,
      "notes": list(provenance.notes),
    }

  def maps(self, view: str) -> Iterator[TimedMap]:
    """Yields the maps of a view with their times, as `MapStream` does, from the files."""
    rows, columns = self.side
    with (self.folder / f"{view}.maps").open("rb") as file:
      for time in self.times:
        values = np.frombuffer(file.read(rows * columns), np.uint8).reshape(rows, columns)
        yield time, values.astype(np.float32) / 255


def analyse(
  model: SaliencyModel, video: Path, title: str, folder: Path, limits: UploadLimits, advance: Callable[[float], None]
) -> Analysis:
  """Computes the maps of a video.

  Args:
    model: The model.
    video: The file.
    title: What the video is called.
    folder: An existing folder, for the files.
    limits: How long it may last.
    advance: Takes the part that is done; what it raises ends the work.

  Raises:
    Refused: The video is too long.
    MediaError: It cannot be used.
    ValueError: There is no map, or one is not finite.
  """
  advance(0.0)
  limits.check_seconds(isolated.probe(video, []).duration)
  stream = model.stream(video)
  duration = max(stream.provenance.info.duration, 1e-3)
  found, expected = Analysis(folder, replace(stream.provenance, title=title)), stream.expected_length
  with ExitStack() as stack:
    files: dict[str, tuple[BinaryIO, BinaryIO]] = {}
    # Frames are read ahead of their maps, for which there are no better numbers.
    views_in_time = stream.views(lambda time: advance(_READING * min(time / duration, 1)))
    for number, (time, views) in enumerate(views_in_time, start=1):
      for view, saliency in views.items():
        if view not in files:
          paths = (folder / f"{view}.maps", folder / f"{view}.small")
          first, second = (stack.enter_context(path.open("wb")) for path in paths)
          files[view] = first, second
          found.concentration[view] = []
        large, small = files[view]
        large.write(to_uint8(saliency).tobytes())
        small.write(_small(saliency).tobytes())
        concentration = 1 - frame_statistics(saliency, found.provenance.size)["entropy"]
        found.concentration[view].append(round(concentration, 4))
      _add(found, time, views)
      advance(_READING + (1 - _READING) * min(number / expected, 1))
  if not found.times:
    raise ValueError("the model gave no map")
  return found


def _add(found: Analysis, time: float, views: dict[str, np.ndarray]) -> None:
  found.side = views[FINAL].shape
  found.times.append(time)
  if (silent := views.get(FINAL + NO_SOUND)) is not None:
    found.moved.append(round(moved_share(views[FINAL], silent), 4))
  if found.provenance.confidence is not None:
    found.confidence.append(float(found.provenance.confidence.of(views[FINAL][None])[0]))


def _small(saliency: np.ndarray) -> np.ndarray:
  small = resize(saliency[None], (SIDE, SIDE))[0]
  return to_uint8(small / max(float(small.max()), 1e-12))
