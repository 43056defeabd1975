"""Makes pseudo-fixations from SCAM: resizing, smoothing in time, a threshold. NumPy, on the host.

Axes: n frames of one clip, h w map, H W frame.
"""

import numpy as np

from stajax.grid import reflect
from stajax.maps.scale import minmax


def resize(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes maps (n, h, w) to (n, *size) float32: bilinear, antialiased, half-pixel centres, repeated edges."""
  rows, columns = bilinear_weights(maps.shape[1], size[0]), bilinear_weights(maps.shape[2], size[1])
  return rows @ np.ascontiguousarray(maps, np.float32) @ columns.T


def bilinear_weights(
  length: int, target: int, low: np.ndarray | float = 0.0, high: np.ndarray | float = 1.0
) -> np.ndarray:
  """Returns the weights that interpolate `length` samples linearly over a part of a line of `target` pixels.

  Where there are fewer pixels than samples, the triangle is as wide as a pixel, so that no sample is skipped.

  Args:
    length: The number of samples.
    target: The number of pixels of the whole line.
    low: Where the part begins, (...), as a fraction of the line.
    high: Where the part ends, (...), as a fraction of the line.

  Returns:
    The weights (..., target, length), float32. A pixel's weights add up to 1 if its centre is in [low, high), else they
    are 0. A part in which no pixel has its centre gets the pixel that contains its middle.
  """
  begin, end = (np.asarray(side, np.float64)[..., None] for side in (low, high))
  extent = np.maximum(end - begin, 1e-6)
  centres = (np.arange(target) + 0.5) / target
  inside = (centres >= begin) & (centres < end)
  middle = np.clip(np.floor((begin + end) / 2 * target), 0, target - 1)
  inside |= ~inside.any(axis=-1, keepdims=True) & (np.arange(target) == middle)
  position = np.clip((centres - begin) / extent * length - 0.5, -0.5, length - 0.5)
  width = np.maximum(1, length / (target * extent))
  weights = np.maximum(0, 1 - np.abs(position[..., None] - np.arange(length)) / width[..., None])
  weights *= inside[..., None] / weights.sum(axis=-1, keepdims=True)
  return weights.astype(np.float32)


def smooth(maps: np.ndarray, reach: int) -> np.ndarray:
  """Averages each map of a clip (n, h, w) over the frames t − reach … t + reach, reflected at its ends; float32."""
  n = len(maps)
  neighbours = reflect(np.arange(n)[:, None] + np.arange(-reach, reach + 1), n)
  return np.asarray(np.mean([maps[column] for column in neighbours.T], axis=0, dtype=np.float32))


def suppress_low_values(maps: np.ndarray, threshold: float) -> np.ndarray:
  """Sets the values of each map (n, h, w) that are under `threshold` times its mean to 0."""
  return np.where(maps < threshold * maps.mean(axis=(1, 2), keepdims=True), 0, maps)


def pseudo_fixations(
  maps: np.ndarray, found: np.ndarray, reach: int, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
  """Makes the students' learning targets for one clip.

  Args:
    maps: SCAM at the stored size, (n, h, w) in [0, 1].
    found: Whether a source was right about each frame, (n,) bool.
    reach: How many frames to either side `smooth` averages over.
    threshold: The multiple of the mean below which `suppress_low_values` sets values to 0.

  Returns:
    The targets (n, h, w) uint8, scaled to a maximum of 255, and their weights (n,) float32: 1 where there is something
    to learn, else 0.
  """
  targets = minmax(suppress_low_values(minmax(smooth(maps, reach)), threshold))
  weights = found & (targets.max(axis=(1, 2)) > 0)
  return np.round(targets * 255).astype(np.uint8), weights.astype(np.float32)
