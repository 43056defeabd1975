"""Reads the first blocks of YAMNet from its TFLite file, where batch normalisations are part of the convolutions."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stajax.nets.yamnet import YAMNet
from stajax.weights.store import Arrays, check_names, flatten

KIND = "YAMNet"
_TOWER = "tower0/network/layer"
_STEM = f"{_TOWER}1/conv/Conv2D"
_KERNEL = re.compile(rf"({_TOWER}\d+)/(?:conv/Conv2D|sepconv/BatchNorm/FusedBatchNormV3;\1/sepconv/depthwise(?:;.*)?)")
_ORDERS = {"depthwise": (1, 2, 0, 3), "pointwise": (1, 2, 3, 0), "stem": (1, 2, 3, 0)}
"""How the file's axes become (height, width, in, out): it has (out, height, width, in), or (1, height, width, out)."""


def is_one(names: Mapping[str, object]) -> bool:
  """Returns whether a file with arrays of these names is YAMNet's."""
  return _STEM in names and "mel_spectrogram" in names


def read(path: Path, arrays: Arrays, read_one: Callable[[str], np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
  """Reads the backbone.

  Args:
    path: The file, for messages.
    arrays: The open file.
    read_one: Returns an array of the file as float32.

  Returns:
    The arrays under this package's names, and the names of the file that no network here needs.

  Raises:
    WeightsError: Arrays are missing or of another shape.
  """
  shapes: Any = jax.eval_shape(YAMNet().init, jax.random.key(0), jnp.zeros((1, 257, 98)))
  wanted = {name: x.shape for name, x in flatten({"params": {"sound": shapes["params"]}}).items()}
  kernels = {found[1]: name for name in arrays.shapes if (found := _KERNEL.fullmatch(name))}
  source = {name: _published(name, kernels) for name in wanted}
  orders = {name: _ORDERS[name.split("/")[2].rpartition("_")[2]] if len(wanted[name]) > 1 else (0,) for name in wanted}
  # The shape whose transpose is ours.
  expected = {source[name]: tuple(shape[i] for i in np.argsort(orders[name])) for name, shape in wanted.items()}
  check_names(
    path,
    [f"missing {name}" for name in expected if name not in arrays.shapes],
    [
      f"{name} is {arrays.shapes[name]}, expected {shape}"
      for name, shape in expected.items()
      if name in arrays.shapes and arrays.shapes[name] != shape
    ],
    what=KIND,
  )
  found = {name: np.ascontiguousarray(read_one(source[name]).transpose(orders[name])) for name in wanted}
  return found, [name for name in arrays.shapes if name not in expected]


def _published(name: str, kernels: Mapping[str, str]) -> str:
  """Returns the name in the file of an array such as `params/sound/block0_pointwise/kernel`.

  Args:
    name: Our name.
    kernels: The names of the file's kernels by their layers: some have those of other layers in them.
  """
  _, _, part, leaf = name.split("/")
  if part == "stem":
    layer, kind = 1, "conv"
  else:
    block, step = part.removeprefix("block").split("_")
    layer, kind = 2 * int(block) + (2 if step == "depthwise" else 3), "sepconv" if step == "depthwise" else "conv"
  if leaf == "bias":
    return f"{_TOWER}{layer}/{kind}/BatchNorm/FusedBatchNormV3"
  return kernels.get(f"{_TOWER}{layer}", f"{_TOWER}{layer}/{kind}")
