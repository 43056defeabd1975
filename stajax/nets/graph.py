"""C-GCN: reasoning over a target and its companions (paper §4.3, Eqs. 5–10).

Axes: b batch, n nodes, o the n − 1 others of a node, q and p positions h·w of a node and of its others, c channels.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

STEPS = 3
"""m of §4.3."""
BLOCK = 256
"""Positions whose attention is in memory at a time."""
DISCARD_THRESHOLD = 0.8
"""T_d of Eq. 9."""
REFINEMENT_RATE = 0.6
"""T_r of Eq. 10."""


class ConservativeGCN(nn.Module):
  """Every node attends to every other and keeps what of itself they confirm, `steps` times; all nodes at once.

  Attributes:
    features: c.
    steps: m.
    frl: whether each step ends with the fixation refine layer.
    block: positions whose attention is in memory at a time; memory grows with block · h·w, not with (h·w)².
    dtype: of the projections and products; states, softmax and sums are float32.
  """

  features: int
  steps: int = STEPS
  frl: bool = True
  block: int = BLOCK
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, nodes: jnp.ndarray, read: int | None = None) -> jnp.ndarray:
    """(b, n, h, w, c) to the final states of the first `read` nodes, None for all: (b, read, h, w, c) float32."""
    height = nodes.shape[2]
    # A 1×1 convolution is a dense layer on every position.
    query, key = (nn.Dense(self.features, dtype=self.dtype, name=name) for name in ("query", "key"))
    states = nodes.astype(jnp.float32)
    for step in range(self.steps):
      flat = rearrange(states, "b n h w c -> b n (h w) c")
      # Nobody hears what the others become in the last step: of one node it costs a third.
      last = read if step == self.steps - 1 else None
      received = messages(query(flat[:, :last]), key(flat), flat.astype(self.dtype), self.block)
      states = states[:, :last] * jax.nn.sigmoid(rearrange(received, "b n (h w) c -> b n h w c", h=height))
      if self.frl:
        states = fixation_refine(states)
    return states


def messages(queries: jnp.ndarray, keys: jnp.ndarray, values: jnp.ndarray, block: int) -> jnp.ndarray:
  """The sums inside σ of Eqs. 7 and 8: Σ over the others of softmax(q kᵀ) v, softmax over the other's positions.

  Args:
    queries: (b, r, h·w, c) of the first r nodes.
    keys, values: (b, n, h·w, c).
    block: queries whose attention is computed at a time.

  Returns:
    (b, r, h·w, c) float32.
  """
  num_receivers, num_positions = queries.shape[1:3]
  num_nodes = keys.shape[1]
  others = np.array([[other for other in range(num_nodes) if other != node] for node in range(num_receivers)])
  keys, values = keys[:, others], values[:, others]

  def attend(queries: jnp.ndarray) -> jnp.ndarray:
    scores = jnp.einsum("bnqc,bnopc->bnqop", queries, keys, preferred_element_type=jnp.float32)
    attention = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    return jnp.einsum("bnqop,bnopc->bnqc", attention, values, preferred_element_type=jnp.float32)

  if num_positions <= block:
    return attend(queries)
  num_blocks = -(-num_positions // block)
  size = -(-num_positions // num_blocks)  # as even as can be: 1936 positions are 8 blocks of 242, none padded
  queries = jnp.pad(queries, ((0, 0), (0, 0), (0, num_blocks * size - num_positions), (0, 0)))
  queries = rearrange(queries, "b n (blocks q) c -> blocks b n q c", q=size)
  # Without the checkpoint every block's attention would be kept for the gradient.
  received = jax.lax.map(jax.checkpoint(attend, prevent_cse=False), queries)
  return rearrange(received, "blocks b n q c -> b n (blocks q) c")[:, :, :num_positions]


def fixation_refine(states: jnp.ndarray) -> jnp.ndarray:
  """FRL, Eqs. 9 and 10: weakens a state, most where its response is below T_d × its largest one.

  Response is the mean over channels. Where all are negative, all are below, as printed.

  Args:
    states: (…, h, w, c) float32.

  Returns:
    The same shape.
  """
  response = jnp.mean(states, axis=-1, keepdims=True)
  is_redundant = response < DISCARD_THRESHOLD * jnp.max(response, axis=(-3, -2), keepdims=True)
  kept = jax.nn.sigmoid(response) * jnp.where(is_redundant, REFINEMENT_RATE, 1.0)
  return 0.5 * (states * kept + states)
