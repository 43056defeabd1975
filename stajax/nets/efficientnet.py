"""EfficientNet-Lite0, a small visual backbone that was trained on ImageNet (Tan and Le, ICML 2019; Liu, 2020).

The Lite networks have neither squeeze-and-excitation nor swish, so they are fast on every processor. Batch
normalisation is part of the convolutions: `stajax.weights.convert` folds it into them.

Axes: m merged batch, H W input, h w map, c channels.
"""

import functools
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stajax.nets.quantised import Int8Conv
from stajax.nets.visual import Stages

STEM = 32
"""The channels of the first convolution."""


@dataclass(frozen=True)
class Block:
  """An inverted bottleneck: 1×1 to `expand` times the channels, depthwise `kernel`×`kernel`, 1×1 to `features`.

  Attributes:
    features: The channels of its result.
    kernel: The side of its depthwise kernel.
    strides: The stride of its depthwise convolution.
    expand: How many times more channels it has inside; 1 leaves out the first convolution.
  """

  features: int
  kernel: int
  strides: int
  expand: int


def _repeat(count: int, first: Block) -> tuple[Block, ...]:
  return (first, *[Block(first.features, first.kernel, 1, first.expand)] * (count - 1))


BLOCKS = (
  *_repeat(1, Block(16, 3, 1, 1)),
  *_repeat(2, Block(24, 3, 2, 6)),
  *_repeat(2, Block(40, 5, 2, 6)),
  *_repeat(3, Block(80, 3, 2, 6)),
  *_repeat(3, Block(112, 5, 1, 6)),
  *_repeat(4, Block(192, 5, 2, 6)),
  *_repeat(1, Block(320, 3, 1, 6)),
)
"""The blocks of EfficientNet-Lite0, in order."""
_READ = {"f3": 4, "f4": 10, "f5": 15}
"""The block that each stage is the result of."""
_STRIDES = {"f3": 8, "f4": 16, "f5": 32}


class EfficientNetLite0(nn.Module):
  """The convolutions of EfficientNet-Lite0 without its last 1×1 convolution and its classifier.

  Attributes:
    dtype: The type that convolutions compute in.
    int8: Whether they are computed in 8-bit integers, except those of every channel by itself: they are few of the
      products, and rounding their few weights would be most of the error. Then `dtype` is that of the results.
  """

  dtype: Any = jnp.float32
  int8: bool = False

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> Stages:
    """Computes the stages of frames.

    Args:
      images: (m, H, W, 3) RGB in [0, 1].
      train: Not used: there are no batch statistics.

    Returns:
      The stages (m, ⌈H/8⌉, ⌈W/8⌉, 40), (m, ⌈H/16⌉, ⌈W/16⌉, 112) and (m, ⌈H/32⌉, ⌈W/32⌉, 320).
    """
    x = ((images * 255 - 127) / 128).astype(self.dtype)
    x = nn.relu6(self._convolution(STEM, 3, 2, "stem")(x))
    stages: dict[int, jax.Array] = {}
    for index, block in enumerate(BLOCKS):
      x = stages[index] = self._block(x, block, f"block{index}")
    return Stages(**{stage: stages[index] for stage, index in _READ.items()})

  def _block(self, x: jax.Array, block: Block, name: str) -> jax.Array:
    inside, y = x.shape[-1] * block.expand, x
    if block.expand > 1:
      y = nn.relu6(self._convolution(inside, 1, 1, f"{name}_expand")(y))
    y = nn.relu6(_Depthwise(block.kernel, block.strides, self.dtype, name=f"{name}_depthwise")(y))
    y = self._convolution(block.features, 1, 1, f"{name}_project")(y)
    return x + y if block.strides == 1 and x.shape[-1] == block.features else y

  def _convolution(self, features: int, side: int, strides: int, name: str) -> nn.Module:
    make = Int8Conv if self.int8 else nn.Conv
    return make(features, (side, side), strides, dtype=self.dtype, name=name)

  def stage_shapes(self, size: int) -> dict[str, tuple[int, int, int]]:
    """Returns the shape (h, w, c) of each stage for a square frame of `size` × `size` pixels."""
    return {
      stage: (-(-size // _STRIDES[stage]), -(-size // _STRIDES[stage]), BLOCKS[index].features)
      for stage, index in _READ.items()
    }


class _Depthwise(nn.Module):
  """A convolution of every channel by itself, with the padding `SAME`."""

  kernel: int
  strides: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (self.kernel, self.kernel, 1, x.shape[-1])
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32).astype(self.dtype)
    bias = self.param("bias", nn.initializers.zeros, shape[-1:], jnp.float32).astype(self.dtype)
    ways = {"cpu": _shifted, "default": _convolved}
    chosen = {platform: functools.partial(way, strides=self.strides) for platform, way in ways.items()}
    return jax.lax.platform_dependent(x, kernel, **chosen) + bias


def _convolved(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
  return jax.lax.conv_general_dilated(
    x, kernel, (strides, strides), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[-1]
  )


def _shifted(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
  """Computes the same as a sum of shifted products: on a CPU the whole backbone is four times as fast with it."""
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
