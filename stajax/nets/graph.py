"""C-GCN: reasoning over a target and its companions (paper §4.3, Eqs. 5–10).

Axes: b batch, n nodes, o the n − 1 others of a node, q and p positions h·w of a node and of its others, c channels,
m ordered pairs of nodes.
"""

import functools
from collections.abc import Iterable, Sequence
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

Nodes = Sequence[jnp.ndarray]


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
    # A 1×1 convolution is a dense layer on every position.
    query, key = (nn.Dense(self.features, dtype=self.dtype, name=name) for name in ("query", "key"))
    # Each node apart: put together, a TPU would spend more time on copying them than on attention.
    states = [rearrange(nodes[:, node], "b h w c -> b (h w) c").astype(jnp.float32) for node in range(nodes.shape[1])]
    for step in range(self.steps):
      # Nobody hears what the others become in the last step: of one node it costs a third.
      receivers = states[:read] if step == self.steps - 1 else states
      queries, keys = [query(x) for x in receivers], [key(x) for x in states]
      received = messages(queries, keys, [x.astype(self.dtype) for x in states], self.block)
      states = [x * jax.nn.sigmoid(message) for x, message in zip(receivers, received, strict=True)]
      if self.frl:
        states = [fixation_refine(x) for x in states]
    return rearrange(jnp.stack(states, axis=1), "b n (h w) c -> b n h w c", h=nodes.shape[2])


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def messages(queries: Nodes, keys: Nodes, values: Nodes, block: int) -> list[jnp.ndarray]:
  """The sums inside σ of Eqs. 7 and 8: Σ over the others of softmax(q kᵀ) v, softmax over the other's positions.

  A pair of nodes at a time, which takes the least time. The gradient goes over all pairs as one batch, for the same
  reason (`benchmarks/NOTES.md`).

  Args:
    queries: r times (b, h·w, c), of the first r nodes.
    keys, values: n times (b, h·w, c).
    block: queries whose attention is computed at a time; on TPUs all are.

  Returns:
    r times (b, h·w, c) float32.
  """
  return [
    sum(_attend(query, keys[other], values[other], block) for other in _others(node, len(keys)))
    for node, query in enumerate(queries)
  ]


def _together(queries: Nodes, keys: Nodes, values: Nodes, block: int) -> list[jnp.ndarray]:
  """The same, all pairs of nodes as one batch."""
  pairs = [(node, other) for node in range(len(queries)) for other in _others(node, len(keys))]
  receivers, others = zip(*pairs, strict=True)

  def of_pairs(nodes: Nodes, chosen: Iterable[int]) -> jnp.ndarray:
    # b stays outermost, as it is split over devices.
    return rearrange(jnp.stack([nodes[node] for node in chosen], axis=1), "b m p c -> (b m) p c")

  of_all = of_pairs(queries, receivers), of_pairs(keys, others), of_pairs(values, others)
  received = rearrange(_attend(*of_all, block, len(keys) - 1), "(b n) q c -> b n q c", n=len(queries))
  return [received[:, node] for node in range(len(queries))]


def _begin_gradient(queries: Nodes, keys: Nodes, values: Nodes, block: int) -> tuple[list[jnp.ndarray], Any]:
  return jax.vjp(functools.partial(_together, block=block), queries, keys, values)


messages.defvjp(_begin_gradient, lambda block, pull_back, received: pull_back(received))


def _others(node: int, num_nodes: int) -> list[int]:
  return [other for other in range(num_nodes) if other != node]


def _attend(
  queries: jnp.ndarray, keys: jnp.ndarray, values: jnp.ndarray, block: int, num_others: int = 1
) -> jnp.ndarray:
  """Σ softmax(q kᵀ) v of successive `num_others` of m pairs: (m/o, q, c) float32."""
  in_blocks = functools.partial(_attend_in_blocks, num_others=num_others, block=block)
  at_once = functools.partial(_attend_at_once, num_others=num_others)
  return jax.lax.platform_dependent(queries, keys, values, tpu=at_once, default=in_blocks)


def _attend_to(
  queries: jnp.ndarray, keys: jnp.ndarray, values: jnp.ndarray, num_others: int, positions: int
) -> jnp.ndarray:
  """The same, to the first `positions` keys."""
  scores = jnp.einsum("mqc,mpc->mqp", queries, keys, preferred_element_type=jnp.float32)
  if positions < keys.shape[1]:
    scores = jnp.where(jnp.arange(keys.shape[1]) < positions, scores, -jnp.inf)
  attention = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
  received = jnp.einsum("mqp,mpc->mqc", attention, values, preferred_element_type=jnp.float32)
  if num_others == 1:  # a sum over one would keep a TPU's compiler from its best layout
    return received
  return rearrange(received, "(m o) q c -> m o q c", o=num_others).sum(axis=1)


def _attend_at_once(queries: jnp.ndarray, keys: jnp.ndarray, values: jnp.ndarray, num_others: int) -> jnp.ndarray:
  """All queries, on whole vectors: without a gradient a TPU's compiler makes one kernel of it."""
  positions = queries.shape[1]
  padding = ((0, 0), (0, -positions % _LANES), (0, 0))
  queries, keys, values = (jnp.pad(x, padding) for x in (queries, keys, values))
  return _attend_to(queries, keys, values, num_others, positions)[:, :positions]


def _attend_in_blocks(
  queries: jnp.ndarray, keys: jnp.ndarray, values: jnp.ndarray, num_others: int, block: int
) -> jnp.ndarray:
  """`block` queries at a time."""
  positions = queries.shape[1]
  if positions <= block:
    return _attend_to(queries, keys, values, num_others, positions)
  num_blocks = -(-positions // block)
  size = -(-positions // num_blocks)  # as even as can be: 1936 positions are 8 blocks of 242, none padded
  queries = jnp.pad(queries, ((0, 0), (0, num_blocks * size - positions), (0, 0)))
  queries = rearrange(queries, "m (blocks q) c -> blocks m q c", q=size)
  # Without the checkpoint every block's attention would be kept for the gradient.
  attend = jax.checkpoint(lambda x: _attend_to(x, keys, values, num_others, positions), prevent_cse=False)
  return rearrange(jax.lax.map(attend, queries), "blocks m q c -> m (blocks q) c")[:, :positions]


def fixation_refine(states: jnp.ndarray) -> jnp.ndarray:
  """FRL, Eqs. 9 and 10: weakens a state, most where its response is below T_d × its largest one.

  Response is the mean over channels. Where all are negative, all are below, as printed.

  Args:
    states: (…, h·w, c) float32.

  Returns:
    The same shape.
  """
  response = jnp.mean(states, axis=-1, keepdims=True)
  is_redundant = response < DISCARD_THRESHOLD * jnp.max(response, axis=-2, keepdims=True)
  kept = jax.nn.sigmoid(response) * jnp.where(is_redundant, REFINEMENT_RATE, 1.0)
  return 0.5 * (states * kept + states)
