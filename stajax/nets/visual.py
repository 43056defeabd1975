"""The visual backbone, VGG-16 at stride 8, and the neck that makes the spatial map `s` from it (paper §3.3).

Axes: m merged batch, H W input, h w map, c channels.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from stajax.nets import packed
from stajax.nets.layers import ConvBlock, Norm, max_pool, scaled

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

DEPTHS = (2, 2, 3, 3, 3)
"""The number of convolutions in each stage of VGG-16."""
NECK_DEPTH = 3

_CHANNELS = (64, 128, 256, 512, 512)
_NECK = 512


class Stages(NamedTuple):
  """The stages of a backbone that are read, from fine to coarse.

  VGG-16 has `f3` at a quarter of the input's size, `f4` and `f5` at an eighth.
  """

  f3: jax.Array
  f4: jax.Array
  f5: jax.Array


class VGG16(nn.Module):
  """VGG-16's convolutions `conv1_1 … conv5_3` at stride 8: pool4 is 3×3 with stride 1, and conv5 is dilated by 2.

  Attributes:
    width: A factor for every layer's channels; with 1 torchvision's weights fit.
    depths: The number of convolutions in each stage. With VGG-16's, a cell of a class map sees 252 pixels, neck
      included: in a small frame, which has fewer, nothing could be localised.
    norm: The normalisation after every convolution; `none` for pretrained weights.
    dtype: The type that convolutions compute in.
    int8: Whether they are computed in 8-bit integers; then this is the type of their results.
  """

  width: float = 1.0
  depths: tuple[int, ...] = DEPTHS
  norm: Norm = "none"
  dtype: Any = jnp.float32
  int8: bool = False

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> Stages:
    """Computes the stages of frames.

    Args:
      images: (m, H, W, 3) RGB in [0, 1].
      train: Whether batch statistics are computed and updated.

    Returns:
      The stages (m, ⌊H/4⌋, ⌊W/4⌋, 256·width) and twice (m, ⌊H/8⌋, ⌊W/8⌋, 512·width).
    """
    x = (images - jnp.asarray(IMAGENET_MEAN, images.dtype)) / jnp.asarray(IMAGENET_STD, images.dtype)
    x = x.astype(self.dtype)
    stages = []
    for stage, (num_convs, channels) in enumerate(zip(self.depths, _CHANNELS, strict=True), start=1):
      features = scaled(channels, self.width)
      if stage == 1 and self._packs(x):
        x = self._first_stage(x, features)
        continue
      for conv in range(1, num_convs + 1):
        x = ConvBlock(
          features,
          dilation=2 if stage == 5 else 1,
          norm=self.norm,
          dtype=self.dtype,
          int8=self.int8,
          name=f"conv{stage}_{conv}",
        )(x, train)
      stages.append(x)
      if stage <= 3:
        x = max_pool(x, window=2, stride=2)
      elif stage == 4:
        x = max_pool(x, window=3, stride=1, padding=1)
    return Stages(*stages[-3:])

  def stage_shapes(self, size: int) -> dict[str, tuple[int, int, int]]:
    """Returns the shape (h, w, c) of each stage for a square frame of `size` × `size` pixels."""
    sides, channels = (size // 4, size // 8, size // 8), _CHANNELS[2:]
    return {name: (side, side, scaled(c, self.width)) for name, side, c in zip(Stages._fields, sides, channels)}

  def _packs(self, x: jax.Array) -> bool:
    """Returns whether `stajax.nets.packed` can compute the first stage, with channels that fill half a TPU's lanes.

    It cannot where each layer is needed by itself: to make parameters, which are the same on all devices for that
    reason, or to look at activations.
    """
    if self.is_initializing() or self.is_mutable_collection("intermediates"):
      return False
    return self.norm == "none" and self.width == 1 and self.depths[0] == 2 and x.shape[2] % 2 == 0

  def _first_stage(self, x: jax.Array, features: int) -> jax.Array:
    """Computes the first stage with its pooling: packed on TPUs, elsewhere like the other stages."""

    def plain(x: jax.Array, *weights: packed.Weights) -> jax.Array:
      convolved: Any = x
      for each in weights:
        block = ConvBlock(features, dtype=self.dtype, int8=self.int8, parent=None)
        convolved = block.apply({"params": {"conv": each}}, convolved)
      return max_pool(convolved, window=2, stride=2)

    weights = (self.get_variable("params", name)["conv"] for name in ("conv1_1", "conv1_2"))
    return jax.lax.platform_dependent(x, *weights, tpu=packed.first_stage, default=plain)


class Neck(nn.Module):
  """Makes the spatial map s (m, h, w, num_categories) from `f5` by `depth` 3×3 convolutions and a 1×1 one.

  Attributes:
    num_categories: c of the spatial map.
    width: A factor for the channels in between.
    depth: The number of 3×3 convolutions.
    norm: The normalisation after each of them.
    dtype: The type that convolutions compute in.
    int8: Whether the 3×3 ones are computed in 8-bit integers; then this is the type of their results.
  """

  num_categories: int
  width: float = 1.0
  depth: int = NECK_DEPTH
  norm: Norm = "none"
  dtype: Any = jnp.float32
  int8: bool = False

  @nn.compact
  def __call__(self, f5: jax.Array, train: bool = False) -> jax.Array:
    x = f5
    for conv in range(1, self.depth + 1):
      settings: dict[str, Any] = {"norm": self.norm, "dtype": self.dtype, "int8": self.int8, "name": f"conv{conv}"}
      x = ConvBlock(scaled(_NECK, self.width), **settings)(x, train)
    return nn.Conv(self.num_categories, (1, 1), dtype=self.dtype, name="project")(x)
