"""Programs of training and of dense inference, compiled for devices that need not be present.

Axes: b clips of a step (all devices'), B frames computed together, n nodes, t frames of a fragment, S stored side.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from stajax import networks
from stajax.config import Config
from stajax.inference.programs import target_maps
from stajax.nets.images import to_size
from stajax.plan.count import count_macs
from stajax.plan.topology import DoesNotFit, quiet
from stajax.train import step
from stajax.train.programs import make_programs

_SOUND = (257, 98)
_STORED_SIDE = 512  # of prepared frames, by default


@dataclass(frozen=True)
class Program:
  """A compiled program.

  Attributes:
    name: The program's name, for people.
    times: The number of times that it runs for the planned batch.
    compiled: What JAX's compiler made.
    macs: Multiply-accumulates on each device, each time.
    int8_macs: Those among them whose factors are 8-bit integers.
    batch_bytes: The size, on each device, of the arguments that grow with the batch.
    compile_seconds: How long it took to compile.
  """

  name: str
  times: int
  compiled: jax.stages.Compiled
  macs: int
  int8_macs: int
  batch_bytes: int
  compile_seconds: float


def make_train_step(config: Config, name: str, num_categories: int, mesh: Mesh) -> tuple[Any, Any, Any]:
  """Returns a network, its optimiser and its training step as `stajax.train` makes them, without reading any data."""
  network, spec = networks.make_network(name, config, num_categories), networks.NETWORKS[name]
  programs = make_programs(network, networks.training_of(name, config), spec.learns_fixations, mesh)
  return network, programs.optimizer, programs.train_step


def batch_shapes(config: Config, name: str, num_categories: int, batch: int) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns what the input pipeline gives for a step of b clips; see `stajax.data.batches.make_batches`."""
  spec, training = networks.NETWORKS[name], networks.training_of(name, config)
  network = networks.make_network(name, config, num_categories)
  n, t = network.num_nodes, network.num_times
  cropped = networks.sees_crops(name, config)
  shapes: dict[str, tuple[tuple[int, ...], Any]] = {}
  if spec.sees:
    side = stored_side(config, training.size, cropped)
    shapes["frames"] = ((n, t, side, side, 3), np.uint8)
    if training.flip:
      shapes["flip"] = ((), np.bool_)
    if cropped or training.min_scale < 1:
      shapes["box"] = ((n, t, 4), np.float32)
  if spec.hears:
    shapes["sound"] = ((n, *_SOUND), np.float16)
    shapes |= {f"sound_{statistic}": ((n,), np.float32) for statistic in ("mean", "deviation")}
  if spec.hears and spec.sees:
    shapes["switch"] = ((n,), np.float32)
  if spec.learns_fixations:
    shapes["map"] = ((n, config.maps.size, config.maps.size), np.uint8)
    shapes["weight"] = ((n,), np.float32)
  else:
    shapes["tags"] = ((n, 1 if spec.role == "switch" else num_categories), np.float32)
  return {key: jax.ShapeDtypeStruct((batch, *shape), dtype) for key, (shape, dtype) in shapes.items()}


def stored_side(config: Config, size: int, cropped: bool) -> int:
  """Returns S: the smallest side at which JPEG files of the stored side can be decoded that is at least `size`."""
  stored = config.data.synthetic.size if config.data.source == "synthetic" else _STORED_SIDE
  if cropped:  # a crop is cut from all pixels that there are
    return stored
  return min((stored // scale for scale in (1, 2, 4, 8) if stored // scale >= size), default=stored)


def training_step(
  config: Config, name: str, num_categories: int, batch: int, devices: Sequence[Any], filled_up: bool = False
) -> list[Program]:
  """Compiles the training step of a network, data-parallel, with `batch` clips on each device.

  Args:
    config: The configuration.
    name: The name of the network.
    num_categories: The number of tags.
    batch: The number of clips on each device.
    devices: The devices.
    filled_up: Whether some of the clips only fill the batch up, and count nowhere.
  """
  mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
  network, update, train_step = make_train_step(config, name, num_categories, mesh)
  variables = networks.expected_variables(network, networks.training_of(name, config).size)
  state = jax.eval_shape(lambda variables: step.make_state(variables, update), variables)
  arrays = batch_shapes(config, name, num_categories, batch * len(devices))
  if filled_up:
    arrays[step.COUNTS] = jax.ShapeDtypeStruct((batch * len(devices),), np.float32)
  return [_compile("step", 1, train_step, mesh, (state,), (arrays,))]


def dense_inference(
  config: Config, names: Mapping[str, int], num_categories: int, batch: int, device: Any, int8: bool = False
) -> list[Program]:
  """Compiles the parts of networks as `stajax.inference.dense` runs them on a clip, on one device alone.

  If students share backbones and neck, these run once for all of them, together with what only STA computes of a frame.

  Args:
    config: The configuration.
    names: The networks, and the number of each.
    num_categories: The number of tags.
    batch: How many frames of a clip are computed together.
    device: The device.
    int8: Whether backbones and necks compute in 8-bit integers.
  """
  mesh = Mesh(np.array([device]), ("data",), axis_types=(AxisType.Auto,))
  programs: list[Program] = []
  shared = ("frames", "sound") if config.shares_students else ()
  for place, (name, number) in enumerate(names.items()):
    network = networks.make_network(name, config, num_categories, int8=int8)
    variables = networks.expected_variables(network, networks.training_of(name, config).size)
    for part, (function, arrays) in _parts(config, name, network, batch).items():
      if part in shared and place:
        continue
      times = 1 if part in shared else number
      programs.append(_compile(f"{name} {part}", times, jax.jit(function), mesh, (variables,), arrays))
  return programs


_Part = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function of variables and arrays, and the shapes of the arrays."""


def _parts(config: Config, name: str, network: Any, batch: int) -> dict[str, _Part]:
  """Returns the parts of a network, for B frames, fragments and groups, by what each computes."""
  size = networks.training_of(name, config).size
  if not networks.NETWORKS[name].sees:
    return {"all": (_Functions(network, size).tag, (networks.example_inputs(network, size, batch)["sound"],))}
  functions, variables = _Functions(network, size), networks.expected_variables(network, size)
  cropped = networks.sees_crops(name, config)
  side = stored_side(config, size, cropped)
  frames = (_shape(batch, side, side, 3, dtype=jnp.uint8), *([_shape(batch, 4)] if cropped else []))
  features = jax.eval_shape(functions.encode, variables, *frames)
  parts: dict[str, _Part] = {"frames": (functions.encode, frames)}
  heard: tuple[Any, ...] = ()
  if network.hears:
    sound = _shape(batch, *_SOUND)
    parts["sound"] = functions.hear, (sound,)
    heard = jax.eval_shape(functions.hear, variables, sound), _shape(batch)
  fragments = features["s"], _shape(batch, network.num_times, dtype=jnp.int32), *heard
  parts["fragments"] = functions.fuse, fragments
  nodes = jax.eval_shape(functions.fuse, variables, *fragments)
  groups = _shape(batch, network.num_nodes, dtype=jnp.int32)
  if networks.NETWORKS[name].learns_fixations:
    parts["groups"] = functions.read_out, (nodes, features, groups)
  else:
    parts["groups"] = functions.reason, (nodes, features, groups)
  return parts


@dataclass(frozen=True)
class _Functions:
  """What a network computes of frames, sounds, fragments and groups, as functions of its variables and of arrays.

  Attributes:
    network: The module.
    size: The side of its frames in pixels.
  """

  network: Any
  size: int

  def encode(self, variables: Any, frames: jax.Array, boxes: jax.Array | None = None) -> Any:
    return self.network.apply(variables, to_size(frames, self.size, boxes), method="encode_frames")

  def hear(self, variables: Any, sound: jax.Array) -> jax.Array:
    return self.network.apply(variables, sound, method="encode_sound")

  def fuse(self, variables: Any, spatial: jax.Array, indices: jax.Array, *heard: jax.Array) -> jax.Array:
    return self.network.apply(variables, {"s": spatial[indices]}, *heard, method="fuse")

  def reason(self, variables: Any, nodes: jax.Array, features: Any, groups: jax.Array) -> Any:
    return self.network.apply(variables, nodes[groups], method="reason")

  def read_out(self, variables: Any, nodes: jax.Array, features: Any, groups: jax.Array) -> Any:
    return target_maps(self.network, self.size, variables, nodes, features, groups)

  def tag(self, variables: Any, sound: jax.Array) -> jax.Array:
    return self.network.apply(variables, sound).logits


def _shape(*axes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(axes, dtype)


def _compile(
  name: str, times: int, function: Any, mesh: Mesh, fixed: tuple[Any, ...], arrays: tuple[Any, ...]
) -> Program:
  """Compiles a jitted function of `fixed`, whole on every device, and `arrays`, which are split along the batch."""

  def placed(tree: Any, spec: PartitionSpec) -> Any:
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

  start = time.perf_counter()
  try:
    with quiet():
      lowered = function.lower(*placed(fixed, PartitionSpec()), *placed(arrays, PartitionSpec("data")))
      compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    message = " ".join(str(error).split("\n")[0].split())
    if "RESOURCE_EXHAUSTED" in message:
      raise DoesNotFit(f"{name} does not fit: {message[:300]}") from None
    raise
  taken = time.perf_counter() - start
  macs, int8_macs = (count_macs(function, *fixed, *arrays, dtype=dtype) // mesh.size for dtype in (None, jnp.int8))
  batch_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(arrays)) // mesh.size
  return Program(name, times, compiled, macs, int8_macs, batch_bytes, taken)
