"""The students' maps become one (paper Eq. 17), a blur, and the factor for people's tendency to look at the middle."""

import numpy as np

from stajax.maps.scale import minmax

CENTRE_SIGMA = 0.2
"""Of the centre factor, as a part of the frame's width and height."""


def final_map(sta: np.ndarray, short: np.ndarray, long: np.ndarray, factor: np.ndarray | None = None) -> np.ndarray:
  """Eq. 17: half what STA, STA+ short and STA+ long agree on, half what any of them sees.

  Args:
    sta, short, long: (n, H, W), of any float dtype; all on one scale, as the sigmoids that the students predict are.
      NumPy or JAX arrays: it works on both alike.
    factor: (H, W), such as `centre_factor`, of both terms before they are scaled. Behind Z it would come too late: Z
      takes from each map its least value, which is how little a student is sure of.

  Returns:
    (n, H, W) float32 in [0, 1]. Z of a constant map is 0: where one student is constant only the sum counts.
  """
  sta, short, long = (maps.astype(np.float32, copy=False) for maps in (sta, short, long))
  common = minmax(sta)
  common *= minmax(short)
  common *= minmax(long)
  total = sta + short + long
  if factor is not None:
    common, total = common * factor, total * factor
  return (minmax(common) + minmax(total)) / 2


def blurred(maps: np.ndarray, sigma: float) -> np.ndarray:
  """Maps (n, H, W), NumPy or JAX, smoothed by a Gaussian; a weighted mean of what is inside the frame.

  Args:
    sigma: its standard deviation, as a part of the frame's width and height.
  """
  rows, columns = (_gaussian_weights(n, sigma * n) for n in maps.shape[1:])
  return rows @ maps @ columns.T


def _gaussian_weights(length: int, sigma: float) -> np.ndarray:
  """(length, length) float32; each row adds up to 1."""
  apart = np.arange(length)[:, None] - np.arange(length)
  weights = np.exp(-0.5 * (apart / sigma) ** 2)
  return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def centre_factor(size: tuple[int, int]) -> np.ndarray:
  """A Gaussian at the centre of a frame, (H, W) float32 with values in (0, 1]."""
  axes = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (CENTRE_SIGMA * n)) ** 2) for n in size]
  values = axes[0][:, None] * axes[1]
  return (values / values.max()).astype(np.float32)
