"""The fusion of the spatial map with motion and sound (paper §3.3, Fig. 6, and Eq. 11).

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
  """Returns an initialiser for a transposed convolution that keeps the variance of its inputs.

  Flax's own initialisers divide by all positions of the kernel. Four such layers in a row would begin with a map that
  hardly depends on the sound, and with gradients as small: networks learned to do without sound.

  Args:
    num_terms: The number of the kernel's positions, each with all inputs, that every output is a sum over.
    followed_by_relu: Whether a ReLU follows, which takes half of the variance.
  """

  def initialise(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    positions = shape[0] * shape[1] / num_terms
    gain = 2.0 if followed_by_relu else 1.0
    return nn.initializers.variance_scaling(gain * positions, "fan_in", "normal")(key, shape, dtype)

  return initialise


def gate(spatial: jax.Array, control: jax.Array) -> jax.Array:
  """Computes σ(control) ⊙ s + s, the common part of the SA, ST and STA fusions."""
  return jax.nn.sigmoid(control) * spatial + spatial


def fuse_source(spatial: jax.Array, control: jax.Array, rectify: bool = True) -> jax.Array:
  """Computes `sa` or `st` of §3.3, (m, h, w, 2c): ReLU(σ(control) ⊙ s + s) ⊗ s, where ⊗ is the concatenation.

  Args:
    spatial: s, (m, h, w, c).
    control: The map of the sound or of the motion, (m, h, w, c).
    rectify: Whether there is a ReLU.
  """
  gated = gate(spatial, control)
  return jnp.concatenate([nn.relu(gated) if rectify else gated, spatial], axis=-1)


class SoundMap(nn.Module):
  """Computes deconv(φ(a)), which grows the audio vector to the size of `s` by transposed convolutions.

  Its weights do not depend on (h, w): four transposed convolutions make 32×32, the size of `s` for frames of 256,
  and other sizes are interpolated from that.

  Attributes:
    features: The channels of the map.
    dtype: The type that convolutions compute in.
  """

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, audio: jax.Array, switch: jax.Array, size: Sequence[int] | None) -> jax.Array:
    """Returns the maps of sounds.

    Args:
      audio: (m, d) audio vectors a.
      switch: (m,) of 0 and 1; φ(a) = switch · a, so that switch 0 leaves a learned constant map.
      size: (h, w); None for the map's own, (32, 32).

    Returns:
      (m, h, w, features).
    """
    x = (switch[:, None].astype(audio.dtype) * audio).astype(self.dtype)[:, None, None, :]
    # From one pixel, every output is a sum over one position of the kernel; at stride 2, over 2×2 of the 4×4.
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
    if size is not None and x.shape[1:3] != tuple(size):
      x = jax.image.resize(x, (x.shape[0], *size, self.features), "bilinear")
    return x


class TemporalBranch(nn.Module):
  """Computes the motion v from the spatial maps of three frames, with time and channels kept apart.

  It is a (3, 1, 1) convolution, and then two (1, 3, 3) ones.

  Attributes:
    features: The channels of the map.
    dtype: The type that convolutions compute in.
  """

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, spatial: jax.Array) -> jax.Array:
    """Returns the motion (m, h, w, features) of spatial maps (m, 3, h, w, c)."""
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
