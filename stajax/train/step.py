"""The training step: one jitted, donated function of (state, batch) on a data-parallel mesh.

Axes: b batch, n nodes, t frames, S stored side, f s spectrogram, c categories.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange, repeat
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from stajax.nets.images import to_size
from stajax.train import losses

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
Loss = Callable[..., tuple[jax.Array, tuple[dict[str, Any], Metrics]]]
"""Of network, variables, batch and `train`, to the mean over the batch, new statistics and metrics."""

BRANCH_WEIGHT = 0.4  # of deep supervision

STAGES = ("f3", "f4", "f5")
"""What a batch has in place of `frames` where a frozen backbone's features are stored."""

_STATISTICS = "batch_stats"


@flax.struct.dataclass
class State:
  """Everything that training changes."""

  step: jax.Array
  params: dict[str, Any]
  statistics: dict[str, Any]
  optimizer: optax.OptState

  def variables(self) -> dict[str, Any]:
    """What the network's `apply` takes."""
    return {"params": self.params, **({_STATISTICS: self.statistics} if self.statistics else {})}


def make_state(variables: Mapping[str, Any], optimizer: optax.GradientTransformation) -> State:
  """The state at step 0 of a network's variables."""
  params = variables["params"]
  return State(jnp.zeros((), jnp.int32), params, variables.get(_STATISTICS, {}), optimizer.init(params))


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """All devices along one axis, `data`."""
  devices = jax.devices() if devices is None else devices
  return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """This host's slice of a global batch onto its devices, split along b."""
  sharding = NamedSharding(mesh, PartitionSpec("data"))
  return {name: jax.make_array_from_process_local_data(sharding, x) for name, x in batch.items()}


def replicate(tree: Any, mesh: Mesh) -> Any:
  """The same arrays on every device."""
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def make_train_step(
  network: nn.Module, loss: Loss, optimizer: optax.GradientTransformation, mesh: Mesh, frozen: Sequence[str] = ()
) -> Callable[[State, Batch], tuple[State, Metrics]]:
  """
  Args:
    loss: mean over the batch, new statistics and metrics; of this module.
    frozen: top-level parts of the parameters that stay as they are; no gradient is computed for them.

  Returns:
    A jitted function that donates the state; lower and compile it once for the shapes of a stage.
  """

  def train_step(state: State, batch: Batch) -> tuple[State, Metrics]:
    def objective(params: dict[str, Any]) -> tuple[jax.Array, tuple[dict[str, Any], Metrics]]:
      held = {name: jax.lax.stop_gradient(x) if name in frozen else x for name, x in params.items()}
      return loss(network, state.replace(params=held).variables(), batch)

    (value, (statistics, metrics)), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
    updates = {name: jax.tree.map(jnp.zeros_like, x) if name in frozen else x for name, x in updates.items()}
    return State(
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      statistics={name: state.statistics[name] if name in frozen else x for name, x in statistics.items()},
      optimizer=optimizer_state,
    ), {"loss": value, **metrics}

  everywhere = NamedSharding(mesh, PartitionSpec())
  return jax.jit(train_step, donate_argnums=0, out_shardings=(everywhere, everywhere))


def make_judge(network: nn.Module, loss: Loss) -> Callable[[dict[str, Any], Batch], Metrics]:
  """A jitted function of variables and a batch to loss and metrics, as `make_train_step` has them, without learning."""

  def judge(variables: dict[str, Any], batch: Batch) -> Metrics:
    value, (_, metrics) = loss(network, variables, batch, train=False)
    return {"loss": value, **metrics}

  return jax.jit(judge)


def classification_loss(size: int) -> Loss:
  """Eq. 3 on frames scaled to `size`; metric `accuracy`: how often a tag is the top category.

  Networks with companions have deep supervision: 0.4 times the mean of the losses of all branches before reasoning.
  """

  def loss(network: nn.Module, variables: Mapping[str, Any], batch: Batch, train: bool = True) -> tuple[jax.Array, Any]:
    out, statistics = _apply(network, variables, batch, size, train)
    tags = batch["tags"]
    value = jnp.mean(losses.multilabel_soft_margin(out.logits, tags[:, 0]))
    if network.num_nodes > 1:
      value += BRANCH_WEIGHT * jnp.mean(losses.multilabel_soft_margin(out.branch_logits, tags))
    return value, (statistics, {"accuracy": jnp.mean(losses.is_right(out.logits, tags[:, 0]))})

  return loss


def fixation_loss(size: int) -> Loss:
  """Eqs. 13 and 16 for students, on frames and maps scaled to `size`; maps of weight 0 count for nothing.

  Of a network of several students the sum of theirs: it says of which nodes its maps are.
  """

  def loss(network: nn.Module, variables: Mapping[str, Any], batch: Batch, train: bool = True) -> tuple[jax.Array, Any]:
    logits, statistics = _apply(network, variables, batch, size, train)
    nodes = batch["map"].shape[1]
    boxes, flip = _augmentation(batch, nodes, 1)
    maps = to_size(rearrange(batch["map"], "b n h w -> (b n) h w")[..., None], size, boxes, flip)
    targets = rearrange(maps[..., 0], "(b n) h w -> b n h w", n=nodes)
    # The mean over the batch for each node; Eq. 16 adds the nodes.
    weights = batch["weight"] / jnp.maximum(jnp.sum(batch["weight"], axis=0), 1e-6)
    if hasattr(network, "outputs"):
      targets, weights = (jnp.stack([x[:, node] for node in network.outputs], axis=1) for x in (targets, weights))
    cross_entropy = jnp.sum(weights * losses.pixel_cross_entropy(logits, targets))
    divergence = jnp.sum(weights * losses.divergence(logits, targets))
    return cross_entropy + divergence, (statistics, {"cross_entropy": cross_entropy, "divergence": divergence})

  return loss


def _apply(
  network: nn.Module, variables: Mapping[str, Any], batch: Batch, size: int, train: bool
) -> tuple[Any, dict[str, Any]]:
  """The network's output and its batch statistics, which are new ones in training."""
  inputs: dict[str, Any] = {}
  stages = {name: batch[name] for name in STAGES if name in batch}
  if stages:
    # Of the size, only what a student writes is not in the stages.
    inputs = {"stages": stages, **({} if hasattr(network, "source") else {"size": (size, size)})}
  elif network.num_times:
    b, n, t = batch["frames"].shape[:3]
    boxes, flip = _augmentation(batch, n, t)
    frames = to_size(rearrange(batch["frames"], "b n t H W rgb -> (b n t) H W rgb"), size, boxes, flip)
    inputs["frames"] = rearrange(frames, "(b n t) H W rgb -> b n t H W rgb", b=b, n=n, t=t)
  if network.hears:
    mean, deviation = (batch[f"sound_{name}"][..., None, None] for name in ("mean", "deviation"))
    inputs["sound"] = (batch["sound"].astype(jnp.float32) - mean) / deviation
    if network.num_times:
      inputs["switch"] = batch["switch"]
  out, changed = network.apply(variables, **inputs, train=train, mutable=[_STATISTICS])
  return out, changed.get(_STATISTICS, {})


def _augmentation(batch: Batch, nodes: int, times: int) -> tuple[jax.Array | None, jax.Array | None]:
  """Boxes (b·n·t, 4) and flips (b·n·t,), None where the batch has none; of every frame, or for 1 of the middle ones."""
  boxes = flip = None
  if "box" in batch:
    all_times = batch["box"].shape[2]
    chosen = batch["box"] if times == all_times else batch["box"][:, :, all_times // 2, None]
    boxes = rearrange(chosen, "b n t yx -> (b n t) yx")
  if "flip" in batch:
    flip = repeat(batch["flip"], "b -> (b n t)", n=nodes, t=times)
  return boxes, flip
