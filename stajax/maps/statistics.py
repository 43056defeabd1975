"""Summarises a map in four numbers, and compares two maps in one."""

from typing import Any

import numpy as np


def frame_statistics(saliency: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
  """Computes peak, centroid, spread and entropy of a map. A map that is zero everywhere counts as uniform.

  Args:
    saliency: The map (h, w), float, not negative, of any size.
    size: The (width, height) of the frame, in whose pixels positions are given; (0, 0) is the first pixel's centre.

  Returns:
    `peak`: [x, y] of the maximum (of the middle one if several are equal), whole pixels.
    `centroid`: [x, y] of the map's mass, pixels.
    `spread`: The root mean square distance of the mass from the centroid, as a fraction of the frame's diagonal.
    `entropy`: The entropy of the map divided by its sum, relative to a uniform map's: 0 for a point, 1 for uniform.
  """
  width, height = size
  mass = _distribution(saliency)
  num_rows, num_columns = saliency.shape
  x = (np.arange(num_columns) + 0.5) * width / num_columns - 0.5
  y = (np.arange(num_rows) + 0.5) * height / num_rows - 0.5
  rows, columns = np.nonzero(mass == mass.max())
  centroid_x, centroid_y = mass.sum(0) @ x, mass.sum(1) @ y
  variance = mass.sum(0) @ (x - centroid_x) ** 2 + mass.sum(1) @ (y - centroid_y) ** 2
  positive = mass[mass > 0]
  entropy = -(positive * np.log(positive)).sum() / np.log(mass.size) if mass.size > 1 else 0.0
  middle = len(rows) // 2
  peak = [min(max(round(at), 0), end - 1) for at, end in ((x[columns[middle]], width), (y[rows[middle]], height))]
  return {
    "peak": peak,
    "centroid": [round(float(centroid_x), 2), round(float(centroid_y), 2)],
    "spread": round(float(np.sqrt(max(variance, 0.0)) / np.hypot(width, height)), 5),
    "entropy": round(float(min(max(entropy, 0.0), 1.0)), 5),
  }


def moved_share(saliency: np.ndarray, other: np.ndarray) -> float:
  """Returns the share of one map's mass that lies elsewhere in another map: 0 for equal maps, 1 for disjoint ones.

  This is half the sum of the absolute differences of the maps, each divided by its sum. A map that is zero everywhere
  counts as uniform.

  Args:
    saliency: A map (h, w), float, not negative.
    other: Another map of the same size.
  """
  first, second = (_distribution(values) for values in (saliency, other))
  return float(np.abs(first - second).sum() / 2)


def _distribution(saliency: np.ndarray) -> np.ndarray:
  mass = np.asarray(saliency, np.float64)
  return mass / mass.sum() if mass.sum() > 0 else np.full(mass.shape, 1 / mass.size)
