"""The pictures of media files: upright, deinterlaced frames with their times, all of them or on a constant grid.

Times are those of `stajax.media.times`, counted from the first frame for both picture and sound, so that they stay in
sync. A damaged time stamp cannot ask for hours of frames.

Functions that decode take `notes`, a list to which they append a line for each thing that they had to leave out.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from av.container import InputContainer

from stajax.media.colour import colour_note
from stajax.media.crop import Cropper, read_crop
from stajax.media.file import (
  DEFAULT,
  MAX_GAP,
  Decoding,
  MediaError,
  decode,
  open_media,
  picture_note,
  seconds,
  sound_stream,
  video_stream,
)
from stajax.media.hardware import device, is_used, why_missing
from stajax.media.orientation import orientation
from stajax.media.picture import Deinterlacer, FrameConverter
from stajax.media.times import FileClock, FrameTimer, file_clock
from stajax.screen import counted

T = TypeVar("T")

GRID_TOLERANCE = 1e-3  # seconds, because Matroska rounds times to milliseconds


@dataclass(frozen=True)
class MediaInfo:
  """The properties of a video file.

  Attributes:
    path: The file.
    width: The width of the picture as displayed (after the rotation that the file asks for), in pixels.
    height: Its height, likewise.
    rate: The usual number of frames per second, as they follow each other.
    duration: The seconds from the first frame to the end of the last one.
    has_sound: Whether there is a sound stream and at least a part of it can be decoded.
    origin: The time of the first frame on the file's clock (`stajax.media.times`), in seconds.
    pixel_aspect: The width of a displayed pixel over its height.
    decoding: How the file is decoded: the sound stream and the hardware that were asked for, and limits.
    rate_varies: Whether frames do not follow each other at the usual rate for some of the time.
  """

  path: Path
  width: int
  height: int
  rate: float
  duration: float
  has_sound: bool
  origin: float
  pixel_aspect: Fraction
  decoding: Decoding = DEFAULT
  rate_varies: bool = False


def probe(path: str | Path, decoding: Decoding = DEFAULT) -> MediaInfo:
  """Opens a video file, decodes its first frame, and returns the properties of the file.

  Raises:
    MediaError: The file has no video stream, none of its frames can be decoded, or the picture is too large.
  """
  return replace(probe_picture(path, decoding), has_sound=has_sound(path, decoding))


def probe_picture(path: str | Path, decoding: Decoding = DEFAULT) -> MediaInfo:
  """Does what `probe` does, but leaves the sound alone, as if there were none."""
  path = Path(path)
  with open_media(path) as container:
    stream = video_stream(container, path, decoding)
    frame = next((frame for _, frame in _frames_of(container, stream, path, None, decoding)), None)
    if frame is None:
      raise MediaError(f"{path}: no frame could be decoded")
    upright = orientation(frame)
    width, height = upright.size(frame.width, frame.height)
    aspect = upright.aspect(stream.sample_aspect_ratio or Fraction(1))
  clock = file_clock(path, decoding)
  origin = clock.origin or 0.0
  return MediaInfo(path, width, height, clock.rate, clock.duration, False, origin, aspect, decoding, clock.varies)


def has_sound(path: str | Path, decoding: Decoding = DEFAULT) -> bool:
  """Returns whether there is a sound stream to hear and at least a part of it can be decoded.

  Raises:
    MediaError: The file cannot be opened, or has no such stream.
  """
  path = Path(path)
  with open_media(path) as container:
    stream = sound_stream(container, path, decoding)
    if stream is None:
      return False
    return any(not isinstance(item, av.Packet) for item in decode(container, stream, None, "sound"))


def native_frames(
  path: str | Path,
  size: tuple[int, int] | None = None,
  notes: list[str] | None = None,
  decoding: Decoding = DEFAULT,
) -> Iterator[tuple[float, np.ndarray]]:
  """Yields every frame of a video in presentation order.

  Args:
    path: The video file.
    size: (height, width) that frames are squashed to; None for the displayed size.
    notes: Receives a line for each thing that had to be left out.
    decoding: The limits of the decoder.

  Yields:
    The time in seconds (0 at first, then strictly increasing) and the frame (h, w, 3) uint8 RGB.

  Raises:
    MediaError: As for `probe`.
  """
  converter = FrameConverter(size, decoding.threads)
  for time, frame, _ in timed_frames(path, notes, decoding):
    yield time, converter.convert(frame)


def frame_times(path: str | Path, decoding: Decoding = DEFAULT) -> Iterator[float]:
  """Yields the times of `native_frames` without the frames, in seconds."""
  for time, _, _ in timed_frames(path, None, decoding):
    yield time


def grid_frames(
  path: str | Path, rate: float, side: int, notes: list[str] | None = None, decoding: Decoding = DEFAULT
) -> Iterator[tuple[float, np.ndarray]]:
  """Yields a video at a constant rate: at time k / rate, the last frame that is not later; at least one frame.

  The grid continues while the last frame is shown. A frame that is shown twice is yielded as the same array.

  Args:
    path: The video file.
    rate: The number of grid frames per second.
    side: Frames are squashed to side × side pixels.
    notes: Receives a line for each thing that had to be left out.
    decoding: The limits of the decoder.

  Yields:
    The time in seconds and the frame (side, side, 3) uint8 RGB.

  Raises:
    MediaError: As for `probe`.
  """
  for _, time, frame in grid_frames_and_times(path, rate, side, notes, decoding):
    if frame is not None:
      yield time, frame


def grid_frames_and_times(
  path: str | Path, rate: float, side: int, notes: list[str] | None = None, decoding: Decoding = DEFAULT
) -> Iterator[tuple[tuple[float, ...], float, np.ndarray | None]]:
  """Yields what `grid_frames` does, each with the times of `frame_times` that were passed since the one before.

  The arguments are those of `grid_frames`. The last item has no frame, only the times that are left.
  """
  passed: list[float] = []

  def noted() -> Iterator[tuple[float, av.VideoFrame, float]]:
    for item in timed_frames(path, notes, decoding):
      passed.append(item[0])
      yield item

  converter, time = FrameConverter((side, side), decoding.threads), 0.0
  for time, frame in on_grid(noted(), rate):
    times = tuple(passed)
    passed.clear()
    yield times, time, converter.convert(frame)
  yield tuple(passed), time, None


def on_grid(frames: Iterable[tuple[float, T, float]], rate: float) -> Iterator[tuple[float, T]]:
  """Yields frames at a constant rate, as `grid_frames` does, whatever they are.

  Args:
    frames: At least one time in seconds, frame and duration in seconds, in order.
    rate: The number of grid frames per second.
  """
  index, shown, end = 0, None, 0.0
  for time, frame, duration in frames:
    while shown is not None and index / rate + GRID_TOLERANCE < time:
      yield index / rate, shown
      index += 1
    shown, end = frame, time + duration
  assert shown is not None  # without a frame there was an exception
  while index == 0 or index / rate + GRID_TOLERANCE < end:
    yield index / rate, shown
    index += 1


class _Pace:
  """Gives frames strictly increasing times in seconds from the first frame, also where nothing tells their times."""

  def __init__(self, clock: FileClock) -> None:
    self._origin, self._interval = clock.origin or 0.0, clock.interval
    self._end = clock.believed - self._origin
    self._time = -self._interval
    self.num_closed = 0  # how often a frame was shown at the usual pace in spite of its time

  def time_of(self, time: float | None) -> float:
    """Returns the time of the next frame, given its time on the clock of the file."""
    usual = max(0.0, self._time + self._interval)
    time = usual if time is None else time - self._origin
    if time > self._time + MAX_GAP and time > self._end + 1:
      self.num_closed, time = self.num_closed + 1, usual
    elif time <= self._time:
      time = self._time + GRID_TOLERANCE
    self._time = max(time, 0.0)
    return self._time


def timed_frames(
  path: str | Path, notes: list[str] | None, decoding: Decoding
) -> Iterator[tuple[float, av.VideoFrame, float]]:
  """Yields every frame with its time and duration, in seconds from the first frame; times strictly increase."""
  path = Path(path)
  clock = file_clock(path, decoding)
  pace, deinterlacer = _Pace(clock), Deinterlacer(decoding.threads)
  waiting: deque[tuple[float, float]] = deque()  # times and durations of the frames in the deinterlacer
  if notes is not None:
    notes.extend(clock.notes)
  decoding = _with_present_device(path, notes, decoding)
  with open_media(path, device(decoding)) as container:
    stream = video_stream(container, path, decoding)
    if notes is not None and (note := picture_note(container, stream, path)) is not None:
      notes.append(note)
    for time, frame in _frames_of(container, stream, path, notes, decoding):
      if not deinterlacer.num_frames:
        _check_device(frame, stream, path, notes, decoding)
      stated = seconds(frame.duration, frame.time_base) if clock.has_durations else None
      time = pace.time_of(time)
      longest = max(MAX_GAP, clock.believed + 1 - (clock.origin or 0.0) - time)
      waiting.append((time, min(stated or clock.interval, longest)))
      for progressive in deinterlacer.add(frame):
        time, duration = waiting.popleft()
        yield time, progressive, duration
    if not deinterlacer.num_frames:
      raise MediaError(f"{path}: no frame could be decoded{f' by {decoding.hardware}' if decoding.hardware else ''}")
    for progressive in deinterlacer.finish():
      time, duration = waiting.popleft()
      yield time, progressive, duration
  if pace.num_closed and notes is not None:
    notes.append(f"picture: {counted(pace.num_closed, 'damaged time stamp')} ignored")


def _frames_of(
  container: InputContainer, stream: av.VideoStream, path: Path, notes: list[str] | None, decoding: Decoding
) -> Iterator[tuple[float | None, av.VideoFrame]]:
  """Yields decoded frames, cropped, with their times on the clock of the file."""
  cropper = Cropper(read_crop(path, container.streams.video.index(stream)))
  timer = FrameTimer(file_clock(path, decoding))
  size, is_told = None, notes is None
  for item in decode(container, stream, notes, "picture", timer.correct):
    if not isinstance(item, av.VideoFrame):
      timer.lose()
      continue
    decoding.check(path, item.width, item.height)
    if notes is not None and size is None and (note := colour_note(item)) is not None:
      notes.append(note)
    size = size or (item.width, item.height)
    if notes is not None and not is_told and (item.width, item.height) != size:
      found = f"from {size[0]}×{size[1]} to {item.width}×{item.height} pixels"
      notes.append(f"picture: its size changes {found}, all frames are shown in the first one")
      is_told = True
    yield timer.time_of(item), cropper.cut(item)


def _check_device(
  frame: av.VideoFrame, stream: av.VideoStream, path: Path, notes: list[str] | None, decoding: Decoding
) -> None:
  """Notes, or raises MediaError, where the first frame of a stream tells that the hardware does not decode it."""
  if decoding.hardware is None or is_used(stream):
    return
  reason = f"{decoding.hardware} does not decode its {stream.codec_context.name} ({frame.format.name})"
  if not decoding.falls_back:
    raise MediaError(f"{path}: {reason}, expected --hardware-fallback or another file")
  if notes is not None:
    notes.append(f"picture: decoded by software, since {reason}")


def _with_present_device(path: Path, notes: list[str] | None, decoding: Decoding) -> Decoding:
  """Returns how a file is decoded on this machine: by software, with a note, if the hardware is not there."""
  if decoding.hardware is None or not (reason := why_missing(decoding.hardware)):
    return decoding
  if not decoding.falls_back:
    raise MediaError(f"{path}: cannot be decoded by {decoding.hardware}: {reason}")
  if notes is not None:
    notes.append(f"picture: decoded by software, not {decoding.hardware}: {reason}")
  return replace(decoding, hardware=None)
