"""VGG-16's first stage as one TPU kernel, whose activations of 64 channels at full size never leave the chip's memory.

  python -m benchmarks.first_stage [--frames 64] [--size 256]

compiles it and `stajax.nets.packed` for a v5e chip that need not be present, and prints what the compiler says of both
and the kernel's floors. Of a kernel that is not its own the compiler counts the bytes only, so the products are in its
floors alone. It needs the extra `tpu`.

Axes: m frames, h w space, j pairs of pixels, c o channels.
"""

import argparse
import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from stajax.nets.packed import Weights, first_stage, pack_kernel
from stajax.plan import cost, topology

_ROWS = 8
"""How many rows of the second convolution are computed at a time."""
_TAPS = 16
"""The 12 inputs of a pair in a row, filled up to whole sublanes."""
_MEMORY = 64 * 2**20


def one_kernel(x: jax.Array, first: Weights, second: Weights, interpret: bool = False) -> jax.Array:
  """Computes what `stajax.nets.packed.first_stage` computes, with sums and activations between as float32.

  Args:
    x: (m, h, w, 3), h a multiple of 8 and w even.
    first: The weights of the first convolution.
    second: The weights of the second one.
    interpret: Whether it is run step by step on any device.

  Returns:
    (m, h/2, w/2, o) in the dtype of x.
  """
  m, h, w, _ = x.shape
  features = second["bias"].size
  planes, (kernel, taps) = _planes(x), (pack_kernel(each["kernel"].astype(x.dtype)) for each in (first, second))
  kernel = rearrange(kernel, "r j c o -> r (j c) o")
  kernel = rearrange(jnp.pad(kernel, ((0, 0), (0, _TAPS - kernel.shape[1]), (0, 0))), "r c o -> (r c) o")
  taps = rearrange(taps, "r j c o -> r (j c) o")
  whole = [kernel, jnp.tile(first["bias"], 2)[None], taps, second["bias"][None]]
  return pl.pallas_call(
    _kernel,
    grid=(m,),
    in_specs=[
      pl.BlockSpec((1, *planes.shape[1:]), lambda frame: (frame, 0, 0, 0)),
      *(pl.BlockSpec(each.shape, functools.partial(_origin, each.ndim)) for each in whole),
    ],
    out_specs=pl.BlockSpec((1, h // 2, w // 2, features), lambda frame: (frame, 0, 0, 0)),
    out_shape=jax.ShapeDtypeStruct((m, h // 2, w // 2, features), x.dtype),
    scratch_shapes=[pltpu.VMEM((h + 2, w // 2, taps.shape[1]), x.dtype)],
    compiler_params=pltpu.CompilerParams(vmem_limit_bytes=_MEMORY),
    interpret=interpret,
  )(planes, *whole)


def _origin(num_axes: int, frame: Any) -> tuple[int, ...]:
  del frame
  return (0,) * num_axes


def _planes(x: jax.Array) -> jax.Array:
  """Returns the inputs of each pair in a row, with pairs along lanes: (m, h + 2, 16, w/2 + 1)."""
  pairs = rearrange(x, "m h (j p) c -> m h (p c) j", p=2)
  pairs = jnp.pad(pairs, ((0, 0), (1, 1), (0, 0), (1, 1)))
  both = jnp.concatenate([pairs[..., :-1], pairs[..., 1:]], axis=2)
  return jnp.pad(both, ((0, 0), (0, 0), (0, _TAPS - both.shape[2]), (0, 0)))


def _kernel(planes: Any, kernel: Any, bias: Any, taps: Any, last_bias: Any, out: Any, rows: Any) -> None:
  """Computes one frame. `rows` has, for each row and each pair that comes out, both pairs that the second one needs."""
  height, num_pairs = rows.shape[0] - 2, planes.shape[3]
  features = last_bias.shape[1]
  pair, channel = (jax.lax.broadcasted_iota(jnp.int32, (num_pairs, 2 * features), axis) for axis in (0, 1))
  outside = ((pair == 0) & (channel < features)) | ((pair == num_pairs - 1) & (channel >= features))
  for edge in (0, height + 1):
    rows[edge] = jnp.zeros(rows.shape[1:], rows.dtype)

  @pl.loop(0, height)
  def _(row: Any) -> None:
    inputs = jnp.concatenate([planes[0, row + tap] for tap in range(3)])
    sums = jax.lax.dot_general(inputs, kernel[...], (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    active = jnp.where(outside, 0, jnp.maximum(sums + bias[...], 0))
    rows[row + 1] = jnp.concatenate([active[:-1], active[1:]], axis=1).astype(rows.dtype)

  @pl.loop(0, height // _ROWS)
  def _(part: Any) -> None:
    sums = jnp.zeros((_ROWS * rows.shape[1], 2 * features), jnp.float32)
    for tap in range(3):
      inputs = rows[pl.ds(part * _ROWS + tap, _ROWS)].reshape(-1, rows.shape[2])
      sums += jnp.dot(inputs, taps[tap], preferred_element_type=jnp.float32)
    sums = jnp.max(sums.reshape(_ROWS // 2, 2, -1, 2 * features), axis=1)
    pooled = jnp.maximum(sums[..., :features], sums[..., features:])
    out[0, pl.ds(part * (_ROWS // 2), _ROWS // 2)] = jnp.maximum(pooled + last_bias[...], 0).astype(out.dtype)


def floors(frames: int, size: int, chip: topology.Chip) -> Mapping[str, float]:
  """Returns least times of the kernel in seconds: of its products as packed, zeros included, and of its bytes."""
  pairs = frames * size * size / 2
  lanes = 128  # the products of the first convolution have 48 terms, which a matrix unit fills up
  macs = pairs * (lanes + 6 * lanes) * lanes
  planes = frames * (size + 2) * _TAPS * 2 * lanes * 2
  results = frames * (size / 2) ** 2 * lanes * 2
  return {"FLOPs": 2 * macs / chip.flops, "bytes": (planes + results) / chip.bandwidth}


def main() -> None:
  """Compiles both forms for v5e and prints what is known of them."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--frames", type=int, default=64)
  parser.add_argument("--size", type=int, default=256)
  arguments = parser.parse_args()
  target = topology.parse("v5e:1x1")
  topology.prepare_process(target)
  on_chip = jax.sharding.SingleDeviceSharding(topology.devices(target)[0])
  size, frames = arguments.size, arguments.frames

  def shape(*axes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(axes, dtype, sharding=on_chip)

  weights = [{"kernel": shape(3, 3, i, 64), "bias": shape(64)} for i in (3, 64)]
  for name, stage in (("packed", first_stage), ("one kernel", one_kernel)):
    compiled = jax.jit(stage).lower(shape(frames, size, size, 3, dtype=jnp.bfloat16), *weights).compile()
    analysis, cycles = compiled.cost_analysis() or {}, re.findall(r'"estimated_cycles":"(\d+)"', compiled.as_text())
    seconds = cost.compiler_seconds(analysis, compiled.as_text()) or 0
    print(
      f"{name}: {1e3 * seconds:.2f} ms by the compiler, {analysis['bytes accessed'] / 1e9:.2f} GB, "
      f"{sum(map(int, cycles)) / 1e6:.2f} M cycles in the compiler's own kernels"
    )
  print({name: f"{1e3 * seconds:.2f} ms" for name, seconds in floors(frames, size, target.chip).items()})


if __name__ == "__main__":
  main()
