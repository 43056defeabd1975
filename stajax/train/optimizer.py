"""SGD with Nesterov momentum, or Adam, with the paper's four groups of parameters."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

BACKBONES = ("visual", "sound")
"""The top-level parts that count as a backbone; every other part is new."""


def group(path: Sequence[Any]) -> int:
  """Returns the group of a parameter: 0 backbone weights, 1 backbone biases, 2 new weights, 3 new biases.

  Args:
    path: The parameter's path in its tree.
  """
  names = [str(getattr(key, "key", key)) for key in path]
  return 2 * (names[0] not in BACKBONES) + (names[-1] == "bias")


def make_schedule(
  learning_rate: float, steps: int, warmup: int, schedule: Literal["constant", "cosine"]
) -> optax.Schedule:
  """Makes a learning rate that grows linearly for `warmup` steps, then is constant or a cosine to 0 at `steps`."""
  if schedule == "constant":
    after = optax.constant_schedule(learning_rate)
  else:
    after = optax.cosine_decay_schedule(learning_rate, max(steps - warmup, 1))
  return optax.join_schedules([optax.linear_schedule(0.0, learning_rate, max(warmup, 1)), after], [warmup])


def make_optimizer(
  name: Literal["sgd", "adam"],
  schedule: optax.Schedule,
  momentum: float,
  weight_decay: float,
  multipliers: Sequence[float],
) -> optax.GradientTransformation:
  """Makes an optimiser.

  Args:
    name: `sgd` adds the weight decay to the gradient, as PyTorch does; `adam` decays separately from it (AdamW).
    schedule: The learning rate by step.
    momentum: The Nesterov momentum, or Adam's b1.
    weight_decay: The decay of kernels; biases and normalisation are not decayed.
    multipliers: Factors of the learning rate for the four groups of `group`.
  """

  def is_kernel(params: Any) -> Any:
    return jax.tree.map_with_path(lambda path, _: path[-1].key == "kernel", params)

  def scale(updates: Any, _: Any = None) -> Any:
    return jax.tree.map_with_path(lambda path, u: u * jnp.asarray(multipliers[group(path)], u.dtype), updates)

  decay = optax.add_decayed_weights(weight_decay, mask=is_kernel)
  if name == "sgd":
    core = [decay, optax.trace(decay=momentum, nesterov=True)]
  else:
    core = [optax.scale_by_adam(b1=momentum), decay]
  return optax.chain(*core, optax.stateless(scale), optax.scale_by_learning_rate(schedule))
