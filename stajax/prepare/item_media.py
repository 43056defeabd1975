"""Reading the files of one item within its limits: the decoder, the size in bytes, and the cut of picture and sound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from stajax.media import isolated
from stajax.media.audio import SAMPLE_RATE
from stajax.media.file import Decoding, MediaError
from stajax.media.image_folder import numbered_images
from stajax.media.limits import Limits
from stajax.media.sound_windows import pad_with_silence
from stajax.media.video import GRID_TOLERANCE
from stajax.prepare.listing import Item

T = TypeVar("T")

_SOUND_SHARE = 1 / 3
"""The part of an item's time after which silent decoders of sound are given up; the picture needs the rest."""


def make_decoding(limits: Limits) -> Decoding:
  """Returns how pictures are decoded: in one thread, so that a damaged file gives the same frames on every machine."""
  return Decoding(threads=1, max_pixels=limits.max_pixels, sound=limits.sound)


def item_files(item: Item) -> list[Path]:
  """Returns the files of an item: its media file or its images, then its separate sound file if it has one."""
  files = [item.path] if item.rate is None else list(numbered_images(item.path).values())
  return files if item.sound_file is None else [*files, item.sound_file]


def read_stamp(path: Path, with_time: bool = True) -> tuple[int, ...]:
  """Returns a file's size and, if wanted, its time of change; (-1,) for a missing file, which decoding will report."""
  try:
    status = path.stat()
  except OSError:
    return (-1,)
  return (status.st_size, status.st_mtime_ns) if with_time else (status.st_size,)


def check_bytes(item: Item, limits: Limits) -> None:
  """Raises MediaError if the files of an item together are too large, or their sizes cannot be read."""
  try:
    size = sum(path.stat().st_size for path in item_files(item) if path.exists())
  except OSError as error:
    raise MediaError(f"{item.path}: {error.strerror}") from error
  if size > limits.max_bytes:
    raise MediaError(f"{item.path}: has {size} bytes, at most {limits.max_bytes} are taken")


def cut_frames(frames: Iterable[tuple[float, T]], limits: Limits, notes: list[str]) -> Iterator[tuple[float, T]]:
  """Yields the frames, with their times, up to the largest duration; `notes` receives a line if more are cut off."""
  for time, frame in frames:
    if time > 0 and time + GRID_TOLERANCE >= limits.max_seconds:
      notes.append(f"longer than {limits.max_seconds:g} s, cut there")
      return
    yield time, frame


def decode_sound(item: Item, limits: Limits, notes: list[str], end: float | None = None) -> list[np.ndarray]:
  """Returns the sound of an item up to the largest duration.

  Sound is decoded in a process of its own, because a decoder that crashes or hangs at it must not cost the picture.

  Args:
    item: The item. Nothing is returned if it has no sound, or if its sound cannot be used though the picture can.
    limits: The limits for a file.
    notes: Receives a line for each thing that had to be left out.
    end: The end of the picture in seconds; sound that ends earlier is continued with silence.

  Returns:
    Blocks (n,) float32 at 16 kHz in [-1, 1].

  Raises:
    MediaError: The item's media file cannot be used.
  """
  if item.sound_file is None and item.rate is not None:
    return []
  path, read = item.path, isolated.audio_blocks
  if item.sound_file is not None:
    path, read, limits = item.sound_file, isolated.sound_file_blocks, replace(limits, sound=None)
  blocks: list[np.ndarray] = []
  left = round(min(limits.max_seconds, 1e9) * SAMPLE_RATE)
  try:
    for block in pad_with_silence(read(path, notes, make_decoding(limits), limits.time_limit * _SOUND_SHARE), end):
      blocks.append(block[:left])
      left -= len(block)
      if left <= 0:
        break
  except MediaError as error:
    if item.sound_file is None and not isinstance(error, isolated.DecoderError):
      raise
    notes.append(isolated.about_sound(error, path))
    return []
  return blocks
