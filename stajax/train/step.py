"""The training step: one jitted function of (state, batch) on a data-parallel mesh, which donates the state.

Axes: b batch, n nodes, t frames, S stored side, f s spectrogram, c categories.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange, repeat
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from stajax.nets.base import Network
from stajax.nets.images import to_size
from stajax.nets.layers import counting
from stajax.train import losses, mixing

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
Statistics = dict[str, Any]

BRANCH_WEIGHT = 0.4  # of deep supervision

STAGES = ("f3", "f4", "f5")
"""The keys that a batch has in place of `frames` where the features of a frozen backbone are stored."""

COUNTS = "counts"
"""The key that a batch has if it is filled up: (b,) float32, 0 for examples that count nowhere, else how many count.

So a mean needs no sum of its own, for which all devices would have to wait in the middle of the step, and divides by
the very number that the mean of a batch divides by that is not filled up.
"""

_STATISTICS = "batch_stats"


class Loss(Protocol):
  """A loss of a network; see `classification_loss` and `fixation_loss`."""

  def __call__(
    self, network: Network, variables: Mapping[str, Any], batch: Batch, train: bool = True
  ) -> tuple[jax.Array, tuple[Statistics, Metrics]]:
    """Returns the mean loss of the batch, the network's new batch statistics, and metrics."""
    ...


class State(flax.struct.PyTreeNode):
  """Everything that training changes."""

  step: jax.Array
  params: dict[str, Any]
  statistics: Statistics
  optimizer: optax.OptState

  def variables(self) -> dict[str, Any]:
    """Returns what the network's `apply` takes."""
    return {"params": self.params, **({_STATISTICS: self.statistics} if self.statistics else {})}


def make_state(variables: Mapping[str, Any], optimizer: optax.GradientTransformation) -> State:
  """Returns the state at step 0 for a network's variables."""
  params = variables["params"]
  return State(
    step=jnp.zeros((), jnp.int32),
    params=params,
    statistics=variables.get(_STATISTICS, {}),
    optimizer=optimizer.init(params),
  )


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
  """Arranges devices, all by default, along one axis called `data`."""
  devices = jax.devices() if devices is None else devices
  return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """Puts this host's part of a global batch on its devices, split along b."""
  sharding = NamedSharding(mesh, PartitionSpec("data"))
  return {name: jax.make_array_from_process_local_data(sharding, x) for name, x in batch.items()}


def replicate(tree: Any, mesh: Mesh) -> Any:
  """Puts the same arrays on every device."""
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def make_train_step(
  network: Network, loss: Loss, optimizer: optax.GradientTransformation, mesh: Mesh, frozen: Sequence[str] = ()
) -> jax.stages.Wrapped:
  """Makes the jitted function (state, batch) → (state, metrics).

  Args:
    network: The module to train.
    loss: One of this module's losses.
    optimizer: The optimiser, which turns gradients into updates.
    mesh: The devices.
    frozen: The top-level parts of the parameters that stay as they are; no gradient is computed for them.

  Returns:
    A function that donates the state. Lower and compile it once for the shapes of a stage.
  """

  def train_step(state: State, batch: Batch) -> tuple[State, Metrics]:
    def objective(params: dict[str, Any]) -> tuple[jax.Array, tuple[Statistics, Metrics]]:
      stopped = {name: jax.lax.stop_gradient(x) if name in frozen else x for name, x in params.items()}
      return loss(network, state.replace(params=stopped).variables(), batch)

    (value, (statistics, metrics)), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
    changes = {name: jax.tree.map(jnp.zeros_like, x) if name in frozen else x for name, x in _parts(updates).items()}
    new_state = State(
      step=state.step + 1,
      params=_parts(optax.apply_updates(state.params, changes)),
      statistics={name: state.statistics[name] if name in frozen else x for name, x in statistics.items()},
      optimizer=optimizer_state,
    )
    # Otherwise the state could not be donated, and the next step would not fit the compiled program.
    chex.assert_trees_all_equal_shapes_and_dtypes(state, new_state)
    return new_state, {"loss": value, **metrics}

  everywhere = NamedSharding(mesh, PartitionSpec())
  return jax.jit(train_step, donate_argnums=0, out_shardings=(everywhere, everywhere))


def make_evaluation_step(network: Network, loss: Loss) -> Callable[[Mapping[str, Any], Batch], Metrics]:
  """Makes a jitted function (variables, batch) → metrics, which are those of the training step, without learning."""

  def evaluation_step(variables: Mapping[str, Any], batch: Batch) -> Metrics:
    value, (_, metrics) = loss(network, variables, batch, train=False)
    return {"loss": value, **metrics}

  return jax.jit(evaluation_step)


Decode = Callable[[str, jax.Array], jax.Array]
"""A function of a stage's name and what is stored of it, which returns the stage's features."""


def stored_as_is(stage: str, stored: jax.Array) -> jax.Array:
  """Returns stages that are stored as they are."""
  return stored


def hearing_loss(size: int, decode: Decode = stored_as_is, mixed: int = 0) -> Loss:
  """Returns the loss of the audio switch's network where a tagger says which tags it hears.

  The batch's `tags` (b, n, 2c) are those of the clip and those that are heard. In training, the first `mixed` examples
  have the sound of the next one.
  """

  def loss(
    network: Network, variables: Mapping[str, Any], batch: Batch, train: bool = True
  ) -> tuple[jax.Array, tuple[Statistics, Metrics]]:
    count = mixed if train else 0
    return labelled(network, variables, mixing.exchange_sounds(batch, count), train)

  labelled = classification_loss(size, decode)
  return loss


def classification_loss(size: int, decode: Decode = stored_as_is, mixed: int = 0) -> Loss:
  """Returns the loss of Eq. 3 on frames scaled to `size`; `decode` is applied to the stages that a batch has.

  In training, the first `mixed` examples show two clips, see `stajax.train.mixing`.

  Networks with companions have deep supervision: 0.4 times the mean of the losses of all branches before reasoning.
  So have taggers, for the map of their sound.
  The metric `accuracy` says how often the top category is one of the tags.
  """

  def loss(
    network: Network, variables: Mapping[str, Any], batch: Batch, train: bool = True
  ) -> tuple[jax.Array, tuple[Statistics, Metrics]]:
    count = mixed if train and network.num_times else 0
    out, statistics = _apply(network, variables, batch, size, train, decode, count)
    tags = mixing.join_tags(batch["tags"], _heard(network, batch), count) if count else batch["tags"]
    # Otherwise one output would be broadcast against many labels.
    chex.assert_equal_shape([out.logits, tags[:, 0]])
    value = _mean(losses.multilabel_soft_margin(out.logits, tags[:, 0]), batch)
    if out.branch_logits is not None:
      chex.assert_equal_shape([out.branch_logits, tags])
      value += BRANCH_WEIGHT * _mean(losses.multilabel_soft_margin(out.branch_logits, tags), batch)
    return value, (statistics, {"accuracy": _mean(losses.is_right(out.logits, tags[:, 0]), batch)})

  return loss


def fixation_loss(size: int, decode: Decode = stored_as_is, mixed: int = 0, knows_heard_tags: bool = False) -> Loss:
  """Returns the loss of Eqs. 13 and 16 for students, on frames and maps scaled to `size`, like `classification_loss`.

  Maps of weight 0 count for nothing. The loss of a network of several students is the sum of theirs: the network says
  to which nodes its maps belong. With `knows_heard_tags` the batch's `tags` (b, n, 1) say whether a tag of the clip is
  heard, and so whether the sound says which of two clips counts; the network hears the sound in any case.
  """

  def loss(
    network: Network, variables: Mapping[str, Any], batch: Batch, train: bool = True
  ) -> tuple[jax.Array, tuple[Statistics, Metrics]]:
    count = mixed if train else 0
    logits, statistics = _apply(network, variables, batch, size, train, decode, count)
    nodes = batch["map"].shape[1]
    boxes, flip = _augmentation(batch, nodes, 1)
    # Stored views may show more than the frame; maps are small, so that margins of a whole side cost nothing.
    maps = to_size(rearrange(batch["map"], "b n h w -> (b n) h w")[..., None], size, boxes, flip, reach=1.0)
    targets = rearrange(maps[..., 0], "(b n) h w -> b n h w", n=nodes)
    if count:
      heard = batch["tags"][..., 0] if knows_heard_tags else _heard(network, batch)
      targets = mixing.join_maps(targets, heard, count)
    # The mean over the batch for each node; Eq. 16 adds the nodes.
    weights = batch["weight"] * (batch[COUNTS] > 0)[:, None] if COUNTS in batch else batch["weight"]
    weights /= jnp.maximum(jnp.sum(weights, axis=0), 1e-6)
    if network.output_nodes != tuple(range(nodes)):
      targets, weights = (jnp.stack([x[:, node] for node in network.output_nodes], axis=1) for x in (targets, weights))
    chex.assert_equal_shape([logits, targets])
    chex.assert_shape(weights, logits.shape[:2])
    cross_entropy = jnp.sum(weights * losses.pixel_cross_entropy(logits, targets))
    divergence = jnp.sum(weights * losses.divergence(logits, targets))
    return cross_entropy + divergence, (statistics, {"cross_entropy": cross_entropy, "divergence": divergence})

  return loss


def _apply(
  network: Network,
  variables: Mapping[str, Any],
  batch: Batch,
  size: int,
  train: bool,
  decode: Decode,
  num_mixed: int,
) -> tuple[Any, Statistics]:
  """Returns the network's output and its batch statistics, which are new ones in training."""
  inputs: dict[str, Any] = {}
  stages = {name: decode(name, mixing.join(batch[name], num_mixed, 3)) for name in STAGES if name in batch}
  if stages:
    # A student cannot tell the size of its maps from the stages.
    inputs = {"stages": stages, **({"size": (size, size)} if network.predicts_maps else {})}
  elif network.num_times:
    chex.assert_shape(batch["frames"], (None, network.num_nodes, network.num_times, None, None, 3))
    b, n, t = batch["frames"].shape[:3]
    boxes, flip = _augmentation(batch, n, t)
    frames = to_size(rearrange(batch["frames"], "b n t H W rgb -> (b n t) H W rgb"), size, boxes, flip)
    frames = rearrange(frames, "(b n t) H W rgb -> b n t H W rgb", b=b, n=n, t=t)
    inputs["frames"] = mixing.join(frames, num_mixed, 3)
  if network.hears:
    mean, deviation = (batch[f"sound_{name}"][..., None, None] for name in ("mean", "deviation"))
    inputs["sound"] = (batch["sound"].astype(jnp.float32) - mean) / deviation
    if network.num_times:
      inputs["switch"] = batch["switch"]
  with counting(batch[COUNTS] > 0 if COUNTS in batch else None):
    out, changed = network.apply(variables, **inputs, train=train, mutable=[_STATISTICS])
  return out, _parts(changed.get(_STATISTICS, {}))


def _heard(network: Network, batch: Batch) -> jax.Array:
  """Returns whether the network hears the sound of each fragment, (b, n)."""
  return batch["switch"] if network.hears else jnp.zeros_like(batch["switch"])


def _mean(values: jax.Array, batch: Batch) -> jax.Array:
  """Returns the mean of values (b, …) over the examples that count, which all do if the batch is not filled up."""
  if COUNTS not in batch:
    return jnp.mean(values)
  of_examples = jnp.mean(values, axis=range(1, values.ndim))
  return jnp.sum(jnp.where(batch[COUNTS] > 0, of_examples / jnp.maximum(batch[COUNTS], 1), 0))


def _parts(tree: Any) -> dict[str, Any]:
  """Casts a tree of variables to its type, a dictionary of the network's top-level parts."""
  return cast(dict[str, Any], tree)


def _augmentation(batch: Batch, nodes: int, times: int) -> tuple[jax.Array | None, jax.Array | None]:
  """Returns the boxes (b·n·t, 4) and flips (b·n·t,) of all frames of a batch, or of the middle ones if `times` is 1.

  Each is None where the batch has none.
  """
  boxes = flip = None
  if "box" in batch:
    all_times = batch["box"].shape[2]
    chosen = batch["box"] if times == all_times else batch["box"][:, :, all_times // 2, None]
    boxes = rearrange(chosen, "b n t yx -> (b n t) yx")
  if "flip" in batch:
    flip = repeat(batch["flip"], "b -> (b n t)", n=nodes, t=times)
  return boxes, flip
