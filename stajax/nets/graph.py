"""C-GCN: reasoning over a target and its companions (paper §4.3, Eqs. 5–10).

Axes: b batch, n nodes, h w space, c channels.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from stajax.nets.attention import messages

STEPS = 3
"""m of §4.3."""
BLOCK = 256
"""How many positions attend at a time."""
DISCARD_THRESHOLD = 0.8
"""T_d of Eq. 9."""
REFINEMENT_RATE = 0.6
"""T_r of Eq. 10."""
_ALIKE = 0.5
"""What new queries and keys multiply states by, so that a place attends to what looks or sounds like it.

From random projections it would attend to anything, and what companions confirm would say nothing about it.
"""


class ConservativeGCN(nn.Module):
  """Lets every node attend to all others and keep what they confirm of it, `steps` times and for all nodes at once.

  Attributes:
    features: c.
    steps: m.
    frl: Whether each step ends with the fixation refine layer.
    discard_threshold: T_d of Eq. 9.
    refinement_rate: T_r of Eq. 10.
    block: How many positions attend at a time; memory grows with block · h·w, not with (h·w)². On TPUs all attend at
      once, as the compiler does without most of that memory itself.
    dtype: The type of the projections and products; states, softmax and sums are float32.
    floor: What has been added to all states, which new queries and keys take away again.
  """

  features: int
  steps: int = STEPS
  frl: bool = True
  block: int = BLOCK
  dtype: Any = jnp.float32
  discard_threshold: float = DISCARD_THRESHOLD
  refinement_rate: float = REFINEMENT_RATE
  floor: float = 0.0

  @nn.compact
  def __call__(self, nodes: jax.Array, read: int | None = None) -> jax.Array:
    """Returns the final states (b, read, h, w, c) float32 of the first `read` of the nodes (b, n, h, w, c), or of all.

    Args:
      nodes: (b, n, h, w, c).
      read: The number of nodes whose states are wanted; None for all.
    """
    query, key = (_Projection(self.features, -_ALIKE * self.floor, name=name)() for name in ("query", "key"))
    # Nodes are kept apart: if they were stacked, a TPU would spend more time on copying them than on attention.
    states = [rearrange(nodes[:, node], "b h w c -> b (h w) c").astype(jnp.float32) for node in range(nodes.shape[1])]
    for step in range(self.steps):
      # After the last step only `read` nodes are used: leaving the others out saves a third where one node is read.
      receivers = states[:read] if step == self.steps - 1 else states
      values = [x.astype(self.dtype) for x in states]
      inputs = values[: len(receivers)], values, query, key
      queries, keys = jax.lax.platform_dependent(*inputs, tpu=_folded, default=_projected)
      received: Any = messages(queries, keys, values, self.block)  # Eqs. 5 and 6
      states = [x * jax.nn.sigmoid(message) for x, message in zip(receivers, received, strict=True)]  # Eqs. 7 and 8
      if self.frl:
        states = [fixation_refine(x, self.discard_threshold, self.refinement_rate) for x in states]
    return rearrange(jnp.stack(states, axis=1), "b n (h w) c -> b n h w c", h=nodes.shape[2])


class _Projection(nn.Module):
  """Holds the parameters of a 1×1 convolution, a dense layer on every position, that begins as half of the identity.

  Attributes:
    features: c.
    initial_bias: What a new one adds to each channel.
  """

  features: int
  initial_bias: float

  @nn.compact
  def __call__(self) -> "Weights":
    kernel = self.param("kernel", _half_identity, (self.features, self.features))
    return kernel, self.param("bias", nn.initializers.constant(self.initial_bias), (self.features,))


Weights = tuple[jax.Array, jax.Array]
"""The kernel (c, c) and the bias (c,) of a projection, float32."""

_Arrays = list[jax.Array]


def _half_identity(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
  return _ALIKE * jnp.eye(*shape, dtype=dtype)


def _projected(receivers: _Arrays, states: _Arrays, query: Weights, key: Weights) -> tuple[_Arrays, _Arrays]:
  """Returns the queries of the receivers and the keys of all nodes, of their states (b, h·w, c)."""
  return [_project(x, *query) for x in receivers], [_project(x, *key) for x in states]


def _folded(receivers: _Arrays, states: _Arrays, query: Weights, key: Weights) -> tuple[_Arrays, _Arrays]:
  """Returns queries and keys with the same softmax, for TPUs, where a projection costs the traffic of padded lanes.

  A query q attends to a state x by q · (Wx + b) = (Wᵀq) · x + q · b. The last term is the same for all positions, so
  the softmax is without it, and the keys are the states themselves.
  """
  (kernel, bias), towards = query, key[0].T
  exact = jax.lax.Precision.HIGHEST
  both = jnp.matmul(kernel, towards, precision=exact), jnp.matmul(bias, towards, precision=exact)
  return [_project(x, *both) for x in receivers], states


def _project(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
  return x @ kernel.astype(x.dtype) + bias.astype(x.dtype)


def fixation_refine(
  states: jax.Array, discard_threshold: float = DISCARD_THRESHOLD, refinement_rate: float = REFINEMENT_RATE
) -> jax.Array:
  """Applies the FRL, Eqs. 9 and 10: it weakens a state, most where its response is below T_d × the largest response.

  The response is the mean over channels. Where all are negative, all are below, as printed.

  Args:
    states: (…, h·w, c) float32.
    discard_threshold: T_d.
    refinement_rate: T_r.

  Returns:
    The same shape.
  """
  response = jnp.mean(states, axis=-1, keepdims=True)
  is_redundant = response < discard_threshold * jnp.max(response, axis=-2, keepdims=True)  # Eq. 9
  kept = jax.nn.sigmoid(response) * jnp.where(is_redundant, refinement_rate, 1.0)
  return 0.5 * (states * kept + states)  # Eq. 10
