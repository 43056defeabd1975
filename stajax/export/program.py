"""A trained model as one function of arrays, from which `stajax export` makes files that run without this package.

Axes: b batch, n fragments of a group, S stored side, H W map.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stajax import networks
from stajax.inference.class_maps import SURELY_FOREIGN
from stajax.inference.predictor import final_maps
from stajax.media.spectrogram import NUM_BINS, WINDOW_COLUMNS
from stajax.model import Model
from stajax.nets.base import Network
from stajax.nets.images import to_size

_TIMES = 3
"""The frames of a fragment."""
_GRANULARITIES = ("short", "long")


@dataclass(frozen=True)
class ExportedProgram:
  """A model as one function of arrays.

  Attributes:
    maps: Computes maps (b, H, W) float32 in [0, 1] from the arrays that `shapes` describes, in that order.
    students: The names of the students whose maps it fuses.
    fragments: What the fragments of a group are; one alone has no axis.
    size: H and W.
    shapes: The shape without the batch, and the type, of each argument by its name: `frames` ([n,] 3, S, S, 3) uint8,
      `sound` ([n,] 257, 98) float32 and `heard` ([n]) float32, 1 where there is sound.
  """

  maps: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
  students: tuple[str, ...]
  fragments: tuple[str, ...]
  size: int
  shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]


@dataclass(frozen=True)
class _Part:
  """One network of the model.

  Attributes:
    network: The module.
    variables: Its variables, as they are stored.
    size: The side of its frames.
    stages: The stages of a frozen backbone, which networks of one size share; none if the network has its own.
    nodes: The fragments of its groups.
  """

  network: Network
  variables: Mapping[str, Any]
  size: int
  stages: tuple[str, ...]
  nodes: tuple[int, ...]


def make_program(model: Model, students: Sequence[str] | None = None) -> ExportedProgram:
  """Makes the program of a model. It computes in float32 where the model leaves that to the accelerator.

  Args:
    model: The model, with the variables of its students and its audio switch.
    students: The names of the students, one or all of them; None for all.
  """
  config = model.config
  if config.network.dtype == "auto":  # the file is for all platforms
    config = config.model_copy(update={"network": config.network.model_copy(update={"dtype": "float32"})})
  names = networks.students_of(config) if students is None else tuple(students)
  kinds = [kind for kind in _GRANULARITIES if any(networks.NETWORKS[name].companions == kind for name in names)]
  fragments = ("target", *(f"{kind} companion {number}" for kind in kinds for number in (1, 2)))
  compact = _Compact()

  def part(name: str) -> _Part:
    kind = networks.NETWORKS[name].companions
    nodes = (0,) if kind is None else (0, *(1 + 2 * kinds.index(kind) + number for number in (0, 1)))
    if name == networks.SWITCH:
      nodes = tuple(range(len(fragments)))
    stages = networks.shared_stages(name, config) if config.has_frozen_backbone else ()
    network = networks.make_network(name, config, len(model.categories), int8=model.is_int8)
    return _Part(network, compact(model.variables[name]), networks.training_of(name, config).size, stages, nodes)

  parts = {name: part(name) for name in names}
  switch = part(networks.SWITCH) if networks.SWITCH in model.variables else None
  is_alone = len(fragments) == 1

  def maps(frames: jax.Array, sound: jax.Array, heard: jax.Array) -> jax.Array:
    if is_alone:
      frames, sound, heard = frames[:, None], sound[:, None], heard[:, None]
    images = _Images(frames)
    if switch is not None:
      heard = heard * _is_switched_on(switch, images, sound, heard)
    launched = {name: [_student_maps(student, images, sound, heard)] for name, student in parts.items()}
    (final,) = final_maps(launched, config.maps.centre, config.maps.blur)
    return final

  side = model.side_of_frames(names if switch is None else (*names, networks.SWITCH))
  return ExportedProgram(maps, names, fragments, next(iter(parts.values())).size, _shapes(side, len(fragments)))


def _shapes(side: int, num_fragments: int) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
  group = () if num_fragments == 1 else (num_fragments,)
  return {
    "frames": ((*group, _TIMES, side, side, 3), np.dtype(np.uint8)),
    "sound": ((*group, NUM_BINS, WINDOW_COLUMNS), np.dtype(np.float32)),
    "heard": (group, np.dtype(np.float32)),
  }


class _Compact:
  """Keeps variables in half the precision where that loses nothing, as in a model that was halved to give away.

  What several networks share stays one array, so that the file has it once.
  """

  def __init__(self) -> None:
    self._made: dict[int, tuple[Any, jax.Array]] = {}

  def __call__(self, variables: Mapping[str, Any]) -> Any:
    return jax.tree.map(self._store, dict(variables))

  def _store(self, x: Any) -> jax.Array:
    if id(x) not in self._made:
      with np.errstate(over="ignore"):
        half = np.asarray(x).astype(np.float16)
      is_exact = x.dtype == np.float32 and np.array_equal(half.astype(np.float32), x)
      self._made[id(x)] = x, jnp.asarray(half if is_exact else x)  # `x` is kept, so that its id is not used again
    return self._made[id(x)][1]


def _widened(part: _Part) -> Any:
  return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float16 else x, part.variables)


class _Images:
  """The frames of groups (b, n, 3, S, S, 3), scaled to the sizes of networks, and what they share of them."""

  def __init__(self, frames: jax.Array) -> None:
    self._frames = frames
    self._made: dict[tuple[int, tuple[str, ...]], dict[str, jax.Array]] = {}

  def features(self, part: _Part, times: Sequence[int] = range(_TIMES)) -> dict[str, jax.Array]:
    """Returns what a network's `encode_frames` returns of its fragments' frames: {"s": (b, n, t, …), …}."""
    key = part.size, part.stages
    if key not in self._made:
      self._made[key] = self._stages(part)
    wanted = {name: _pick(_pick(x, part.nodes), times, axis=2) for name, x in self._made[key].items()}
    b, n, t = next(iter(wanted.values())).shape[:3]
    merged = {name: x.reshape(b * n * t, *x.shape[3:]) for name, x in wanted.items()}
    found = (
      part.network.apply(_widened(part), merged, method="embed")
      if part.stages
      else part.network.apply(_widened(part), merged["images"], method="encode_frames")
    )
    return {name: x.reshape(b, n, t, *x.shape[1:]) for name, x in found.items()}

  def _stages(self, part: _Part) -> dict[str, jax.Array]:
    """Returns the stages of the backbone that networks share, or else the images, of all fragments."""
    b, n, t = self._frames.shape[:3]
    images = to_size(self._frames.reshape(b * n * t, *self._frames.shape[3:]), part.size)
    found = {"images": images}
    if part.stages:
      found = part.network.apply(_widened(part), images, keep=part.stages, method="backbone")
    return {name: x.reshape(b, n, t, *x.shape[1:]) for name, x in found.items()}


def _pick(x: jax.Array, wanted: Sequence[int], axis: int = 1) -> jax.Array:
  """Returns the entries `wanted` of an axis, by default those of fragments."""
  if tuple(wanted) == tuple(range(x.shape[axis])):
    return x
  return jnp.concatenate([jax.lax.slice_in_dim(x, at, at + 1, axis=axis) for at in wanted], axis=axis)


def _nodes(part: _Part, features: Mapping[str, jax.Array], sound: jax.Array, switch: jax.Array) -> jax.Array:
  """Fuses fragments: (b, n, h, w, c)."""
  spatial = features["s"]
  b, n = spatial.shape[:2]
  variables = _widened(part)
  sound = _pick(sound, part.nodes)
  audio = part.network.apply(variables, sound.reshape(b * n, *sound.shape[2:]), method="encode_sound")
  spatial = spatial.reshape(b * n, *spatial.shape[2:])
  switch = _pick(switch, part.nodes).reshape(b * n)
  fused = part.network.apply(variables, {"s": spatial}, audio, switch, method="fuse")
  return fused.reshape(b, n, *fused.shape[1:])


def _student_maps(part: _Part, images: _Images, sound: jax.Array, switch: jax.Array) -> jax.Array:
  """Returns a student's maps (b, H, W) of the targets."""
  features = images.features(part)
  nodes = _nodes(part, features, sound, switch)
  own = {name: x[:, :1, _TIMES // 2] for name, x in features.items()}
  size = (part.size, part.size)
  logits = part.network.apply(_widened(part), nodes, own, size, read=1, method="reason")
  return jax.nn.sigmoid(logits[:, 0])


def _is_switched_on(part: _Part, images: _Images, sound: jax.Array, heard: jax.Array) -> jax.Array:
  """Returns the audio switch (b, n) of all fragments, each of which is a group of its own."""
  nodes = _nodes(part, images.features(part, (_TIMES // 2,)), sound, heard)
  b, n = nodes.shape[:2]
  out = part.network.apply(_widened(part), nodes.reshape(b * n, 1, *nodes.shape[2:]), method="reason")
  return (jax.nn.sigmoid(out.logits[:, 0]) > SURELY_FOREIGN).astype(jnp.float32).reshape(b, n)
