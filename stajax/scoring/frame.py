"""A map and the ground truth of one frame, with what several metrics need of them computed once.

`stajax.scoring.metrics` has the metrics as their definitions read. `stajax.scoring.fast` computes the same numbers from
the two classes here, in a few passes over the frame and without sorting its pixels.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_BLOCK = 2**16
"""The pixels of a block of rows: half a megabyte, which stays in a core's cache while several steps pass over it."""
_ROW = 2**13
"""The longest row whose products BLAS sums up."""


@dataclass(frozen=True)
class FrameMap:
  """A map that has the size of the ground truth.

  Attributes:
    values: The map (H, W), float64 or uint8. It must not change as long as this object is used, because what is
      computed from it is kept.
  """

  values: np.ndarray

  @functools.cached_property
  def summary(self) -> tuple[float, float, float]:
    """The smallest value, the largest one and the mean."""
    parts = [(block.min(), block.max(), block.sum(dtype=np.float64)) for _, block in row_blocks(self.values)]
    low, high, total = zip(*parts)
    return float(min(low)), float(max(high)), float(sum(total)) / self.values.size

  @functools.cached_property
  def squares(self) -> float:
    """The sum over the pixels of the squared distance from the mean; 0 for a constant map."""
    if self.is_constant:
      return 0.0
    total = 0.0
    for _, block in row_blocks(self.values):
      centred = block - self.mean
      total += dot(centred, centred)
    return total

  @property
  def low(self) -> float:
    """The smallest value."""
    return self.summary[0]

  @property
  def high(self) -> float:
    """The largest value."""
    return self.summary[1]

  @property
  def is_constant(self) -> bool:
    """Whether all values are equal."""
    return self.low == self.high

  @property
  def mean(self) -> float:
    """The mean value."""
    return self.summary[2]


@dataclass(frozen=True)
class FrameTruth:
  """What viewers looked at in one frame.

  Attributes:
    fixations: Where they looked, as positions in the flattened frame, (k,) int; a position may be repeated.
    density: The density of the fixations, (H, W), uint8 or float.
    other: The positions that are fixated at other times only, (m,) int.
  """

  fixations: np.ndarray
  density: np.ndarray
  other: np.ndarray

  @functools.cached_property
  def of_density(self) -> FrameMap:
    """The density as a map."""
    return FrameMap(self.density)


@dataclass(frozen=True)
class Scored:
  """A map beside the ground truth of its frame.

  Attributes:
    prediction: The map.
    truth: The ground truth.
  """

  prediction: FrameMap
  truth: FrameTruth

  @functools.cached_property
  def products(self) -> float:
    """The sum over the pixels of the product of how far the map and the density are from their means."""
    total = 0.0
    for rows, block in row_blocks(self.prediction.values):
      # The map's distances sum to 0, so the density's mean makes no difference.
      total += dot(block - self.prediction.mean, self.truth.density[rows].astype(np.float64))
    return total


def row_blocks(values: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
  """Yields (the rows, their values (r, W)), a few rows at a time."""
  rows = max(1, _BLOCK // values.shape[1])
  for start in range(0, values.shape[0], rows):
    part = slice(start, start + rows)
    yield part, values[part]


def dot(first: np.ndarray, second: np.ndarray) -> float:
  """Returns the sum of the products of two arrays (r, W)."""
  # Row by row, because BLAS uses several threads from 10,000 numbers on, and would round by their number.
  if first.shape[1] <= _ROW:
    return float(np.vecdot(first, second).sum())
  return float(np.einsum("ij,ij->", first, second))


def without(union: np.ndarray, positions: np.ndarray) -> np.ndarray:
  """Returns the positions (n,) of `union`, ascending and distinct, that are not among `positions` (k,)."""
  if not union.size:
    return union
  at = np.minimum(np.searchsorted(union, positions), union.size - 1)
  keep = np.ones(union.size, bool)
  keep[at[union[at] == positions]] = False
  return union[keep]
