"""The metrics of `stajax.scoring.metrics` for many frames: equal numbers, in a few passes over each frame.

What makes them fast: minimum, mean and deviation are computed once a map; only fixated pixels are gathered; and the
pixels above a threshold are counted by a histogram of many levels, so that only the few pixels that share a level with
a threshold are compared exactly. The jitter of AUC-J is drawn only where it decides, with the same random numbers as if
it were drawn everywhere. Nothing depends on the number of threads.

The argument `frame` is a map beside the ground truth of its frame; `stajax.scoring.frame` has the shapes. A score that
is not defined is NaN.
"""

from collections.abc import Callable

import numpy as np

from stajax.scoring.frame import FrameMap, Scored, row_blocks
from stajax.scoring.metrics import JITTER, s_auc_bins

_FEW = 4096
"""Up to so many random numbers are drawn one by one."""
_NUM_LEVELS = 2**13
"""The levels of the histogram: its counts stay in the fastest cache."""
_SORTED = 2**15
"""Up to so many values are sorted, more are counted by levels."""


def auc_judd(frame: Scored, rng: np.random.Generator | None = None) -> float:
  """Computes `metrics.auc_judd`. `rng` must be at its start or anywhere; it advances by one number for each pixel."""
  prediction, truth = frame.prediction, frame.truth
  num_pixels, num_fixated = prediction.values.size, truth.fixations.size
  if num_fixated in (0, num_pixels):
    _skip(rng, num_pixels)
    return np.nan
  if rng is None:
    if prediction.is_constant:
      return np.nan
    thresholds = np.sort(prediction.values.ravel()[truth.fixations])[::-1]
    num_above = count_at_least(prediction, thresholds)
  else:
    thresholds, num_above = _jittered_counts(prediction, truth.fixations, rng)
  rank = np.arange(1, num_fixated + 1)
  true_positives = np.concatenate([[0.0], rank / num_fixated, [1.0]])
  false_positives = np.concatenate([[0.0], (num_above - rank) / (num_pixels - num_fixated), [1.0]])
  return float(np.trapezoid(true_positives, false_positives))


def s_auc(frame: Scored, rng: np.random.Generator | None, splits: int = 100, step: float = 0.1) -> float:
  """Computes `metrics.s_auc`; without `rng` its exact expectation, as `metrics.s_auc_expected`."""
  prediction, truth = frame.prediction, frame.truth
  if not truth.fixations.size or not truth.other.size or prediction.is_constant:
    return np.nan
  values, span = prediction.values.ravel(), prediction.high - prediction.low
  fixated, other = ((values[at] - prediction.low) / span for at in (truth.fixations, truth.other))
  other_counts, area = s_auc_bins(fixated, other, step)
  if rng is None:
    return float((other_counts * area).sum() / other_counts.sum())
  num_drawn = min(fixated.size, other.size)
  drawn = rng.multivariate_hypergeometric(other_counts, num_drawn, size=splits, method="marginals")
  return float((drawn * area).sum(axis=1).mean() / num_drawn)


def nss(frame: Scored, ddof: int = 1) -> float:
  """Computes `metrics.nss`."""
  prediction, fixations = frame.prediction, frame.truth.fixations
  if not fixations.size or prediction.is_constant:
    return np.nan
  deviation = np.sqrt(frame.moments[0] / (prediction.values.size - ddof))
  return float((prediction.values.ravel()[fixations].mean() - prediction.mean) / deviation)


def cc(frame: Scored) -> float:
  """Computes `metrics.cc`."""
  if frame.prediction.is_constant or frame.truth.of_density.is_constant:
    return np.nan
  squares, density_squares, products = frame.moments
  return float(products / np.sqrt(squares * density_squares))


def sim(frame: Scored) -> float:
  """Computes `metrics.sim`."""
  prediction, density = frame.prediction, frame.truth.of_density
  if prediction.is_constant:
    return np.nan
  if density.low == density.high == 0:
    return 0.0
  if density.is_constant:
    return np.nan
  # Both less their minimum, at the scale of the map.
  mass, density_mass = ((each.mean - each.low) * each.values.size for each in (prediction, density))
  scale, common = mass / density_mass, 0.0
  for rows, block in row_blocks(prediction.values):
    share = np.multiply(density.values[rows], scale, dtype=np.float64)
    if density.low:
      share -= density.low * scale
    common += float(np.minimum(block - prediction.low, share, out=share).sum())
  return common / mass


def count_at_least(prediction: FrameMap, thresholds: np.ndarray) -> np.ndarray:
  """Returns how many pixels of a map reach each of the thresholds (k,): (k,) int64."""
  if prediction.values.size <= _SORTED or prediction.is_constant:
    ordered = np.sort(prediction.values, axis=None)
    return ordered.size - np.searchsorted(ordered, thresholds, side="left")
  return _count(prediction, thresholds, 0.0, lambda near: prediction.values.ravel()[near])


def _count(
  prediction: FrameMap, thresholds: np.ndarray, reach: float, exact: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
  """Counts the pixels that reach each threshold, by a histogram and by comparing those near a threshold exactly.

  Args:
    prediction: The map, not constant.
    thresholds: The thresholds, (k,).
    reach: Values may be larger by up to this than the map says.
    exact: Returns the values at the positions that it is given, (m,) float64. It is called once.
  """
  offset, scale = prediction.low, (_NUM_LEVELS - 0.5) / (prediction.high - prediction.low)

  def levels_of(values: np.ndarray) -> np.ndarray:  # rising: a larger value never has a lower level
    scaled = values - offset
    scaled *= scale
    return scaled.astype(np.intp)

  first, last = (np.clip(levels_of(x), 0, _NUM_LEVELS - 1) for x in (thresholds - reach, thresholds))
  bounds = np.zeros(_NUM_LEVELS + 1, np.intp)
  np.add.at(bounds, first, 1)
  np.add.at(bounds, last + 1, -1)
  near = np.cumsum(bounds[:-1]) > 0
  counts, positions, width = np.zeros(_NUM_LEVELS, np.intp), [], prediction.values.shape[1]
  for rows, block in row_blocks(prediction.values):
    levels = levels_of(block).ravel()
    counts += np.bincount(levels, minlength=_NUM_LEVELS)
    positions.append(np.flatnonzero(near.take(levels, mode="clip")) + rows.start * width)
  counts[near] = 0  # these are compared
  above = counts.sum() - np.cumsum(counts)
  ordered = np.sort(exact(np.concatenate(positions)))
  return above[last] + ordered.size - np.searchsorted(ordered, thresholds, side="left")


def _jittered_counts(
  prediction: FrameMap, fixations: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the fixated values with jitter, falling, and how many pixels with jitter reach each of them."""
  values, start = prediction.values.ravel(), rng.bit_generator.state
  thresholds = values[fixations] + _uniform_at(rng, fixations, values.size) * JITTER
  thresholds = np.sort(thresholds)[::-1]
  if prediction.is_constant:
    rng.bit_generator.state = start
    jittered = FrameMap((values + rng.random(values.size) * JITTER)[None])
    return thresholds, count_at_least(jittered, thresholds)

  def exact(near: np.ndarray) -> np.ndarray:
    order = np.argsort(values[near])
    found = values[near[order]]
    # Only values up to the jitter below a threshold are undecided.
    edges = (np.searchsorted(found, x) for x in (thresholds - 2 * JITTER, thresholds))
    undecided = np.unique(np.concatenate([np.arange(a, b) for a, b in zip(*edges)]))
    rng.bit_generator.state = start
    found[undecided] += _uniform_at(rng, near[order[undecided]], values.size) * JITTER
    return found

  return thresholds, _count(prediction, thresholds, 2 * JITTER, exact)


def _uniform_at(rng: np.random.Generator, positions: np.ndarray, number: int) -> np.ndarray:
  """Returns `rng.random(number)[positions]`; few of them are drawn by jumping to their places.

  Raises:
    TypeError: The generator is not PCG64, the kind of `numpy.random.default_rng`, whose every number is one step.
  """
  bits = rng.bit_generator
  if not isinstance(bits, np.random.PCG64):
    raise TypeError(f"found a generator {type(bits).__name__}, expected numpy.random.default_rng(seed)")
  if positions.size > _FEW:
    return rng.random(number)[positions]
  order = np.argsort(positions, kind="stable")
  drawn, at, value = np.empty(positions.size), 0, 0.0
  for i in order.tolist():
    position = int(positions[i])
    if position >= at:  # else: the same position once more
      bits.advance(position - at)
      value, at = rng.random(), position + 1
    drawn[i] = value
  bits.advance(number - at)
  return drawn


def _skip(rng: np.random.Generator | None, number: int) -> None:
  if rng is not None:
    rng.bit_generator.advance(number)  # type: ignore[attr-defined]
