"""How far a map can be trusted over a spot at the centre, as far as the map itself tells.

A model that finds nothing predicts little more than the tendency to look at the middle. So what a map may gain over
the centre prior grows with how much it differs from it. How much it gains for a given difference was measured on clips
that the model has not learned from, by the maps that it was to learn there. NumPy, on the host.
Axes: n maps, h w space, k knots.
"""

import functools
from dataclasses import dataclass

import numpy as np

from stajax.maps.final import centre_factor

KNOTS = 8


@dataclass(frozen=True)
class Confidence:
  """A curve of the gain that can be expected of a map, from how much the map departs from the centre prior.

  Attributes:
    departures: (k,) increasing, see `departure`.
    gains: (k,) not decreasing: the correlation of maps that depart as much with what should have been predicted, less
      the correlation of the centre prior with that. 0 means that the spot at the centre would have done as well.
  """

  departures: tuple[float, ...]
  gains: tuple[float, ...]

  def __post_init__(self) -> None:
    is_curve = len(self.departures) == len(self.gains) > 0
    curve = np.array([self.departures, self.gains] if is_curve else [], np.float64)
    if not is_curve or not np.isfinite(curve).all():
      raise ValueError("the curve of confidence needs as many finite departures as gains")
    if (np.diff(curve[0]) <= 0).any() or (np.diff(curve[1]) < 0).any():
      raise ValueError("the departures of the curve of confidence have to increase, and the gains must not decrease")

  def of(self, maps: np.ndarray) -> np.ndarray:
    """Returns the gain that can be expected of each of the maps (n, h, w): (n,) float64."""
    return np.interp(departure(maps), self.departures, self.gains)


def departure(maps: np.ndarray) -> np.ndarray:
  """Returns how much maps differ from the centre prior: 1 less their correlation; 0 for a constant map.

  Args:
    maps: (n, h, w), float.

  Returns:
    (n,) float64 in [0, 2].
  """
  centre = _centre(maps.shape[1:])
  return np.where(maps.max(axis=(1, 2)) > maps.min(axis=(1, 2)), 1 - correlation(maps, centre), 0.0)


@functools.cache
def _centre(size: tuple[int, int]) -> np.ndarray:
  return centre_factor(size)


def correlation(maps: np.ndarray, targets: np.ndarray) -> np.ndarray:
  """Returns Pearson's correlation (n,) of maps (n, h, w) with targets (n, h, w) or (h, w); 0 where one is constant."""
  x, y = (values - values.mean(axis=(-2, -1), keepdims=True, dtype=np.float64) for values in (maps, targets))
  products = np.sqrt((x * x).sum(axis=(-2, -1)) * (y * y).sum(axis=(-2, -1)))
  return (x * y).sum(axis=(-2, -1)) / np.where(products > 0, products, np.inf)


def fit(maps: np.ndarray, targets: np.ndarray) -> Confidence:
  """Fits the curve to the maps of clips that were left out: isotonic regression, read off at the middles of k parts.

  Args:
    maps: The model's final maps (n, h, w).
    targets: What it should have predicted (n, h, w).

  Raises:
    ValueError: There are fewer maps than knots.
  """
  from scipy.optimize import isotonic_regression  # late: prediction does without SciPy

  if len(maps) < KNOTS:
    raise ValueError(f"{len(maps)} maps of clips that were left out, expected at least {KNOTS}")
  departures = departure(maps)
  gains = correlation(maps, targets) - correlation(targets, _centre(maps.shape[1:]))
  order = np.argsort(departures, kind="stable")
  fitted = isotonic_regression(gains[order]).x
  parts = np.array_split(np.arange(len(maps)), KNOTS)
  curve = {float(departures[order][part].mean()): float(fitted[part].mean()) for part in parts}
  return Confidence(tuple(curve), tuple(curve.values()))
