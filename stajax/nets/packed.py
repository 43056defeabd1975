"""VGG-16's first stage for TPUs, on pairs of neighbouring pixels that lie side by side as channels.

A TPU pads 3 and 64 channels to 128 lanes, so that more than half of the stage's work and traffic is wasted; two
pixels of 64 channels fill them. The sums are those of the plain stage, with zeros added.

Axes: m merged batch, h w space, p the two pixels of a pair, c i o channels.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from stajax.nets.quantised import to_int8

Weights = Mapping[str, jax.Array]
"""The `kernel` (3, 3, i, o) and the `bias` (o,) of a convolution as they are trained and stored; or, for integers, what
`stajax.nets.quantised` makes of them."""


def pack_kernel(kernel: jax.Array) -> jax.Array:
  """Returns a 3×3 kernel (3, 3, i, o) for pairs of pixels: (3, 2, 2i, 2o).

  The output for pixels x and x+1 needs the input from x−1 to x+2. These are two pairs if input pairs begin one pixel
  before output pairs; if both began at the same pixel, they would be spread over three. A quarter of the taps are zero.
  """
  taps = [jnp.pad(kernel, ((0, 0), (place, 1 - place), (0, 0), (0, 0))) for place in (0, 1)]
  return rearrange(jnp.stack(taps, axis=-2), "h (w p) i q o -> h w (p i) (q o)", p=2)


def first_stage(x: jax.Array, first: Weights, second: Weights) -> jax.Array:
  """Computes two 3×3 convolutions with ReLU, padded by one pixel, and 2×2 max pooling, which rounds the height down.

  Args:
    x: (m, h, w, 3) with w even; any number of channels will do.
    first: The weights of the first convolution.
    second: The weights of the second one.

  Returns:
    (m, ⌊h/2⌋, w/2, o) in the dtype of x.
  """
  x = rearrange(x, "m h (w p) c -> m h w (p c)", p=2)
  # With a pair of padding on both sides pairs begin at pixel −1: the first and the last pixel are outside the image.
  x = _convolve(x, first, ((1, 1), (1, 1)))
  x = nn.relu(x + jnp.tile(first["bias"].astype(x.dtype), 2))
  num_pairs, channels = x.shape[2:]
  pixel = jnp.arange(2 * num_pairs)
  inside = rearrange((pixel > 0) & (pixel < 2 * num_pairs - 1), "(w p) -> w p", p=2)
  x = jnp.where(jnp.repeat(inside, channels // 2, axis=1), x, 0)  # the padding of the second convolution
  # One pair fewer comes out, and pairs begin at pixel 0 again.
  x = _convolve(x, second, ((1, 1), (0, 0)))
  # Bias and ReLU keep the order of values, so they are applied after pooling, to a quarter of the pixels.
  x = nn.max_pool(x, (2, 1), (2, 1), "VALID")
  left, right = jnp.split(x, 2, axis=-1)
  return nn.relu(jnp.maximum(left, right) + second["bias"].astype(x.dtype))


def _convolve(x: jax.Array, weights: Weights, padding: tuple[tuple[int, int], ...]) -> jax.Array:
  def convolve(x: jax.Array, kernel: jax.Array, sums: Any = None) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
      x, pack_kernel(kernel), (1, 1), padding, dimension_numbers=numbers, preferred_element_type=sums
    )

  if "step" not in weights:
    return convolve(x, weights["kernel"].astype(x.dtype))
  sums = convolve(to_int8(x, weights["step"]), weights["kernel"], jnp.int32)
  return (sums.astype(jnp.float32) * jnp.tile(weights["scale"] * weights["step"], 2)).astype(x.dtype)
