"""Decodes JPEG files of frames in parallel into one array, so that training and dense inference see the same pixels.

libjpeg-turbo writes each frame directly into the batch. TensorFlow's decoder is older and makes a tensor of each frame,
which then has to be copied into the batch.
"""

from __future__ import annotations

import io
import math
import os
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import simplejpeg
from PIL import Image

from stajax.data.frame_sides import scaled_side

_ALIGNMENT = 64  # bytes; TensorFlow copies arrays that begin at other addresses
_PARTS = 4  # the parts per thread that a call is cut into, so that no thread waits long for the others


def encode_jpeg(frame: np.ndarray) -> bytes:
  """Encodes (h, w, 3) uint8 RGB as JPEG, quality 95, without chroma subsampling."""
  buffer = io.BytesIO()
  Image.fromarray(frame).save(buffer, "JPEG", quality=95, subsampling=0)
  return buffer.getvalue()


class _Blocks:
  """Memory for arrays of one size, which is reused as soon as an array and all views of it are gone.

  The system has to clear fresh memory, which takes a tenth of the time of decoding frames of 512×512.
  """

  def __init__(self) -> None:
    self._free: list[np.ndarray] = []
    self._is_closed = False

  def empty(self, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a uint8 array with arbitrary content, which becomes a tensor without being copied."""
    size = math.prod(shape)
    try:
      block = self._free.pop()  # checking first would not help, because other threads take blocks too
    except IndexError:
      block = np.empty(0, np.uint8)
    if block.size < size + _ALIGNMENT:
      block = np.empty(size + _ALIGNMENT, np.uint8)
    # Made from a memoryview, because views of a view would refer to the block itself and could outlive this array.
    view = memoryview(block)  # pyright: ignore[reportArgumentType]  # arrays have been buffers before 3.12 had the name
    array = np.frombuffer(view, np.uint8, size, -block.ctypes.data % _ALIGNMENT)
    weakref.finalize(array, self._take_back, block).atexit = False
    return array.reshape(shape)

  def close(self) -> None:
    """Frees the memory, and keeps none from now on."""
    self._is_closed = True
    self._free.clear()

  def _take_back(self, block: np.ndarray) -> None:
    if not self._is_closed:
      self._free.append(block)


class FrameDecoder:
  """Decodes square frames of one stored side at 1/ratio in threads of its own; safe to use from several threads."""

  def __init__(self, stored_side: int, ratio: int, threads: int | None = None) -> None:
    """Starts the threads, by default one for each core."""
    self._stored_side, self._side = stored_side, scaled_side(stored_side, ratio)
    self._threads, self._blocks = threads or os.cpu_count() or 1, _Blocks()
    self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decoding")

  def __call__(self, jpegs: Sequence[bytes]) -> np.ndarray:
    """Decodes n files.

    Args:
      jpegs: The files. A file that appears several times, as the same object, is decoded once.

    Returns:
      (n, S, S, 3) uint8, RGB; S = `scaled_side`.

    Raises:
      ValueError: One of them is not an intact JPEG file of the stored side.
    """
    frames = self._blocks.empty((len(jpegs), self._side, self._side, 3))
    first = {id(jpeg): i for i, jpeg in reversed(list(enumerate(jpegs)))}
    places = list(first.values())
    length = -(-len(places) // (_PARTS * self._threads)) or 1

    def decode(begin: int) -> None:
      for place in places[begin : begin + length]:
        self._decode(jpegs[place], frames[place])

    for _ in self._pool.map(decode, range(0, len(places), length)):
      pass  # an exception in a thread is raised here
    for place, jpeg in enumerate(jpegs):
      if first[id(jpeg)] != place:
        frames[place] = frames[first[id(jpeg)]]
    return frames

  def close(self) -> None:
    """Ends the threads and frees the memory, even if something still refers to the decoder, as TensorFlow does."""
    self._pool.shutdown(wait=False, cancel_futures=True)
    self._blocks.close()

  def _decode(self, jpeg: bytes, frame: np.ndarray) -> None:
    # Checked before decoding, so that a damaged or hostile record cannot take unbounded memory.
    height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
    if (height, width) != (self._stored_side, self._stored_side):
      raise ValueError(f"{height}×{width} pixels, expected {self._stored_side}×{self._stored_side}")
    simplejpeg.decode_jpeg(jpeg, min_height=self._side, min_width=self._side, buffer=frame)
