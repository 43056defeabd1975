"""Fuses class maps into SCAM and SCAM+ (paper Eqs. 1, 2, 4).

NumPy, on the host. Axes: j sources, n frames, h w a source's class map, H W the common size of all sources, k the tags
of the clip, c categories. Activation maps (j, n, H, W, k) may also be given as a list of j arrays, so that choosing
sources copies nothing.
"""

from collections.abc import Sequence

import numpy as np

from stajax.maps.boxes import paste
from stajax.maps.scale import minmax

LAMBDA = 1e-4


def class_activation_maps(class_maps: np.ndarray) -> np.ndarray:
  """Computes Φ, which is ReLU and then min–max, of the channels of the clip's tags; (n, h, w, k) to the same shape.

  Where no value is positive, ReLU would leave a constant map. The values themselves are scaled then, so that the map
  shows what speaks least against the tag.
  """
  positive = np.maximum(class_maps, 0)
  return minmax(np.where(positive.max(axis=(1, 2), keepdims=True) > 0, positive, class_maps))


def source_maps(class_maps: np.ndarray, size: tuple[int, int], boxes: np.ndarray | None = None) -> np.ndarray:
  """Computes Φ of one source, at the size and place that all sources share.

  Args:
    class_maps: The channels of the clip's tags, (n, h, w, k).
    size: The shared size (H, W).
    boxes: The part of the frame that each class map shows, (n, 4), see `stajax.maps.boxes`; None for whole frames.

  Returns:
    The activation maps (n, H, W, k), float32 in [0, 1], 0 outside the boxes.
  """
  if boxes is None:
    boxes = np.broadcast_to(np.array([0, 0, 1, 1], np.float32), (len(class_maps), 4))
  return paste(class_activation_maps(class_maps), boxes, size)


def soft_filter(confidences: np.ndarray, tags: Sequence[int]) -> np.ndarray:
  """Computes Eq. 2: a tag's confidence where it exceeds that of every category that is not a tag, else 0.

  Args:
    confidences: The confidences (..., n, c) in (0, 1).
    tags: The k category indices of the clip.

  Returns:
    The weights (..., n, k), float32.
  """
  others = np.delete(confidences, list(tags), axis=-1)
  own = confidences[..., list(tags)]
  rival = others.max(axis=-1, keepdims=True) if others.shape[-1] else np.zeros_like(own[..., :1])
  return np.where(own > rival, own, 0).astype(np.float32)


def selective_maps(activation_maps: Sequence[np.ndarray] | np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Computes Eq. 1 of three sources, Eq. 4 of eleven: Z of the confidence-weighted mean over the sources.

  Eq. 4 is printed without its Z.

  Args:
    activation_maps: Φ (j, n, H, W, k).
    weights: What `soft_filter` returned, (j, n, k).

  Returns:
    The fused maps (n, H, W, k), float32 in [0, 1]; all 0 where no source counts.
  """
  fused = np.full_like(activation_maps[0], LAMBDA, dtype=np.float32)
  term = np.empty_like(fused)
  for maps, weight in zip(activation_maps, weights):
    fused += np.multiply(maps, weight[:, None, None, :], out=term)
  fused /= weights.sum(axis=0)[:, None, None, :] + LAMBDA
  return minmax(fused)


def select(
  activation_maps: Sequence[np.ndarray] | np.ndarray, confidences: np.ndarray, tags: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
  """Computes SCAM or SCAM+ of one clip. Several tags are averaged over those that some source ranks first.

  Args:
    activation_maps: Φ (j, n, H, W, k).
    confidences: The confidences (j, n, c).
    tags: The k category indices.

  Returns:
    The maps (n, H, W), float32 in [0, 1], and whether any source ranks a tag first, (n,) bool. Where none does, the map
    is that of `average`, which may be scored but should not be learned from.
  """
  weights = soft_filter(confidences, tags)
  counts = weights.max(axis=0) > 0  # (n, k)
  found = counts.any(axis=-1)
  share = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
  merged = np.einsum("nhwk,nk->nhw", selective_maps(activation_maps, weights), share.astype(np.float32))
  if not found.all():
    merged[~found] = average([maps[~found] for maps in activation_maps])
  return merged, found


def average(activation_maps: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
  """Computes AC (paper §6.2.2): Z of the plain mean over sources and tags; (j, n, H, W, k) to (n, H, W) float32."""
  total = np.zeros(activation_maps[0].shape[:-1], np.float32)
  for maps in activation_maps:
    total += average_over_tags(maps)
  return minmax(total / len(activation_maps))


def average_over_tags(maps: np.ndarray) -> np.ndarray:
  """Averages maps (..., k) over the clip's tags to (...), float32; the result is 0 for a clip without any tag."""
  return maps.sum(axis=-1, dtype=np.float32) / np.float32(max(maps.shape[-1], 1))
