"""Visual backbone and neck: VGG-16 at stride 8, and the spatial map `s` (paper §3.3)."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from stajax.nets import packed
from stajax.nets.layers import ConvBlock, Norm, max_pool, scaled

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

DEPTHS = (2, 2, 3, 3, 3)
"""Convolutions of each stage of VGG-16."""
NECK_DEPTH = 3

_CHANNELS = (64, 128, 256, 512, 512)
_NECK = 512


class Stages(NamedTuple):
  """Named stages of the backbone: `f3` at a quarter of the input, `f4` and `f5` at an eighth."""

  f3: jnp.ndarray
  f4: jnp.ndarray
  f5: jnp.ndarray


class VGG16(nn.Module):
  """VGG-16's convolutions `conv1_1 … conv5_3`, at stride 8: pool4 is 3×3 stride 1 and conv5 is dilated by 2.

  Attributes:
    width: multiplies every layer's channels; 1 takes torchvision's weights one to one.
    depths: convolutions of each stage. With VGG-16's a class map's cell sees 252 pixels, neck included: more than
      a small frame has, which then cannot localise anything.
    norm: normalisation after every convolution; `none` for pretrained weights.
    dtype: of the convolutions.
  """

  width: float = 1.0
  depths: tuple[int, ...] = DEPTHS
  norm: Norm = "none"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jnp.ndarray, train: bool = False) -> Stages:
    """
    Args:
      images: (m, H, W, 3) RGB in [0, 1].

    Returns:
      Stages of (m, ⌊H/4⌋, ⌊W/4⌋, 256·width) and twice (m, ⌊H/8⌋, ⌊W/8⌋, 512·width).
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
          name=f"conv{stage}_{conv}",
        )(x, train)
      stages.append(x)
      if stage <= 3:
        x = max_pool(x, window=2, stride=2)
      elif stage == 4:
        x = max_pool(x, window=3, stride=1, padding=1)
    return Stages(*stages[-3:])

  def _packs(self, x: jnp.ndarray) -> bool:
    """Whether the first stage is one that `stajax.nets.packed` can do, with channels that fill half a TPU's lanes.

    Not where each layer is wanted by itself: to make parameters, which so are the same everywhere, or to be looked at.
    """
    if self.is_initializing() or self.is_mutable_collection("intermediates"):
      return False
    return self.norm == "none" and self.width == 1 and self.depths[0] == 2 and x.shape[2] % 2 == 0

  def _first_stage(self, x: jnp.ndarray, features: int) -> jnp.ndarray:
    """The first stage with its pooling: on TPUs packed, elsewhere as the other stages are."""

    def plain(x: jnp.ndarray, *weights: packed.Weights) -> jnp.ndarray:
      for each in weights:
        x = ConvBlock(features, dtype=self.dtype, parent=None).apply({"params": {"conv": each}}, x)
      return max_pool(x, window=2, stride=2)

    weights = (self.get_variable("params", name)["conv"] for name in ("conv1_1", "conv1_2"))
    return jax.lax.platform_dependent(x, *weights, tpu=packed.first_stage, default=plain)


def stage_shapes(size: int, width: float) -> dict[str, tuple[int, int, int]]:
  """(h, w, c) of the stages of a square frame of `size` pixels."""
  sides, channels = (size // 4, size // 8, size // 8), _CHANNELS[2:]
  return {name: (side, side, scaled(c, width)) for name, side, c in zip(Stages._fields, sides, channels)}


class Neck(nn.Module):
  """`depth` 3×3 convolutions and a 1×1 one: `f5` to the spatial map s (m, h, w, num_categories)."""

  num_categories: int
  width: float = 1.0
  depth: int = NECK_DEPTH
  norm: Norm = "none"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, f5: jnp.ndarray, train: bool = False) -> jnp.ndarray:
    x = f5
    for conv in range(1, self.depth + 1):
      x = ConvBlock(scaled(_NECK, self.width), norm=self.norm, dtype=self.dtype, name=f"conv{conv}")(x, train)
    return nn.Conv(self.num_categories, (1, 1), dtype=self.dtype, name="project")(x)
