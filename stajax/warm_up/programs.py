"""What a model has to compute once, so that all its programs are in the cache of compiled ones."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from stajax.inference.clip import WINDOW, Sample
from stajax.inference.reservoir import SIZE, Fragments
from stajax.media.spectrogram import NUM_BINS, WINDOW_COLUMNS

if TYPE_CHECKING:
  from stajax.inference.predictor import Predictor


def lengths(batch: int) -> list[int]:
  """Returns numbers of maps of videos that between them need every program; buffers grow by powers of two of a batch.

  Args:
    batch: The number of frames that are computed together.
  """
  found = [1]
  while found[-1] < WINDOW:
    found.append(min(2 * max(found[-1], batch // 2), WINDOW))
  # A video of several windows has programs of its own.
  return [*found, 2 * WINDOW + 1]


def compute(predictor: "Predictor") -> Iterator[tuple[int, bool]]:
  """Computes maps of grey frames, with sound and without, of videos of all `lengths`.

  Yields:
    The number of maps that come next, and whether they have sound.
  """
  frame = np.full((predictor.side, predictor.side, 3), 127, np.uint8)
  for has_sound in (True, False):
    sample = frame, np.zeros((NUM_BINS, WINDOW_COLUMNS), np.float32) if has_sound else None
    for length in lengths(predictor.batch):
      yield length, has_sound
      for _ in predictor.maps(_repeat(sample, length), 1, _fragments_of(sample, length)):
        pass


def _repeat(sample: Sample, length: int) -> Iterator[Sample]:
  return (sample for _ in range(length))


def _fragments_of(sample: Sample, length: int) -> Callable[[], Fragments]:
  """Returns a function that gives the fragments that long companions of such a video are drawn from."""
  at = np.unique(np.linspace(0, length - 1, SIZE).astype(np.int64))
  return lambda: Fragments([[sample] * 3 for _ in at], at)
