"""From SCAM to pseudo-fixations: resizing, smoothing in time, threshold. NumPy, on the host.

Axes: n frames of one clip, h w map, H W frame.
"""

import functools

import numpy as np

from stajax.grid import reflect
from stajax.maps.scam import minmax


def resize(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Bilinear with half-pixel centres and repeated edges: (n, h, w) to (n, *size) float32."""
  rows, columns = _bilinear(maps.shape[1], size[0]), _bilinear(maps.shape[2], size[1])
  return np.einsum("Hh,nhw,Ww->nHW", rows, maps, columns, optimize=True).astype(np.float32)


@functools.lru_cache(maxsize=16)
def _bilinear(length: int, target: int) -> np.ndarray:
  """(target, length) weights of linear interpolation."""
  at = np.clip((np.arange(target) + 0.5) * length / target - 0.5, 0, length - 1)
  weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(length)))
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
