"""SGD with Nesterov momentum (or Adam) and the paper's four parameter groups."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

BACKBONES = ("visual", "sound")
"""Top-level parts that count as backbone; every other part is new."""


def group(path: Sequence[Any]) -> int:
  """0 backbone weights, 1 backbone biases, 2 new weights, 3 new biases, by a parameter's tree path."""
  names = [str(getattr(key, "key", key)) for key in path]
  return 2 * (names[0] not in BACKBONES) + (names[-1] == "bias")


def make_schedule(
  learning_rate: float, steps: int, warmup: int, schedule: Literal["constant", "cosine"]
) -> optax.Schedule:
  """Linear growth over `warmup` steps, then constant or a cosine to 0 at `steps`."""
  after = {
    "constant": lambda: optax.constant_schedule(learning_rate),
    "cosine": lambda: optax.cosine_decay_schedule(learning_rate, max(steps - warmup, 1)),
  }[schedule]()
  return optax.join_schedules([optax.linear_schedule(0.0, learning_rate, max(warmup, 1)), after], [warmup])


def make_optimizer(
  name: Literal["sgd", "adam"],
  schedule: optax.Schedule,
  momentum: float,
  weight_decay: float,
  multipliers: Sequence[float],
) -> optax.GradientTransformation:
  """
  Args:
    name: `sgd` adds weight decay to the gradient, as PyTorch does; `adam` decays apart from it (AdamW).
    schedule: learning rate by step.
    momentum: Nesterov momentum, or Adam's b1.
    weight_decay: of kernels; biases and normalisation are not decayed.
    multipliers: of the learning rate for the four groups of `group`.
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
