"""Reads the one-second windows of a sound from a file as a stream, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from stajax.media.audio import audio_blocks
from stajax.media.file import MAX_GAP
from stajax.media.spectrogram import (
  BLOCK_SAMPLES,
  HOP,
  NUM_BINS,
  SAMPLE_RATE,
  SEGMENT,
  WINDOW_COLUMNS,
  Statistics,
  duration,
  normalise,
  spectrogram_blocks,
  statistics,
  window_columns,
)

SILENT = 1e-6  # the log-spectrogram of silence has a smaller standard deviation, which only rounding keeps from 0
EARLY_END = 0.25  # seconds; most sounds that end before their picture lack less, and windows are reflected over that
# The number of columns (20 s, 2 MB) that are kept at the end of a sound. While a picture outlasts its sound by no more
# than that, windows are reflected exactly; later windows stay at the first of these columns.
KEPT_COLUMNS = 2048
STRIP_COLUMNS = 4 * WINDOW_COLUMNS  # the columns of the arrays that successive windows are views of

ReadBlocks = Callable[[str | Path, list[str] | None], Iterator[np.ndarray]]
"""Yields the samples of a file, as `stajax.media.audio.audio_blocks` does; the list receives notes."""


def pad_with_silence(blocks: Iterable[np.ndarray], end: float | None) -> Iterator[np.ndarray]:
  """Yields the samples, followed by silence up to the end of a picture that outlasts them.

  Args:
    blocks: (n,) samples of any length; nothing is yielded if there are no samples at all.
    end: The end of the picture in seconds, or None if it is not known. An absurdly late end is ignored.
  """
  length = 0
  for block in blocks:
    length += len(block)
    yield block
  missing = 0 if end is None else round(end * SAMPLE_RATE) - length
  if length and EARLY_END * SAMPLE_RATE < missing <= MAX_GAP * SAMPLE_RATE:
    for at in range(0, missing, BLOCK_SAMPLES):
      yield np.zeros(min(BLOCK_SAMPLES, missing - at), np.float32)


def is_audible(found: Statistics, notes: list[str]) -> bool:
  """Returns whether there is a sound; one that is silent throughout counts as none, and is noted in `notes`."""
  if found.num_columns and found.deviation < SILENT:
    notes.append("sound: silent throughout, not used")
  return found.num_columns > 0 and found.deviation >= SILENT


def file_windows(
  path: str | Path, notes: list[str], end: float | None = None, read: ReadBlocks = audio_blocks
) -> SoundWindows | None:
  """Returns the normalised sound of a media file, after a first pass over it for its mean and deviation.

  Args:
    path: The file.
    notes: Receives a line for each thing that had to be left out.
    end: The end of the picture in seconds; a sound that ends earlier is followed by silence.
    read: The function that reads the file; `stajax.media.isolated.sound_file_blocks` for a sound without a picture.

  Returns:
    The windows, or None if the sound is silent throughout or cannot be decoded.
  """
  whole = statistics(spectrogram_blocks(pad_with_silence(read(path, notes), end)))
  if not is_audible(whole, notes):
    return None
  return SoundWindows(lambda: spectrogram_blocks(pad_with_silence(read(path, None), end)), whole)


def looped_windows(sound: SoundWindows, times: Iterable[float]) -> Iterator[np.ndarray]:
  """Yields the windows of a sound, which begins again when it ends; times must not decrease."""
  seconds, rounds = sound.duration, 0.0
  sound = sound.again()
  for time in times:
    found, within = divmod(time, seconds)
    if found > rounds:
      sound, rounds = sound.again(), found
    yield sound.window(within)


class SoundWindows:
  """Normalised one-second windows of a sound that is read once, front to back, in bounded memory.

  Successive windows share memory, because the windows of four frames a second would copy every column four times.
  """

  def __init__(self, read_columns: Callable[[], Iterable[np.ndarray]], whole: Statistics) -> None:
    """Begins at the start of a sound.

    Args:
      read_columns: Returns a fresh iterator of column blocks (257, k).
      whole: The statistics of the whole sound, which has at least one column.
    """
    self._read_columns, self._whole = read_columns, whole
    self._blocks = iter(read_columns())
    self._kept: deque[np.ndarray] = deque()  # single columns; the first one is column `self._first`
    self._first = 0
    self._strip, self._strip_first = np.zeros((NUM_BINS, 0), np.float32), 0

  @property
  def duration(self) -> float:
    """How many seconds the sound lasts."""
    return duration(self._whole.num_columns)

  def again(self) -> SoundWindows:
    """Returns the same sound from its beginning, so that it can be read once more."""
    return SoundWindows(self._read_columns, self._whole)

  def window(self, time: float) -> np.ndarray:
    """Returns the second of sound around a time in seconds, (257, 98) float32; times must not decrease.

    The array is read-only and shares memory with the windows of later times; copy it to keep it without them.

    Raises:
      ValueError: The window needs columns that are no longer kept, or the stream has fewer columns than its statistics.
    """
    end = (self._whole.num_columns * HOP + SEGMENT) / SAMPLE_RATE
    outlasts = (KEPT_COLUMNS - 2 * WINDOW_COLUMNS) * HOP / SAMPLE_RATE
    columns = window_columns(min(time, end + outlasts), self._whole.num_columns)
    first, last = int(columns[0]), int(columns[-1])
    if last - first != WINDOW_COLUMNS - 1:  # reflected
      return self._normalised(columns)
    if not self._strip_first <= first <= last < self._strip_first + self._strip.shape[1]:
      self._strip = self._normalised(np.arange(first, min(first + STRIP_COLUMNS, self._whole.num_columns)))
      self._strip.flags.writeable = False
      self._strip_first = first
    return self._strip[:, first - self._strip_first : last + 1 - self._strip_first]

  def _normalised(self, columns: np.ndarray) -> np.ndarray:
    self._read_to(int(columns.min()), int(columns.max()))
    if columns.min() < self._first:
      raise ValueError(f"columns from {columns.min()} on: those before {self._first} are no longer kept")
    window = np.stack([self._kept[column - self._first] for column in columns], axis=1)
    return normalise(window, self._whole.mean, self._whole.deviation)

  def _read_to(self, first: int, last: int) -> None:
    """Reads on to column `last`, and drops the columns before `first` unless they belong to the end that is kept."""
    dropped = min(first, self._whole.num_columns - 1 - KEPT_COLUMNS)
    while self._first + len(self._kept) <= last:
      block = next(self._blocks, None)
      if block is None:
        found = self._first + len(self._kept)
        raise ValueError(f"sound of {self._whole.num_columns} columns ended after {found}")
      self._kept.extend(block.T)
      self._drop(dropped)
    self._drop(dropped)

  def _drop(self, before: int) -> None:
    while self._kept and self._first < before:
      self._kept.popleft()
      self._first += 1
