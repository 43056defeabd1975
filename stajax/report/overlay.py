"""Saliency drawn over a video, with the video's own sound, and what a map says in four numbers."""

import contextlib
import functools
import io
import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image, ImageDraw, ImageFont

from stajax.files import atomic_file
from stajax.media.audio import aligned_sound
from stajax.media.file import MAX_GAP, MediaError, open_media, sound_stream
from stajax.media.video import MediaInfo

TIME_BASE = Fraction(1, 90000)  # exact for every usual frame rate
# Sound that an mp4 file holds as it is; anything else becomes AAC.
COPIED_SOUND = {"aac", "ac3", "alac", "eac3", "mp3", "opus"}
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
TRIAL_PACKETS = 20
MAX_OPACITY = 0.7
CAPTION_MARGIN = 4


def heat_overlay(frame: np.ndarray, saliency: np.ndarray) -> np.ndarray:
  """Draws a map over a frame; the more salient, the more opaque, so the rest of the picture stays as it is.

  Args:
    frame: (H, W, 3) uint8 RGB.
    saliency: (h, w) float in [0, 1], of any size; resized bilinearly.

  Returns:
    (H, W, 3) uint8.
  """
  level = Image.fromarray(np.round(np.clip(saliency, 0, 1) * 255).astype(np.uint8))
  level = level.resize((frame.shape[1], frame.shape[0]), Image.Resampling.BILINEAR)
  colours, opacity = _palette()
  mask = level.point(opacity)
  level.putpalette(colours)
  return np.asarray(Image.composite(level.convert("RGB"), Image.fromarray(frame), mask))


def caption(frame: np.ndarray, text: str) -> np.ndarray:
  """A copy of the frame (H, W, 3) uint8 with a line of text at its lower left; cut off where it is too long."""
  patch = _caption_patch(text, max(10, frame.shape[0] // 30))[: frame.shape[0], : frame.shape[1]]
  frame = frame.copy()
  frame[frame.shape[0] - patch.shape[0] :, : patch.shape[1]] = patch
  return frame


def frame_statistics(saliency: np.ndarray, size: tuple[int, int]) -> dict:
  """A map in four numbers. A map that is zero everywhere counts as uniform.

  Args:
    saliency: (h, w) float, not negative, of any size.
    size: (width, height) of the frame, in whose pixels positions are given; (0, 0) is the first pixel's centre.

  Returns:
    `peak`: [x, y] of the maximum (of the middle one if several are equal), whole pixels.
    `centroid`: [x, y] of the map's mass, pixels.
    `spread`: root mean square distance of the mass from the centroid, as a fraction of the frame's diagonal.
    `entropy`: of the map divided by its sum, as a fraction of a uniform map's entropy: 0 a point, 1 uniform.
  """
  width, height = size
  mass = np.asarray(saliency, np.float64)
  mass = mass / mass.sum() if mass.sum() > 0 else np.full(mass.shape, 1 / mass.size)
  x = (np.arange(mass.shape[1]) + 0.5) * width / mass.shape[1] - 0.5
  y = (np.arange(mass.shape[0]) + 0.5) * height / mass.shape[0] - 0.5
  rows, columns = np.nonzero(mass == mass.max())
  centroid_x, centroid_y = mass.sum(0) @ x, mass.sum(1) @ y
  variance = mass.sum(0) @ (x - centroid_x) ** 2 + mass.sum(1) @ (y - centroid_y) ** 2
  positive = mass[mass > 0]
  entropy = -(positive * np.log(positive)).sum() / np.log(mass.size) if mass.size > 1 else 0.0
  middle = len(rows) // 2
  peak = [min(max(round(at), 0), end - 1) for at, end in ((x[columns[middle]], width), (y[rows[middle]], height))]
  return {
    "peak": peak,
    "centroid": [round(float(centroid_x), 2), round(float(centroid_y), 2)],
    "spread": round(float(np.sqrt(max(variance, 0.0)) / np.hypot(width, height)), 5),
    "entropy": round(float(min(max(entropy, 0.0), 1.0)), 5),
  }


class OverlayWriter:
  """Writes an H.264 mp4 with its frames at their own times and the original's sound, frame by frame.

  A context manager. The file gets its name when everything is in it; after an exception nothing remains of it. Sound
  packets are copied where mp4 can hold them, else encoded as AAC. Sound that cannot be written is left out, with a
  note; a video without sound gets no sound stream.
  """

  def __init__(self, path: str | Path, info: MediaInfo, notes: list[str] | None = None):
    """Args:
    path: of the mp4 file.
    info: the original video, as `probe` found it.
    notes: receives a line where sound had to be left out.
    """
    self.path, self.info, self.notes = Path(path), info, notes if notes is not None else []
    self._sound: Iterator[tuple[float, av.Packet]] = iter(())
    self._waiting: tuple[float, av.Packet] | None = None

  def __enter__(self) -> "OverlayWriter":
    with contextlib.ExitStack() as stack:
      self._partial = stack.enter_context(atomic_file(self.path))
      self._start(self.info.has_sound)
      stack.push(self._finish)
      self._opened = stack.pop_all()
    return self

  def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
    self._opened.__exit__(kind, error, traceback)

  def _finish(self, kind: type | None, *_: object) -> None:
    """Writes what is left after the last frame, unless there was an exception, and closes the file."""
    if kind is None:
      for packet in self._stream.encode(None):
        self._mux_picture(packet)
      self._mux_sound_until(float("inf"))
    self._close()

  def write(self, time: float, frame: np.ndarray) -> None:
    """Adds a frame (height, width, 3) uint8 RGB at a time in seconds, later than the one before."""
    padding = [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)]  # yuv420p halves both sides
    picture = av.VideoFrame.from_ndarray(np.pad(frame, padding, mode="edge"), format="rgb24")
    picture = picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
    picture.pts, picture.time_base = round(time / TIME_BASE), TIME_BASE
    for packet in self._stream.encode(picture):
      self._mux_picture(packet)
    self._mux_sound_until(time)

  def _start(self, with_sound: bool) -> None:
    options = {"movflags": "+faststart"}
    target = str(self._partial.absolute())  # a relative name could be taken for a protocol
    self._container = av.open(target, "w", format="mp4", container_options=options)
    rate = Fraction(self.info.rate).limit_denominator(1001)
    # A short look-ahead keeps few frames in memory.
    settings = {"crf": "20", "preset": "veryfast", "rc-lookahead": "10"}
    self._stream = self._container.add_stream("libx264", rate=rate, options=settings)
    self._stream.width, self._stream.height = (side + side % 2 for side in (self.info.width, self.info.height))
    self._stream.pix_fmt, self._stream.time_base = "yuv420p", TIME_BASE
    context = self._stream.codec_context
    context.time_base, context.sample_aspect_ratio = TIME_BASE, self.info.pixel_aspect.limit_denominator(1000)
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    try:
      self._sound = self._open_sound() if with_sound else iter(())
      self._container.start_encoding()
    except (av.FFmpegError, ValueError, MediaError) as error:
      self._close()
      if not with_sound:
        raise
      self.notes.append(f"overlay: without sound, mp4 does not take it ({error})")
      self._start(False)

  def _open_sound(self) -> Iterator[tuple[float, av.Packet]]:
    with open_media(self.info.path) as source:
      stream = sound_stream(source)
      codec = stream.codec_context.codec.canonical_name
      if codec in COPIED_SOUND and _can_copy(self.info):
        return _copied_sound(self.info, self._container.add_stream_from_template(stream))
      rate = stream.sample_rate if stream.sample_rate in AAC_RATES else 48000
      layout = "mono" if stream.channels == 1 else "stereo"
    return _encoded_sound(self.info, self._container.add_stream("aac", rate=rate, layout=layout))

  def _mux_picture(self, packet: av.Packet) -> None:
    if not packet.duration:  # decides how long the last frame is shown
      packet.duration = round(1 / self.info.rate / packet.time_base)
    self._container.mux(packet)

  def _mux_sound_until(self, time: float) -> None:
    """Sound goes in side by side with the picture, so that little has to wait in memory."""
    try:
      self._waiting = self._waiting or next(self._sound, None)
      while self._waiting is not None and self._waiting[0] <= time:
        self._container.mux(self._waiting[1])
        self._waiting = next(self._sound, None)
    except (av.FFmpegError, ValueError, MediaError) as error:
      self.notes.append(f"overlay: its sound is not complete ({error})")
      self._sound, self._waiting = iter(()), None

  def _close(self) -> None:
    close = getattr(self._sound, "close", None)
    if close is not None:
      close()
    self._container.close()


def _copied_sound(info: MediaInfo, target: av.AudioStream) -> Iterator[tuple[float, av.Packet]]:
  """The original's sound packets with their start in seconds, moved to the picture's time 0."""
  with open_media(info.path) as source:
    stream = sound_stream(source)
    shift, before, end = round(info.origin / stream.time_base), None, 0.0
    for packet in source.demux(stream):
      if packet.pts is None or packet.dts is None or packet.size == 0:
        continue
      packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
      start = float(packet.pts * stream.time_base)
      # mp4 takes only increasing times; sound that ended before the picture began is cut.
      if (before is not None and packet.dts <= before) or start + float((packet.duration or 0) * stream.time_base) <= 0:
        continue
      if abs(start - end) > MAX_GAP:
        raise MediaError(f"{info.path}: sound jumps from {end:.3f} s to {start:.3f} s")
      before, end = packet.dts, start
      packet.stream = target
      yield start, packet


def _can_copy(info: MediaInfo) -> bool:
  """Tries mp4 with the sound's beginning: that its header is damaged shows only when the file is closed."""
  num_packets = 0
  try:
    with open_media(info.path) as source, av.open(io.BytesIO(), "w", format="mp4") as trial:
      target = trial.add_stream_from_template(sound_stream(source))
      for _, packet in itertools.islice(_copied_sound(info, target), TRIAL_PACKETS):
        trial.mux(packet)
        num_packets += 1
  except (av.FFmpegError, ValueError, MediaError):
    return False
  return num_packets > 0


def _encoded_sound(info: MediaInfo, target: av.AudioStream) -> Iterator[tuple[float, av.Packet]]:
  """The original's sound as AAC packets with their start in seconds."""
  rate, layout, length = target.sample_rate, target.layout.name, 0
  for block in aligned_sound(info.path, rate, layout):
    samples = np.ascontiguousarray(block.T).reshape(1, -1)  # "s16" has its channels interleaved
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, length, Fraction(1, rate)
    length += block.shape[1]
    for packet in target.encode(frame):
      yield float(packet.pts * packet.time_base), packet
  for packet in target.encode(None):
    yield float(packet.pts * packet.time_base), packet


@functools.cache
def _palette() -> tuple[bytes, list[int]]:
  """Colour (RGB) and opacity, both of 0 to 255, of each of 256 levels."""
  levels = np.linspace(0, 1, 256)
  import matplotlib  # a tenth of the seconds that prediction takes to start

  colours = matplotlib.colormaps["inferno"](0.25 + 0.75 * levels)[:, :3]  # its dark end would only darken
  opacity = np.round(MAX_OPACITY * levels**0.75 * 255).astype(int)
  return np.round(colours * 255).astype(np.uint8).tobytes(), opacity.tolist()


@functools.cache
def _caption_patch(text: str, size: int) -> np.ndarray:
  font = ImageFont.load_default(size)
  left, top, right, bottom = (round(side) for side in font.getbbox(text))
  image = Image.new("RGB", (right - left + 2 * CAPTION_MARGIN, bottom - top + 2 * CAPTION_MARGIN), (0, 0, 0))
  ImageDraw.Draw(image).text((CAPTION_MARGIN - left, CAPTION_MARGIN - top), text, (255, 255, 255), font)
  return np.asarray(image)
