"""The compiled parts of a network's training: its optimiser, its training step and its evaluation step."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from stajax.config import Training
from stajax.nets.base import Network
from stajax.train import mixing, optimizer, step


class Programs(NamedTuple):
  """The programs that train and evaluate a network, whatever it learns from.

  Attributes:
    optimizer: The optimiser, which turns gradients into updates.
    train_step: See `stajax.train.step.make_train_step`.
    evaluation_step: See `stajax.train.step.make_evaluation_step`.
  """

  optimizer: optax.GradientTransformation
  train_step: jax.stages.Wrapped
  evaluation_step: Callable[[Mapping[str, Any], step.Batch], step.Metrics]


def make_programs(
  network: Network,
  training: Training,
  learns_fixations: bool,
  mesh: jax.sharding.Mesh,
  decode: step.Decode = step.stored_as_is,
  knows_heard_tags: bool = False,
) -> Programs:
  """Makes the programs of a network.

  Args:
    network: The module.
    training: How it is trained.
    learns_fixations: Whether it learns pseudo-fixations instead of categories.
    mesh: The devices.
    decode: Returns the features of stages from what is stored of them.
    knows_heard_tags: Whether the batches say whether a tag is heard, see `stajax.train.network_batches`.
  """
  learned = "fixations" if learns_fixations else "labels"
  learned = f"{learned}, heard tags" if knows_heard_tags else learned
  return _make_programs(network, training, learned, mesh, decode)  # pyright: ignore[reportArgumentType] # it is frozen


_LOSSES = {
  "fixations": step.fixation_loss,
  "fixations, heard tags": functools.partial(step.fixation_loss, knows_heard_tags=True),
  "labels": step.classification_loss,
  "labels, heard tags": step.hearing_loss,
}


# Networks that are trained one after the other often differ in nothing but the examples: they are compiled once.
@functools.lru_cache(maxsize=1)
def _make_programs(
  network: Network, training: Training, learned: str, mesh: jax.sharding.Mesh, decode: step.Decode
) -> Programs:
  chosen = training.optimizer
  schedule = optimizer.make_schedule(chosen.learning_rate, training.steps, chosen.warmup, chosen.schedule)
  update = optimizer.make_optimizer(chosen.name, schedule, chosen.momentum, chosen.weight_decay, chosen.multipliers)
  loss = _LOSSES[learned](training.size, decode, mixing.count_mixed(training.mixed, training.batch))
  return Programs(
    optimizer=update,
    train_step=step.make_train_step(network, loss, update, mesh, training.frozen),
    evaluation_step=step.make_evaluation_step(network, loss),
  )
