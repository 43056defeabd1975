"""Baseline maps that ignore the frame. They are scored beside every method on the same frames."""

from collections.abc import Callable

import numpy as np

CENTRE_SIGMA = 0.2
"""The standard deviation of the centre baseline's Gaussian, as a part of the frame's width and height."""


def centre_map(size: tuple[int, int]) -> np.ndarray:
  """Returns a Gaussian at the centre of a frame of `size` (H, W), uint8 with a maximum of 255.

  It equals `stajax.maps.final.centre_factor` today, but has its own definition, because the reference for all scores
  must not change when a model does.
  """
  axes = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (CENTRE_SIGMA * n)) ** 2) for n in size]
  values = np.outer(*axes)
  return np.round((values / values.max()).astype(np.float32).astype(np.float64) * 255).astype(np.uint8)


def uniform_map(size: tuple[int, int]) -> np.ndarray:
  """Returns a constant map of `size` (H, W), uint8."""
  return np.full(size, 255, np.uint8)


BASELINES: dict[str, Callable[[tuple[int, int]], np.ndarray]] = {"centre": centre_map, "uniform": uniform_map}
"""The baselines by name, in the order in which they are shown."""
