"""What is read of one item's files: which decoder, how many bytes, seconds of picture and of sound are taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from stajax.media.audio import SAMPLE_RATE, audio_blocks
from stajax.media.file import Decoding, MediaError
from stajax.media.image_folder import numbered_images
from stajax.media.limits import Limits
from stajax.media.sound_files import sound_file_blocks
from stajax.media.sound_windows import pad_with_silence
from stajax.media.video import GRID_TOLERANCE
from stajax.prepare.listing import Item

T = TypeVar("T")


def make_decoding(limits: Limits) -> Decoding:
  """Returns how pictures are decoded: in one thread, because a damaged file is the same frames everywhere then."""
  return Decoding(threads=1, max_pixels=limits.max_pixels)


def read_stamp(path: Path, with_time: bool = True) -> tuple[int, ...]:
  """Returns a file's size and time of change; (-1,) where there is no such file, of which decoding will tell."""
  try:
    status = path.stat()
  except OSError:
    return (-1,)
  return (status.st_size, status.st_mtime_ns) if with_time else (status.st_size,)


def check_bytes(item: Item, limits: Limits) -> None:
  """Raises MediaError if the files of an item together are larger than they may be, or cannot be asked."""
  try:
    files = [path for _, path in numbered_images(item.path)] if item.rate is not None else [item.path]
    size = sum(path.stat().st_size for path in [*files, *filter(None, (item.wav,))] if path.exists())
  except OSError as error:
    raise MediaError(f"{item.path}: {error.strerror}") from error
  if size > limits.max_bytes:
    raise MediaError(f"{item.path}: has {size} bytes, at most {limits.max_bytes} are taken")


def cut_frames(frames: Iterable[tuple[float, T]], limits: Limits, notes: list[str]) -> Iterator[tuple[float, T]]:
  """Yields the frames, with their times, before the time where a clip is cut; `notes` receives a line if it is."""
  for time, frame in frames:
    if time > 0 and time + GRID_TOLERANCE >= limits.max_seconds:
      notes.append(f"longer than {limits.max_seconds:g} s, cut there")
      return
    yield time, frame


def decode_sound(item: Item, limits: Limits, notes: list[str], end: float | None = None) -> Iterator[np.ndarray]:
  """Yields the sound of an item up to where a clip is cut.

  Args:
    item: The item. Nothing is yielded if it has no sound, nor if a sound file apart from the picture is damaged.
    limits: What a file may cost.
    notes: Receives a line for each thing that had to be left out.
    end: The end of the picture in seconds: sound that ends earlier goes on with silence.

  Yields:
    Blocks (n,) float32 at 16 kHz in [-1, 1].

  Raises:
    MediaError: The item's media file cannot be used.
  """
  path = item.wav if item.wav is not None or item.rate is not None else item.path
  if path is None:
    return
  read = audio_blocks if item.wav is None else sound_file_blocks
  left = round(min(limits.max_seconds, 1e9) * SAMPLE_RATE)
  try:
    for block in pad_with_silence(read(path, notes, make_decoding(limits)), end):
      yield block[:left]
      left -= len(block)
      if left <= 0:
        return
  except MediaError as error:
    if item.wav is None:
      raise
    notes.append(f"sound: {str(error).removeprefix(f'{path}: ')}")  # the picture is fine
