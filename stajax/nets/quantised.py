"""Convolutions of 8-bit integers, for networks that are trained: their weights and inputs are rounded to 255 levels.

Weights have a width of levels for each output channel, inputs one for each layer, which is found beforehand from
examples. Levels are symmetric, so 0 stays 0 and padding is exact (Krishnamoorthi, arXiv:1806.08342). Sums are 32-bit
integers. Everything outside the convolutions stays as it is: biases, normalisation, activations, pooling.

Axes: m merged batch, h w map, i o channels.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

LEVELS = 127
"""The largest integer; the smallest one is its negative."""


def quantise_kernel(kernel: np.ndarray, largest_input: float, bias: np.ndarray | None = None) -> dict[str, np.ndarray]:
  """Returns the parameters of an `Int8Conv` that computes nearly what a convolution does.

  Args:
    kernel: (kh, kw, i, o) float32.
    largest_input: The largest magnitude of the convolution's inputs; larger ones will count as this.
    bias: (o,) float32, if the convolution has one.

  Returns:
    `kernel` (kh, kw, i, o) int8; `scale` (o,) and `step` () float32, the widths of the levels of weights and inputs;
    `bias` (o,) float32.
  """
  largest = np.abs(kernel).max(axis=(0, 1, 2))
  scale = np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(LEVELS)
  found = {
    "kernel": np.round(kernel / scale).astype(np.int8),
    "scale": scale,
    "step": np.float32(largest_input if largest_input > 0 else 1) / np.float32(LEVELS),
  }
  return found if bias is None else {**found, "bias": np.asarray(bias, np.float32)}


def to_int8(x: jax.Array, step: jax.Array) -> jax.Array:
  """Rounds x to the nearest multiple of `step` of at most `LEVELS` times it; returns which one, as int8."""
  return jnp.clip(jnp.round(x.astype(jnp.float32) / step), -LEVELS, LEVELS).astype(jnp.int8)


class Int8Conv(nn.Module):
  """A convolution of images in 8-bit integers, with the arguments of `flax.linen.Conv`, for parameters that exist.

  Attributes:
    features: The channels of the result.
    kernel_size: The sides of the kernel.
    strides: The distance between positions of the kernel.
    padding: The zeros before and after each axis, or `SAME`.
    kernel_dilation: The distance between pixels that the kernel reads.
    use_bias: Whether there is a bias.
    dtype: The type of the result.
  """

  features: int
  kernel_size: Sequence[int]
  strides: Sequence[int] | int = 1
  padding: str | Sequence[tuple[int, int]] = "SAME"
  kernel_dilation: int = 1
  use_bias: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Convolves images (m, h, w, i) of any type."""
    shape = (*self.kernel_size, x.shape[-1], self.features)
    kernel = self.param("kernel", nn.initializers.zeros, shape, jnp.int8)
    scale = self.param("scale", nn.initializers.ones, shape[-1:], jnp.float32)
    step = self.param("step", nn.initializers.ones, (), jnp.float32)
    y = self._convolve(to_int8(x, step), kernel) * (scale * step)
    if self.use_bias:
      y = y + self.param("bias", nn.initializers.zeros, shape[-1:], jnp.float32)
    return y.astype(self.dtype)

  def _convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the sums (m, h, w, o) of int8 products as float32.

    On CPUs, whose compiler makes plain loops of a convolution of integers (65 times as slow in JAX 0.10.2), the same
    integers are convolved as float32. That is exact up to sums of 2²⁴, and beyond as exact as the conversion of the
    others' sums to float32.
    """
    strides = (self.strides,) * 2 if isinstance(self.strides, int) else tuple(self.strides)

    def convolve(x: jax.Array, kernel: jax.Array, sums: Any) -> jax.Array:
      return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        self.padding if isinstance(self.padding, str) else list(self.padding),
        rhs_dilation=(self.kernel_dilation,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=sums,
      )

    def in_integers(x: jax.Array, kernel: jax.Array) -> jax.Array:
      return convolve(x, kernel, jnp.int32).astype(jnp.float32)

    def in_floats(x: jax.Array, kernel: jax.Array) -> jax.Array:
      return convolve(x.astype(jnp.float32), kernel.astype(jnp.float32), jnp.float32)

    return jax.lax.platform_dependent(x, kernel, cpu=in_floats, default=in_integers)


def largest_inputs(compute: Callable[[], Any], wanted: Collection[str]) -> dict[str, jax.Array]:
  """Returns the largest magnitudes of the inputs of modules.

  Args:
    compute: A function that applies a network.
    wanted: The paths of modules in the network, such as `visual/conv1_1/conv`.
  """
  found: dict[str, jax.Array] = {}

  def look(following: Callable[..., Any], args: Any, keywords: Any, context: nn.module.InterceptorContext) -> Any:
    path = "/".join(context.module.path)
    if context.method_name == "__call__" and path in wanted:
      found[path] = jnp.max(jnp.abs(args[0].astype(jnp.float32)))
    return following(*args, **keywords)

  with nn.intercept_methods(look):
    compute()
  return found
