"""The parts of a network as compiled programs, which work on batches of a clip's samples.

Axes: B samples of a batch, n samples that a buffer has room for, t frames of a fragment, k selected categories.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false
# JAX annotates its functions in part, and chex has no stubs.

import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from stajax.inference.local_devices import Device
from stajax.inference.traced import Shapes, TracedProgram, shapes_of_results
from stajax.nets.base import Network
from stajax.nets.images import to_size

Buffers = dict[str, jax.Array]
"""Arrays (n, …) by their names, with an entry for every sample."""

_PART = 16
"""How many groups a C-GCN reasons over at a time on TPUs: their states then stay in the chip's own memory."""


_traced_once = jax.jit
"""Makes a part of a program that is traced once: for the shapes of its results, and for buffers of any length."""


class ClassMaps(NamedTuple):
  """The results of a classifier.

  Attributes:
    class_maps: (n, h, w, k) of the selected categories.
    confidences: (n, c) in (0, 1).
  """

  class_maps: jax.Array | np.ndarray
  confidences: jax.Array | np.ndarray


export.register_namedtuple_serialization(ClassMaps, serialized_name="stajax.ClassMaps")


class BatchProgram:
  """A part of a network that computes an entry for every sample of a batch and writes them into buffers in place.

  Args:
    name: What tells it from all other parts; see `TracedProgram`.
    compute: Returns the entries {name: (B, …)} for the variables, the batch's inputs (B, …), and the keyword arguments
      that all batches have in common.
  """

  def __init__(self, name: str | None, compute: Callable[..., Buffers]) -> None:
    self._name, self._compute = name, _traced_once(compute)
    self._shapes: Shapes | None = None
    self.write: Callable[..., Buffers] = TracedProgram(self._write, name, donate=1)
    """Runs the program on a batch: (variables, buffers, first sample, *inputs, **common) → buffers."""

  def _write(
    self, variables: Any, buffers: Buffers | None, first: jax.Array, *inputs: jax.Array, **common: Buffers
  ) -> Buffers:
    import chex  # here, because loading it would take 20 ms of every prediction's start

    entries = self._compute(variables, *inputs, **common)
    chex.assert_equal_shape_prefix([*entries.values(), *inputs], 1)
    if buffers is None:
      return entries
    return {name: jax.lax.dynamic_update_slice_in_dim(x, entries[name], first, 0) for name, x in buffers.items()}

  def make_buffers(
    self, capacity: int, device: Device, variables: Any, *inputs: np.ndarray, **common: Buffers
  ) -> Buffers | None:
    """Makes buffers of zeros for `capacity` samples; returns None for one batch, which needs no buffers.

    Args:
      capacity: n.
      device: Where they are made.
      variables: The network's variables.
      *inputs: The inputs of any batch.
      **common: As for `write`.
    """
    if capacity == len(inputs[0]):
      return None
    if self._shapes is None:  # found once, since that traces the program
      self._shapes = shapes_of_results(self._compute, self._name, variables, *inputs, **common)
    return _make_zeros(device)(capacity, self._shapes)


@functools.cache
def _make_zeros(device: Device) -> Callable[..., Buffers]:
  """Returns a program that makes buffers of zeros on a device."""

  def zeros(capacity: int, shapes: Shapes) -> Buffers:
    return {name: jnp.zeros((capacity, *shape), dtype) for name, shape, dtype in shapes}

  sharding = None if device is None else jax.sharding.SingleDeviceSharding(device)
  return jax.jit(zeros, static_argnums=(0, 1), out_shardings=sharding)


class Programs:
  """The parts of a network as programs.

  Args:
    network: The module.
    size: The side of its input in pixels.
    keep_stages: The stages of the backbone that `backbone` computes, for other networks too.
    keeps_traces: Whether the next process shall find them traced; see `stajax.inference.traced`.
  """

  def __init__(self, network: Network, size: int, keep_stages: tuple[str, ...], keeps_traces: bool) -> None:
    self._network, self._size, self._keep_stages = network, size, keep_stages

    def name(part: str) -> str | None:
      return f"{part} {network!r} {size} {keep_stages}" if keeps_traces else None

    self.encode_frames = BatchProgram(name("encode_frames"), self._encode_frames)
    self.backbone = BatchProgram(name("backbone"), self._backbone)
    self.embed = BatchProgram(name("embed"), self._embed)
    self.encode_sound = BatchProgram(name("encode_sound"), self._encode_sound)
    self.fuse = BatchProgram(name("fuse"), self._fuse)
    self.reason: Callable[..., Any] = TracedProgram(self._reason, name("reason"))

  def _encode_frames(self, variables: Any, frames: jax.Array, boxes: jax.Array | None = None) -> Buffers:
    return self._network.apply(variables, to_size(frames, self._size, boxes), method="encode_frames")

  def _backbone(self, variables: Any, frames: jax.Array, boxes: jax.Array | None = None) -> Buffers:
    images = to_size(frames, self._size, boxes)
    return self._network.apply(variables, images, keep=self._keep_stages, method="backbone")

  def _embed(self, variables: Any, index: jax.Array, stages: Buffers) -> Buffers:
    return self._network.apply(variables, {name: x[index] for name, x in stages.items()}, method="embed")

  def _encode_sound(self, variables: Any, sound: jax.Array) -> Buffers:
    return {"audio": self._network.apply(variables, sound, method="encode_sound")}

  def _fuse(self, variables: Any, fragments: jax.Array, switch: jax.Array, features: Buffers) -> Buffers:
    import chex

    chex.assert_shape(fragments, (None, self._network.num_times))
    chex.assert_shape(switch, fragments.shape[:1])
    middles = fragments[:, self._network.num_times // 2]
    heard = (features["audio"][middles], switch) if self._network.hears else ()
    return {"nodes": self._network.apply(variables, {"s": features["s"][fragments]}, *heard, method="fuse")}

  def _reason(
    self, variables: Any, nodes: jax.Array, features: Buffers, groups: jax.Array, select: jax.Array
  ) -> ClassMaps | jax.Array:
    import chex

    # With fewer or more nodes the C-GCN computes something else. A classifier's may be meant to: see `Groups`.
    if self._network.predicts_maps or groups.shape[1] == 1:
      chex.assert_shape(groups, (None, self._network.num_nodes))
    if not self._network.predicts_maps:
      out = self._network.apply(variables, nodes[groups], method="reason")
      return ClassMaps(out.class_maps[..., select], jax.nn.sigmoid(out.logits))
    return target_maps(self._network, self._size, variables, nodes, features, groups)


def target_maps(
  network: Network, size: int, variables: Any, nodes: jax.Array, features: Buffers, groups: jax.Array
) -> jax.Array:
  """Returns a student's maps (B, size, size) in [0, 1] of the targets of groups.

  Args:
    network: The student's module.
    size: The side of the maps in pixels.
    variables: Its variables.
    nodes: (n, h, w, c), the fused fragments of all samples.
    features: What `encode_frames` returns for all samples.
    groups: (B, nodes of a group), the samples of each group, the target first.
  """

  def read_out(groups: jax.Array) -> jax.Array:
    own = {name: x[groups[:, :1]] for name, x in features.items() if name != "audio"}  # only the target is read out
    logits = network.apply(variables, nodes[groups], own, (size, size), read=1, method="reason")
    return jax.nn.sigmoid(logits[:, 0])

  def in_parts(groups: jax.Array) -> jax.Array:
    return jnp.concatenate([read_out(groups[at : at + _PART]) for at in range(0, len(groups), _PART)])

  if network.num_nodes == 1 or len(groups) <= _PART:
    return read_out(groups)
  return jax.lax.platform_dependent(groups, tpu=in_parts, default=read_out)


_Key = tuple[Network, int, tuple[str, ...], bool]
_SHARED: "weakref.WeakValueDictionary[_Key, Programs]" = weakref.WeakValueDictionary()
_SHARED_LOCK = threading.Lock()


def shared_programs(network: Network, size: int, keep_stages: tuple[str, ...], keeps_traces: bool) -> Programs:
  """Returns the programs of a network; equal networks, such as both STA+, share them, so each is compiled once."""
  key = (network, size, keep_stages, keeps_traces)
  with _SHARED_LOCK:  # each device has a thread
    found = _SHARED.get(key)
    if found is None:
      found = _SHARED[key] = Programs(*key)
    return found
