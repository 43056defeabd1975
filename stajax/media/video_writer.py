"""Writes videos: frames at their own times, with the sound of the video that they were made from."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import cast

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from stajax.files import atomic_file, partial_path
from stajax.media.encoding import CODECS, SMALLEST, Encoding
from stajax.media.file import MediaError
from stajax.media.roi import Region, RegionMarker
from stajax.media.video import MediaInfo
from stajax.media.video_sound import add_sound, open_mp4

_TIME_BASE = Fraction(1, 90000)  # exact for every usual frame rate

AddSound = Callable[[Path, MediaInfo, Path, list[str]], Iterator[float]]
"""`stajax.media.video_sound.add_sound`, here or in another process."""


class VideoWriter:
  """Writes an H.264 mp4 with frames at their own times and the sound of the original, frame by frame.

  It is a context manager. The file gets its name when it is complete; after an exception nothing of it remains.
  The sound is added last: copied if mp4 can hold it, otherwise encoded as AAC. Sound that cannot be written is left out
  with a note; a video without sound gets no sound stream.
  """

  def __init__(
    self,
    path: str | Path,
    info: MediaInfo,
    notes: list[str] | None = None,
    add_sound: AddSound = add_sound,
    encoding: Encoding | None = None,
    size: tuple[int, int] | None = None,
  ) -> None:
    """Prepares to write a video.

    Args:
      path: The mp4 file.
      info: The original video, as `probe` found it.
      notes: Receives a line if sound had to be left out.
      add_sound: Joins the picture with the sound of the original.
      encoding: How it is encoded; None for what suits a preview.
      size: The (width, height) of its frames, in pixels; None for that of the original.

    Raises:
      MediaError: The frames are too small for the encoder.
    """
    self.path, self.info, self.notes = Path(path), info, notes if notes is not None else []
    self._add_sound, self._encoding, self._marker = add_sound, encoding, RegionMarker()
    self._size = (info.width, info.height) if size is None else size
    self._last_time = 0.0  # that of the last frame in seconds
    self._check_size()

  def _check_size(self) -> None:
    codec = "x264" if self._encoding is None else self._encoding.codec
    if (smallest := SMALLEST[codec]) > max(2, min(self._size)):
      found = "×".join(map(str, self._size))
      expected = f"{codec} needs at least {smallest}×{smallest}; codec=x264 takes it"
      raise MediaError(f"{self.info.path}: its pictures would have {found} pixels, but {expected}")

  def __enter__(self) -> "VideoWriter":
    with contextlib.ExitStack() as stack:
      self._partial = stack.enter_context(atomic_file(self.path))
      self._picture = partial_path(self.path, "picture")
      stack.callback(self._picture.unlink, missing_ok=True)
      self._start()
      stack.push(self._finish)
      self._opened = stack.pop_all()
    return self

  def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
    self._opened.__exit__(kind, error, traceback)

  def _finish(self, kind: type | None, _error: object, _traceback: object) -> None:
    """Closes the picture's file and adds the sound, unless there was an exception."""
    if kind is not None:
      self._container.close()
      return
    last = round(self._last_time / _TIME_BASE)
    for packet in self._stream.encode(None):
      if packet.pts is not None and packet.time_base and round(packet.pts * packet.time_base / _TIME_BASE) == last:
        left = self.info.duration - self._last_time
        packet.duration = round((left if left > 1e-3 else 1 / self.info.rate) / float(packet.time_base))
      self._mux(packet)
    self._container.close()
    if self.info.has_sound:
      try:
        for _ in self._add_sound(self._picture, self.info, self._partial, self.notes):
          pass
        return
      except MediaError as error:
        reason = str(error).removeprefix(f"{self.info.path}: ")
        self.notes.append(f"sound: left out of the overlay ({reason})")
    os.replace(self._picture, self._partial)

  def write(self, time: float, frame: np.ndarray, regions: Sequence[Region] = ()) -> None:
    """Adds a frame.

    Args:
      time: Its time in seconds, later than that of the one before.
      frame: (height, width, 3) uint8 RGB.
      regions: Where the encoder is to be more exact, or less. Where they overlap, the first one counts.
    """
    if frame.shape[0] % 2 or frame.shape[1] % 2:  # yuv420p halves both sides
      frame = np.pad(frame, [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)], mode="edge")
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    picture = picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
    picture.pts, picture.time_base = round(time / _TIME_BASE), _TIME_BASE
    for packet in self._stream.encode(self._marker.mark(picture, regions)):
      self._mux(packet)
    self._last_time = time

  def _start(self) -> None:
    self._container = open_mp4(self._picture)
    rate = Fraction(self.info.rate).limit_denominator(1001)
    # A short look-ahead keeps few frames in memory. Without B-frames the last packet is that of the last frame, whose
    # duration is the only one that mp4 files state.
    preview = {"crf": "20", "preset": "veryfast", "rc-lookahead": "3"}
    settings = {**(preview if self._encoding is None else self._encoding.options), "bf": "0"}
    codec = CODECS["x264" if self._encoding is None else self._encoding.codec]
    self._stream = cast(av.VideoStream, self._container.add_stream(codec, rate=rate, options=settings))
    self._stream.width, self._stream.height = (side + side % 2 for side in self._size)
    self._stream.pix_fmt, self._stream.time_base = "yuv420p", _TIME_BASE
    context = self._stream.codec_context
    context.time_base, context.sample_aspect_ratio = _TIME_BASE, self.info.pixel_aspect.limit_denominator(1000)
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709

  def _mux(self, packet: av.Packet) -> None:
    if not packet.duration:  # it decides how long the last frame is shown
      packet.duration = round(1 / self.info.rate / float(packet.time_base or _TIME_BASE))
    self._container.mux(packet)
