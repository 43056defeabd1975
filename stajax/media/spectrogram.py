"""Sound features: the log-spectrogram of VGGSound (257 bins, 16 kHz), whole or as a stream, and its one-second windows.

Column j of a spectrogram covers samples 159·j … 159·j + 511 and is centred at sample 159·j + 256.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import scipy.signal

from stajax.grid import reflect
from stajax.media.audio import SAMPLE_RATE, audio_blocks
from stajax.media.file import MAX_GAP, MediaError

NUM_BINS = 257
SEGMENT = 512
HOP = 159
WINDOW_COLUMNS = 98  # one second of sound, 16000 samples, has 98 columns
FLOOR = 1e-7
EPSILON = 1e-9  # added to a deviation before dividing by it
SILENT = 1e-6  # standard deviation of a log-spectrogram; 0 but for rounding where nothing sounds
BLOCK_SAMPLES = 16384  # of one call in a stream
EARLY_END = 0.25  # seconds; what is missing at the end of most files is less, and windows are reflected over it
# Columns (20 s, 2 MB) that a stream keeps of a sound's end. A picture may outlast its sound by that much and windows
# are reflected exactly; beyond it they stay at the kept tail's beginning.
KEPT_COLUMNS = 2048
STRIP_COLUMNS = 4 * WINDOW_COLUMNS  # of which successive windows are views


def log_spectrogram(samples: np.ndarray) -> np.ndarray:
  """log(s + 1e-7) of SciPy's spectrogram s with VGGSound's arguments (`preprocess_audio.py` of VGGSound).

  Args:
    samples: (n,) mono at 16 kHz in [-1, 1]; padded with zeros to 512 samples.

  Returns:
    (257, columns) float32; (n - 512) // 159 + 1 columns.
  """
  # In float32 SciPy's result is off by 1e-4 where little sounds.
  samples = np.pad(np.asarray(samples, np.float64), (0, max(0, SEGMENT - len(samples))))
  _, _, power = scipy.signal.spectrogram(samples, SAMPLE_RATE, nperseg=SEGMENT, noverlap=SEGMENT - HOP)
  return np.log(power + FLOOR).astype(np.float32)


def spectrogram_blocks(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
  """`log_spectrogram` of a stream, in bounded memory: its blocks (257, k), joined, are that of the joined samples.

  Args:
    blocks: (n,) samples of any length; nothing comes of no samples at all.
  """
  rest, is_first = np.zeros(0, np.float32), True
  for block in blocks:
    rest = np.concatenate([rest, np.asarray(block, np.float32)])
    if len(rest) >= BLOCK_SAMPLES:
      columns = log_spectrogram(rest)
      yield columns
      rest, is_first = rest[columns.shape[1] * HOP :], False
  if len(rest) >= SEGMENT or (is_first and len(rest)):
    yield log_spectrogram(rest)


def statistics(columns: Iterable[np.ndarray]) -> tuple[float, float, int]:
  """Mean, standard deviation and number of columns of a whole sound.

  Args:
    columns: blocks (257, k).

  Returns:
    (mean, deviation, columns), summed in float64; (0, 0, 0) for no sound.
  """
  count, mean, squares, num_columns = 0, 0.0, 0.0, 0
  for block in columns:
    if block.size == 0:
      continue
    block = block.astype(np.float64)
    delta, total = float(block.mean()) - mean, count + block.size
    # How squared deviations of two parts add up (Chan et al. 1979), without the cancellation of E[x²] - E[x]².
    squares += float(np.square(block - block.mean()).sum()) + delta**2 * count * block.size / total
    mean += delta * block.size / total
    count, num_columns = total, num_columns + block.shape[1]
  return mean, float(np.sqrt(squares / count)) if count else 0.0, num_columns


def window_columns(time: float, num_columns: int) -> np.ndarray:
  """Columns of the second of sound that is centred at a time; past the ends they are reflected.

  Args:
    time: seconds.
    num_columns: of the whole sound, at least 1.

  Returns:
    (98,) int64 in [0, num_columns).
  """
  first = round((time * SAMPLE_RATE - SEGMENT / 2) / HOP) - WINDOW_COLUMNS // 2
  return reflect(np.arange(first, first + WINDOW_COLUMNS), num_columns)


def normalise(columns: np.ndarray, mean: float, deviation: float) -> np.ndarray:
  """(columns - mean) / (deviation + 1e-9) of the whole sound, float32."""
  normalised = columns - np.float32(mean)
  normalised /= np.float32(deviation + EPSILON)
  return normalised.astype(np.float32, copy=False)


def samples_from_wav(path: str | Path) -> np.ndarray:
  """All samples of a sound file (any format, rate and channels) as (n,) float32 mono at 16 kHz.

  Raises:
    MediaError: the file cannot be read or has no sound.
  """
  blocks = list(audio_blocks(path))
  if not blocks:
    raise MediaError(f"{path}: has no sound that can be decoded")
  return np.concatenate(blocks)


def until(blocks: Iterable[np.ndarray], end: float | None) -> Iterator[np.ndarray]:
  """Samples that go on with silence up to the end of a picture that outlasts them.

  Args:
    blocks: (n,) samples of any length; nothing comes of no samples at all.
    end: of the picture, seconds; None: not known. One that no real clip has is ignored.
  """
  length = 0
  for block in blocks:
    length += len(block)
    yield block
  missing = 0 if end is None else round(end * SAMPLE_RATE) - length
  if length and EARLY_END * SAMPLE_RATE < missing <= MAX_GAP * SAMPLE_RATE:
    for at in range(0, missing, BLOCK_SAMPLES):
      yield np.zeros(min(BLOCK_SAMPLES, missing - at), np.float32)


def is_used(statistics: tuple[float, float, int], notes: list[str]) -> bool:
  """Whether there is a sound, of its `statistics`; one that is silent throughout counts as none, and is noted."""
  _, deviation, num_columns = statistics
  if num_columns and deviation < SILENT:
    notes.append("sound: silent throughout, not used")
  return num_columns > 0 and deviation >= SILENT


def file_windows(path: str | Path, notes: list[str], end: float | None = None) -> "SoundWindows | None":
  """The normalised sound of a media file, after a first pass over it for its mean and deviation.

  Args:
    notes: receives a line for each thing that had to be left out.
    end: of the picture, seconds: sound that ends earlier is followed by silence.

  Returns:
    None for sound that is silent throughout or cannot be decoded.
  """
  whole = statistics(spectrogram_blocks(until(audio_blocks(path, notes), end)))
  if not is_used(whole, notes):
    return None
  mean, deviation, num_columns = whole
  return SoundWindows(lambda: spectrogram_blocks(until(audio_blocks(path), end)), num_columns, mean, deviation)


class SoundWindows:
  """Normalised one-second windows of a sound that is read once, front to back, in bounded memory.

  Successive windows overlap: those of four frames a second would have every column four times.
  """

  def __init__(self, make_columns: Callable[[], Iterable[np.ndarray]], num_columns: int, mean: float, deviation: float):
    """Args:
    make_columns: gives a fresh iterator of column blocks (257, k).
    num_columns: of the whole sound, at least 1.
    mean: of the whole sound, as `statistics` gives it.
    deviation: likewise.
    """
    self._make_columns = make_columns
    self._blocks = iter(make_columns())
    self._kept: deque[np.ndarray] = deque()  # single columns; the first is column `self._first`
    self._first = 0
    self._strip, self._strip_first = np.zeros((NUM_BINS, 0), np.float32), 0
    self._num_columns, self._mean, self._deviation = num_columns, mean, deviation

  def again(self) -> "SoundWindows":
    """The same sound from its beginning, read once more."""
    return SoundWindows(self._make_columns, self._num_columns, self._mean, self._deviation)

  def window(self, time: float) -> np.ndarray:
    """The window of `window_columns`, (257, 98) float32; times must not decrease.

    It is not to be written to, and shares memory with the next ones: one that is kept without them is better copied.

    Raises:
      ValueError: `time` needs columns that are no longer kept, or the stream is shorter than it said.
    """
    end = (self._num_columns * HOP + SEGMENT) / SAMPLE_RATE
    outlasts = (KEPT_COLUMNS - 2 * WINDOW_COLUMNS) * HOP / SAMPLE_RATE
    columns = window_columns(min(time, end + outlasts), self._num_columns)
    first, last = int(columns[0]), int(columns[-1])
    if last - first != WINDOW_COLUMNS - 1:  # reflected
      return self._normalised(columns)
    if not self._strip_first <= first <= last < self._strip_first + self._strip.shape[1]:
      self._strip = self._normalised(np.arange(first, min(first + STRIP_COLUMNS, self._num_columns)))
      self._strip.flags.writeable = False
      self._strip_first = first
    return self._strip[:, first - self._strip_first : last + 1 - self._strip_first]

  def _normalised(self, columns: np.ndarray) -> np.ndarray:
    self._read_to(int(columns.min()), int(columns.max()))
    if columns.min() < self._first:
      raise ValueError(f"columns from {columns.min()} on: those before {self._first} are no longer kept")
    window = np.stack([self._kept[column - self._first] for column in columns], axis=1)
    return normalise(window, self._mean, self._deviation)

  def _read_to(self, first: int, last: int) -> None:
    """Reads on to column `last`, and drops what is before `first` and not of the tail that is kept."""
    dropped = min(first, self._num_columns - 1 - KEPT_COLUMNS)
    while self._first + len(self._kept) <= last:
      block = next(self._blocks, None)
      if block is None:
        raise ValueError(f"sound of {self._num_columns} columns ended after {self._first + len(self._kept)}")
      self._kept.extend(block.T)
      self._drop(dropped)
    self._drop(dropped)

  def _drop(self, before: int) -> None:
    while self._kept and self._first < before:
      self._kept.popleft()
      self._first += 1
