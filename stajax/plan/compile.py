"""Programs of training and of dense inference, compiled for devices that need not be there.

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
    name: for people.
    times: how often it runs for the planned batch.
    compiled: what JAX's compiler made.
    macs: multiply-accumulates on each device, each time.
    batch_bytes: of its arguments on each device, those that grow with the batch.
    compile_seconds: that this took.
  """

  name: str
  times: int
  compiled: Any
  macs: int
  batch_bytes: int
  compile_seconds: float


def make_train_step(config: Config, name: str, num_categories: int, mesh: Mesh) -> tuple[Any, Any, Any]:
  """A network, its optimiser and its training step as `stajax.train` makes them, without reading any data."""
  network, spec = networks.make_network(name, config, num_categories), networks.NETWORKS[name]
  programs = make_programs(network, networks.training_of(name, config), spec.learns_fixations, mesh)
  return network, programs.optimizer, programs.train_step


def batch_shapes(config: Config, name: str, num_categories: int, batch: int) -> dict[str, jax.ShapeDtypeStruct]:
  """What the input pipeline gives for a step of b clips: see `stajax.data.batches.batches`."""
  network, training = networks.make_network(name, config, num_categories), networks.training_of(name, config)
  n, t = network.num_nodes, network.num_times
  cropped = networks.sees_crops(name, config)
  shapes: dict[str, tuple[tuple[int, ...], Any]] = {}
  if t:
    side = stored_side(config, training.size, cropped)
    shapes["frames"] = ((n, t, side, side, 3), np.uint8)
    if training.flip:
      shapes["flip"] = ((), np.bool_)
    if cropped or training.min_scale < 1:
      shapes["box"] = ((n, t, 4), np.float32)
  if network.hears:
    shapes["sound"] = ((n, *_SOUND), np.float16)
    shapes |= {f"sound_{name}": ((n,), np.float32) for name in ("mean", "deviation")}
  if network.hears and t:
    shapes["switch"] = ((n,), np.float32)
  if networks.NETWORKS[name].learns_fixations:
    shapes["map"] = ((n, config.maps.size, config.maps.size), np.uint8)
    shapes["weight"] = ((n,), np.float32)
  else:
    outputs = 1 if name == networks.SWITCH else num_categories
    shapes["tags"] = ((n, outputs), np.float32)
  return {key: jax.ShapeDtypeStruct((batch, *shape), dtype) for key, (shape, dtype) in shapes.items()}


def stored_side(config: Config, size: int, cropped: bool) -> int:
  """S: the smallest side at which JPEG files of the stored side can be decoded that is at least `size`."""
  stored = config.data.synthetic.size if config.data.source == "synthetic" else _STORED_SIDE
  if cropped:  # a crop is cut from all pixels that there are
    return stored
  return min((stored // scale for scale in (1, 2, 4, 8) if stored // scale >= size), default=stored)


def training_step(config: Config, name: str, num_categories: int, batch: int, devices: Sequence[Any]) -> list[Program]:
  """The training step of a network, data-parallel, with `batch` clips on each device."""
  mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
  network, update, train_step = make_train_step(config, name, num_categories, mesh)
  variables = networks.expected_variables(network, networks.training_of(name, config).size)
  state = jax.eval_shape(lambda variables: step.make_state(variables, update), variables)
  arrays = batch_shapes(config, name, num_categories, batch * len(devices))
  return [_compile("step", 1, train_step, mesh, (state,), (arrays,))]


def dense_inference(
  config: Config, names: Mapping[str, int], num_categories: int, batch: int, device: Any
) -> list[Program]:
  """The parts of networks as `stajax.inference.dense` runs them on `batch` frames of a clip, on one device alone.

  Students that share backbones and neck have these run once for all, with what only STA makes of a frame.

  Args:
    names: networks, and how many there are of each.
  """
  mesh = Mesh(np.array([device]), ("data",), axis_types=(AxisType.Auto,))
  programs = []
  once = ("frames", "sound") if config.shares_students else ()
  for place, (name, number) in enumerate(names.items()):
    for part, function, arrays in _parts(config, name, num_categories, batch):
      if part in once and place:
        continue
      times = 1 if part in once else number
      network = networks.make_network(name, config, num_categories)
      variables = networks.expected_variables(network, networks.training_of(name, config).size)
      programs.append(_compile(f"{name} {part}", times, jax.jit(function), mesh, (variables,), arrays))
  return programs


def _parts(
  config: Config, name: str, num_categories: int, batch: int
) -> list[tuple[str, Callable[..., Any], tuple[Any, ...]]]:
  """Functions of variables and arrays, and the shapes of the arrays, for B frames, fragments and groups."""
  network, training = networks.make_network(name, config, num_categories), networks.training_of(name, config)
  variables, size = networks.expected_variables(network, training.size), training.size
  n, t, cropped = network.num_nodes, network.num_times, networks.sees_crops(name, config)

  def shape(*axes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(axes, dtype)

  def encode(variables: Any, frames: jax.Array, boxes: jax.Array | None = None) -> Any:
    return network.apply(variables, to_size(frames, size, boxes), method="encode_frames")

  def hear(variables: Any, sound: jax.Array) -> jax.Array:
    return network.apply(variables, sound, method="encode_sound")

  def fuse(variables: Any, spatial: jax.Array, indices: jax.Array, *heard: jax.Array) -> jax.Array:
    return network.apply(variables, {"s": spatial[indices]}, *heard, method="fuse")

  def reason(variables: Any, nodes: jax.Array, features: Any, groups: jax.Array) -> Any:
    if not network.predicts_maps:
      return network.apply(variables, nodes[groups], method="reason")
    own = {key: x[groups[:, :1]] for key, x in features.items()}
    logits = network.apply(variables, nodes[groups], own, (size, size), read=1, method="reason")
    return jax.nn.sigmoid(logits[:, 0])

  if not t:
    whole = networks.example_inputs(network, size, batch)
    return [("all", lambda variables, sound: network.apply(variables, sound).logits, (whole["sound"],))]
  side = stored_side(config, size, cropped)
  frames = (shape(batch, side, side, 3, dtype=jnp.uint8), *([shape(batch, 4)] if cropped else []))
  features = jax.eval_shape(encode, variables, *frames)
  parts = [("frames", encode, frames)]
  heard: tuple[Any, ...] = ()
  if network.hears:
    sound = shape(batch, *_SOUND)
    parts.append(("sound", hear, (sound,)))
    heard = (jax.eval_shape(hear, variables, sound), shape(batch))
  indices = shape(batch, t, dtype=jnp.int32)
  parts.append(("fragments", fuse, (features["s"], indices, *heard)))
  nodes = jax.eval_shape(fuse, variables, features["s"], indices, *heard)
  parts.append(("groups", reason, (nodes, features, shape(batch, n, dtype=jnp.int32))))
  return parts


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
  macs = count_macs(function, *fixed, *arrays) // mesh.size
  batch_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(arrays)) // mesh.size
  return Program(name, times, compiled, macs, batch_bytes, taken)
