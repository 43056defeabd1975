"""Videos of grey maps: written without loss, and read with all their bits."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.reformatter import ColorRange

from stajax.media.file import DEFAULT, Decoding, MediaError
from stajax.media.video import timed_frames

_COLOUR_TOLERANCE = 24 / 255
"""How far the channels of a grey frame may be apart after lossy coding, as a share of their range."""


class GreyWriter:
  """Writes maps (n, h, w) uint8 as an H.264 mp4, one map a frame, which decodes to the same numbers.

  The luma has the full range and the chroma is constant, so every decoder finds the numbers in all three channels. It
  is a context manager.
  """

  def __init__(self, path: Path, rate: float) -> None:
    """Opens a file `path`, whatever its suffix, with `rate` frames a second."""
    self._container = av.open(str(path), "w", format="mp4")
    options = {"qp": "0", "preset": "veryfast"}
    self._stream = self._container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001), options=options)
    self._number = 0

  def __enter__(self) -> "GreyWriter":
    return self

  def write(self, maps: np.ndarray) -> None:
    """Appends maps (n, h, w) uint8; all have one size."""
    if self._number == 0:
      self._stream.height, self._stream.width = maps.shape[1:]
      self._stream.pix_fmt = "yuv444p"
      self._stream.codec_context.color_range = ColorRange.JPEG
    for values in maps:
      middle = np.full_like(values, 128)
      frame = av.VideoFrame.from_ndarray(np.stack([values, middle, middle]), format="yuv444p")
      frame.color_range, frame.pts, self._number = ColorRange.JPEG, self._number, self._number + 1
      self._container.mux(self._stream.encode(frame))

  def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
    if kind is None:
      self._container.mux(self._stream.encode(None))
    self._container.close()


def grey_frames(path: Path, notes: list[str] | None = None, decoding: Decoding = DEFAULT) -> Iterator[np.ndarray]:
  """Yields every frame of a grey video in presentation order, as the mean of red, green and blue.

  Args:
    path: The video file.
    notes: Receives a line for each thing that had to be left out.
    decoding: The limits of the decoder.

  Yields:
    The frame (H, W): uint8, or uint16 up to 65535 if a sample of the file has more than 8 bits.

  Raises:
    MediaError: The file cannot be decoded, or a frame is in colour.
  """
  for number, (_, frame, _) in enumerate(timed_frames(path, notes, decoding), start=1):
    is_deep = max(component.bits for component in frame.format.components) > 8
    channels = frame.to_ndarray(format="rgb48le" if is_deep else "rgb24")
    spread = channels.max(axis=-1) - channels.min(axis=-1)
    if spread.max() > _COLOUR_TOLERANCE * (65535 if is_deep else 255):
      raise MediaError(f"{path}: frame {number} is in colour, expected grey maps (is it an overlay?)")
    yield np.round(channels.mean(axis=-1)).astype(channels.dtype)
