"""The range of maps: Z of the paper's equations, and the thresholds of its Table 3."""

from typing import Any, TypeVar

import numpy as np

Array = TypeVar("Array", bound=Any)
"""A NumPy or a JAX array: functions of this type work on both, and return the kind that they are given."""


def minmax(maps: Array) -> Array:
  """Scales each map to [0, 1]: Z of the paper's equations. A constant map becomes 0.

  Args:
    maps: The maps (n, h, w, ...), each of which is scaled over h and w.

  Returns:
    The scaled maps, float32.
  """
  low = maps.min(axis=(1, 2), keepdims=True)
  span = maps.max(axis=(1, 2), keepdims=True) - low
  scaled = (maps - low).astype(np.float32, copy=False)
  scaled /= span + (span == 0)
  return scaled


def threshold_maps(maps: np.ndarray, level: float) -> np.ndarray:
  """Scales maps (n, h, w) to [0, 1] and sets values below `level` to 0, as Table 3 does; returns float32."""
  scaled = minmax(maps)
  scaled[scaled < level] = 0
  return scaled
