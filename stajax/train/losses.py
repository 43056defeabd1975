"""Losses and training metrics, one value an example; callers weigh and average.

Axes: b batch, c categories, n nodes, H W maps.
"""

import jax
import jax.numpy as jnp
import optax


def multilabel_soft_margin(logits: jnp.ndarray, tags: jnp.ndarray) -> jnp.ndarray:
  """Eq. 3: binary cross-entropy with sigmoid, averaged over categories. (b, c) float32 and (b, c) of 0, 1 to (b,)."""
  return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, tags), axis=-1)


def is_right(logits: jnp.ndarray, tags: jnp.ndarray) -> jnp.ndarray:
  """Whether the largest of the logits (b, c) belongs to one of the tags (b, c): (b,) float32.

  Of a binary output (c = 1), whether it is on the side of the label.
  """
  if logits.shape[-1] == 1:
    return ((logits > 0) == (tags > 0.5))[:, 0].astype(jnp.float32)
  return jnp.take_along_axis(tags, jnp.argmax(logits, axis=-1)[:, None], axis=-1)[:, 0]


def pixel_cross_entropy(logits: jnp.ndarray, targets: jnp.ndarray) -> jnp.ndarray:
  """L_BCE of Eq. 13, averaged over a map's pixels: logits and targets in [0, 1], (..., H, W) to (...)."""
  return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, targets), axis=(-2, -1))


def divergence(logits: jnp.ndarray, targets: jnp.ndarray) -> jnp.ndarray:
  """L_KL of Eq. 13: KL(pGT/Σ ‖ σ(logit)/Σ), each map by itself: (..., H, W) to (...); 0 where pGT is all 0."""
  axes = (-2, -1)
  total = jnp.sum(targets, axis=axes, keepdims=True)
  target = targets / jnp.maximum(total, jnp.finfo(targets.dtype).tiny)
  log_prediction = jax.nn.log_sigmoid(logits)
  log_prediction -= jax.nn.logsumexp(log_prediction, axis=axes, keepdims=True)
  log_target = jnp.log(jnp.where(target > 0, target, 1.0))
  return jnp.sum(target * (log_target - log_prediction), axis=axes)
