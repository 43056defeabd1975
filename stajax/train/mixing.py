"""Examples that are mixed from two of a batch, so that networks learn what sound is for.

A clip's frames always come with its own sound, so a network that remembers frames needs no ears. Two pictures side by
side with the sound of one of them ask for ears: nothing else says which half matters. And a picture with the sound of
another clip says what it is to belong together.
Axes: b batch, n nodes, h w space, c categories.
"""

from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp


def count_mixed(share: float, batch: int) -> int:
  """Returns the number of mixed examples of a batch: the first ones, since the order of a batch is random.

  The last example is never mixed, as the next one would be what fills the batch up on some numbers of devices.

  Args:
    share: The share of the examples.
    batch: The number of examples of a step, without what fills them up.
  """
  return min(round(share * batch), batch - 1)


def side_by_side(x: jax.Array, count: int, axis: int) -> jax.Array:
  """Replaces the first `count` pictures by the middle half of each beside that of the next example.

  Args:
    x: Pictures, features or maps (b, …) with the width w at `axis`.
    count: The number of pictures to replace.
    axis: The axis of the width.

  Returns:
    The same shape. An example's own half is at the left in the first, third, … picture, and else at the right.
  """
  if not count:
    return x
  width = x.shape[axis]
  own_first = (jnp.arange(count) % 2 == 0).reshape(-1, *[1] * (x.ndim - 1))

  def middle(x: jax.Array, length: int) -> jax.Array:
    return jax.lax.slice_in_dim(x[:count], (width - length) // 2, (width - length) // 2 + length, axis=axis)

  other, halves = jnp.roll(x, -1, axis=0), (width // 2, width - width // 2)
  left, right = (
    jnp.where(own_first == is_left, middle(x, length), middle(other, length))
    for is_left, length in zip((True, False), halves, strict=True)
  )
  return jnp.concatenate([jnp.concatenate([left, right], axis=axis), x[count:]])


def tags_side_by_side(tags: jax.Array, heard: jax.Array, count: int) -> jax.Array:
  """Returns the tags (b, n, c) of what `side_by_side` shows.

  Args:
    tags: (b, n, c) of 0 and 1.
    heard: (b, n), 1 where the network hears the example's own sound: then the other half is silent, and only the tags
      of its own half count; 0 where both do.
    count: The number of mixed examples.
  """
  chex.assert_equal_shape([tags[..., 0], heard])
  both = jnp.maximum(tags, jnp.roll(tags, -1, axis=0) * (1 - heard)[..., None])
  return jnp.concatenate([both[:count], tags[count:]])


def maps_side_by_side(maps: jax.Array, heard: jax.Array, count: int) -> jax.Array:
  """Returns the maps (b, n, h, w) of what `side_by_side` shows; for `heard` see `tags_side_by_side`."""
  chex.assert_equal_shape([maps[..., 0, 0], heard])
  maps = side_by_side(maps, count, 3)
  at_left = jnp.arange(maps.shape[3]) < maps.shape[3] // 2
  own_first = (jnp.arange(count) % 2 == 0)[:, None]
  is_other = (own_first != at_left)[:, None, None, :]  # b n h w
  silenced = jnp.where(is_other, maps[:count] * (1 - heard[:count, :, None, None]), maps[:count])
  return jnp.concatenate([silenced, maps[count:]])


def exchange_sounds(batch: Mapping[str, jax.Array], count: int) -> dict[str, jax.Array]:
  """Gives the first `count` examples of a batch the sound of the next one.

  Args:
    batch: A batch for the audio switch whose `tags` (b, n, 2c) are the clips' tags and the tags that a tagger hears.
    count: The number of examples.

  Returns:
    The batch, whose `tags` (b, n, 1) say whether a tag of the picture is heard in the sound.
  """
  tags, heard = jnp.split(batch["tags"], 2, axis=-1)
  moved = {**batch, "heard": heard}
  for name in ("sound", "sound_mean", "sound_deviation", "heard"):
    x = moved[name]
    moved[name] = jnp.concatenate([jnp.roll(x, -1, axis=0)[:count], x[count:]])
  belongs = jnp.max(tags * moved.pop("heard"), axis=-1, keepdims=True)
  return {**moved, "tags": belongs}
