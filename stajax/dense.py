"""Staged inference over whole clips and streams: every frame goes through a network's `encode` once.

Frames are encoded in chunks; a fragment reads its neighbours' features from a window that keeps the last few frames of
the chunk before. So memory does not grow with a clip's length, and one compiled program serves every length.

Axes: B frames of a chunk, r reach, T = B + r targets of a call, t frames of a fragment, h w map, c categories,
k selected categories.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stajax.data.sound import NUM_BINS, WINDOW_COLUMNS, normalise, window_columns
from stajax.grid import reflect
from stajax.nets.images import to_size

Sample = tuple[np.ndarray, np.ndarray | None]
"""A frame (S, S, 3) uint8 and its normalised second of sound (257, 98) float32, None where there is none."""


class ClassMaps(NamedTuple):
  """Of a classifier: `class_maps` (n, h, w, k) of the selected categories, `confidences` (n, c) in (0, 1)."""

  class_maps: np.ndarray
  confidences: np.ndarray


class DenseNetwork:
  """A trained network, compiled for whole clips.

  Args:
    network: a `Classifier` or `Student`.
    variables: its variables.
    size: side of its input, pixels.
    batch: frames that are encoded at a time.
  """

  def __init__(self, network: nn.Module, variables: dict[str, Any], size: int, batch: int) -> None:
    self._network, self._size, self._batch = network, size, batch
    self._variables = jax.device_put(variables)
    self._encode = jax.jit(self._encode_chunk)
    self._fuse = jax.jit(self._fuse_window, donate_argnums=1)

  def run(self, samples: Iterable[Sample], reach: int = 1, select: Sequence[int] = ()) -> Iterator[Any]:
    """Yields results of consecutive samples, in order: for each chunk a ClassMaps, or maps (n, H, W) of a student.

    Args:
      samples: in order of time.
      reach: samples between the frames of a fragment.
      select: the k categories whose class maps are wanted, of a classifier.
    """
    offsets = np.arange(self._network.num_times) - self._network.num_times // 2
    reach = reach if len(offsets) > 1 else 0
    batch = max(self._batch, 2 * reach + 1)
    select = np.asarray(select, np.int32)
    carry, switches = None, np.zeros(2 * reach, np.float32)
    start = -2 * reach  # index of the window's first frame
    done, pending = 0, None
    for frames, sound, switch, count, is_last in _chunks(samples, batch, self._network.hears):
      chunk = self._encode(self._variables, frames, sound)
      if carry is None:
        carry = jax.tree.map(lambda x: jnp.zeros((2 * reach, *x.shape[1:]), x.dtype), chunk)
      switches = np.concatenate([switches, switch])
      seen = start + 2 * reach + count
      stop = seen if is_last else seen - reach
      targets = np.minimum(np.arange(done, done + batch + reach), stop - 1)
      # Before the last chunk only the clip's beginning is reflected, which does not depend on its length.
      length = seen if is_last else seen + batch
      indices = reflect(targets[:, None] + reach * offsets, length) - start
      result, carry = self._fuse(self._variables, carry, chunk, indices, switches[targets - start], select)
      if pending is not None:  # fetched only now, so that the device works while the host waits
        yield _fetch(*pending)
      pending = (result, stop - done)
      done, start, switches = stop, start + batch, switches[batch:]
    if pending is not None:
      yield _fetch(*pending)

  def _encode_chunk(self, variables: Any, frames: jax.Array, sound: jax.Array | None) -> dict[str, jax.Array]:
    features = self._network.apply(variables, to_size(frames, self._size), method="encode_frames")
    if sound is not None:
      features["audio"] = self._network.apply(variables, sound, method="encode_sound")
    return features

  def _fuse_window(
    self, variables: Any, carry: Any, chunk: Any, indices: jax.Array, switch: jax.Array, select: jax.Array
  ) -> tuple[Any, Any]:
    """Results of the targets whose fragments are at `indices` (T, t) of the window, and the next carry."""
    window = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), carry, chunk)
    centres = indices[:, indices.shape[1] // 2]
    fragments = {"s": window["s"][indices]}
    heard = (window["audio"][centres], switch) if self._network.hears else ()
    fused = self._network.apply(variables, fragments, *heard, method="fuse")
    num_kept = jax.tree.leaves(carry)[0].shape[0]
    kept = jax.tree.map(lambda x: x[x.shape[0] - num_kept :], window)
    if hasattr(self._network, "source"):
      out = self._network.apply(variables, fused[:, None], method="reason")
      return ClassMaps(out.class_maps[..., select], jax.nn.sigmoid(out.logits)), kept
    targets = {name: x[centres] for name, x in window.items() if name not in ("s", "audio")}
    logits = self._network.apply(variables, fused, targets, (self._size, self._size), method="reason")
    return jax.nn.sigmoid(logits), kept


def clip_samples(records: Any, clip: int, size: int) -> list[Sample]:
  """All samples of one clip of `stajax.data.records.Records`, at the smallest stored size that is at least `size`."""
  frames = records.clip_frames(clip, size)
  if not records.has_sound[clip]:
    return [(frame, None) for frame in frames]
  columns = records.clip_columns(clip).astype(np.float32)
  columns = normalise(columns, float(records.sound_mean[clip]), float(records.sound_std[clip]))
  times = np.arange(len(frames)) / records.rate[clip]
  return [(frame, columns[:, window_columns(time, columns.shape[1])]) for frame, time in zip(frames, times)]


def concatenate(results: Iterable[ClassMaps]) -> ClassMaps:
  """The chunks of a whole clip as one."""
  return ClassMaps(*(np.concatenate(parts) for parts in zip(*results)))


def _fetch(result: Any, count: int) -> Any:
  return jax.tree.map(lambda x: np.asarray(x)[:count], result)


def _chunks(
  samples: Iterable[Sample], batch: int, hears: bool
) -> Iterator[tuple[np.ndarray, np.ndarray | None, np.ndarray, int, bool]]:
  """Frames (B, S, S, 3), sound (B, 257, 98), switch (B,), how many of them count, and whether they are the last."""
  iterator = iter(samples)
  sample = next(iterator, None)
  while sample is not None:
    frames = np.zeros((batch, *sample[0].shape), np.uint8)
    sound = np.zeros((batch, NUM_BINS, WINDOW_COLUMNS), np.float32) if hears else None
    switch = np.zeros(batch, np.float32)
    count = 0
    while sample is not None and count < batch:
      frames[count] = sample[0]
      if hears and sample[1] is not None:
        sound[count], switch[count] = sample[1], 1
      count += 1
      sample = next(iterator, None)
    yield frames, sound, switch, count, sample is None
