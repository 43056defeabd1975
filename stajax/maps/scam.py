"""From class maps to SCAM (paper Eqs. 1–2; DESIGN: from class maps to pseudo-fixations). NumPy, on the host.

Axes: j sources, n frames, h w map, k the clip's tags, c categories.
"""

from collections.abc import Sequence

import numpy as np

LAMBDA = 1e-4


def minmax(maps: np.ndarray) -> np.ndarray:
  """Z: scales each map (n, h, w, ...) over h, w to [0, 1]; a constant map becomes 0."""
  low = maps.min(axis=(1, 2), keepdims=True)
  span = maps.max(axis=(1, 2), keepdims=True) - low
  return np.where(span > 0, (maps - low) / np.where(span > 0, span, 1), 0).astype(np.float32)


def class_activation_maps(class_maps: np.ndarray) -> np.ndarray:
  """Φ: the channels of the clip's tags, ReLU, min–max. (n, h, w, k) to the same."""
  return minmax(np.maximum(class_maps, 0))


def soft_filter(confidences: np.ndarray, tags: Sequence[int]) -> np.ndarray:
  """Eq. 2: a tag's confidence where it is larger than that of every category that is not a tag, else 0.

  Args:
    confidences: (..., n, c) in (0, 1).
    tags: k category indices of the clip.

  Returns:
    (..., n, k) float32.
  """
  others = np.delete(confidences, list(tags), axis=-1)
  own = confidences[..., list(tags)]
  rival = others.max(axis=-1, keepdims=True) if others.shape[-1] else np.zeros_like(own[..., :1])
  return np.where(own > rival, own, 0).astype(np.float32)


def selective_maps(activation_maps: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Eq. 1: Z of the confidence-weighted mean over the sources.

  Args:
    activation_maps: Φ (j, n, h, w, k).
    weights: of `soft_filter`, (j, n, k).

  Returns:
    (n, h, w, k) float32 in [0, 1]; all 0 where no source counts.
  """
  numerator = np.einsum("jnhwk,jnk->nhwk", activation_maps, weights) + LAMBDA
  denominator = weights.sum(axis=0)[:, None, None, :] + LAMBDA
  return minmax(numerator / denominator)


def scam(
  class_maps: np.ndarray, confidences: np.ndarray, tags: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """CAMs and SCAM of one clip; with several tags one map a tag, averaged.

  Args:
    class_maps: (j, n, h, w, k): of every source, the channels of the clip's tags.
    confidences: (j, n, c).
    tags: k category indices.

  Returns:
    CAMs (j, n, h, w) and SCAM (n, h, w), float32 in [0, 1], and (n,) bool: whether any source has a tag on top. Where
    none has, SCAM is the plain mean of the CAMs, which is to be scored but not learned from.
  """
  activation_maps = np.stack([class_activation_maps(maps) for maps in class_maps])
  weights = soft_filter(confidences, tags)
  cams = activation_maps.mean(axis=-1)
  selected = selective_maps(activation_maps, weights)
  counts = weights.max(axis=0) > 0  # (n, k)
  share = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
  found = counts.any(axis=-1)
  merged = np.einsum("nhwk,nk->nhw", selected, share.astype(np.float32))
  return cams, np.where(found[:, None, None], merged, minmax(cams.mean(axis=0))), found
