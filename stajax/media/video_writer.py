"""Writes videos: frames at their own times, with the sound of the video that they were made from."""

import contextlib
import io
import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from stajax.files import atomic_file
from stajax.media.audio import aligned_sound
from stajax.media.file import Decoding, MediaError, open_media, sound_stream
from stajax.media.times import file_clock
from stajax.media.video import MediaInfo

_TIME_BASE = Fraction(1, 90000)  # exact for every usual frame rate
_COPIED_CODECS = {"aac", "ac3", "alac", "eac3", "mp3", "opus"}
"""The codecs of sound that mp4 files can hold unchanged; other sound becomes AAC."""
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_TRIAL_PACKETS = 20
_FAULTS = (FFmpegError, ValueError, MediaError)
"""The exceptions of sound that cannot be read or written."""

SoundPackets = Iterator[tuple[float, av.Packet]]
"""Sound packets, each with its start in seconds."""


class VideoWriter:
  """Writes an H.264 mp4 with frames at their own times and the sound of the original, frame by frame.

  It is a context manager. The file gets its name when it is complete; after an exception nothing of it remains.
  Sound packets are copied if mp4 can hold them, otherwise encoded as AAC. Sound that cannot be written is left out with
  a note; a video without sound gets no sound stream.
  """

  def __init__(self, path: str | Path, info: MediaInfo, notes: list[str] | None = None):
    """Prepares to write a video.

    Args:
      path: The mp4 file.
      info: The original video, as `probe` found it.
      notes: Receives a line if sound had to be left out.
    """
    self.path, self.info, self.notes = Path(path), info, notes if notes is not None else []
    self._sound: SoundPackets = iter(())
    self._waiting: tuple[float, av.Packet] | None = None
    self._last_time = 0.0  # that of the last frame in seconds

  def __enter__(self) -> "VideoWriter":
    with contextlib.ExitStack() as stack:
      self._partial = stack.enter_context(atomic_file(self.path))
      self._start(self.info.has_sound)
      stack.push(self._finish)
      self._opened = stack.pop_all()
    return self

  def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
    self._opened.__exit__(kind, error, traceback)

  def _finish(self, kind: type | None, *_: object) -> None:
    """Writes the rest after the last frame, unless there was an exception, and closes the file."""
    if kind is None:
      last = round(self._last_time / _TIME_BASE)
      for packet in self._stream.encode(None):
        if packet.pts is not None and packet.time_base and round(packet.pts * packet.time_base / _TIME_BASE) == last:
          shown = max(self.info.duration - self._last_time, 1 / self.info.rate)
          packet.duration = round(shown / float(packet.time_base))
        self._mux_picture(packet)
      self._mux_sound_until(float("inf"))
    self._close()

  def write(self, time: float, frame: np.ndarray) -> None:
    """Adds a frame (height, width, 3), uint8 RGB, at a time in seconds that is later than that of the one before."""
    padding = [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)]  # because yuv420p halves both sides
    picture = av.VideoFrame.from_ndarray(np.pad(frame, padding, mode="edge"), format="rgb24")
    picture = picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
    picture.pts, picture.time_base = round(time / _TIME_BASE), _TIME_BASE
    for packet in self._stream.encode(picture):
      self._mux_picture(packet)
    self._last_time = time
    self._mux_sound_until(time)

  def _start(self, with_sound: bool) -> None:
    target = str(self._partial.absolute())  # because a relative name could be taken for a protocol
    self._container = av.open(target, "w", format="mp4", container_options={"movflags": "+faststart"})
    rate = Fraction(self.info.rate).limit_denominator(1001)
    # A short look-ahead keeps few frames in memory. Without B-frames the last packet is that of the last frame, whose
    # duration is the only one that mp4 files state.
    settings = {"crf": "20", "preset": "veryfast", "rc-lookahead": "10", "bf": "0"}
    self._stream = self._container.add_stream("libx264", rate=rate, options=settings)
    self._stream.width, self._stream.height = (side + side % 2 for side in (self.info.width, self.info.height))
    self._stream.pix_fmt, self._stream.time_base = "yuv420p", _TIME_BASE
    context = self._stream.codec_context
    context.time_base, context.sample_aspect_ratio = _TIME_BASE, self.info.pixel_aspect.limit_denominator(1000)
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    try:
      self._sound = self._open_sound() if with_sound else iter(())
      self._container.start_encoding()
    except _FAULTS as error:
      self._close()
      if not with_sound:
        raise
      self.notes.append(f"{self.path.name}: written without sound, which mp4 does not accept ({error})")
      self._start(False)

  def _open_sound(self) -> SoundPackets:
    with _open_sound_stream(self.info) as (_, stream):
      codec = stream.codec_context.codec.canonical_name
      if (
        codec in _COPIED_CODECS
        and file_clock(self.info.path, Decoding(sound=self.info.sound)).sound.is_plain
        and _can_copy(self.info)
      ):
        return _copied_packets(self.info, self._container.add_stream_from_template(stream))
      rate = stream.sample_rate if stream.sample_rate in _AAC_RATES else 48000
      layout = "mono" if stream.channels == 1 else "stereo"
    return _encoded_packets(self.info, self._container.add_stream("aac", rate=rate, layout=layout))

  def _mux_picture(self, packet: av.Packet) -> None:
    if not packet.duration:  # it decides how long the last frame is shown
      packet.duration = round(1 / self.info.rate / float(packet.time_base or _TIME_BASE))
    self._container.mux(packet)

  def _mux_sound_until(self, time: float) -> None:
    """Writes the sound up to a time, so that little of it has to wait in memory."""
    try:
      self._waiting = self._waiting or next(self._sound, None)
      while self._waiting is not None and self._waiting[0] <= time:
        self._container.mux(self._waiting[1])
        self._waiting = next(self._sound, None)
    except _FAULTS as error:
      self.notes.append(f"{self.path.name}: its sound is not complete ({error})")
      self._sound, self._waiting = iter(()), None

  def _close(self) -> None:
    close = getattr(self._sound, "close", None)
    if close is not None:
      close()
    self._container.close()


@contextlib.contextmanager
def _open_sound_stream(info: MediaInfo) -> Iterator[tuple[InputContainer, av.AudioStream]]:
  with open_media(info.path) as container:
    stream = sound_stream(container, info.path, Decoding(sound=info.sound))
    if stream is None:
      raise MediaError(f"{info.path}: has no sound")
    yield container, stream


def _copied_packets(info: MediaInfo, target: av.AudioStream) -> SoundPackets:
  """Yields the sound packets of the original, shifted to the picture's time 0."""
  with _open_sound_stream(info) as (container, stream):
    base = stream.time_base or Fraction(1, stream.sample_rate)
    shift, before = round(info.origin / base), None
    for packet in container.demux(stream):
      if packet.pts is None or packet.dts is None or packet.size == 0:
        continue
      packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
      start, duration = float(packet.pts * base), float((packet.duration or 0) * base)
      # mp4 accepts only increasing times; sound that ends before the picture begins is cut.
      if (before is not None and packet.dts <= before) or start + duration <= 0:
        continue
      before = packet.dts
      packet.stream = target
      yield start, packet


def _can_copy(info: MediaInfo) -> bool:
  """Tries to write the beginning of the sound, because a damaged header shows only when the file is closed."""
  num_packets = 0
  try:
    with _open_sound_stream(info) as (_, stream), av.open(io.BytesIO(), "w", format="mp4") as trial:
      target = trial.add_stream_from_template(stream)
      for _, packet in itertools.islice(_copied_packets(info, target), _TRIAL_PACKETS):
        trial.mux(packet)
        num_packets += 1
  except _FAULTS:
    return False
  return num_packets > 0


def _encoded_packets(info: MediaInfo, target: av.AudioStream) -> SoundPackets:
  """Yields the sound of the original as AAC packets."""
  rate, layout, length = target.sample_rate, target.layout.name, 0

  def with_starts(packets: list[av.Packet]) -> SoundPackets:
    for packet in packets:
      yield float((packet.pts or 0) * (packet.time_base or Fraction(1, rate))), packet

  for block in aligned_sound(info.path, rate, layout, decoding=Decoding(sound=info.sound)):
    samples = np.ascontiguousarray(block.T).reshape(1, -1)  # because "s16" interleaves the channels
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, length, Fraction(1, rate)
    length += block.shape[1]
    yield from with_starts(target.encode(frame))
  yield from with_starts(target.encode(None))
