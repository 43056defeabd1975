"""The maps of one video, computed on demand, and the loop that writes them to outputs."""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from stajax.hints import check_type
from stajax.maps.time_blur import blur_in_time
from stajax.media import isolated
from stajax.media.file import DEFAULT, Decoding, MediaError
from stajax.media.sound_windows import SoundWindows, file_windows
from stajax.media.video import MediaInfo
from stajax.predict.beside import Beside, read_ahead
from stajax.predict.names import identify
from stajax.predict.outputs import Frame, Output, Provenance
from stajax.senses import Senses

if TYPE_CHECKING:
  from stajax.inference.clip import Sample
  from stajax.inference.predictor import Predictor
  from stajax.inference.reservoir import Fragments

MAX_SECONDS = 6 * 3600.0
MAX_RATE = 1000.0

TimedMap = tuple[float, np.ndarray]
"""A time in seconds and the map (h, w) float32 at that time, with a maximum of 1 unless it is 0 everywhere."""

Pictures = Callable[[], Iterable[tuple[float, np.ndarray]]]
"""Returns the native frames (H, W, 3) uint8 RGB of a video, with their times in seconds."""

Times = Callable[[], Iterable[tuple[float, None]]]
"""Returns the times of the native frames, in seconds, where no output needs the frames themselves."""

READ_AHEAD = 32
"""How many samples are decoded while others are computed and drawn."""
_SMOOTHED_TOGETHER = 16
"""How many maps are smoothed in time at once."""


@dataclass(frozen=True)
class Sampling:
  """When maps are computed, and how they are smoothed in time.

  Attributes:
    every: A map is computed for every native frame of which the number is a multiple of this; None for a constant rate.
    fps: That rate, maps a second; None for the rate of the model's grid.
    smooth: The standard deviation, in seconds, of a Gaussian that smooths the maps in time; 0 for none.

  Raises:
    ValueError: A value is not possible; one line.
  """

  every: int | None = None
  fps: float | None = None
  smooth: float = 0.0

  def __post_init__(self) -> None:
    for name, value, kind in (("every", self.every, "a whole number"), ("fps", self.fps, "a number")):
      if value is not None:
        check_type(name, value, kind)
    check_type("smooth", self.smooth, "a number")
    if self.every is not None and self.every < 1:
      raise ValueError(f"every {self.every}: expected at least 1")
    if self.fps is not None and not 0 < self.fps <= 1000:
      raise ValueError(f"fps {self.fps:g}: expected more than 0 and at most 1000")
    if self.every is not None and self.fps is not None:
      raise ValueError(f"every {self.every} and fps {self.fps:g}: expected one of them")
    if not 0 <= self.smooth <= 60:
      raise ValueError(f"smooth {self.smooth:g}: expected 0 to 60 seconds")

  def rate(self, native: float, grid: float) -> float:
    """Returns maps a second, for a video of `native` frames a second and a model whose grid has `grid`."""
    return native / self.every if self.every is not None else grid if self.fps is None else self.fps


USUAL = Sampling()


class MapStream:
  """The maps of a video, in the order of their times, in memory that does not grow with the video's length.

  They are computed while one iterates over the stream, which can be done only once. `open_video` makes one.

  Attributes:
    provenance: What is predicted, and by what.
    frame_times: Returns the times of all native frames, which become known while the maps are computed, so that the
      video need not be decoded for them; called before that. None where this is not possible.

  Args:
    predictor: The model.
    provenance: What is predicted, and by what.
    frames: Returns the times in seconds and the square frames (side, side, 3) uint8 of which maps are computed.
    sound: The video's sound; None where it has none.
    smooth: That of `Sampling`.
    read_fragments: Returns fragments from all over a long video, given the samples between neighbours in time; None if
      long companions are from the same window.
    frame_times: The attribute.
  """

  def __init__(
    self,
    predictor: "Predictor",
    provenance: Provenance,
    frames: Callable[[], Iterable[tuple[float, np.ndarray]]],
    sound: SoundWindows | None,
    smooth: float = 0.0,
    read_fragments: "Callable[[int], Fragments] | None" = None,
    frame_times: Callable[[], Iterator[float]] | None = None,
  ) -> None:
    self.provenance, self.frame_times = provenance, frame_times
    self._predictor, self._frames, self._sound, self._smooth = predictor, frames, sound, smooth
    self._reach = max(1, round(provenance.rate / predictor.rate))
    self._read_fragments = read_fragments
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
    maps = self._maps()
    return smooth_in_time(maps, self._smooth * self.provenance.rate) if self._smooth else maps

  def _maps(self) -> Iterator[TimedMap]:
    read = self._read_fragments
    fragments = None if read is None else lambda: read(self._reach)
    for saliency in self._predictor.maps(self._samples(), self._reach, fragments):
      time = self._pending_times.popleft()
      yield time, _scaled(saliency, time)

  def views(self, watch: Callable[[float], None] | None = None) -> Iterator[tuple[float, dict[str, np.ndarray]]]:
    """Computes, instead of the maps alone, what each student makes of the video, and what they make without its sound.

    Like the maps, they can be computed only once.

    Args:
      watch: Takes the time of each frame when it has been read, which is a while before its maps are there; what it
        raises ends the work.

    Yields:
      The time in seconds, and maps (h, w) float32 as iterating over the stream gives them: `final`; those of each
      student, such as `sta`, where the model has several; and, where the video has sound, all of these without it, such
      as `final_no_sound`.

    Raises:
      MediaError: The video is damaged.
      ValueError: A map is not finite, or the stream was to smooth them.
    """
    if self._smooth:
      raise ValueError(f"smooth {self._smooth:g}: views are not smoothed, expected 0")
    read = self._read_fragments
    fragments = None if read is None else lambda: read(self._reach)
    predictor = self._predictor.with_senses(() if self._sound is None else (Senses(sound="none"),))
    for views in predictor.views(self._samples(watch), self._reach, fragments):
      time = self._pending_times.popleft()
      yield time, {name: _scaled(saliency, time) for name, saliency in views.items()}

  def _samples(self, watch: Callable[[float], None] | None = None) -> Iterator["Sample"]:
    for time, sample in read_ahead(self._read(), READ_AHEAD):
      if watch is not None:
        watch(time)
      self._pending_times.append(time)
      yield sample

  def _read(self) -> Generator[tuple[float, "Sample"]]:
    for time, frame in self._frames():
      yield time, (frame, None if self._sound is None else self._sound.window(time))


def _scaled(saliency: np.ndarray, time: float) -> np.ndarray:
  """Returns the model's map at a time with a maximum of 1; raises ValueError if it is not finite."""
  saliency = np.asarray(saliency, np.float32)
  if not np.isfinite(saliency).all():
    raise ValueError(f"the model's map at {time:.3f} s is not finite")
  return saliency / max(float(saliency.max()), 1e-12)


def smooth_in_time(timed_maps: Iterable[TimedMap], sigma: float) -> Iterator[TimedMap]:
  """Smooths maps by a Gaussian of `sigma` maps; each has a maximum of 1 again."""
  iterator, times = iter(timed_maps), deque[float]()

  def parts() -> Iterator[np.ndarray]:
    while part := list(itertools.islice(iterator, _SMOOTHED_TOGETHER)):
      times.extend(time for time, _ in part)
      yield np.stack([saliency for _, saliency in part])

  for part in blur_in_time(parts(), sigma):
    for saliency in part:
      yield times.popleft(), saliency / max(float(saliency.max()), 1e-12)


def open_video(
  predictor: "Predictor",
  path: str | Path,
  sampling: Sampling = USUAL,
  model: str = "",
  decoding: Decoding = DEFAULT,
  max_seconds: float = MAX_SECONDS,
) -> MapStream:
  """Opens a video file and reads its sound.

  Args:
    predictor: The model.
    path: The video.
    sampling: When maps are computed.
    model: The model's name, for people.
    decoding: The sound stream to hear, and the hardware that decodes.
    max_seconds: A longer video is refused: a small file can say that it lasts for days.

  Raises:
    MediaError: The video cannot be used.
  """
  notes = list[str]()
  info = isolated.probe(path, notes, decoding)
  rate, side = sampling.rate(info.rate, predictor.rate), predictor.side
  _check_length(info, rate, max_seconds)
  windows = _read_sound(info, notes, decoding)
  if sampling.every is not None and info.rate_varies:  # the n-th frame before one may be seconds away
    notes.append(f"picture: its rate varies, maps are computed at {rate:.6g} frames a second")
  about = info, windows is not None, model, predictor.trained_on, rate, sampling.every == 1
  provenance = Provenance(*about, notes, identify(info.path), confidence=predictor.confidence)

  is_on_grid, asked = sampling.every is None or info.rate_varies, list[SimpleQueue[float | None]]()

  def frame_times() -> Iterator[float]:
    asked.append(SimpleQueue())
    return iter(asked[-1].get, None)

  def grid_frames() -> Iterator[tuple[float, np.ndarray]]:
    try:
      for passed, time, frame in isolated.grid_frames_and_times(info.path, rate, side, notes, decoding):
        for times in asked:
          for passed_time in passed:
            times.put(passed_time)
        if frame is not None:
          yield time, frame
    finally:  # whoever waits for times gets what made decoding fail with the maps
      for times in asked:
        times.put(None)

  def native_frames() -> Iterator[tuple[float, np.ndarray]]:
    return itertools.islice(isolated.native_frames(info.path, (side, side), notes, decoding), 0, None, sampling.every)

  def fragments(reach: int) -> "Fragments":
    from stajax.inference.reservoir import read_file_fragments  # loads JAX

    return read_file_fragments(info, windows, rate, reach, side, predictor.seed)

  frames, times = (grid_frames, frame_times) if is_on_grid else (native_frames, None)
  return MapStream(predictor, provenance, frames, windows, sampling.smooth, fragments, times)


def _check_length(info: MediaInfo, rate: float, max_seconds: float) -> None:
  if info.duration > max_seconds:
    raise MediaError(
      f"{info.path}: lasts {info.duration:.0f} seconds, expected at most {max_seconds:g} (--max-seconds allows more)"
    )
  if rate > MAX_RATE:
    raise MediaError(f"{info.path}: {rate:g} maps a second, expected at most {MAX_RATE:g}")


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


def write_outputs(
  timed_maps: Iterable[TimedMap],
  provenance: Provenance,
  outputs: Sequence[Output],
  pictures: Pictures | Times | None = None,
) -> Summary:
  """Reads a video once, and gives its maps and native frames to outputs; those that need pictures work beside.

  Args:
    timed_maps: The maps, in the order of their times.
    provenance: What is predicted.
    outputs: They are opened in this order, and completed in reverse order.
    pictures: The native frames with their times; None: those of the file.

  Raises:
    MediaError: The video is damaged.
    ValueError: There is no map, or one is not finite.
    OSError: An output cannot be written.
  """
  num_frames, num_maps = 0, 0
  outputs = [Beside(output) if output.needs_pictures else output for output in outputs]

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
    for time, picture in _native_frames(provenance.info, needs_pictures) if pictures is None else pictures():
      frame = Frame(num_frames, time, picture, interpolator.at(time), provenance.size)
      for output in outputs:
        output.add_frame(frame)
      num_frames += 1
    interpolator.finish()
  return Summary(num_frames, num_maps, tuple(provenance.notes))


def _native_frames(info: MediaInfo, needs_pictures: bool) -> Iterator[tuple[float, np.ndarray | None]]:
  if needs_pictures:
    return isolated.native_frames(info.path, decoding=info.decoding)
  return ((time, None) for time in isolated.frame_times(info.path, info.decoding))


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
