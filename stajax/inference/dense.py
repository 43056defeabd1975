"""Staged inference over clips of any length: every frame goes through a network's `encode` once.

For each clip (`stajax.inference.clip`) a network's three parts run one after the other: all frames are encoded,
fragments read their neighbours' features, groups read their companions' fragments. Features stay on the device and are
kept with the clip, so that networks whose encoders are equal (a frozen backbone) share them. Buffers have few sizes, so
one compiled program serves every length. What goes to the device is put there explicitly, and results are waited for by
`fetch`.
"""

import functools
import hashlib
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stajax.inference.clip import Clip, sounds
from stajax.nets.base import Network
from stajax.nets.images import to_size


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
    batch: B, frames that are computed at a time.
    cropped: whether it sees the clip's boxes instead of whole frames.
    keep_stages: stages of the backbone that are kept with a clip, for other networks with the same backbone.
  """

  def __init__(
    self,
    network: Network,
    variables: dict[str, Any],
    size: int,
    batch: int,
    cropped: bool = False,
    keep_stages: Sequence[str] = (),
  ) -> None:
    self.network, self.size, self._batch, self._cropped, self._keep = network, size, batch, cropped, tuple(keep_stages)
    self.variables = jax.device_put(variables)
    seen = [part for part in variables["params"] if part in ("visual", "neck") or part.startswith("refine")]
    self._frames_key, self._spatial_key = (
      f"{size} {cropped} {_digest(variables, parts)}" for parts in (seen, ("visual", "neck"))
    )
    self._stages_key = f"{size} {cropped} {_digest(variables, ['visual'])}" if keep_stages else None
    self._sound_key = _digest(variables, ["sound"])
    self._shapes: dict[str, Any] = {}
    self._programs = _programs_of(network, size, self._keep)

  def run(
    self, clip: Clip, select: Sequence[int] = (), groups: np.ndarray | None = None, pool: jax.Array | None = None
  ) -> Any:
    """Results for the clip's targets: ClassMaps of a classifier, or maps (n, H, W) float32 in [0, 1] of a student.

    Args as of `start`.
    """
    return self.start(clip, select, groups, pool)()

  def start(
    self, clip: Clip, select: Sequence[int] = (), groups: np.ndarray | None = None, pool: jax.Array | None = None
  ) -> Callable[[], Any]:
    """Has the device begin, and returns what waits for the results of `run`; meanwhile another network can be started.

    Args as of `launch`.
    """
    results, count = self.launch(clip, select, groups, pool), len(clip.targets)
    return lambda: fetch(results, count)

  def launch(
    self, clip: Clip, select: Sequence[int] = (), groups: np.ndarray | None = None, pool: jax.Array | None = None
  ) -> list[Any]:
    """Has the device begin with what `fetch` gets: of every B targets their results, which stay on the device.

    Args:
      select: the k categories whose class maps are wanted, of a classifier.
      groups: (n, 3) samples of the clip of every target's group, the target first; len(clip) + p is `pool[p]`. Only
        for networks with companions.
      pool: (P, h, w, c) fragments of other clips, of `nodes`.
    """
    targets = np.asarray(clip.targets)
    features, nodes = self._features(clip), self._nodes(clip)
    groups = targets[:, None] if groups is None else np.asarray(groups)
    if pool is not None:
      groups = np.where(groups >= len(clip), groups - len(clip) + nodes.shape[0], groups)
      nodes = jnp.concatenate([nodes, pool.astype(nodes.dtype)])
    select = jax.device_put(np.asarray(select, np.int32))
    chunks = (_filled(groups[at : at + self._batch], self._batch) for at in range(0, len(targets), self._batch))
    return [self._programs.reason(self.variables, nodes, features, jax.device_put(chunk), select) for chunk in chunks]

  def nodes(self, clip: Clip) -> jax.Array:
    """The fused fragments (n, h, w, c) of all samples, for the pools of other clips."""
    return jax.lax.slice_in_dim(self._nodes(clip), 0, len(clip))

  def _nodes(self, clip: Clip) -> jax.Array:
    """Fragments of all samples, (capacity, h, w, c)."""
    features, n = self._features(clip), len(clip)
    offsets = (np.arange(self.network.num_times) - self.network.num_times // 2) * clip.reach
    nodes = self._buffer(
      "nodes", self._capacity(clip), self._programs.fuse_chunk, None, features, *self._fragments(clip, offsets, 0)
    )
    for start in range(0, n, self._batch):
      fragments = jax.device_put(self._fragments(clip, offsets, start))
      nodes = self._programs.fuse(self.variables, nodes, features, *fragments)
    return nodes

  def _fragments(self, clip: Clip, offsets: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray, np.int32]:
    """Samples (B, t) of B fragments from `start` on, their switches (B,), and `start`."""
    centres = np.minimum(np.arange(start, start + self._batch), len(clip) - 1)
    return clip.neighbours(centres, offsets), clip.switch[centres], np.int32(start)

  def _features(self, clip: Clip) -> dict[str, jax.Array]:
    """Encoded frames and sound of the clip, each once for all networks with this encoder: (capacity, …)."""
    run = self._programs
    if self._frames_key not in clip.features:
      if self._stages_key is None:
        self._encode(clip, self._frames_key, run.encode_frames, run.frames_chunk, *self._images(clip))
      else:
        stages = self.stages(clip)
        index = np.arange(len(clip))
        self._encode(clip, self._frames_key, run.embed, run.embed_chunk, lambda at: index[at], stages=stages)
    features = clip.features[self._frames_key]
    clip.features.setdefault(self._spatial_key, {"s": features["s"]})
    if not self.network.hears:
      return features
    if self._sound_key not in clip.features:
      self._encode(clip, self._sound_key, run.encode_sound, run.sound_chunk, lambda at: sounds(clip.samples[at]))
    return features | clip.features[self._sound_key]

  def _images(self, clip: Clip) -> list[Callable[[slice], np.ndarray]]:
    frames = [lambda at: np.stack([frame for frame, _ in clip.samples[at]])]
    return [*frames, lambda at: clip.boxes[at]] if self._cropped else frames

  def stages(self, clip: Clip) -> dict[str, jax.Array]:
    """The stages of the backbone that this network reads, (capacity, …): kept with the clip, stored, or computed now.

    Only of networks with `keep_stages`.
    """
    kept = clip.features.setdefault(self._stages_key, {})
    run = self._programs
    missing = [stage for stage in self.network.backbone_stages if stage not in kept]
    if missing and clip.stored is None:
      self._encode(clip, self._stages_key, run.encode_stages, run.stages_chunk, *self._images(clip))
      kept = clip.features[self._stages_key]
    elif missing:
      capacity = self._capacity(clip)
      kept |= {stage: _padded(clip.stored(self.size, self._cropped, stage), capacity) for stage in missing}
    return {stage: kept[stage] for stage in self.network.backbone_stages}

  def _encode(
    self, clip: Clip, key: str, encode: Any, chunk: Any, *inputs: Callable[[slice], np.ndarray], **whole: Any
  ) -> None:
    """Fills `clip.features[key]`, in chunks of the inputs, which give them when they are needed.

    What the window before has is taken from there.
    """
    n, batch = len(clip), self._batch
    first = [x(slice(0, 1)).repeat(batch, axis=0) for x in inputs]
    buffer = self._buffer(key, self._capacity(clip), chunk, None, 0, *first, **whole)
    start = 0
    # Boxes depend on the window, so crops of shared frames may differ.
    if clip.carried is not None and key in clip.carried[0] and not self._cropped:
      features, begin, end = clip.carried
      start = end - begin
      buffer = _carried(buffer, features[key], jax.device_put(np.int32(begin)), start)
    for at in range(start, n, batch):
      parts = [_filled(x(slice(at, at + batch)), batch) for x in inputs]
      buffer = encode(self.variables, buffer, *jax.device_put((np.int32(at), *parts)), **whole)
    clip.features[key] = buffer

  def _buffer(self, what: str, capacity: int, chunk: Any, *arguments: Any, **keywords: Any) -> Any:
    """Zeros (capacity, …) for what `chunk` computes; its shapes are found once, since that means to trace it.

    None where one chunk is all: it is not copied then.
    """
    if capacity == self._batch:
      return None
    if what not in self._shapes:
      self._shapes[what] = jax.eval_shape(chunk, self.variables, *arguments, **keywords)
    leaves, tree = jax.tree.flatten(self._shapes[what])
    shapes = tuple((capacity, *x.shape[1:]) for x in leaves)
    return jax.tree.unflatten(tree, _zeros(shapes, tuple(x.dtype for x in leaves)))

  def _capacity(self, clip: Clip) -> int:
    """A power of two of batches; with room for one more where a clip's first samples are those of the window before.

    Not less than the window before has, so that a video's last window needs no programs of its own.
    """
    batches = -(-len(clip) // self._batch) + (clip.carried is not None)
    before = jax.tree.leaves(clip.carried[0]) if clip.carried is not None else []
    return max(self._batch * 2 ** (batches - 1).bit_length(), len(before[0]) if before else 0)


class _Programs:
  """The parts of a network on chunks, and jitted; those with a `buffer` then write in place.

  Args: as of `DenseNetwork`.
  """

  def __init__(self, network: Network, size: int, keep_stages: tuple[str, ...]) -> None:
    self._network, self._size, self._keep = network, size, keep_stages
    self.encode_frames = jax.jit(self.frames_chunk, donate_argnums=1)
    self.encode_stages = jax.jit(self.stages_chunk, donate_argnums=1)
    self.embed = jax.jit(self.embed_chunk, donate_argnums=1)
    self.encode_sound = jax.jit(self.sound_chunk, donate_argnums=1)
    self.fuse = jax.jit(self.fuse_chunk, donate_argnums=1)
    self.reason = jax.jit(self.reason_chunk)

  def frames_chunk(
    self, variables: Any, buffer: Any, at: Any, frames: jax.Array, boxes: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    features = self._network.apply(variables, to_size(frames, self._size, boxes), method="encode_frames")
    return _written(buffer, features, at)

  def stages_chunk(
    self, variables: Any, buffer: Any, at: Any, frames: jax.Array, boxes: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    images = to_size(frames, self._size, boxes)
    return _written(buffer, self._network.apply(variables, images, keep=self._keep, method="backbone"), at)

  def embed_chunk(self, variables: Any, buffer: Any, at: Any, index: jax.Array, stages: Any) -> dict[str, jax.Array]:
    features = self._network.apply(variables, jax.tree.map(lambda x: x[index], stages), method="embed")
    return _written(buffer, features, at)

  def sound_chunk(self, variables: Any, buffer: Any, at: Any, sound: jax.Array) -> dict[str, jax.Array]:
    return _written(buffer, {"audio": self._network.apply(variables, sound, method="encode_sound")}, at)

  def fuse_chunk(
    self, variables: Any, nodes: Any, features: Any, indices: jax.Array, switch: jax.Array, at: Any
  ) -> jax.Array:
    centres = indices[:, indices.shape[1] // 2]
    heard = (features["audio"][centres], switch) if self._network.hears else ()
    fused = self._network.apply(variables, {"s": features["s"][indices]}, *heard, method="fuse")
    return _written(nodes, fused, at)

  def reason_chunk(self, variables: Any, nodes: jax.Array, features: Any, groups: jax.Array, select: jax.Array) -> Any:
    grouped = nodes[groups]
    if not self._network.predicts_maps:
      out = self._network.apply(variables, grouped, method="reason")
      return ClassMaps(out.class_maps[..., select], jax.nn.sigmoid(out.logits))
    # Only the target is read out.
    own = {name: x[groups[:, :1]] for name, x in features.items() if name != "audio"}
    size = (self._size, self._size)
    logits = self._network.apply(variables, grouped, own, size, read=1, method="reason")
    return jax.nn.sigmoid(logits[:, 0])


_SHARED: "weakref.WeakValueDictionary[tuple[Network, int, tuple[str, ...]], _Programs]" = weakref.WeakValueDictionary()


def _programs_of(network: Network, size: int, keep_stages: tuple[str, ...]) -> _Programs:
  """The same for all that have an equal network, as both STA+ are: each program is compiled once."""
  key = (network, size, keep_stages)
  found = _SHARED.get(key)
  if found is None:
    found = _SHARED[key] = _Programs(*key)
  return found


def fetch(results: Sequence[Any], count: int) -> Any:
  """Waits for what was launched: the first `count` results of all chunks, on the host."""
  return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *jax.device_get(list(results)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _zeros(shapes: tuple[tuple[int, ...], ...], dtypes: tuple[Any, ...]) -> list[jax.Array]:
  return [jnp.zeros(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]


@functools.partial(jax.jit, static_argnums=3, donate_argnums=0)
def _carried(buffer: Any, before: Any, begin: jax.Array, count: int) -> Any:
  """`count` entries of the buffers `before`, from `begin` on, written to the beginning of others."""
  shared = jax.tree.map(lambda old: jax.lax.dynamic_slice_in_dim(old, begin, count), before)
  return jax.tree.map(lambda new, old: jax.lax.dynamic_update_slice_in_dim(new, old, 0, 0), buffer, shared)


def _padded(values: np.ndarray, length: int) -> jax.Array:
  """(n, …) with zeros up to `length`, on the device."""
  padded = np.zeros((length, *values.shape[1:]), values.dtype)
  padded[: len(values)] = values
  return jax.device_put(padded)


def make_tagger(
  network: Network,
  variables: dict[str, Any],
  batch: int,
  activation: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
) -> Callable[[Clip], np.ndarray]:
  """A trained audio-only tagger: of a clip to the confidences (n, c) in each sample's second of sound."""
  variables = jax.device_put(variables)
  confidences = jax.jit(lambda variables, sound: activation(network.apply(variables, sound[:, None]).logits))

  def hear(clip: Clip) -> np.ndarray:
    chunks = (_filled(sounds(clip.samples[at : at + batch]), batch) for at in range(0, len(clip), batch))
    return fetch([confidences(variables, jax.device_put(chunk)) for chunk in chunks], len(clip))

  return hear


def _filled(x: np.ndarray, batch: int) -> np.ndarray:
  """(≤ B, …) to (B, …), the last one repeated."""
  return x if len(x) == batch else np.concatenate([x, x[-1:].repeat(batch - len(x), axis=0)])


def _written(buffer: Any, values: Any, at: Any) -> Any:
  """`values` written into `buffer` from `at` on; the values themselves where there is no buffer."""
  if buffer is None:
    return values
  return jax.tree.map(lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, at, 0), buffer, values)


def _digest(variables: dict[str, Any], parts: Sequence[str]) -> str:
  """Tells encoders apart: SHA-256 of the variables of top-level parts."""
  digest = hashlib.sha256()
  for collection in sorted(variables):
    for part in sorted(set(parts) & set(variables[collection])):
      for path, x in jax.tree.leaves_with_path(variables[collection][part]):
        digest.update(f"{collection} {part} {jax.tree_util.keystr(path)} {x.shape} {x.dtype}".encode())
        digest.update(np.ascontiguousarray(x).tobytes())
  return digest.hexdigest()
