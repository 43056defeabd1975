"""The audio backbone: VGGSound's ResNet-18 on a 257-bin log-spectrogram, pooled by averaging or by NetVLAD.

Axes: m merged batch, f frequency bins, s spectrogram columns, k clusters, d features.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from stajax.nets.layers import ConvBlock, Norm, max_pool, scaled

Pooling = Literal["average", "netvlad"]

_CLUSTERS = 16
_EPSILON = 1e-12  # that of torch.nn.functional.normalize


class NetVLAD(nn.Module):
  """NetVLAD over 16 clusters in VGGSound's order of operations; it pools (m, f, s, d) to (m, 16·d) of unit length."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    dim = x.shape[-1]
    centroids = self.param("centroids", nn.initializers.uniform(1.0), (_CLUSTERS, dim), jnp.float32)
    x = _unit(x.astype(jnp.float32))
    assignment = nn.Conv(_CLUSTERS, (1, 1), dtype=self.dtype, name="conv")(x)
    assignment = jax.nn.softmax(assignment.astype(jnp.float32), axis=-1)
    # Σ over positions of assignment · (x − centroid), without the (m, f, s, k, d) residuals in memory.
    residual = jnp.einsum("mfsk,mfsd->mkd", assignment, x)
    residual -= jnp.einsum("mfsk,kd->mkd", assignment, centroids)
    return _unit(rearrange(_unit(residual), "m k d -> m (k d)"))


class ResNet18(nn.Module):
  """VGGSound's ResNet-18 with one input channel, up to the pooled vector.

  Attributes:
    width: A factor for every layer's channels; with 1 the released checkpoints fit.
    norm: The normalisation; that of the released checkpoints is `batch`.
    pooling: `average` gives 512·width features, `netvlad` 8192·width.
    dtype: The type that convolutions compute in.
  """

  width: float = 1.0
  norm: Norm = "batch"
  pooling: Pooling = "netvlad"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, spectrogram: jax.Array, train: bool = False) -> jax.Array:
    """Encodes sounds.

    Args:
      spectrogram: (m, 257, s) normalised log-spectrograms.
      train: Whether batch statistics are computed and updated.

    Returns:
      (m, d) float32.
    """
    x = spectrogram[..., None].astype(self.dtype)
    x = ConvBlock(scaled(64, self.width), (7, 7), strides=2, norm=self.norm, dtype=self.dtype, name="conv1")(x, train)
    x = max_pool(x, window=3, stride=2, padding=1)
    for layer, channels in enumerate((64, 128, 256, 512), start=1):
      for block in range(2):
        strides = 2 if layer > 1 and block == 0 else 1
        x = _BasicBlock(scaled(channels, self.width), strides, self.norm, self.dtype, name=f"layer{layer}_{block}")(
          x, train
        )
    if self.pooling == "netvlad":
      return NetVLAD(self.dtype, name="netvlad")(x)
    return jnp.mean(x.astype(jnp.float32), axis=(1, 2))


class _BasicBlock(nn.Module):
  features: int
  strides: int
  norm: Norm
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    settings = {"norm": self.norm, "dtype": self.dtype}
    y = ConvBlock(self.features, strides=self.strides, name="conv1", **settings)(x, train)
    y = ConvBlock(self.features, activation=None, name="conv2", **settings)(y, train)
    if self.strides != 1 or x.shape[-1] != self.features:
      x = ConvBlock(self.features, (1, 1), strides=self.strides, activation=None, name="downsample", **settings)(
        x, train
      )
    return nn.relu(x + y)


def _unit(x: jax.Array) -> jax.Array:
  """Divides by the L2 norm over the last axis, or by 1e-12 where the norm is smaller."""
  # The square root's gradient at 0 would be infinite, so the floor is put under the sum of squares.
  return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), _EPSILON**2))
