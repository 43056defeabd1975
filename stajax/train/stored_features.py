"""What a frozen visual backbone makes of the training frames: computed once for all networks, and stored.

Axes: B frames of a call, K views, n frames of a clip, h w map, c channels.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from stajax.data.feature_set import FeatureSet
from stajax.data.records import Records
from stajax.nets.images import to_size
from stajax.nets.visual import VGG16

_WHOLE = np.array([0, 0, 1, 1], np.float32)

Views = tuple[np.ndarray, np.ndarray]
"""Boxes (K, 4) and flips (K,), of `stajax.data.sampler.stored_views`."""


def store(
  path: Path,
  records: Records,
  backbone: VGG16,
  visual: Any,
  size: int,
  stages: Sequence[str],
  views: Views,
  dtype: Any,
  batch: int,
  boxes: np.ndarray | None = None,
) -> FeatureSet:
  """Computes what is not there yet, clip by clip; hosts share the work.

  Args:
    path: the folder.
    backbone: the network.
    visual: its parameters.
    size: of the network's input, pixels.
    stages: which stages are stored.
    views: the augmentations that are stored of every frame, or of its crop.
    dtype: float32 or bfloat16.
    batch: frames that are computed together.
    boxes: (total_frames, 4) crops; None for whole frames.

  Raises:
    RecordError: the folder has features of other records, views or crops, or a record cannot be read.
  """
  made_of = (*views, *(() if boxes is None else (boxes,)))
  features = FeatureSet.open(path, records, tuple(stages), len(views[1]), *made_of)
  mine = range(jax.process_index(), records.num_clips, jax.process_count())
  missing = [clip for clip in mine if not features.has(clip)]
  encode = _make_encode(backbone, size, tuple(stages), dtype, boxes is not None or bool(np.any(views[0] != _WHOLE)))
  for clip in tqdm(missing, desc=f"features {path.name}", unit="clip", dynamic_ncols=True):
    first, count = int(records.first_frame[clip]), int(records.num_frames[clip])
    frames = records.clip_frames(clip, size if boxes is None else None)
    crops = np.tile(_WHOLE, (count, 1)) if boxes is None else boxes[first : first + count]
    features.write(clip, _encode_clip(encode, visual, frames, crops, views, batch))
  multihost_utils.sync_global_devices(f"features {path.name}")
  return features


def _make_encode(
  backbone: VGG16, size: int, stages: tuple[str, ...], dtype: Any, cropped: bool
) -> Callable[..., dict[str, jax.Array]]:
  @jax.jit
  def encode(visual: Any, frames: jax.Array, boxes: jax.Array, flips: jax.Array) -> dict[str, jax.Array]:
    found = backbone.apply({"params": visual}, to_size(frames, size, boxes if cropped else None, flips))
    return {stage: getattr(found, stage).astype(dtype) for stage in stages}

  return encode


def _encode_clip(
  encode: Callable[..., dict[str, jax.Array]],
  visual: Any,
  frames: np.ndarray,
  crops: np.ndarray,
  views: Views,
  batch: int,
) -> dict[str, np.ndarray]:
  """Stages (K, n, h, w, c) of one clip's frames (n, S, S, 3)."""
  count, (boxes, flips) = len(frames), views
  corner, extent = crops[:, None, :2], crops[:, None, 2:] - crops[:, None, :2]
  inside = np.concatenate([corner, corner], -1) + np.concatenate([extent, extent], -1) * boxes  # n K yxyx
  found: list[list[dict[str, np.ndarray]]] = []
  for view, flip in enumerate(flips):
    parts = []
    for start in range(0, count, batch):
      # Every call has the same shapes: the last one repeats a frame.
      chosen = np.minimum(np.arange(start, start + batch), count - 1)
      parts.append(encode(visual, frames[chosen], inside[chosen, view], np.full(batch, flip)))
    found.append(parts)
  return {
    stage: np.stack([np.concatenate([np.asarray(part[stage]) for part in parts])[:count] for parts in found])
    for stage in found[0][0]
  }
