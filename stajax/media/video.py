"""The pictures of media files: upright, deinterlaced frames with their times, all of them or on a constant grid.

Time 0 is the first frame's presentation time for both picture and sound, so that they stay in sync. Absurdly long gaps
between times are closed, so that a damaged time stamp cannot ask for hours of frames.

Functions that decode take `notes`, a list to which they append a line for each thing that they had to leave out.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

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
  seconds,
  sound_stream,
  video_stream,
)
from stajax.media.orientation import orientation
from stajax.media.picture import Deinterlacer, FrameConverter

MAX_STEP_BACK = 1.0  # seconds; a longer step back means another clock, not disorder
GRID_TOLERANCE = 1e-3  # seconds, because Matroska rounds times to milliseconds


@dataclass(frozen=True)
class MediaInfo:
  """The properties of a video file.

  Attributes:
    path: The file.
    width: The width of the picture as displayed (after the rotation that the file asks for), in pixels.
    height: Its height, likewise.
    rate: The average number of frames per second.
    duration: The duration in seconds, or None if the file does not state it.
    has_sound: Whether there is a sound stream and at least a part of it can be decoded.
    origin: The time of the first frame on the file's own clock, in seconds.
    pixel_aspect: The width of a displayed pixel over its height.
  """

  path: Path
  width: int
  height: int
  rate: float
  duration: float | None
  has_sound: bool
  origin: float
  pixel_aspect: Fraction


def probe(path: str | Path, decoding: Decoding = DEFAULT) -> MediaInfo:
  """Opens a video file, decodes its first frame, and returns the properties of the file.

  Raises:
    MediaError: The file has no video stream, none of its frames can be decoded, or the picture is too large.
  """
  path = Path(path)
  with open_media(path) as container:
    stream = video_stream(container, path, decoding)
    frame = next(_frames_of(container, stream, path, None, decoding), None)
    if frame is None:
      raise MediaError(f"{path}: no frame could be decoded")
    upright = orientation(frame)
    width, height = upright.size(frame.width, frame.height)
    aspect = upright.aspect(stream.sample_aspect_ratio or Fraction(1))
    duration = seconds(stream.duration, stream.time_base) or seconds(container.duration, Fraction(1, 1_000_000))
    rate, origin = _rate(stream), frame.time or 0.0
  return MediaInfo(path, width, height, rate, duration, _has_sound(path), origin, aspect)


def _has_sound(path: Path) -> bool:
  with open_media(path) as container:
    stream = sound_stream(container)
    if stream is None:
      return False
    return any(not isinstance(item, av.Packet) for item in decode(container, stream, None, "sound"))


def first_frame_time(path: str | Path, decoding: Decoding = DEFAULT) -> float | None:
  """Returns the time of the first frame on the file's clock in seconds, or None if there is no picture.

  Raises:
    MediaError: The file cannot be opened.
  """
  path = Path(path)
  with open_media(path) as container:
    try:
      frame = next(_frames_of(container, video_stream(container, path, decoding), path, None, decoding), None)
    except MediaError:
      return None
    return None if frame is None else frame.time or 0.0


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
  for time, frame, _ in _timed_frames(path, notes, decoding):
    yield time, converter.convert(frame)


def frame_times(path: str | Path, decoding: Decoding = DEFAULT) -> Iterator[float]:
  """Yields the times of `native_frames` without the frames, in seconds."""
  for time, _, _ in _timed_frames(path, None, decoding):
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
  converter = FrameConverter((side, side), decoding.threads)
  index, shown, end = 0, None, 0.0
  for time, frame, duration in _timed_frames(path, notes, decoding):
    while shown is not None and index / rate + GRID_TOLERANCE < time:
      yield index / rate, converter.convert(shown)
      index += 1
    shown, end = frame, time + duration
  assert shown is not None  # without a frame there was an exception
  while index == 0 or index / rate + GRID_TOLERANCE < end:
    yield index / rate, converter.convert(shown)
    index += 1


class _Clock:
  """Gives frames strictly increasing times in seconds from the first frame."""

  def __init__(self, interval: float) -> None:
    """Makes a clock for frames that usually follow each other after an interval in seconds."""
    self._interval = interval
    self._offset, self._time = None, 0.0

  def time_of(self, frame: av.VideoFrame) -> float:
    """Returns the time of the next frame."""
    if self._offset is None:
      self._offset = frame.time or 0.0
      return self._time
    before = self._time
    time = before + self._interval if frame.time is None else frame.time - self._offset
    if time > before + MAX_GAP or time < before - MAX_STEP_BACK:  # this is another clock, so the usual pace continues
      self._offset, time = self._offset + time - before - self._interval, before + self._interval
    elif time <= before:
      time = before + GRID_TOLERANCE
    self._time = time
    return time


def _timed_frames(
  path: str | Path, notes: list[str] | None, decoding: Decoding
) -> Iterator[tuple[float, av.VideoFrame, float]]:
  """Yields every frame with its time and duration, in seconds from the first frame; times strictly increase."""
  path = Path(path)
  with open_media(path) as container:
    stream = video_stream(container, path, decoding)
    interval = 1 / _rate(stream)
    clock, deinterlacer = _Clock(interval), Deinterlacer(decoding.threads)
    waiting: deque[tuple[float, float]] = deque()  # times and durations of the frames in the deinterlacer
    is_empty = True
    for frame in _frames_of(container, stream, path, notes, decoding):
      is_empty = False
      waiting.append((clock.time_of(frame), min(seconds(frame.duration, frame.time_base) or interval, MAX_GAP)))
      for progressive in deinterlacer.add(frame):
        time, duration = waiting.popleft()
        yield time, progressive, duration
    if is_empty:
      raise MediaError(f"{path}: no frame could be decoded")
    for progressive in deinterlacer.finish():
      time, duration = waiting.popleft()
      yield time, progressive, duration


def _frames_of(
  container: InputContainer, stream: av.VideoStream, path: Path, notes: list[str] | None, decoding: Decoding
) -> Iterator[av.VideoFrame]:
  cropper, is_first = Cropper(read_crop(path, container.streams.video.index(stream))), True
  for item in decode(container, stream, notes, "picture"):
    if isinstance(item, av.VideoFrame):
      decoding.check(path, item.width, item.height)
      if is_first and notes is not None and (note := colour_note(item)) is not None:
        notes.append(note)
      is_first = False
      yield cropper.cut(item)


def _rate(stream: av.VideoStream) -> float:
  """Returns the average number of frames per second, or 25 if the file states no plausible one."""
  rate = float(stream.average_rate or stream.guessed_rate or 0)
  return rate if 0.01 <= rate <= 1000 else 25.0
