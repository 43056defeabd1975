"""Decoding of media files by PyAV: frames with their times, and the sound on the same clock.

Time 0 is the first frame's presentation time, for picture and sound alike, so that they stay in sync. Files are never
trusted: only the file itself is read (no playlist is followed), sizes are limited, and times that no real clip has
are closed up, so that a damaged time stamp cannot ask for hours of frames.

A function that decodes takes `notes`, a list to which it appends one line for whatever it had to leave out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter

SAMPLE_RATE = 16000
MAX_SIDE = 16384
MAX_PIXELS = 2**27
MAX_GAP = 600.0  # seconds between two frames, or without sound; more is a damaged time stamp
MAX_STEP_BACK = 1.0  # seconds; a longer step back is another clock, not disorder
GRID_TOLERANCE = 1e-3  # seconds; Matroska rounds times to milliseconds
SOUND_TOLERANCE = 0.05  # seconds of disagreement between a sound's time stamps and its sample count
# These formats only point at other files, or show any text as a picture.
REFUSED_FORMATS = {"concat", "dash", "ffmetadata", "hls", "image2", "sdp", "tty"}


class MediaError(Exception):
  """A media file that cannot be used; one line that names the file."""


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


@contextmanager
def open_media(path: str | Path) -> Iterator[av.container.InputContainer]:
  """Opens one local file for demuxing.

  Raises:
    MediaError: no such file, not a regular file, empty, or not a media file.
  """
  path = Path(path)
  if path.is_dir():
    raise MediaError(f"{path}: is a folder, expected a media file")
  if not path.is_file():
    raise MediaError(f"{path}: {'is not a regular file' if path.exists() else 'no such file'}")
  try:
    file = path.open("rb")
  except OSError as error:
    raise MediaError(f"{path}: {error.strerror}") from error
  with file:
    if path.stat().st_size == 0:
      raise MediaError(f"{path}: is empty, expected a media file")
    try:
      # FFmpeg reads through the Python file, so it needs no protocol of its own and can open nothing else.
      container = av.open(file, metadata_errors="replace", container_options={"protocol_whitelist": "none"})
    except (av.FFmpegError, OSError, ValueError) as error:
      raise MediaError(f"{path}: is not a media file that FFmpeg can read ({_reason(error)})") from error
    with container:
      if container.format.name in REFUSED_FORMATS:
        raise MediaError(f"{path}: is a {container.format.name} file, expected one with pictures and sound of its own")
      yield container


def probe(path: str | Path) -> MediaInfo:
  """Opens a video file and decodes its first frame.

  Raises:
    MediaError: the file has no video stream, or no frame of it can be decoded, or the picture is too large.
  """
  path = Path(path)
  with open_media(path) as container:
    stream = video_stream(container, path)
    frame = next(_frames_of(container, stream, path, None), None)
    if frame is None:
      raise MediaError(f"{path}: no frame could be decoded")
    width, height, aspect = frame.width, frame.height, stream.sample_aspect_ratio or Fraction(1)
    if _quarter_turns(frame) % 2:
      width, height, aspect = height, width, 1 / aspect
    duration = _seconds(stream.duration, stream.time_base) or _seconds(container.duration, Fraction(1, 1_000_000))
    rate, origin = _rate(stream), frame.time or 0.0
  with open_media(path) as container:
    sound = sound_stream(container)
    has_sound = sound is not None and any(
      not isinstance(item, av.Packet) for item in _decode(container, sound, None, "sound")
    )
  return MediaInfo(path, width, height, rate, duration, has_sound, origin, aspect)


def native_frames(
  path: str | Path, size: tuple[int, int] | None = None, notes: list[str] | None = None
) -> Iterator[tuple[float, np.ndarray]]:
  """Every frame of a video in presentation order.

  Args:
    size: (height, width) that frames are squashed to; None: as displayed.
    notes: receives a line for each thing that had to be left out.

  Yields:
    Time in seconds (the first is 0, then strictly increasing), frame (h, w, 3) uint8 RGB.

  Raises:
    MediaError: as `probe`.
  """
  picture = _Picture(size)
  for time, frame, _ in _timed_frames(path, notes):
    yield time, picture.of(frame)


def frame_times(path: str | Path) -> Iterator[float]:
  """The times of `native_frames` without the frames, seconds."""
  for time, _, _ in _timed_frames(path, None):
    yield time


def grid_frames(
  path: str | Path, rate: float, side: int, notes: list[str] | None = None
) -> Iterator[tuple[float, np.ndarray]]:
  """A video at a constant rate: grid time k / rate shows the last frame that is not later; at least one frame.

  The grid goes on while the last frame is shown. A frame that is shown twice is the same array twice.

  Args:
    rate: grid frames per second.
    side: frames are squashed to side × side pixels.
    notes: receives a line for each thing that had to be left out.

  Yields:
    Time in seconds, frame (side, side, 3) uint8 RGB.

  Raises:
    MediaError: as `probe`.
  """
  picture = _Picture((side, side))
  index, shown, end = 0, None, 0.0
  for time, frame, duration in _timed_frames(path, notes):
    while shown is not None and index / rate + GRID_TOLERANCE < time:
      yield index / rate, picture.of(shown)
      index += 1
    shown, end = frame, time + duration
  while index == 0 or index / rate + GRID_TOLERANCE < end:
    yield index / rate, picture.of(shown)
    index += 1


def audio_blocks(path: str | Path, notes: list[str] | None = None) -> Iterator[np.ndarray]:
  """The sound of a file as mono at 16 kHz, aligned to the first frame: sample 0 is at time 0.

  A late start is preceded by silence, an early one is cut, what cannot be decoded is silent. Nothing is yielded where
  there is no sound or none of it can be decoded. Samples have 16 bits, as in VGGSound's preparation. A file without
  a picture starts at its first sample.

  Args:
    notes: receives a line for each thing that had to be left out.

  Yields:
    Blocks (n,) float32 in [-1, 1), n > 0.

  Raises:
    MediaError: the file cannot be opened.
  """
  for block in aligned_sound(path, SAMPLE_RATE, "mono", notes):
    yield block[0].astype(np.float32) / 32768


def aligned_sound(
  path: str | Path, rate: int, layout: str, notes: list[str] | None = None
) -> Iterator[np.ndarray]:
  """As `audio_blocks` for any rate and channel layout: blocks (channels, n) int16."""
  path = Path(path)
  base = _origin(path)
  with open_media(path) as container:
    stream = sound_stream(container)
    if stream is None:
      return
    track = _Track(rate, layout)
    position = None  # where the sound so far ends, seconds on the file's clock, as `base`
    lost_until = 0.0
    for item in _decode(container, stream, notes, "sound"):
      if isinstance(item, av.Packet):  # could not be decoded
        lost_until = (_seconds(item.pts, item.time_base) or 0.0) + (_seconds(item.duration, item.time_base) or 0.0)
        continue
      start = item.time if item.time is not None else position if position is not None else base or 0.0
      if position is None:
        if base is None or abs(start - base) > MAX_GAP:
          base = start
        track.length = min(0, round((start - base) * rate))
        yield from track.fill(round((start - base) * rate))
        position = start
      gap = start - position
      if gap > MAX_GAP or gap < -MAX_STEP_BACK:  # another clock: go on without a gap
        base, position = base + gap, start
      elif gap < -SOUND_TOLERANCE:  # the same moment a second time
        continue
      elif gap > SOUND_TOLERANCE:
        yield from track.flush()
        yield from track.fill(round((start - base) * rate))
        position = start
      yield from track.add(item)
      position += item.samples / item.sample_rate
    yield from track.flush()
    if position is None and notes is not None:
      notes.append("sound: nothing of it can be decoded")
    if position is not None and SOUND_TOLERANCE < lost_until - position <= MAX_GAP:
      yield from track.fill(round((lost_until - base) * rate))


class _Track:
  """Joins sound frames and silence; samples before the start (`length` below 0) are dropped."""

  def __init__(self, rate: int, layout: str):
    self.rate, self.layout, self.length = rate, layout, 0
    self.resampler, self.source = None, None

  def add(self, frame: av.AudioFrame) -> Iterator[np.ndarray]:
    source = (frame.format.name, frame.layout.name, frame.sample_rate)
    if source != self.source:  # some broadcasts change from stereo to 5.1
      yield from self.flush()
      self.resampler, self.source = av.AudioResampler("s16p", self.layout, self.rate), source
    for part in self.resampler.resample(frame):
      yield from self._place(part.to_ndarray())

  def flush(self) -> Iterator[np.ndarray]:
    resampler, self.resampler, self.source = self.resampler, None, None
    for part in resampler.resample(None) if resampler is not None else []:
      yield from self._place(part.to_ndarray())

  def fill(self, length: int) -> Iterator[np.ndarray]:
    """Silence up to a length in samples, in blocks of at most a second."""
    channels = av.AudioLayout(self.layout).nb_channels
    while self.length < length:
      yield from self._place(np.zeros((channels, min(self.rate, length - self.length)), np.int16))

  def _place(self, block: np.ndarray) -> Iterator[np.ndarray]:
    kept = block[:, max(0, -self.length) :]
    self.length += block.shape[1]
    if kept.size:
      yield kept


def video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
  """The stream to show: the default one, else the first, that is not a cover picture.

  Raises:
    MediaError: there is none, or nothing can decode it, or the picture is too large.
  """
  streams = [stream for stream in container.streams.video if Disposition.attached_pic not in stream.disposition]
  if not streams:
    raise MediaError(f"{path}: has no video stream")
  usable = [stream for stream in streams if stream.codec_context is not None]
  if not usable:
    raise MediaError(f"{path}: has no decoder for its video stream")
  stream = max(usable, key=lambda stream: Disposition.default in stream.disposition)
  _check_size(path, stream.codec_context.width, stream.codec_context.height)
  stream.thread_type = "AUTO"
  stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
  return stream


def sound_stream(container: av.container.InputContainer) -> av.AudioStream | None:
  """The sound stream to hear: the default one, else the first, that has a decoder; None if there is none."""
  streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
  return max(streams, key=lambda stream: Disposition.default in stream.disposition, default=None)


class _Picture:
  """Turns decoded frames into arrays; converts a frame that is shown again only once."""

  def __init__(self, size: tuple[int, int] | None):
    self.size, self.reformatter, self.shown, self.array = size, VideoReformatter(), None, None

  def of(self, frame: av.VideoFrame) -> np.ndarray:
    if frame is self.shown:
      return self.array
    turns = _quarter_turns(frame)
    if self.size is None:  # a stream may change its size; the first frame's is kept
      self.size = (frame.width, frame.height) if turns % 2 else (frame.height, frame.width)
    width, height = self.size if turns % 2 else self.size[::-1]
    shrinks = width <= frame.width and height <= frame.height and (width, height) != (frame.width, frame.height)
    interpolation = Interpolation.AREA if shrinks else Interpolation.BICUBIC
    array = self.reformatter.reformat(frame, width, height, "rgb24", interpolation=interpolation).to_ndarray()
    self.shown, self.array = frame, np.ascontiguousarray(np.rot90(array, turns))
    return self.array


def _timed_frames(path: str | Path, notes: list[str] | None) -> Iterator[tuple[float, av.VideoFrame, float]]:
  """Time, frame and duration of every frame, in seconds from the first; times strictly increase."""
  path = Path(path)
  with open_media(path) as container:
    stream = video_stream(container, path)
    interval = 1 / _rate(stream)
    offset, time = None, 0.0
    for frame in _frames_of(container, stream, path, notes):
      if offset is None:
        offset = frame.time or 0.0
      else:
        before, time = time, time + interval if frame.time is None else frame.time - offset
        if time > before + MAX_GAP or time < before - MAX_STEP_BACK:  # another clock: go on at the usual pace
          offset, time = offset + time - before - interval, before + interval
        elif time <= before:
          time = before + GRID_TOLERANCE
      yield time, frame, min(_seconds(frame.duration, frame.time_base) or interval, MAX_GAP)
    if offset is None:
      raise MediaError(f"{path}: no frame could be decoded")


def _frames_of(
  container: av.container.InputContainer, stream: av.VideoStream, path: Path, notes: list[str] | None
) -> Iterator[av.VideoFrame]:
  for item in _decode(container, stream, notes, "picture"):
    if not isinstance(item, av.Packet):
      _check_size(path, item.width, item.height)
      yield item


def _decode(
  container: av.container.InputContainer, stream: av.stream.Stream, notes: list[str] | None, name: str
) -> Iterator[av.VideoFrame | av.AudioFrame | av.Packet]:
  """Frames of one stream; a packet that cannot be decoded comes itself, an unreadable rest is left out."""
  packets, damaged, stopped = container.demux(stream), 0, ""
  while True:
    try:
      packet = next(packets, None)
    except (av.FFmpegError, OSError) as error:
      packet, stopped = None, _reason(error)
    try:
      frames = stream.decode(packet) if packet is not None or stopped else []
    except (av.FFmpegError, OSError):
      damaged, frames = damaged + 1, [packet] if packet is not None else []
    yield from frames
    if packet is None:
      break
  if notes is not None and damaged:
    notes.append(f"{name}: {damaged} damaged packet{'s' * (damaged > 1)} skipped")
  if notes is not None and stopped:
    notes.append(f"{name}: the file could not be read to its end ({stopped})")


def _origin(path: Path) -> float | None:
  """Time of the first frame on the file's clock, seconds; None without a picture."""
  with open_media(path) as container:
    try:
      frame = next(_frames_of(container, video_stream(container, path), path, None), None)
    except MediaError:
      return None
    return None if frame is None else frame.time or 0.0


def _quarter_turns(frame: av.VideoFrame) -> int:
  """Counterclockwise quarter turns that bring a decoded frame upright."""
  return round(frame.rotation / 90) % 4


def _rate(stream: av.VideoStream) -> float:
  """Average frames per second; 25 where the file gives none that can be."""
  rate = float(stream.average_rate or stream.guessed_rate or 0)
  return rate if 0.01 <= rate <= 1000 else 25.0


def _seconds(ticks: int | None, time_base: Fraction | None) -> float | None:
  return None if not ticks or not time_base or ticks < 0 else float(ticks * time_base)


def _check_size(path: Path, width: int, height: int) -> None:
  if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
    raise MediaError(f"{path}: picture of {width}×{height} pixels, at most {MAX_SIDE} a side, {MAX_PIXELS} in all")


def _reason(error: Exception) -> str:
  return getattr(error, "strerror", None) or str(error) or type(error).__name__
