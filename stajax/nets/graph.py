"""C-GCN: reasoning over a target and its companions (paper §4.3, Eqs. 5–10).

Axes: b batch, n nodes, o the n − 1 others of a node, q and p positions h·w of a node and of its others, c channels,
m ordered pairs of nodes.
"""

import functools
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

STEPS = 3
"""m of §4.3."""
BLOCK = 256
"""Positions whose attention is in memory at a time."""
DISCARD_THRESHOLD = 0.8
"""T_d of Eq. 9."""
REFINEMENT_RATE = 0.6
"""T_r of Eq. 10."""
_LANES = 128  # of a TPU's vectors


class ConservativeGCN(nn.Module):
  """Every node attends to every other and keeps what of itself they confirm, `steps` times; all nodes at once.

  Attributes:
    features: c.
    steps: m.
    frl: whether each step ends with the fixation refine layer.
    block: positions whose attention is in memory at a time; memory grows with block · h·w, not with (h·w)². On TPUs
      all are at once, as the compiler does without most of that memory itself.
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
    block: queries whose attention is computed at a time; on TPUs all are.

  Returns:
    (b, r, h·w, c) float32.
  """
  b, num_receivers, num_nodes = *queries.shape[:2], keys.shape[1]
  pairs = [(node, other) for node in range(num_receivers) for other in range(num_nodes) if other != node]

  def of_pairs(x: jnp.ndarray, nodes: Iterable[int]) -> jnp.ndarray:
    # By slices, as the gradient of a gather is a scatter, which is slow on accelerators; and b stays outermost, as it
    # is split over devices.
    return rearrange(jnp.stack([x[:, node] for node in nodes], axis=1), "b m p c -> (b m) p c")

  receivers, others = zip(*pairs, strict=True)
  queries, keys, values = of_pairs(queries, receivers), of_pairs(keys, others), of_pairs(values, others)
  num_others = num_nodes - 1
  in_blocks = functools.partial(_attend_in_blocks, num_others=num_others, block=block)
  at_once = functools.partial(_attend_at_once, num_others=num_others)
  received = jax.lax.platform_dependent(queries, keys, values, tpu=at_once, default=in_blocks)
  return rearrange(received, "(b n) q c -> b n q c", b=b)


def _attend(
  queries: jnp.ndarray, keys: jnp.ndarray, values: jnp.ndarray, num_others: int, positions: int
) -> jnp.ndarray:
  """Σ softmax(q kᵀ) v of successive `num_others` of m pairs, over the first `positions` keys: (m/o, q, c) float32."""
  scores = jnp.einsum("mqc,mpc->mqp", queries, keys, preferred_element_type=jnp.float32)
  if positions < keys.shape[1]:
    scores = jnp.where(jnp.arange(keys.shape[1]) < positions, scores, -jnp.inf)
  attention = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
  received = jnp.einsum("mqp,mpc->mqc", attention, values, preferred_element_type=jnp.float32)
  return rearrange(received, "(m o) q c -> m o q c", o=num_others).sum(axis=1)


def _attend_at_once(queries: jnp.ndarray, keys: jnp.ndarray, values: jnp.ndarray, num_others: int) -> jnp.ndarray:
  """All queries, on whole vectors: a TPU's compiler then fuses scores and softmax (`benchmarks/NOTES.md`)."""
  positions = queries.shape[1]
  padding = ((0, 0), (0, -positions % _LANES), (0, 0))
  queries, keys, values = (jnp.pad(x, padding) for x in (queries, keys, values))
  return _attend(queries, keys, values, num_others, positions)[:, :positions]


def _attend_in_blocks(
  queries: jnp.ndarray, keys: jnp.ndarray, values: jnp.ndarray, num_others: int, block: int
) -> jnp.ndarray:
  """`block` queries at a time."""
  positions = queries.shape[1]
  if positions <= block:
    return _attend(queries, keys, values, num_others, positions)
  num_blocks = -(-positions // block)
  size = -(-positions // num_blocks)  # as even as can be: 1936 positions are 8 blocks of 242, none padded
  queries = jnp.pad(queries, ((0, 0), (0, num_blocks * size - positions), (0, 0)))
  queries = rearrange(queries, "m (blocks q) c -> blocks m q c", q=size)
  # Without the checkpoint every block's attention would be kept for the gradient.
  attend = jax.checkpoint(lambda x: _attend(x, keys, values, num_others, positions), prevent_cse=False)
  return rearrange(jax.lax.map(attend, queries), "blocks m q c -> m (blocks q) c")[:, :positions]


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
