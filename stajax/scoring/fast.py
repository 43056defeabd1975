"""The metrics of `stajax.scoring.metrics` for many frames: equal numbers, in a few passes over each frame.

What makes them fast: minimum, mean and deviation are computed once a map; only fixated pixels are gathered; and the
pixels above a threshold are counted by a histogram of many levels, so that only the few pixels that share a level with
a threshold are compared exactly. The jitter of AUC-J is drawn only where it decides, with the same random numbers as if
it were drawn everywhere. Nothing depends on the number of threads.

The argument `frame` is a map beside the ground truth of its frame; `stajax.scoring.frame` has the shapes. A score that
is not defined is NaN.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from stajax.scoring.frame import FrameMap, Scored, row_blocks
from stajax.scoring.metrics import EPSILON, JITTER, s_auc_bins

_FEW = 4096
"""Up to so many random numbers are drawn one by one."""
_NUM_LEVELS = 2**13
"""The levels of the histogram: its counts stay in the fastest cache."""
_SORTED = 2**15
"""Up to so many values are sorted, more are counted by levels."""


def auc_judd(
  frame: Scored, rng: np.random.Generator | None = None, negatives: Literal["pixels", "avimos"] = "pixels"
) -> float:
  """Computes `metrics.auc_judd`. `rng` may be anywhere in its stream; it advances by one number for each pixel.

  With `negatives="avimos"` the number of pixels that are not fixated is counted as the scorer of AViMoS does it: the
  pixels less 2, or less 1 if every fixation has the same row and column.
  """
  prediction, truth = frame.prediction, frame.truth
  num_pixels, num_fixated = prediction.values.size, truth.fixations.size
  num_negatives = num_pixels - num_fixated
  if negatives == "avimos":
    rows, columns = np.divmod(truth.fixations, prediction.values.shape[1])
    num_negatives = num_pixels - (1 if np.array_equal(rows, columns) else 2)
  if num_fixated == 0 or num_negatives <= 0:
    _skip(rng, num_pixels)
    return np.nan
  if rng is None:
    if prediction.is_constant and negatives == "pixels":
      return np.nan
    thresholds = np.sort(prediction.values.ravel()[truth.fixations])[::-1]
    num_above = count_at_least(prediction, thresholds)
  else:
    thresholds, num_above = _jittered_counts(prediction, truth.fixations, rng)
  rank = np.arange(1, num_fixated + 1)
  true_positives = np.concatenate([[0.0], rank / num_fixated, [1.0]])
  false_positives = np.concatenate([[0.0], (num_above - rank) / num_negatives, [1.0]])
  return float(np.trapezoid(true_positives, false_positives))


def auc(frame: Scored, negatives: Literal["uniform", "unfixated", "other"]) -> float:
  """Computes the area under the whole ROC curve: how often a fixated value exceeds another one, ties counting half.

  The others are all pixels, those that are not fixated, or `FrameTruth.other` (each as often as it is in it).
  """
  prediction, truth = frame.prediction, frame.truth
  values = prediction.values.ravel()
  fixated = values[truth.fixations]
  if negatives == "other":
    ordered = np.sort(values[truth.other])
    number = ordered.size
    below, up_to = (np.searchsorted(ordered, fixated, side=side) for side in ("left", "right"))
  else:
    number = values.size
    both = np.concatenate([fixated, np.nextafter(fixated, np.inf)])
    below, up_to = np.split(number - count_at_least(prediction, both), 2)
    if negatives == "unfixated":
      ordered = np.sort(values[np.unique(truth.fixations)])
      number -= ordered.size
      below = below - np.searchsorted(ordered, fixated, side="left")
      up_to = up_to - np.searchsorted(ordered, fixated, side="right")
  return float((below + up_to).mean() / (2 * number)) if fixated.size and number else np.nan


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


def nss(frame: Scored, ddof: int = 1, constant: float = np.nan, epsilon: float = 0.0) -> float:
  """Computes `metrics.nss`, with `constant` for constant maps and `epsilon` added to the deviation."""
  prediction, fixations = frame.prediction, frame.truth.fixations
  if not fixations.size:
    return np.nan
  if not prediction.squares:  # constant, or as good as constant
    return 0.0 if epsilon else constant
  deviation = np.sqrt(prediction.squares / (prediction.values.size - ddof))
  return float((prediction.values.ravel()[fixations].mean() - prediction.mean) / (deviation + epsilon))


def cc(frame: Scored, constant: float = np.nan, epsilon: float = 0.0) -> float:
  """Computes `metrics.cc`, with `constant` for constant maps, and `epsilon` added to deviations and under the root."""
  prediction, density = frame.prediction, frame.truth.of_density
  if not (prediction.squares and density.squares):
    return 0.0 if epsilon else constant if density.squares else np.nan
  number, squares = prediction.values.size, (prediction.squares, density.squares)
  scale = np.prod([np.sqrt(x / number) + epsilon for x in squares])
  return float(frame.products / scale / np.sqrt(np.prod(squares) / scale**2 + epsilon))


def sim(frame: Scored, shift: Literal["minimum", "negative", "none"] = "minimum", epsilon: float = 0.0) -> float:
  """Computes `metrics.sim`.

  Args:
    frame: See above.
    shift: Whether the minimum is subtracted first: always, where it is negative, or never. If not always, a map or a
      density that sums to 0 counts as a constant one.
    epsilon: Added to both sums.
  """
  pair = [frame.prediction, frame.truth.of_density]
  if shift == "minimum" and pair[0].is_constant:
    return np.nan
  if shift == "minimum" and pair[1].is_constant:
    return np.nan if pair[1].low else 0.0
  lows = [{"minimum": x.low, "negative": min(x.low, 0.0), "none": 0.0}[shift] for x in pair]
  masses = [_mass_above(x, low) for x, low in zip(pair, lows)]
  if not epsilon:
    pair, lows, masses = _without_empty(pair, lows, masses)
  # The density at the scale of the map.
  scale, common = (masses[0] + epsilon) / (masses[1] + epsilon), 0.0
  for rows, block in row_blocks(pair[0].values):
    share = pair[1].values[rows].astype(np.float64)
    share *= scale
    if lows[1]:
      share -= lows[1] * scale
    common += float(np.minimum(block - lows[0], share, out=share).sum())
  return common / (masses[0] + epsilon)


def _without_empty(
  pair: list[FrameMap], lows: list[float], masses: list[float]
) -> tuple[list[FrameMap], list[float], list[float]]:
  """Returns the same with a constant map in place of one whose values above its low sum to 0."""
  pair = [x if mass else FrameMap(np.ones(x.values.shape)) for x, mass in zip(pair, masses)]
  lows = [low if mass else 0.0 for low, mass in zip(lows, masses)]
  return pair, lows, [mass or float(x.values.size) for mass, x in zip(masses, pair)]


def kl(frame: Scored, negative: Literal["cut", "shift"] = "cut", epsilon: float = EPSILON) -> float:
  """Computes `metrics.kl`.

  Args:
    frame: See above.
    negative: What becomes of values of the map below 0: they count as 0, or the minimum is subtracted from all values
      where it is negative. In the second case a map or a density that sums to 0 counts as a constant one.
    epsilon: Added to the map's shares and to the ratio.
  """
  pair = [frame.prediction, frame.truth.of_density]
  lows, masses = [0.0, 0.0], [_mass(x) for x in pair]
  if negative == "shift":
    lows = [min(x.low, 0.0) for x in pair]
    pair, lows, masses = _without_empty(pair, lows, [_mass_above(x, low) for x, low in zip(pair, lows)])
  if not all(masses):
    return np.nan
  total = 0.0
  for rows, block in row_blocks(pair[0].values):
    density = pair[1].values[rows]
    looked = density > lows[1]  # the other pixels add nothing
    share, found = (density[looked] - lows[1]) / masses[1], np.maximum(block[looked] - lows[0], 0) / masses[0]
    total += float((share * np.log(epsilon + share / (found + epsilon))).sum())
  return total


def information_gain(frame: Scored) -> float:
  """Computes `metrics.information_gain` above a constant map; values of the map below 0 count as 0."""
  prediction, mass = frame.prediction, _mass(frame.prediction)
  if not frame.truth.fixations.size or not mass:
    return np.nan
  fixated = np.maximum(prediction.values.ravel()[frame.truth.fixations], 0) / mass
  return float(np.log2(fixated + EPSILON).mean() - np.log2(1 / prediction.values.size + EPSILON))


def _mass_above(values: FrameMap, low: float) -> float:
  """Returns the sum of how far all values are above `low`, exactly 0 where none is."""
  return 0.0 if values.high == low else (values.mean - low) * values.values.size


def _mass(values: FrameMap) -> float:
  """Returns the sum of all values above 0."""
  if values.low >= 0:
    return values.mean * values.values.size
  return sum(float(np.maximum(block, 0).sum()) for _, block in row_blocks(values.values))


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
  scale = (_NUM_LEVELS - 1) / (prediction.high - prediction.low)

  def levels_of(values: np.ndarray) -> np.ndarray:  # rising: a larger value never has a lower level
    scaled = values - prediction.low
    scaled *= scale
    # A number from 0 to 8191 that is added to 2^52 is rounded, and stands in the lowest bits: half the time of a cast.
    scaled += 2.0**52
    levels = scaled.view(np.int64)
    levels &= _NUM_LEVELS - 1
    return levels

  first, last = (levels_of(np.clip(x, prediction.low, prediction.high)) for x in (thresholds - reach, thresholds))
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
  # Each of the few is put between the thresholds, which takes less than sorting them.
  order = np.argsort(thresholds)
  reached = np.searchsorted(thresholds[order], exact(np.concatenate(positions)), side="right")
  num_near = np.empty(thresholds.size, np.intp)
  num_near[order] = np.cumsum(np.bincount(reached, minlength=thresholds.size + 1)[:0:-1])[::-1]
  return above[last] + num_near


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

  rising = np.append(thresholds[::-1], np.inf)

  def exact(near: np.ndarray) -> np.ndarray:
    found = values[near]
    # Only values up to the jitter below a threshold are undecided.
    undecided = np.flatnonzero(rising[np.searchsorted(rising, found, side="right")] - found <= 2 * JITTER)
    rng.bit_generator.state = start
    found[undecided] += _uniform_at(rng, near[undecided], values.size) * JITTER
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
