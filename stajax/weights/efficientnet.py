"""Reads EfficientNet-Lite0 as it is published for PyTorch, and folds its batch normalisations into its convolutions.

A convolution and the batch normalisation after it are one convolution: with g = scale / √(variance + ε), the kernel
becomes g · kernel and the bias becomes bias of the normalisation − g · mean.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stajax.nets.efficientnet import BLOCKS, EfficientNetLite0
from stajax.weights.array_files import Arrays
from stajax.weights.store import check_names, flatten

KIND = "EfficientNet-Lite0"
_EPSILON = 1e-3
"""That of the published network's normalisations."""
_STEM = "_conv_stem.weight"
_UNUSED = re.compile(r".*\.num_batches_tracked|_conv_head\.weight|_bn1\..*|_fc\.(weight|bias)")
_NORM = ("weight", "bias", "running_mean", "running_var")


def is_one(names: Mapping[str, object]) -> bool:
  """Returns whether a file with arrays of these names is an EfficientNet-Lite: it has no squeeze-and-excitation."""
  return _STEM in names and not any("_se_" in name for name in names)


def read(path: Path, arrays: Arrays, read_one: Callable[[str], np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
  """Reads the backbone.

  Args:
    path: The file, for messages.
    arrays: The open file.
    read_one: Returns an array of the file as float32.

  Returns:
    The arrays under this package's names, and the names of the file that no network here needs.

  Raises:
    WeightsError: Arrays are missing, spare or of another shape.
  """
  shapes: Any = jax.eval_shape(EfficientNetLite0().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  wanted = {name: x.shape for name, x in flatten({"params": {"visual": shapes["params"]}}).items()}
  kernels = {name.removesuffix("/kernel"): shape for name, shape in wanted.items() if name.endswith("/kernel")}
  expected: dict[str, tuple[int, ...]] = {}
  for name, (height, width, inputs, outputs) in kernels.items():
    convolution, norm = _published(name)
    expected[f"{convolution}.weight"] = (outputs, inputs, height, width)
    expected |= {f"{norm}.{part}": (outputs,) for part in _NORM}
  others = [name for name in arrays.shapes if name not in expected]
  check_names(
    path,
    [f"missing {name}" for name in expected if name not in arrays.shapes],
    [f"spare {name[:80]}" for name in others if not _UNUSED.fullmatch(name)],
    [
      f"{name} is {arrays.shapes[name]}, expected {shape}"
      for name, shape in expected.items()
      if name in arrays.shapes and arrays.shapes[name] != shape
    ],
    what=KIND,
  )
  folded: dict[str, np.ndarray] = {}
  for name in kernels:
    convolution, norm = _published(name)
    scale, bias, mean, variance = (read_one(f"{norm}.{part}") for part in _NORM)
    gain = scale / np.sqrt(variance + _EPSILON)
    kernel = read_one(f"{convolution}.weight").transpose(2, 3, 1, 0)  # out in h w → h w in out
    folded[f"{name}/kernel"] = np.ascontiguousarray(kernel * gain)
    folded[f"{name}/bias"] = bias - gain * mean
  return folded, others


def _published(name: str) -> tuple[str, str]:
  """Returns the published names of a convolution and of its normalisation, from one such as `params/visual/stem`."""
  own = name.rsplit("/", 1)[1]
  if own == "stem":
    return "_conv_stem", "_bn0"
  block, part = own.removeprefix("block").split("_")
  # The normalisations of a block are counted from 0, and a block that does not expand has no first one.
  assert part != "expand" or BLOCKS[int(block)].expand > 1
  norm = {"expand": 0, "depthwise": 1, "project": 2}[part]
  return f"_blocks.{block}._{part}_conv", f"_blocks.{block}._bn{norm}"
