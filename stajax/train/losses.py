"""Losses and training metrics with one value for each example, which callers weigh and average.

Axes: b batch, c categories, n nodes, H W maps.
"""

import jax
import jax.numpy as jnp
import optax


def multilabel_soft_margin(logits: jax.Array, tags: jax.Array) -> jax.Array:
  """Returns the loss (b,) of Eq. 3: binary cross-entropy with a sigmoid, averaged over the categories.

  Args:
    logits: The network's output (b, c) float32.
    tags: 1 for each tag of the example, else 0; (b, c).
  """
  return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, tags), axis=-1)


def is_right(logits: jax.Array, tags: jax.Array) -> jax.Array:
  """Returns whether the largest of the logits (b, c) belongs to one of the tags (b, c), as (b,) float32.

  If there is only one output (c = 1), returns whether it is on the side of its label.
  """
  if logits.shape[-1] == 1:
    return ((logits > 0) == (tags > 0.5))[:, 0].astype(jnp.float32)
  return jnp.take_along_axis(tags, jnp.argmax(logits, axis=-1)[:, None], axis=-1)[:, 0]


def pixel_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Returns L_BCE (…) of Eq. 13, averaged over the pixels of each map.

  Args:
    logits: The predicted maps (…, H, W).
    targets: The pseudo-fixations (…, H, W) in [0, 1].
  """
  return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, targets), axis=(-2, -1))


def divergence(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Returns L_KL (…) of Eq. 13, KL(pGT/Σ ‖ σ(logit)/Σ), for each map by itself; 0 where pGT is all 0.

  Args:
    logits: The predicted maps (…, H, W).
    targets: The pseudo-fixations pGT (…, H, W) in [0, 1].
  """
  axes = (-2, -1)
  total = jnp.sum(targets, axis=axes, keepdims=True)
  target = targets / jnp.maximum(total, jnp.finfo(targets.dtype).tiny)
  log_prediction = jax.nn.log_sigmoid(logits)
  log_prediction -= jax.nn.logsumexp(log_prediction, axis=axes, keepdims=True)
  log_target = jnp.log(jnp.where(target > 0, target, 1.0))
  return jnp.sum(target * (log_target - log_prediction), axis=axes)
