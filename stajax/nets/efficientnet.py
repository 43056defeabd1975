"""EfficientNet-Lite0, a small visual backbone that was trained on ImageNet (Tan and Le, ICML 2019; Liu, 2020).

The Lite networks have neither squeeze-and-excitation nor swish, so they are fast on every processor. Batch
normalisation is part of the convolutions: `stajax.weights.convert` folds it into them.

Axes: m merged batch, H W input, h w map, c channels.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stajax.nets.layers import DepthwiseConv
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
    y = nn.relu6(DepthwiseConv(block.kernel, block.strides, self.dtype, name=f"{name}_depthwise")(y))
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
