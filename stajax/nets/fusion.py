"""Fusion of the spatial map with motion and sound (paper §3.3, Fig. 6, and Eq. 11).

Axes: m merged fragments, t frames, h w space, c categories, d audio features.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

_SEED_SIZE = 4
_DOUBLINGS = 3
_CHANNELS = 32


def _keeps_variance(num_terms: int, followed_by_relu: bool) -> nn.initializers.Initializer:
  """Of a transposed convolution whose outputs are sums over `num_terms` of its kernel's positions, and all inputs.

  Flax's own initialisers divide by all positions. Four such layers in a row would begin with a map that hardly depends
  on the sound, and with gradients as small: networks learned to do without sound.
  """

  def initialise(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    positions = shape[0] * shape[1] / num_terms
    gain = 2.0 if followed_by_relu else 1.0
    return nn.initializers.variance_scaling(gain * positions, "fan_in", "normal")(key, shape, dtype)

  return initialise


def gate(spatial: jnp.ndarray, control: jnp.ndarray) -> jnp.ndarray:
  """σ(control) ⊙ s + s: the common part of the SA, ST and STA fusions."""
  return jax.nn.sigmoid(control) * spatial + spatial


def fuse_source(spatial: jnp.ndarray, control: jnp.ndarray) -> jnp.ndarray:
  """ReLU(σ(control) ⊙ s + s) ⊗ s, ⊗ the concatenation: `sa` or `st` of §3.3, (m, h, w, 2c)."""
  return jnp.concatenate([nn.relu(gate(spatial, control)), spatial], axis=-1)


class SoundMap(nn.Module):
  """deconv(φ(a)): grows the audio vector to the size of `s` by transposed convolutions.

  Its weights do not depend on (h, w): four transposed convolutions make 32×32, the size of `s` for frames of 256,
  and other sizes are interpolated from that.
  """

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, audio: jnp.ndarray, switch: jnp.ndarray, size: tuple[int, int]) -> jnp.ndarray:
    """
    Args:
      audio: (m, d) audio vectors a.
      switch: (m,) of 0 and 1; φ(a) = switch · a, so that switch 0 leaves a learned constant map.
      size: (h, w).

    Returns:
      (m, h, w, features).
    """
    x = (switch[:, None].astype(audio.dtype) * audio).astype(self.dtype)[:, None, None, :]
    # From one position, every output is the sum of one of the kernel's; at stride 2, of 2×2 of the 4×4.
    x = nn.ConvTranspose(
      _CHANNELS,
      (_SEED_SIZE,) * 2,
      padding="VALID",
      dtype=self.dtype,
      kernel_init=_keeps_variance(1, followed_by_relu=True),
      name="seed",
    )(x)
    for doubling in range(1, _DOUBLINGS + 1):
      is_last = doubling == _DOUBLINGS
      x = nn.ConvTranspose(
        self.features if is_last else _CHANNELS,
        (4, 4),
        strides=(2, 2),
        padding="SAME",
        dtype=self.dtype,
        kernel_init=_keeps_variance(4, followed_by_relu=not is_last),
        name=f"double{doubling}",
      )(nn.relu(x))
    if x.shape[1:3] != tuple(size):
      x = jax.image.resize(x, (x.shape[0], *size, self.features), "bilinear")
    return x


class TemporalBranch(nn.Module):
  """Motion v from the spatial maps of three frames: (3,1,1), then two (1,3,3) convolutions, time and channels apart."""

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, spatial: jnp.ndarray) -> jnp.ndarray:
    """(m, 3, h, w, c) to (m, h, w, c)."""
    x = nn.Conv(self.features, (3, 1, 1), padding="VALID", dtype=self.dtype, name="time")(spatial)
    for conv in (1, 2):
      x = nn.Conv(
        self.features,
        (1, 3, 3),
        padding=((0, 0), (1, 1), (1, 1)),
        dtype=self.dtype,
        name=f"space{conv}",
      )(nn.relu(x))
    return x[:, 0]
