"""Metrics: scores of one predicted map against the fixations or the density of one frame.

All are computed in float64 by the definitions of the MIT saliency benchmark's code, which the `stavis` protocol uses.
A score that is not defined is NaN: the protocol decides what to do with it. The arguments have the same meaning in all
functions:

  prediction: The predicted map, (h, w) float, at any scale.
  density: The density of the fixations, (h, w) float, at any scale.
  fixations: The fixated pixels, (h, w) bool.
  other: The pixels that are fixated at other times, (h, w) bool.

All raise ValueError, in one line, where the arrays have different sizes, a map is not finite, or what should be fixated
pixels has several values and so is a density or counts.
"""

import numpy as np

JITTER = 1e-7
EPSILON = 2.0**-52
_LARGEST = 1e100
"""The squares of larger numbers, and of smaller ones than its inverse, could exceed what float64 holds."""


def auc_judd(prediction: np.ndarray, fixations: np.ndarray, rng: np.random.Generator | None = None) -> float:
  """Computes AUC-J: the area under the ROC curve of fixated pixels against all others.

  The thresholds are the map's values at the fixated pixels.

  Args:
    prediction: See above.
    fixations: See above.
    rng: Adds U(0, 1) * 1e-7 to every pixel, which breaks ties at random; None adds nothing.

  Returns:
    NaN if no pixel or every pixel is fixated, or if the map (after the jitter) is constant.
  """
  values = _map(prediction).ravel()
  fixated = _mask(fixations, prediction).ravel()
  if rng is not None:
    values = values + rng.random(values.size) * JITTER
  values = _unit_range(values)
  num_pixels, num_fixated = values.size, int(np.count_nonzero(fixated))
  if num_fixated in (0, num_pixels) or np.isnan(values[0]):
    return np.nan
  thresholds = np.sort(values[fixated])[::-1]
  candidates = np.sort(values[values >= thresholds[-1]])  # only these can be above a threshold
  num_above = candidates.size - np.searchsorted(candidates, thresholds, side="left")
  rank = np.arange(1, num_fixated + 1)
  true_positives = np.concatenate([[0.0], rank / num_fixated, [1.0]])
  false_positives = np.concatenate([[0.0], (num_above - rank) / (num_pixels - num_fixated), [1.0]])
  return float(np.trapezoid(true_positives, false_positives))


def s_auc(
  prediction: np.ndarray,
  fixations: np.ndarray,
  other: np.ndarray,
  rng: np.random.Generator,
  splits: int = 100,
  step: float = 0.1,
) -> float:
  """Computes the shuffled AUC of fixated pixels against pixels fixated at other times, averaged over random draws.

  Each draw takes min(number of fixated, number of other) of the other pixels without replacement. On thresholds that
  are `step` apart, the area under the curve is a sum over the drawn pixels, and each term depends only on the pixel's
  bin. So one draw is a multivariate hypergeometric count of pixels per bin.

  Args:
    prediction: See above.
    fixations: See above.
    other: See above.
    rng: Makes the draws.
    splits: The number of draws.
    step: The distance between thresholds.

  Returns:
    NaN if there are no fixated or no other pixels, or if the map is constant.
  """
  parts = _s_auc_parts(prediction, fixations, other, step)
  if parts is None:
    return np.nan
  num_fixated, other_counts, area = parts
  num_drawn = min(num_fixated, int(other_counts.sum()))
  drawn = rng.multivariate_hypergeometric(other_counts, num_drawn, size=splits, method="marginals")
  return float((drawn * area).sum(axis=1).mean() / num_drawn)


def s_auc_expected(prediction: np.ndarray, fixations: np.ndarray, other: np.ndarray, step: float = 0.1) -> float:
  """Computes the exact expectation of `s_auc` over its draws; NaN in the same cases."""
  parts = _s_auc_parts(prediction, fixations, other, step)
  if parts is None:
    return np.nan
  _, other_counts, area = parts
  return float((other_counts * area).sum() / other_counts.sum())


def nss(prediction: np.ndarray, fixations: np.ndarray) -> float:
  """Computes the normalised scanpath saliency.

  It is the mean over fixated pixels of the map in standard deviations (by n - 1) from its mean.

  Returns:
    NaN without fixations or for a constant map.
  """
  values = _map(prediction)
  fixated = values[_mask(fixations, prediction)]
  if fixated.size == 0 or _is_constant(values):
    return np.nan
  return float((fixated.mean() - values.mean()) / values.std(ddof=1))


def cc(prediction: np.ndarray, density: np.ndarray) -> float:
  """Computes Pearson's correlation of two maps; NaN where one of them is constant."""
  first, second = _map(prediction), _map(density, prediction)
  if _is_constant(first) or _is_constant(second):
    return np.nan
  first, second = first - first.mean(), second - second.mean()
  # Not np.dot: its rounding depends on the number of threads.
  return float((first * second).sum() / np.sqrt((first * first).sum() * (second * second).sum()))


def sim(prediction: np.ndarray, density: np.ndarray) -> float:
  """Computes the similarity: the common part of two maps, each min-max scaled and then divided by its sum.

  Returns:
    0 for a density that is 0 everywhere (as in the benchmark's code); NaN where a map is constant otherwise.
  """
  prediction, density = _map(prediction), _map(density, prediction)
  if _is_constant(prediction):
    return np.nan
  if not np.any(density):
    return 0.0
  first, second = _unit_range(prediction), _unit_range(density)
  return float(np.minimum(first / first.sum(), second / second.sum()).sum())


def kl(prediction: np.ndarray, density: np.ndarray) -> float:
  """Computes the divergence KL(density ‖ prediction) of two non-negative maps, each divided by its sum.

  Returns:
    NaN where a map sums to 0.

  Raises:
    ValueError: A map has values below 0, beside what is said above.
  """
  first, second = _not_negative(_map(prediction)), _not_negative(_map(density, prediction))
  if first.sum() == 0 or second.sum() == 0:
    return np.nan
  first, second = first / first.sum(), second / second.sum()
  return float((second * np.log(EPSILON + second / (first + EPSILON))).sum())


def information_gain(prediction: np.ndarray, fixations: np.ndarray, baseline: np.ndarray | None = None) -> float:
  """Computes how much better the map predicts fixations than a baseline, in bits per fixation (Kümmerer et al., 2015).

  It is the mean over fixated pixels of log2(prediction) − log2(baseline), each divided by its sum, with 2^−52 added.

  Args:
    prediction: See above; not negative.
    fixations: See above.
    baseline: A density (h, w), such as the centre prior; None for a constant one.

  Returns:
    NaN without fixations, or where the map or the baseline sums to 0.

  Raises:
    ValueError: A map has values below 0, beside what is said above.
  """
  values, fixated = _not_negative(_map(prediction)), _mask(fixations, prediction)
  other = np.ones(values.shape) if baseline is None else _not_negative(_map(baseline, prediction))
  if not fixated.any() or values.sum() <= 0 or other.sum() <= 0:
    return np.nan
  first, second = (x[fixated] / x.sum() for x in (values, other))
  return float((np.log2(first + EPSILON) - np.log2(second + EPSILON)).mean())


def _s_auc_parts(
  prediction: np.ndarray, fixations: np.ndarray, other: np.ndarray, step: float
) -> tuple[int, np.ndarray, np.ndarray] | None:
  """Returns the number of fixated pixels and the two of `s_auc_bins`, or None where the score is not defined."""
  values = _map(prediction)
  fixations, other = _mask(fixations, prediction), _mask(other, prediction)
  if not fixations.any() or not other.any() or _is_constant(values):
    return None
  low, high = values.min(), values.max()
  fixated, elsewhere = ((values[mask] - low) / (high - low) for mask in (fixations, other))
  return fixated.size, *s_auc_bins(fixated, elsewhere, step)


def s_auc_bins(fixated: np.ndarray, other: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
  """Puts values in [0, 1] into the bins between thresholds that are `step` apart.

  Bin j holds the values that reach j thresholds 0, step, 2 step, … The trapezoids between two thresholds have the
  share of the other pixels in the bin as width and the mean share of fixated pixels above the two as height.

  Args:
    fixated: The values of the fixated pixels, (k,).
    other: Those of the other pixels, (m,).
    step: The distance between thresholds.

  Returns:
    The number of other pixels in each bin, and the area under the curve that one pixel of a bin adds.
  """
  thresholds = step * np.arange(int(np.floor(1 / step + 1e-9)) + 1)

  def bin_counts(values: np.ndarray) -> np.ndarray:
    return np.bincount(np.searchsorted(thresholds, values, side="right"), minlength=len(thresholds) + 1)

  reach = np.cumsum(bin_counts(fixated)[::-1])[::-1] / fixated.size  # share of fixated pixels in bin j or above
  return bin_counts(other), (reach + np.append(reach[1:], 0.0)) / 2


def _map(values: np.ndarray, beside: np.ndarray | None = None) -> np.ndarray:
  """Returns a map as float64; raises ValueError if it is not finite or has not the size of the map `beside` it."""
  values = np.asarray(values, np.float64)
  if beside is not None and values.shape != np.shape(beside):
    raise ValueError(f"found maps {np.shape(beside)} and {values.shape}, expected one size (H, W)")
  if not np.isfinite(values).all():
    raise ValueError(f"a map {values.shape} has values that are not finite")
  return moderate(values)


def moderate(values: np.ndarray) -> np.ndarray:
  """Returns a map times a power of 2 where its numbers are so large or small that squares would not be numbers.

  Scores do not depend on it, since maps count at any scale.
  """
  largest = float(np.abs(values).max(initial=0.0))
  if largest == 0 or 1 / _LARGEST < largest < _LARGEST:
    return values
  return np.ldexp(values, -int(np.frexp(largest)[1]))


def _not_negative(values: np.ndarray) -> np.ndarray:
  if values.size and values.min() < 0:
    raise ValueError(f"a map has values down to {values.min():.6g}, expected none below 0 (of log densities take exp)")
  return values


def _mask(fixations: np.ndarray, prediction: np.ndarray) -> np.ndarray:
  """Returns fixated pixels as bool; raises ValueError if they have not the map's size, or are a density."""
  fixations = np.asarray(fixations)
  if fixations.shape != np.shape(prediction):
    raise ValueError(f"found a map {np.shape(prediction)} and fixations {fixations.shape}, expected one size (H, W)")
  if fixations.dtype != bool:
    marked = fixations[fixations != 0]
    if (marked != marked[:1]).any():
      found = f"{fixations.dtype} from {fixations.min():.6g} to {fixations.max():.6g}"
      raise ValueError(
        f"found fixations {found}, expected a mask of fixated pixels, not a density (of counts take > 0)"
      )
  return fixations != 0


def _unit_range(values: np.ndarray) -> np.ndarray:
  """Scales values to [0, 1]; returns NaN for constant ones."""
  if _is_constant(values):
    return np.full_like(values, np.nan)
  low, high = values.min(), values.max()
  return (values - low) / (high - low)


def _is_constant(values: np.ndarray) -> bool:
  return values.size == 0 or values.min() == values.max()
