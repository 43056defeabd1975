"""Attention between the nodes of a group: what Eqs. 5 to 7 compute, laid out for accelerators and for little memory.

Axes: b batch, q and p positions h·w of a receiving node and of the node that it attends to, c channels, m ordered pairs
of nodes, o the n − 1 others of a node.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange

_LANES = 128  # of a TPU's vectors

Nodes = Sequence[jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def messages(queries: Nodes, keys: Nodes, values: Nodes, block: int) -> list[jax.Array]:
  """Computes the sums inside σ of Eqs. 7 and 8: Σ over the others of softmax(q kᵀ) v, softmax over their positions.

  One pair of nodes is computed at a time, which takes the least time. The gradient is computed for all pairs as one
  batch, for the same reason (`benchmarks/NOTES.md`).

  Args:
    queries: (b, h·w, c) of each of the first r nodes.
    keys: (b, h·w, c) of each of the n nodes.
    values: (b, h·w, c) of each of the n nodes.
    block: How many queries attend at a time; on TPUs all do.

  Returns:
    (b, h·w, c) float32 for each of the r nodes.
  """
  return [
    sum(_attend(query, keys[other], values[other], block) for other in _others(node, len(keys)))
    for node, query in enumerate(queries)
  ]  # pyright: ignore[reportReturnType]  # every node has others, so no sum is the int 0


def _messages_together(queries: Nodes, keys: Nodes, values: Nodes, block: int) -> list[jax.Array]:
  """Computes what `messages` computes, with all pairs of nodes as one batch."""
  pairs = [(node, other) for node in range(len(queries)) for other in _others(node, len(keys))]
  receivers, others = zip(*pairs, strict=True)

  def of_pairs(nodes: Nodes, chosen: Iterable[int]) -> jax.Array:
    # b stays outermost, as it is split over devices.
    return rearrange(jnp.stack([nodes[node] for node in chosen], axis=1), "b m p c -> (b m) p c")

  of_all = of_pairs(queries, receivers), of_pairs(keys, others), of_pairs(values, others)
  received = rearrange(_attend(*of_all, block, len(keys) - 1), "(b n) q c -> b n q c", n=len(queries))
  return [received[:, node] for node in range(len(queries))]


def _forward(queries: Nodes, keys: Nodes, values: Nodes, block: int) -> tuple[list[jax.Array], Any]:
  return jax.vjp(functools.partial(_messages_together, block=block), queries, keys, values)


messages.defvjp(_forward, lambda block, pull_back, received: pull_back(received))


def _others(node: int, num_nodes: int) -> list[int]:
  return [other for other in range(num_nodes) if other != node]


def _attend(queries: jax.Array, keys: jax.Array, values: jax.Array, block: int, num_others: int = 1) -> jax.Array:
  """Sums softmax(q kᵀ) v over each `num_others` successive ones of m pairs: (m/o, q, c) float32."""
  in_blocks = functools.partial(_attend_in_blocks, num_others=num_others, block=block)
  at_once = functools.partial(_attend_at_once, num_others=num_others)
  return jax.lax.platform_dependent(queries, keys, values, tpu=at_once, default=in_blocks)


def _attend_to(queries: jax.Array, keys: jax.Array, values: jax.Array, num_others: int, positions: int) -> jax.Array:
  """Computes what `_attend` computes, but attends to the first `positions` keys only."""
  scores = jnp.einsum("mqc,mpc->mqp", queries, keys, preferred_element_type=jnp.float32)
  if positions < keys.shape[1]:
    scores = jnp.where(jnp.arange(keys.shape[1]) < positions, scores, -jnp.inf)
  attention = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
  received = jnp.einsum("mqp,mpc->mqc", attention, values, preferred_element_type=jnp.float32)
  if num_others == 1:  # a sum over one would keep a TPU's compiler from its best layout
    return received
  return rearrange(received, "(m o) q c -> m o q c", o=num_others).sum(axis=1)


def _attend_at_once(queries: jax.Array, keys: jax.Array, values: jax.Array, num_others: int) -> jax.Array:
  """Attends from all queries on whole vectors: without a gradient a TPU's compiler makes one kernel of it."""
  positions = queries.shape[1]
  padding = ((0, 0), (0, -positions % _LANES), (0, 0))
  queries, keys, values = (jnp.pad(x, padding) for x in (queries, keys, values))
  return _attend_to(queries, keys, values, num_others, positions)[:, :positions]


def _attend_in_blocks(queries: jax.Array, keys: jax.Array, values: jax.Array, num_others: int, block: int) -> jax.Array:
  """Attends from at most `block` queries at a time."""
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
