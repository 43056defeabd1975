"""Fuses the students' maps into one (paper Eq. 17), blurs maps, and makes the centre factor.

The centre factor stands for people's tendency to look at the middle of a frame.
"""

from typing import Any

import numpy as np

from stajax.maps.scale import Array, minmax

CENTRE_SIGMA = 0.2
"""The standard deviation of the centre factor, as a part of the frame's width and height."""
NO_CENTRE = "_no_centre"
"""The suffix of a method's name for its maps without the centre factor."""


def final_map(sta: Array, short: Array, long: Array, factor: np.ndarray | None = None) -> Array:
  """Computes Eq. 17: half is what STA, STA+ short and STA+ long agree on, half is what any of them sees.

  Args:
    sta: The maps of STA, (n, H, W), of any float dtype. All three are on one scale, like the sigmoids that the students
      predict. They are NumPy or JAX arrays.
    short: The maps of STA+ short, alike.
    long: The maps of STA+ long, alike.
    factor: What multiplies both terms before they are scaled, (H, W), such as `centre_factor`. After Z it would come
      too late: Z subtracts the minimum of each map, and with it what a student says of every place alike.

  Returns:
    The fused maps (n, H, W), float32 in [0, 1]. Z of a constant map is 0: where one student is constant only the sum
    counts.
  """
  sta, short, long = (maps.astype(np.float32, copy=False) for maps in (sta, short, long))
  common = minmax(sta)
  common *= minmax(short)
  common *= minmax(long)
  total = sta + short + long
  if factor is not None:
    common, total = common * factor, total * factor
  return (minmax(common) + minmax(total)) / 2


def blur_maps(maps: Array, sigma: float) -> Array:
  """Smooths maps by a Gaussian. Near a border the mean is over what is inside the frame.

  Args:
    maps: The maps (n, H, W), a NumPy or a JAX array.
    sigma: The standard deviation of the Gaussian, as a part of the frame's width and height.
  """
  rows, columns = (_gaussian_weights(n, sigma * n) for n in maps.shape[1:])
  return rows @ maps @ columns.T


def _gaussian_weights(length: int, sigma: float) -> Any:
  """Returns a float32 matrix (length, length) of NumPy whose rows add up to 1."""
  distance = np.arange(length)[:, None] - np.arange(length)
  weights = np.exp(-0.5 * (distance / sigma) ** 2)
  return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def centre_factor(size: tuple[int, int]) -> np.ndarray:
  """Returns a Gaussian at the centre of a frame of `size` (H, W), float32 with values in (0, 1]."""
  axes = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (CENTRE_SIGMA * n)) ** 2) for n in size]
  values = axes[0][:, None] * axes[1]
  return (values / values.max()).astype(np.float32)
