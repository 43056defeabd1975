"""Staged inference over clips of any length: every frame goes through a network's `encode` once.

For each clip (`stajax.inference.clip`) a network's three parts run one after the other: all frames are encoded,
fragments read their neighbours' features, groups read their companions' fragments. Features stay on the device and are
kept with the clip, so that networks whose encoders are equal (a frozen backbone) share them. Buffers have few sizes, so
one compiled program serves every length. Inputs are put on the device explicitly, and `fetch` waits for results.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# JAX annotates its functions in part.

import copy
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np

from stajax.inference.clip import Clip, Overlap, sounds
from stajax.inference.local_devices import Device
from stajax.inference.programs import BatchProgram, Buffers, shared_programs
from stajax.nets.base import Network
from stajax.weights.store import WeightsError

BatchInputs = Callable[[slice], tuple[np.ndarray, ...]]
"""A function that returns the inputs (≤ B, …) of a program for a slice of a clip's samples."""


@dataclass(frozen=True)
class Groups:
  """The groups of a clip's targets, for a network with companions.

  Attributes:
    samples: (n, 1 + companions), the samples of every target's group, the target first; len(clip) + p stands for
      `pool[p]`.
    pool: (P, h, w, c), fragments of other clips: what `DenseNetwork.nodes` returns, here or on the host.
    num_companions: The number of companions, where it may be another one than in training.

  Raises:
    ValueError: There is another number of companions.
  """

  samples: np.ndarray
  pool: jax.Array | np.ndarray | None = None
  num_companions: int = 2

  def __post_init__(self) -> None:
    if self.samples.shape[1:] != (1 + self.num_companions,):
      raise ValueError(f"groups are {self.samples.shape}, expected a target and {self.num_companions} companions each")


class DenseNetwork:
  """A trained network, compiled for whole clips.

  Attributes:
    network: The module.
    size: The side of its input in pixels.
    variables: Its variables on the device.

  Args:
    network: A classifier's or a student's module.
    variables: Its variables.
    size: The side of its input in pixels.
    batch: B, the number of frames that are computed at a time.
    cropped: Whether it sees the clip's boxes instead of whole frames.
    keep_stages: The stages of the backbone that are kept with a clip, for other networks with the same backbone.
    device: Where it computes; None for JAX's default device. A clip's features are on the device that made them.
    keeps_traces: Whether the next process shall find its programs traced; see `stajax.inference.traced`.
  """

  def __init__(
    self,
    network: Network,
    variables: dict[str, Any],
    size: int,
    batch: int,
    cropped: bool = False,
    keep_stages: Sequence[str] = (),
    device: Device = None,
    keeps_traces: bool = False,
  ) -> None:
    self.network, self.size, self._batch, self._cropped = network, size, batch, cropped
    self._device = device
    self.variables = self.put(variables)
    self._programs = shared_programs(network, size, tuple(keep_stages), keeps_traces)
    images = f"{size} {cropped}"
    self._frames_key = f"{images} {digest_of(variables, network.frame_parts)}"
    self._spatial_key = f"{images} {digest_of(variables, ('visual', 'neck'))}"
    self._stages_key = f"{images} {digest_of(variables, ('visual',))}" if keep_stages else None
    self._sound_key = digest_of(variables, ("sound",))

  def on(self, device: Device) -> "DenseNetwork":
    """Returns the same network on another device of this process; None for JAX's default one, where it has to be."""
    if device is None:
      return self
    other = copy.copy(self)
    other._device = device
    other.variables = other.put(self.variables)
    return other

  def put(self, values: Any) -> Any:
    """Puts arrays on the network's device."""
    return jax.device_put(values, self._device)

  def run(self, clip: Clip, select: Sequence[int] = (), groups: Groups | None = None) -> Any:
    """Computes the results for the clip's targets and waits for them.

    Args:
      clip: The clip.
      select: The k categories whose class maps are wanted, from a classifier.
      groups: The groups of its targets; only for networks with companions.

    Returns:
      `stajax.inference.programs.ClassMaps` from a classifier, or maps (n, H, W) float32 in [0, 1] from a student.
    """
    return fetch(self.launch(clip, select, groups), len(clip.targets))

  def launch(self, clip: Clip, select: Sequence[int] = (), groups: Groups | None = None) -> list[Any]:
    """Starts the computation of what `run` returns, with the same arguments.

    Returns:
      The results for every B targets, which stay on the device and may not be there yet; `fetch` waits for them.

    Raises:
      WeightsError: The weights are of another network.
    """
    try:
      return self._launch(clip, select, groups)
    except flax.errors.FlaxError as error:  # those of a model folder are believed where their SHA-256 is right
      raise WeightsError(f"the weights do not fit the configuration ({' '.join(str(error).split())})") from None

  def _launch(self, clip: Clip, select: Sequence[int], groups: Groups | None) -> list[Any]:
    targets = np.asarray(clip.targets)
    features, nodes = self._features(clip), self._nodes(clip)
    samples = targets[:, None] if groups is None else np.asarray(groups.samples)
    if groups is not None and groups.pool is not None:
      samples = np.where(samples >= len(clip), samples - len(clip) + nodes.shape[0], samples)
      nodes = jnp.concatenate([nodes, self.put(groups.pool).astype(nodes.dtype)])
    selected = self.put(np.asarray(select, np.int32))
    batches = (_fill_batch(samples[at : at + self._batch], self._batch) for at in range(0, len(targets), self._batch))
    reason, variables = self._programs.reason, self.variables
    return [reason(variables, nodes, features, self.put(batch), selected) for batch in batches]

  def nodes(self, clip: Clip) -> jax.Array:
    """Returns the fused fragments (n, h, w, c) of all samples, for the pools of other clips."""
    return jax.lax.slice_in_dim(self._nodes(clip), 0, len(clip))

  def stages(self, clip: Clip) -> Buffers:
    """Returns the stages of the backbone that this network reads; only for networks with `keep_stages`.

    They are kept with the clip, stored, or computed now.
    """
    assert self._stages_key is not None
    kept = clip.features.setdefault(self._stages_key, {})
    missing = [stage for stage in self.network.backbone_stages if stage not in kept]
    if missing and clip.stored is not None:
      values = {stage: clip.stored(self.size, self._cropped, stage) for stage in missing}
      kept |= {stage: self.put(_pad(x, self._capacity(clip))) for stage, x in values.items()}
    elif missing:
      kept = self._encode(clip, self._stages_key, self._programs.backbone, self._images(clip))
    return {stage: kept[stage] for stage in self.network.backbone_stages}

  def _features(self, clip: Clip) -> Buffers:
    """Encodes the clip's frames and sound, each once for all networks with this encoder."""
    programs = self._programs
    if self._frames_key not in clip.features:
      if self._stages_key is None:
        self._encode(clip, self._frames_key, programs.encode_frames, self._images(clip))
      else:
        stages, index = self.stages(clip), np.arange(len(clip))
        self._encode(clip, self._frames_key, programs.embed, lambda at: (index[at],), stages=stages)
    features = clip.features[self._frames_key]
    clip.features.setdefault(self._spatial_key, {"s": features["s"]})
    if not self.network.hears:
      return features
    key = f"{clip.sound} {self._sound_key}"  # the copies of a clip share its features, but may differ in sound
    if key not in clip.features:
      self._encode(clip, key, programs.encode_sound, lambda at: (sounds(clip.samples[at]),))
    return features | clip.features[key]

  def _images(self, clip: Clip) -> BatchInputs:
    """Returns a function that gives the frames of a slice and, for crops, their boxes."""

    def images(at: slice) -> tuple[np.ndarray, ...]:
      frames = np.stack([frame for frame, _ in clip.samples[at]])
      if not self._cropped:
        return (frames,)
      assert clip.boxes is not None
      return frames, clip.boxes[at]

    return images

  def _nodes(self, clip: Clip) -> jax.Array:
    """Fuses the fragments of all samples: (capacity, h, w, c)."""
    num_times, index = self.network.num_times, np.arange(len(clip))
    offsets = (np.arange(num_times) - num_times // 2) * (0 if clip.is_still else clip.reach)

    def fragments(at: slice) -> tuple[np.ndarray, ...]:
      return clip.neighbours(index[at], offsets), clip.switch[at]

    return self._run_batches(clip, self._programs.fuse, fragments, features=self._features(clip))["nodes"]

  def _encode(self, clip: Clip, key: str, program: BatchProgram, inputs: BatchInputs, **common: Buffers) -> Buffers:
    """Runs an encoder on the samples that the window before has not encoded, and keeps the features with the clip."""
    overlap = clip.overlap
    # Boxes depend on the window, so crops of common frames may differ.
    if overlap is not None and (self._cropped or key not in overlap.features):
      overlap = None
    encoded = None if overlap is None else (overlap, overlap.features[key])
    clip.features[key] = self._run_batches(clip, program, inputs, encoded, **common)
    return clip.features[key]

  def _run_batches(
    self,
    clip: Clip,
    program: BatchProgram,
    inputs: BatchInputs,
    encoded: tuple[Overlap, Buffers] | None = None,
    **common: Buffers,
  ) -> Buffers:
    """Runs a program on a clip, B samples at a time.

    Args:
      clip: The clip.
      program: The program.
      inputs: A function that returns its inputs when they are needed.
      encoded: The overlap with the window before, and the buffers of that window, from which it is copied.
      **common: What the program needs for every batch.
    """
    buffers: Buffers | None
    if encoded is None:
      example = [x.repeat(self._batch, axis=0) for x in inputs(slice(0, 1))]
      buffers = program.make_buffers(self._capacity(clip), self._device, self.variables, *example, **common)
      begin = 0
    else:
      overlap, before = encoded
      buffers = _begin_with(before, self.put(np.int32(overlap.start)), self._capacity(clip))
      begin = overlap.count
    for at in range(begin, len(clip), self._batch):
      batch = [_fill_batch(x, self._batch) for x in inputs(slice(at, at + self._batch))]
      buffers = program.write(self.variables, buffers, *self.put((np.int32(at), *batch)), **common)
    assert buffers is not None
    return buffers

  def _capacity(self, clip: Clip) -> int:
    """Returns the number of samples that buffers have room for: a power of two of batches.

    There is room for one more batch where the first one may not begin at a multiple of the batch's size.
    """
    batches = -(-max(len(clip), clip.capacity) // self._batch) + (clip.capacity > 0)
    return self._batch * 2 ** (batches - 1).bit_length()


def fetch(results: Sequence[Any], count: int) -> Any:
  """Waits for launched results, and returns the first `count` of all batches on the host."""

  def join(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts)[:count]

  return jax.tree.map(join, *jax.device_get(list(results)))


@jax.jit
def take(x: jax.Array, at: jax.Array) -> jax.Array:
  """Returns the entries (m, …) at the places (m,) of a buffer (n, …)."""
  return x[at]


def make_tagger(
  network: Network,
  variables: dict[str, Any],
  batch: int,
  activation: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
  device: Device = None,
) -> Callable[[Clip], np.ndarray]:
  """Returns a function that gives a trained tagger's confidences (n, c) in the sound of each of a clip's samples.

  Args:
    network: The tagger's module.
    variables: Its variables.
    batch: The number of sounds that are computed at a time.
    activation: A function that turns logits into confidences.
    device: Where it computes; None for JAX's default device.
  """
  variables = jax.device_put(variables, device)

  @jax.jit
  def confidences(variables: Any, sound: jax.Array) -> jax.Array:
    return activation(network.apply(variables, sound[:, None]).logits)

  def hear(clip: Clip) -> np.ndarray:
    batches = (_fill_batch(sounds(clip.samples[at : at + batch]), batch) for at in range(0, len(clip), batch))
    return fetch([confidences(variables, jax.device_put(sound, device)) for sound in batches], len(clip))

  return hear


@jax.jit(static_argnums=2)
def _begin_with(before: Buffers, start: jax.Array, capacity: int) -> Buffers:
  """Returns buffers for `capacity` samples that begin with those of `before` from `start` on.

  How many of them two windows share depends on the rate of the maps. So that every rate has the same program, what lies
  behind them is filled with the last sample; the window writes its own samples there.
  """
  return {name: x[jnp.minimum(start + jnp.arange(capacity), len(x) - 1)] for name, x in before.items()}


def _pad(values: np.ndarray, length: int) -> np.ndarray:
  """Returns (n, …) with zeros up to `length`."""
  padded = np.zeros((length, *values.shape[1:]), values.dtype)
  padded[: len(values)] = values
  return padded


def _fill_batch(x: np.ndarray, batch: int) -> np.ndarray:
  """Fills (≤ B, …) up to (B, …) with the last entry."""
  return x if len(x) == batch else np.concatenate([x, x[-1:].repeat(batch - len(x), axis=0)])


def digest_of(variables: dict[str, Any], parts: Iterable[str]) -> str:
  """Returns the SHA-256 of the variables of top-level parts, by which equal encoders are recognised."""
  digest, wanted = hashlib.sha256(), set(parts)
  for collection in sorted(variables):
    for part in sorted(wanted & set(variables[collection])):
      leaves: Any = jax.tree.leaves_with_path(variables[collection][part])
      for path, x in leaves:
        digest.update(f"{collection} {part} {jax.tree_util.keystr(path)} {x.shape} {x.dtype}".encode())
        digest.update(np.ascontiguousarray(x).tobytes())
  return digest.hexdigest()
