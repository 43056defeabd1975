"""Examples that are mixed from two of a batch, so that networks learn what sound is for.

A clip's frames always come with its own sound, so a network that remembers frames needs no ears. Two pictures side by
side, or one above the other, with the sound of one of them ask for ears: nothing else says which half matters. And a
picture with the sound of another clip says what it is to belong together.
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


def join(x: jax.Array, count: int, height_axis: int) -> jax.Array:
  """Replaces the first `count` pictures by the middle half of each and the middle half of the next example's.

  The first two are joined side by side, the next two one above the other, and so on. So no tag is learned by its place.

  Args:
    x: Pictures, features or maps (b, …) with the height h at `height_axis` and the width w at the next.
    count: The number of pictures to replace.
    height_axis: The axis of the height.

  Returns:
    The same shape. An example's own half is the left or upper one in the first, third, … picture, and else the other.
  """
  if not count:
    return x
  beside, above = (_join_along(x, count, axis) for axis in (height_axis + 1, height_axis))
  mixed = jnp.where(_per_example(_is_above(count), x.ndim), above, beside)
  return jnp.concatenate([mixed, x[count:]])


def join_tags(tags: jax.Array, heard: jax.Array, count: int) -> jax.Array:
  """Returns the tags (b, n, c) of what `join` shows.

  Args:
    tags: (b, n, c) of 0 and 1.
    heard: (b, n), 1 where the network hears the example's own sound: then the other half is silent, and only the tags
      of its own half count; 0 where both do.
    count: The number of mixed examples.
  """
  chex.assert_equal_shape([tags[..., 0], heard])
  both = jnp.maximum(tags, jnp.roll(tags, -1, axis=0) * (1 - heard)[..., None])
  return jnp.concatenate([both[:count], tags[count:]])


def join_maps(maps: jax.Array, heard: jax.Array, count: int) -> jax.Array:
  """Returns the maps (b, n, h, w) of what `join` shows; for `heard` see `join_tags`."""
  chex.assert_equal_shape([maps[..., 0, 0], heard])
  maps = join(maps, count, 2)
  height, width = maps.shape[2:]
  in_first = jnp.where(
    _is_above(count)[:, None, None],
    (jnp.arange(height) < height // 2)[None, :, None],
    (jnp.arange(width) < width // 2)[None, None, :],
  )  # b h w
  is_other = (_own_first(count)[:, None, None] != in_first)[:, None]  # b n h w
  silenced = jnp.where(is_other, maps[:count] * (1 - heard[:count, :, None, None]), maps[:count])
  return jnp.concatenate([silenced, maps[count:]])


def _own_first(count: int) -> jax.Array:
  return jnp.arange(count) % 2 == 0


def _is_above(count: int) -> jax.Array:
  return jnp.arange(count) // 2 % 2 == 1


def _per_example(values: jax.Array, ndim: int) -> jax.Array:
  return values.reshape(-1, *[1] * (ndim - 1))


def _join_along(x: jax.Array, count: int, axis: int) -> jax.Array:
  """Returns the first `count` pictures (count, …), each joined with the next along an axis."""
  extent = x.shape[axis]

  def middle(x: jax.Array, length: int) -> jax.Array:
    return jax.lax.slice_in_dim(x[:count], (extent - length) // 2, (extent - length) // 2 + length, axis=axis)

  other, own_first = jnp.roll(x, -1, axis=0), _per_example(_own_first(count), x.ndim)
  first, second = (
    jnp.where(own_first == is_first, middle(x, length), middle(other, length))
    for is_first, length in ((True, extent // 2), (False, extent - extent // 2))
  )
  return jnp.concatenate([first, second], axis=axis)


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
