"""The convolutions that networks are built from, and their normalisations.

Axes: m any merged batch, h w space, c channels.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from stajax.nets.quantised import Int8Conv

Norm = Literal["none", "group", "batch"]

_GROUP_SIZE = 8


def scaled(channels: int, width: float) -> int:
  """Returns a layer's channels times a width: a multiple of 8, at least 8; `channels` itself at width 1."""
  return channels if width == 1 else max(8, 8 * round(channels * width / 8))


def max_pool(x: jax.Array, window: int, stride: int, padding: int = 0) -> jax.Array:
  """Applies max pooling to (m, h, w, c), rounding sizes down as PyTorch does.

  On TPUs it is XLA's own windows, with a fifth less memory traffic in a training step (planned for v5e). Elsewhere it
  is maxima of strided slices, one axis after the other: on a CPU the gradient of the windows, a scatter, takes six
  times longer.

  Args:
    x: (m, h, w, c).
    window: The side of a window.
    stride: The distance between windows.
    padding: The width of the border around the input, which is lower than every value.
  """
  if padding:
    edge = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    x = jnp.pad(x, edge, constant_values=jnp.finfo(x.dtype).min)

  def slices(x: jax.Array) -> jax.Array:
    for axis in (1, 2):
      last = x.shape[axis] - window
      pieces = [jax.lax.slice_in_dim(x, i, i + last + 1, stride, axis) for i in range(window)]
      x = functools.reduce(jnp.maximum, pieces)
    return x

  def windows(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (window, window), (stride, stride), "VALID")

  return jax.lax.platform_dependent(x, tpu=windows, default=slices)


@contextlib.contextmanager
def counting(counts: jax.Array | None) -> Iterator[None]:
  """Leaves examples out of the batch statistics of all networks that are applied inside; a context manager.

  Args:
    counts: Whether each example counts, (b,) bool; None if all do. Every merged batch (m,) has its examples in order,
      each with as many places in a row as all others.
  """

  def count(following: Callable[..., Any], args: Any, keywords: Any, context: nn.module.InterceptorContext) -> Any:
    if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
      assert counts is not None and args[0].shape[0] % counts.shape[0] == 0
      mask = jnp.repeat(counts, args[0].shape[0] // counts.shape[0])
      keywords = {**keywords, "mask": mask.reshape(-1, *[1] * (args[0].ndim - 1))}
    return following(*args, **keywords)

  if counts is None:
    yield
    return
  with nn.intercept_methods(count):
    yield


class Normalise(nn.Module):
  """No normalisation, group normalisation with 8 channels in a group, or batch normalisation; statistics are float32.

  Attributes:
    norm: `none`, `group` or `batch`.
    dtype: The type of the result.
  """

  norm: Norm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    match self.norm:
      case "none":
        return x
      case "group":
        return nn.GroupNorm(num_groups=None, group_size=_GROUP_SIZE, dtype=self.dtype, name="group")(x)
      case "batch":
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype, name="batch")(x)
    raise ValueError(f"norm is {self.norm!r}, expected 'none', 'group' or 'batch'")


class ConvBlock(nn.Module):
  """A convolution, its normalisation and its activation; padding is explicit, so it equals PyTorch's at every size.

  Without normalisation the convolution has a bias; with it, the normalisation's offset takes its place.

  Attributes:
    features: The channels of the result.
    kernel: The sides of the kernel.
    strides: The distance between positions of the kernel.
    dilation: The distance between pixels that the kernel reads.
    norm: The normalisation.
    activation: The activation; None for none.
    dtype: The type that the convolution computes in.
    int8: Whether it is computed in 8-bit integers; then this is the type of its result.
  """

  features: int
  kernel: Sequence[int] = (3, 3)
  strides: Sequence[int] | int = 1
  dilation: int = 1
  norm: Norm = "none"
  activation: Callable[[jax.Array], jax.Array] | None = nn.relu
  dtype: Any = jnp.float32
  int8: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    edges = [self.dilation * (k - 1) // 2 for k in self.kernel]
    make: Any = Int8Conv if self.int8 else functools.partial(nn.Conv, kernel_init=nn.initializers.he_normal())
    x = make(
      self.features,
      self.kernel,
      strides=self.strides,
      padding=[(edge, edge) for edge in edges],
      kernel_dilation=self.dilation,
      use_bias=self.norm == "none",
      dtype=self.dtype,
      name="conv",
    )(x)
    x = Normalise(self.norm, self.dtype, name="norm")(x, train)
    return x if self.activation is None else self.activation(x)


class DepthwiseConv(nn.Module):
  """A convolution of every channel by itself, with TensorFlow's padding `SAME`.

  Attributes:
    kernel: The side of the kernel.
    strides: The distance between positions of the kernel.
    dtype: The type that the convolution computes in.
  """

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
  """Computes the same as a sum of shifted products: on a CPU it makes EfficientNet-Lite0 four times as fast."""
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
