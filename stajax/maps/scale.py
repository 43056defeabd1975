"""The range of maps: Z of the paper's equations, and the thresholds of its Table 3."""

import numpy as np


def minmax(maps: np.ndarray) -> np.ndarray:
  """Z: scales each map (n, h, w, ...) over h, w to [0, 1], float32; a constant map becomes 0. NumPy or JAX arrays."""
  low = maps.min(axis=(1, 2), keepdims=True)
  span = maps.max(axis=(1, 2), keepdims=True) - low
  scaled = (maps - low).astype(np.float32, copy=False)
  scaled /= span + (span == 0)
  return scaled


def threshold_maps(maps: np.ndarray, level: float) -> np.ndarray:
  """Table 3: maps (n, h, w) scaled to [0, 1], float32, with values below `level` set to 0."""
  scaled = minmax(maps)
  scaled[scaled < level] = 0
  return scaled
