"""The maps of one video, computed on demand, and the loop that writes them to outputs."""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stajax.media import isolated
from stajax.media.file import Decoding, MediaError
from stajax.media.sound_windows import SoundWindows, file_windows
from stajax.media.video import MediaInfo
from stajax.predict.names import identify
from stajax.predict.outputs import Frame, Output, Provenance

if TYPE_CHECKING:
  from stajax.inference.clip import Sample
  from stajax.inference.predictor import Predictor
  from stajax.inference.reservoir import Fragments

TimedMap = tuple[float, np.ndarray]
"""A time in seconds and the map (h, w) float32 at that time, with a maximum of 1 unless it is 0 everywhere."""


class MapStream:
  """The maps of a video, in the order of their times, in memory that does not grow with the video's length.

  They are computed while one iterates over the stream, which can be done only once.

  Attributes:
    provenance: What is predicted, and by what.
  """

  def __init__(
    self, predictor: "Predictor", path: str | Path, every_frame: bool = False, model: str = "", sound: int | None = None
  ):
    """Opens the video and reads its sound.

    Args:
      predictor: The model.
      path: The video.
      every_frame: Whether a map is computed for each native frame, instead of each frame of the model's grid.
      model: The model's name, for people.
      sound: The number of the sound stream to hear, counted from 1; None for the one that the file prefers.

    Raises:
      MediaError: The video cannot be used.
    """
    decoding, notes = Decoding(sound=sound), list[str]()
    info = isolated.probe(path, notes, decoding)
    self._predictor = predictor
    self._sound = _read_sound(info, notes, decoding)
    self._reach = max(1, round(info.rate / predictor.rate)) if every_frame else 1
    rate = info.rate if every_frame else predictor.rate
    if every_frame and info.rate_varies:  # the n-th frame before one may be seconds away
      notes.append(f"picture: its rate varies, maps are computed at {rate:.6g} frames a second")
    has_sound = self._sound is not None
    about = info, has_sound, model, predictor.trained_on, rate, every_frame
    self.provenance = Provenance(*about, notes, identify(info.path))
    self._pending_times: deque[float] = deque()  # times of the samples whose maps the model has not returned yet

  @property
  def expected_length(self) -> int:
    """The approximate number of maps."""
    return max(1, round(self.provenance.info.duration * self.provenance.rate))

  def __iter__(self) -> Iterator[TimedMap]:
    """Computes the maps.

    Raises:
      MediaError: The video is damaged.
      ValueError: A map is not finite.
    """
    for saliency in self._predictor.maps(self._samples(), self._reach, self._fragments):
      time, saliency = self._pending_times.popleft(), np.asarray(saliency, np.float32)
      if not np.isfinite(saliency).all():
        raise ValueError(f"the model's map at {time:.3f} s is not finite")
      yield time, saliency / max(float(saliency.max()), 1e-12)

  def _samples(self) -> Iterator["Sample"]:
    path, notes, side = self.provenance.info.path, self.provenance.notes, self._predictor.side
    if self.provenance.every_frame and not self.provenance.info.rate_varies:
      frames = isolated.native_frames(path, (side, side), notes)
    else:
      frames = isolated.grid_frames(path, self.provenance.rate, side, notes)
    for time, frame in frames:
      self._pending_times.append(time)
      yield frame, None if self._sound is None else self._sound.window(time)

  def _fragments(self) -> "Fragments":
    from stajax.inference.reservoir import read_file_fragments  # loads JAX

    info, rate = self.provenance.info, self.provenance.rate
    return read_file_fragments(info, self._sound, rate, self._reach, self._predictor.side, self._predictor.seed)


def _read_sound(info: MediaInfo, notes: list[str], decoding: Decoding) -> SoundWindows | None:
  """Returns the sound of a video, None with a note if it cannot be used."""
  if not info.has_sound and notes:  # its decoder crashed
    return None
  try:
    return file_windows(info.path, notes, info.duration, partial(isolated.audio_blocks, decoding=decoding))
  except MediaError as error:  # the picture can still be used
    notes.append(isolated.about_sound(error, info.path))
    return None


@dataclass(frozen=True)
class Summary:
  """What was written for one video.

  Attributes:
    frames: How many native frames the video has.
    maps: How many maps the model computed.
    notes: A line for each thing that had to be left out.
  """

  frames: int
  maps: int
  notes: tuple[str, ...]


def write_outputs(timed_maps: Iterable[TimedMap], provenance: Provenance, outputs: Sequence[Output]) -> Summary:
  """Reads a video once, and gives its maps and native frames to outputs.

  Args:
    timed_maps: The maps, in the order of their times.
    provenance: What is predicted.
    outputs: They are opened in this order, and completed in reverse order.

  Raises:
    MediaError: The video is damaged.
    ValueError: There is no map, or one is not finite.
    OSError: An output cannot be written.
  """
  path, num_frames, num_maps = provenance.info.path, 0, 0

  def maps_given_to_outputs() -> Iterator[TimedMap]:
    nonlocal num_maps
    for time, saliency in timed_maps:
      num_maps += 1
      for output in outputs:
        output.add_map(time, saliency)
      yield time, saliency

  with contextlib.ExitStack() as stack:
    for output in outputs:
      stack.enter_context(output.opened())
    interpolator = MapInterpolator(maps_given_to_outputs())
    needs_pictures = any(output.needs_pictures for output in outputs)
    times_alone = ((time, None) for time in isolated.frame_times(path))
    native = isolated.native_frames(path) if needs_pictures else times_alone
    for time, picture in native:
      frame = Frame(num_frames, time, picture, interpolator.at(time))
      for output in outputs:
        output.add_frame(frame)
      num_frames += 1
    interpolator.finish()
  return Summary(num_frames, num_maps, tuple(provenance.notes))


class MapInterpolator:
  """Interpolates linearly between the maps of a stream, of which it holds two; constant beyond the first and last."""

  def __init__(self, timed_maps: Iterator[TimedMap]):
    """Raises ValueError where there is no map."""
    self._maps = timed_maps
    first = next(timed_maps, None)
    if first is None:
      raise ValueError("the model gave no map")
    self._before, self._after = first, first

  def at(self, time: float) -> np.ndarray:
    """Returns the map (h, w) at a time, in seconds; times must not decrease."""
    while self._after is not None and self._after[0] <= time:
      self._before, self._after = self._after, next(self._maps, None)
    if self._after is None or time <= self._before[0]:
      return self._before[1]
    weight = np.float32((time - self._before[0]) / (self._after[0] - self._before[0]))
    return (1 - weight) * self._before[1] + weight * self._after[1]

  def finish(self) -> None:
    """Reads the maps that are left."""
    deque(self._maps, maxlen=0)
