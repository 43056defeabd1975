"""Convolutions of every channel by itself, with the padding `SAME`, in the way that is fast on each platform."""

import functools
from typing import Any

import jax
import jax.numpy as jnp


def depthwise(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
  """Convolves images (m, h, w, c) by a kernel (k, k, 1, c)."""
  ways = {"cpu": shifted, "default": convolved}
  chosen = {platform: functools.partial(way, strides=strides) for platform, way in ways.items()}
  return jax.lax.platform_dependent(x, kernel, **chosen)


def convolved(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
  """Computes what `depthwise` does by XLA's own convolution."""
  return jax.lax.conv_general_dilated(
    x, kernel, (strides, strides), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[-1]
  )


def shifted(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
  """Computes the same as a sum of shifted products: on a CPU a whole backbone is four times as fast with it."""
  side = kernel.shape[0]
  sizes = [-(-size // strides) for size in x.shape[1:3]]
  lows, pads = [], []
  for size, out in zip(x.shape[1:3], sizes, strict=True):
    total = max((out - 1) * strides + side - size, 0)
    lows.append(total // 2)
    pads.append((total // 2, total - total // 2))
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  result: Any = 0
  for dy in range(side):
    for dx in range(side):
      ends = (dy + (sizes[0] - 1) * strides + 1, dx + (sizes[1] - 1) * strides + 1)
      # An index in brackets would become a gather where the batch has no fixed size, as in an exported program.
      part = jax.lax.slice(x, (0, dy, dx, 0), (x.shape[0], *ends, x.shape[3]), (1, strides, strides, 1))
      result = result + part * kernel[dy, dx, 0]
  return result
