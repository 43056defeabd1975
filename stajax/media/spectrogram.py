"""The log-spectrogram of VGGSound, with 257 bins of sound at 16 kHz, whole or as a stream, and its one-second windows.

Column j of a spectrogram covers the samples 159·j … 159·j + 511, so that its middle is sample 159·j + 256.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from stajax.grid import reflect

SAMPLE_RATE = 16000
NUM_BINS = 257
SEGMENT = 512
HOP = 159
WINDOW_COLUMNS = 98  # one second of sound, 16000 samples, has 98 columns
FLOOR = 1e-7
EPSILON = 1e-9  # added to a deviation before dividing by it
BLOCK_SAMPLES = 16384  # the number of samples that a stream transforms at a time


def log_spectrogram(samples: np.ndarray) -> np.ndarray:
  """Returns log(s + 1e-7) of SciPy's spectrogram s with VGGSound's arguments (`preprocess_audio.py` of VGGSound).

  Args:
    samples: (n,) mono at 16 kHz in [-1, 1]; padded with zeros to 512 samples.

  Returns:
    (257, columns) float32; there are (n - 512) // 159 + 1 columns.
  """
  # In float32, the result would be wrong by 1e-4 for faint sound.
  samples = np.pad(np.asarray(samples, np.float64), (0, max(0, SEGMENT - len(samples))))
  return np.log(_power(samples) + FLOOR).astype(np.float32)


def _power(samples: np.ndarray) -> np.ndarray:
  """Returns the same bits as `scipy.signal.spectrogram`, without `scipy.signal`, which takes as long to load as JAX.

  Args:
    samples: (n,) float64, n at least 512.

  Returns:
    (257, columns) float64, the one-sided power density of windowed segments after their means are subtracted.
  """
  segments = np.lib.stride_tricks.sliding_window_view(samples, SEGMENT)[::HOP]
  window = _tukey_window()
  spectrum = np.fft.rfft(window * (segments - segments.mean(axis=1, keepdims=True)))
  power = np.conjugate(spectrum) * spectrum
  power *= 1 / (SAMPLE_RATE * (window * window).sum())
  power[:, 1:-1] *= 2  # this adds the negative frequencies, which the first and the last bin do not have
  return power.real.T


def _tukey_window() -> np.ndarray:
  """Returns SciPy's default window, (512,) float64, which rises and falls as a cosine over an eighth of its length."""
  width = SEGMENT // 8
  rise = 0.5 * (1 + np.cos(np.pi * (np.arange(width) / width - 1)))
  return np.concatenate([rise, np.ones(SEGMENT + 1 - 2 * width), rise[:0:-1]])  # the next period begins with rise[0]


def spectrogram_blocks(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
  """Yields the `log_spectrogram` of a stream in bounded memory: blocks (257, k) that join to that of all samples.

  Args:
    blocks: (n,) samples of any length; nothing is yielded if there are no samples at all.
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


class Statistics(NamedTuple):
  """The mean and standard deviation of the spectrogram of a whole sound, and its number of columns."""

  mean: float
  deviation: float
  num_columns: int


def statistics(columns: Iterable[np.ndarray]) -> Statistics:
  """Returns the statistics of a whole sound, summed in float64; (0, 0, 0) if there is no sound.

  Args:
    columns: Blocks (257, k) of its spectrogram.
  """
  count, mean, squares, num_columns = 0, 0.0, 0.0, 0
  for block in columns:
    if block.size == 0:
      continue
    block = block.astype(np.float64)
    delta, total = float(block.mean()) - mean, count + block.size
    # This adds squared deviations of two parts (Chan et al. 1979), without the cancellation of E[x²] - E[x]².
    squares += float(np.square(block - block.mean()).sum()) + delta**2 * count * block.size / total
    mean += delta * block.size / total
    count, num_columns = total, num_columns + block.shape[1]
  return Statistics(mean, float(np.sqrt(squares / count)) if count else 0.0, num_columns)


def window_columns(time: float | np.ndarray, num_columns: int | np.ndarray) -> np.ndarray:
  """Returns the columns of the second of sound around a time; past the ends of the sound they are reflected.

  Training, dense inference and the reading of files all find a frame's sound by this function.

  Args:
    time: (…) seconds from the beginning of the sound.
    num_columns: (…) columns of the whole sound, at least 1.

  Returns:
    (…, 98) int64 in [0, num_columns).
  """
  middle = np.rint((np.asarray(time) * SAMPLE_RATE - SEGMENT / 2) / HOP).astype(np.int64)
  columns = middle[..., None] + np.arange(-(WINDOW_COLUMNS // 2), WINDOW_COLUMNS // 2)
  return reflect(columns, np.asarray(num_columns)[..., None])


def duration(num_columns: int) -> float:
  """Returns how many seconds of a sound its columns, at least 1, cover."""
  return ((num_columns - 1) * HOP + SEGMENT) / SAMPLE_RATE


def normalise(columns: np.ndarray, mean: float, deviation: float) -> np.ndarray:
  """Returns (columns - mean) / (deviation + 1e-9), float32, for the mean and deviation of the whole sound."""
  normalised = columns - np.float32(mean)
  normalised /= np.float32(deviation + EPSILON)
  return normalised.astype(np.float32, copy=False)


def spectrogram_axes(num_columns: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the axes of a spectrogram, so that it can be drawn.

  Returns:
    The frequency of each bin in Hz, (257,) float64, and the time of each column's middle in seconds from the first
    sample, (num_columns,) float64.
  """
  return np.arange(NUM_BINS) * (SAMPLE_RATE / SEGMENT), (np.arange(num_columns) * HOP + SEGMENT // 2) / SAMPLE_RATE
