"""The pictures of media files: frames with their times, upright, deinterlaced, as they come or on a constant grid.

Time 0 is the first frame's presentation time, for picture and sound alike, so that they stay in sync. Times that no
real clip has are closed up, so that a damaged time stamp cannot ask for hours of frames.

A function that decodes takes `notes`, a list to which it appends one line for whatever it had to leave out.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from stajax.media.file import MAX_GAP, Decoding, MediaError, decode, open_media, seconds, sound_stream, video_stream

MAX_STEP_BACK = 1.0  # seconds; a longer step back is another clock, not disorder
GRID_TOLERANCE = 1e-3  # seconds; Matroska rounds times to milliseconds
DEFAULT = Decoding()


@dataclass(frozen=True)
class MediaInfo:
  """What `probe` found in a video file.

  Attributes:
    width: of the picture as displayed (after the rotation that the file asks for), pixels.
    height: likewise.
    rate: average frames per second.
    duration: seconds, None where the file does not say.
    has_sound: a sound stream exists and at least a part of it can be decoded.
    origin: time of the first frame on the file's own clock, seconds.
    pixel_aspect: width / height of one displayed pixel.
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
  """Opens a video file and decodes its first frame.

  Raises:
    MediaError: the file has no video stream, or no frame of it can be decoded, or the picture is too large.
  """
  path = Path(path)
  with open_media(path) as container:
    stream = video_stream(container, path, decoding)
    frame = next(_frames_of(container, stream, path, None, decoding), None)
    if frame is None:
      raise MediaError(f"{path}: no frame could be decoded")
    width, height, aspect = frame.width, frame.height, stream.sample_aspect_ratio or Fraction(1)
    if _quarter_turns(frame) % 2:
      width, height, aspect = height, width, 1 / aspect
    duration = seconds(stream.duration, stream.time_base) or seconds(container.duration, Fraction(1, 1_000_000))
    rate, origin = _rate(stream), frame.time or 0.0
  with open_media(path) as container:
    sound = sound_stream(container)
    has_sound = sound is not None and any(
      not isinstance(item, av.Packet) for item in decode(container, sound, None, "sound")
    )
  return MediaInfo(path, width, height, rate, duration, has_sound, origin, aspect)


def first_frame_time(path: str | Path, decoding: Decoding = DEFAULT) -> float | None:
  """Time of the first frame on the file's clock, seconds; None without a picture. Raises MediaError: not a file."""
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
  """Every frame of a video in presentation order.

  Args:
    size: (height, width) that frames are squashed to; None: as displayed.
    notes: receives a line for each thing that had to be left out.
    decoding: what the decoder may take.

  Yields:
    Time in seconds (the first is 0, then strictly increasing), frame (h, w, 3) uint8 RGB.

  Raises:
    MediaError: as `probe`.
  """
  picture = Picture(size, decoding.threads)
  for time, frame, _ in _timed_frames(path, notes, decoding):
    yield time, picture.of(frame)


def frame_times(path: str | Path, decoding: Decoding = DEFAULT) -> Iterator[float]:
  """The times of `native_frames` without the frames, seconds."""
  for time, _, _ in _timed_frames(path, None, decoding):
    yield time


def grid_frames(
  path: str | Path, rate: float, side: int, notes: list[str] | None = None, decoding: Decoding = DEFAULT
) -> Iterator[tuple[float, np.ndarray]]:
  """A video at a constant rate: grid time k / rate shows the last frame that is not later; at least one frame.

  The grid goes on while the last frame is shown. A frame that is shown twice is the same array twice.

  Args:
    rate: grid frames per second.
    side: frames are squashed to side × side pixels.
    notes: receives a line for each thing that had to be left out.
    decoding: what the decoder may take.

  Yields:
    Time in seconds, frame (side, side, 3) uint8 RGB.

  Raises:
    MediaError: as `probe`.
  """
  picture = Picture((side, side), decoding.threads)
  index, shown, end = 0, None, 0.0
  for time, frame, duration in _timed_frames(path, notes, decoding):
    while shown is not None and index / rate + GRID_TOLERANCE < time:
      yield index / rate, picture.of(shown)
      index += 1
    shown, end = frame, time + duration
  while index == 0 or index / rate + GRID_TOLERANCE < end:
    yield index / rate, picture.of(shown)
    index += 1


class Picture:
  """Turns decoded frames into arrays; converts a frame that is shown again only once."""

  def __init__(self, size: tuple[int, int] | None, threads: int):
    self.size, self.threads, self.reformatter, self.shown, self.array = size, threads, VideoReformatter(), None, None

  def of(self, frame: av.VideoFrame) -> np.ndarray:
    if frame is self.shown:
      return self.array
    turns = _quarter_turns(frame)
    if self.size is None:  # a stream may change its size; the first frame's is kept
      self.size = (frame.width, frame.height) if turns % 2 else (frame.height, frame.width)
    width, height = self.size if turns % 2 else self.size[::-1]
    shrinks = width <= frame.width and height <= frame.height and (width, height) != (frame.width, frame.height)
    interpolation = Interpolation.AREA if shrinks else Interpolation.BICUBIC
    converted = self.reformatter.reformat(
      frame, width, height, "rgb24", interpolation=interpolation, threads=self.threads
    )
    self.shown, self.array = frame, np.ascontiguousarray(np.rot90(converted.to_ndarray(), turns))
    return self.array


def _timed_frames(
  path: str | Path, notes: list[str] | None, decoding: Decoding
) -> Iterator[tuple[float, av.VideoFrame, float]]:
  """Time, frame and duration of every frame, in seconds from the first; times strictly increase."""
  path = Path(path)
  with open_media(path) as container:
    stream = video_stream(container, path, decoding)
    interval = 1 / _rate(stream)
    offset, time = None, 0.0
    waiting: deque[tuple[float, float]] = deque()  # times and durations of frames in the deinterlacer
    deinterlacer = Deinterlacer(decoding.threads)
    for frame in _frames_of(container, stream, path, notes, decoding):
      if offset is None:
        offset = frame.time or 0.0
      else:
        before, time = time, time + interval if frame.time is None else frame.time - offset
        if time > before + MAX_GAP or time < before - MAX_STEP_BACK:  # another clock: go on at the usual pace
          offset, time = offset + time - before - interval, before + interval
        elif time <= before:
          time = before + GRID_TOLERANCE
      waiting.append((time, min(seconds(frame.duration, frame.time_base) or interval, MAX_GAP)))
      for progressive in deinterlacer.add(frame):
        at, duration = waiting.popleft()
        yield at, progressive, duration
    if offset is None:
      raise MediaError(f"{path}: no frame could be decoded")
    for progressive in deinterlacer.finish():
      at, duration = waiting.popleft()
      yield at, progressive, duration


class Deinterlacer:
  """Makes whole frames of interlaced ones, as many as come in; the others pass as they are."""

  MIN_SIDE = 4  # pixels; FFmpeg's filter takes no smaller picture

  def __init__(self, threads: int):
    self._threads, self._graph, self._source = threads, None, None

  def add(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
    source = (frame.width, frame.height, frame.format.name)
    if self._graph is not None and source != self._source:
      yield from self.finish()
    if self._graph is None and not (frame.interlaced_frame and min(source[:2]) >= self.MIN_SIDE):
      yield frame
      return
    if self._graph is None:
      self._begin(frame, source)
    frame.pts = None  # the filter would compare times, which may be damaged
    self._graph.push(frame)
    yield from self._pull()

  def finish(self) -> Iterator[av.VideoFrame]:
    if self._graph is not None:
      self._graph.push(None)
      yield from self._pull()
    self._graph = None

  def _begin(self, frame: av.VideoFrame, source: tuple[int, int, str]) -> None:
    self._graph, self._source = av.filter.Graph(), source
    self._graph.threads = self._threads
    clock = Fraction(1, 1000)  # that no frame's time is read by
    buffer = self._graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=clock)
    deinterlacer = self._graph.add("bwdif", "mode=send_frame:deint=interlaced")
    self._graph.link_nodes(buffer, deinterlacer, self._graph.add("buffersink")).configure()

  def _pull(self) -> Iterator[av.VideoFrame]:
    while True:
      try:
        yield self._graph.pull()
      except (av.BlockingIOError, av.EOFError):
        return


def _frames_of(
  container: av.container.InputContainer,
  stream: av.VideoStream,
  path: Path,
  notes: list[str] | None,
  decoding: Decoding,
) -> Iterator[av.VideoFrame]:
  for item in decode(container, stream, notes, "picture"):
    if not isinstance(item, av.Packet):
      decoding.check(path, item.width, item.height)
      yield item


def _quarter_turns(frame: av.VideoFrame) -> int:
  """Counterclockwise quarter turns that bring a decoded frame upright."""
  return round(frame.rotation / 90) % 4


def _rate(stream: av.VideoStream) -> float:
  """Average frames per second; 25 where the file gives none that can be."""
  rate = float(stream.average_rate or stream.guessed_rate or 0)
  return rate if 0.01 <= rate <= 1000 else 25.0
