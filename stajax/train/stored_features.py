"""The features that a frozen visual backbone gives for the training frames: computed once for all networks.

Axes: B frames of a call, K views, n frames of a clip, h w map, c channels.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from stajax import runtime
from stajax.data import packed_features
from stajax.data.feature_set import FeatureSet
from stajax.data.packed_features import Packing
from stajax.data.records import Records
from stajax.inference.local_devices import Device, on_local_devices
from stajax.nets.base import Backbone
from stajax.nets.images import to_size

_WHOLE = np.array([0, 0, 1, 1], np.float32)

Views = tuple[np.ndarray, np.ndarray]
"""The boxes (C, K, 4) and flips (K,) of `stajax.data.sampler.stored_views`."""

_SAMPLE = 64
"""The number of frames, each of another clip, that say how features are packed."""


@dataclass(frozen=True)
class Encoder:
  """A frozen backbone, and how it encodes frames.

  Attributes:
    backbone: The network.
    params: Its parameters.
    size: The side of its input in pixels.
    stages: The names of the stages that are stored.
    dtype: The format of what is stored: float32, bfloat16 or packed.
    batch: The number of frames that are computed together.
  """

  backbone: Backbone
  params: Any
  size: int
  stages: tuple[str, ...]
  dtype: str
  batch: int


def store(path: Path, records: Records, encoder: Encoder, views: Views, boxes: np.ndarray | None = None) -> FeatureSet:
  """Computes the features that are not there yet, clip by clip; hosts and their devices share the work.

  Args:
    path: The folder.
    records: The clips.
    encoder: The frozen backbone.
    views: The augmentations of every frame, or of its crop, whose features are stored.
    boxes: The crops (total_frames, 4); None for whole frames.

  Raises:
    RecordError: The folder has features of other records, views or crops, or a record cannot be read.
  """
  made_of = (*views, *(() if boxes is None else (boxes,)))
  is_packed = encoder.dtype == "packed"
  features = FeatureSet.open(path, records, encoder.stages, len(views[1]), *made_of, is_packed=is_packed)
  own_clips = range(jax.process_index(), records.num_clips, jax.process_count())
  missing = [clip for clip in own_clips if not features.has(clip)]
  is_cropped = boxes is not None or bool(np.any(views[0] != _WHOLE))
  if is_packed:
    if jax.process_index() == 0 and not features.packings_file.is_file():
      _find_packings(features, encoder, boxes)
    multihost_utils.sync_global_devices(f"packings {path.name}")
  encode_on = _compile(encoder, is_cropped, features.packings, _reach(views))

  def work(device: Device, clips: Iterator[int]) -> Iterator[int]:
    encode = encode_on(device)
    for clip in clips:
      first, count = int(records.first_frame[clip]), int(records.num_frames[clip])
      frames = records.clip_frames(clip, encoder.size if boxes is None else None)
      crops = np.tile(_WHOLE, (count, 1)) if boxes is None else boxes[first : first + count]
      features.write(clip, _encode_clip(encode, encoder.batch, frames, crops, (views[0][clip], views[1])))
      yield clip

  with runtime.progress(f"features {path.name}", len(missing), "clip") as bar:
    for _ in on_local_devices(missing, work):
      bar.update()
  multihost_utils.sync_global_devices(f"features {path.name}")
  return features


_Encode = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, jax.Array]]
"""A function of frames (B, S, S, 3), boxes (B, 4) and flips (B,) that returns stages (B, h, w, c)."""


def _find_packings(features: FeatureSet, encoder: Encoder, boxes: np.ndarray | None) -> None:
  """Writes how features of whole frames, or of crops, are packed, from the middle frames of clips."""
  records, whole = features.records, (_WHOLE[None], np.zeros(1, bool))
  encode = _compile(dataclasses.replace(encoder, dtype="float32"), boxes is not None, {}, 0.0)(None)
  samples: dict[str, list[np.ndarray]] = {stage: [] for stage in encoder.stages}
  for clip in np.unique(np.linspace(0, records.num_clips - 1, _SAMPLE).astype(int)).tolist():
    middle = int(records.num_frames[clip]) // 2
    frame = records.clip_frames(clip, encoder.size if boxes is None else None)[middle, None]
    crop = _WHOLE[None] if boxes is None else boxes[int(records.first_frame[clip]) + middle, None]
    for stage, x in _encode_clip(encode, 1, frame, crop, whole).items():
      samples[stage].append(x.max(axis=(0, 1, 2, 3)))
  packings = {stage: Packing.of_sample(np.stack(found)) for stage, found in samples.items()}
  packed_features.write_packings(features.packings_file, packings)


def _reach(views: Views) -> float:
  """Returns how far views reach beyond a frame, as a part of its side."""
  return float(np.max(views[0][..., 2:] - views[0][..., :2], initial=1)) - 1


def _compile(
  encoder: Encoder, is_cropped: bool, packings: Mapping[str, Packing], reach: float
) -> Callable[[Device], _Encode]:
  def stored(stage: str, x: jax.Array) -> jax.Array:
    return packings[stage].encode(x) if stage in packings else x.astype(encoder.dtype)

  @jax.jit
  def encode(params: Any, frames: jax.Array, boxes: jax.Array, flips: jax.Array) -> dict[str, jax.Array]:
    images = to_size(frames, encoder.size, boxes if is_cropped else None, flips, reach)
    found = encoder.backbone.apply({"params": params}, images)
    return {stage: stored(stage, getattr(found, stage)) for stage in encoder.stages}

  def encode_on(device: Device) -> _Encode:
    params = jax.device_put(encoder.params, device)
    return lambda frames, boxes, flips: encode(params, frames, boxes, flips)

  return encode_on


def _encode_clip(
  encode: _Encode, batch: int, frames: np.ndarray, crops: np.ndarray, views: Views
) -> dict[str, np.ndarray]:
  """Returns the stages (K, n, h, w, c) of one clip's frames (n, S, S, 3)."""
  count, (boxes, flips) = len(frames), views
  corner, extent = crops[:, None, :2], crops[:, None, 2:] - crops[:, None, :2]
  inside = np.concatenate([corner, corner], -1) + np.concatenate([extent, extent], -1) * boxes  # n K yxyx
  found: list[list[dict[str, jax.Array]]] = []
  for view, flip in enumerate(flips):
    parts = []
    for start in range(0, count, batch):
      # Every call has the same shapes: the last one repeats a frame.
      chosen = np.minimum(np.arange(start, start + batch), count - 1)
      parts.append(encode(frames[chosen], inside[chosen, view], np.full(batch, flip)))
    found.append(parts)
  return {
    stage: np.stack([np.concatenate([np.asarray(part[stage]) for part in parts])[:count] for parts in found])
    for stage in found[0][0]
  }
