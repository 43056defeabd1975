"""From SCAM to pseudo-fixations: resizing, smoothing in time, threshold. NumPy, on the host.

Axes: n frames of one clip, h w map, H W frame.
"""

import numpy as np

from stajax.grid import reflect
from stajax.maps.scale import minmax


def resize(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Bilinear with half-pixel centres and repeated edges, antialiased: (n, h, w) to (n, *size) float32."""
  rows, columns = bilinear_weights(maps.shape[1], size[0]), bilinear_weights(maps.shape[2], size[1])
  return rows @ np.ascontiguousarray(maps, np.float32) @ columns.T


def bilinear_weights(
  length: int, target: int, low: np.ndarray | float = 0.0, high: np.ndarray | float = 1.0
) -> np.ndarray:
  """Linear interpolation of `length` samples that span a part of a line of `target` pixels.

  Where there are fewer pixels than samples, the triangle is as wide as a pixel, so that no sample is skipped.

  Args:
    low, high: (...), the part's ends as fractions of the line.

  Returns:
    (..., target, length) float32. A pixel's weights add up to 1 if its centre is in [low, high), else they are 0; a
    part without a pixel's centre has the pixel that its middle is in.
  """
  low, high = (np.asarray(end, np.float64)[..., None] for end in (low, high))
  extent = np.maximum(high - low, 1e-6)
  centres = (np.arange(target) + 0.5) / target
  inside = (centres >= low) & (centres < high)
  middle = np.clip(np.floor((low + high) / 2 * target), 0, target - 1)
  inside |= ~inside.any(axis=-1, keepdims=True) & (np.arange(target) == middle)
  at = np.clip((centres - low) / extent * length - 0.5, -0.5, length - 0.5)
  width = np.maximum(1, length / (target * extent))
  weights = np.maximum(0, 1 - np.abs(at[..., None] - np.arange(length)) / width[..., None])
  weights *= inside[..., None] / weights.sum(axis=-1, keepdims=True)
  return weights.astype(np.float32)


def smooth(maps: np.ndarray, reach: int) -> np.ndarray:
  """Mean over frames t − reach … t + reach of a clip, reflected at its ends: (n, h, w) to the same, float32."""
  n = len(maps)
  neighbours = reflect(np.arange(n)[:, None] + np.arange(-reach, reach + 1), n)
  return np.mean([maps[column] for column in neighbours.T], axis=0, dtype=np.float32)


def cut(maps: np.ndarray, threshold: float) -> np.ndarray:
  """Sets values under `threshold` times a map's mean to 0: (n, h, w) to the same."""
  return np.where(maps < threshold * maps.mean(axis=(1, 2), keepdims=True), 0, maps)


def pseudo_fixations(
  maps: np.ndarray, found: np.ndarray, reach: int, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
  """The students' learning targets of one clip.

  Args:
    maps: SCAM at the stored size, (n, h, w) in [0, 1].
    found: (n,) bool, whether a source was right about the frame.
    reach: of `smooth`.
    threshold: of `cut`.

  Returns:
    (n, h, w) uint8 scaled to a maximum of 255, and weights (n,) float32: 1 where there is something to learn, else 0.
  """
  targets = minmax(cut(minmax(smooth(maps, reach)), threshold))
  weights = found & (targets.max(axis=(1, 2)) > 0)
  return np.round(targets * 255).astype(np.uint8), weights.astype(np.float32)
