"""The fusion of the spatial map with motion and sound (paper §3.3, Fig. 6, and Eq. 11).

Axes: m merged fragments, t frames, h w space, c categories, d audio features.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

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


def _double_by_convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Computes the transposed convolution of stride 2 that doubles h and w.

  Args:
    x: (m, h, w, i).
    kernel: (4, 4, i, o).

  Returns:
    (m, 2h, 2w, o).
  """
  return jax.lax.conv_transpose(x, kernel, (2, 2), "SAME")


def _double_by_products(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Computes the same as a product of matrices, whose 4×4 results for every pixel are added up where they overlap."""
  parts = jnp.einsum("mhwi,yxio->mhwyxo", x, kernel)
  parts = _add_up(_add_up(parts, 1), 2)
  # One pair of axes at a time: with explicit sharding JAX refuses to join two pairs at once.
  return rearrange(rearrange(parts, "m h w y x o -> m (h y) w x o"), "m h w x o -> m h (w x) o")


def _add_up(parts: jax.Array, axis: int) -> jax.Array:
  """Adds up parts (m, h, w, y, x, o) along h (1) or w (2); of its four places along y or x two are left."""
  count = parts.shape[axis]
  first, second, third, fourth = (jax.lax.index_in_dim(parts, place, axis + 2) for place in range(4))
  edge = jnp.zeros_like(jax.lax.slice_in_dim(first, 0, 1, axis=axis))
  before = jnp.concatenate([edge, jax.lax.slice_in_dim(first, 0, count - 1, axis=axis)], axis)
  after = jnp.concatenate([jax.lax.slice_in_dim(fourth, 1, count, axis=axis), edge], axis)
  return jnp.concatenate([before + third, second + after], axis + 2)


def _double_backwards(saved: tuple[jax.Array, jax.Array], change: jax.Array) -> tuple[jax.Array, ...]:
  """Returns the gradient of `_double`: on a CPU, that of the convolution takes nearly half of a tagger's step."""

  def gradient_of(function: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, ...]]:
    return lambda x, kernel, change: jax.vjp(function, x, kernel)[1](change)

  ways = {"cpu": _double_by_products, "default": _double_by_convolution}
  return jax.lax.platform_dependent(*saved, change, **{name: gradient_of(way) for name, way in ways.items()})


_double = jax.custom_vjp(_double_by_convolution)
_double.defvjp(lambda x, kernel: (_double(x, kernel), (x, kernel)), _double_backwards)


class _Doubling(nn.Module):
  """A transposed 4×4 convolution of stride 2, with the parameters of `nn.ConvTranspose`.

  Attributes:
    features: The channels of the result.
    dtype: The type that it computes in.
    kernel_init: The initialiser of the kernel.
  """

  features: int
  dtype: Any
  kernel_init: nn.initializers.Initializer

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = self.param("kernel", self.kernel_init, (4, 4, x.shape[-1], self.features), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
    return _double(x.astype(self.dtype), kernel.astype(self.dtype)) + bias.astype(self.dtype)


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
      x = _Doubling(
        self.features if is_last else _CHANNELS,
        self.dtype,
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
