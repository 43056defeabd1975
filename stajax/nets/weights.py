"""Trained variables as safetensors files: plain arrays, nothing in them can run."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util


class WeightsError(ValueError):
  """A weights file that cannot be used; one line that names the file, what was found and what was expected."""


def save(path: str | Path, variables: Mapping[str, Any]) -> str:
  """Writes a network's variables atomically; equal variables give equal bytes.

  Returns:
    The SHA-256 of the file.
  """
  flat = traverse_util.flatten_dict(jax.device_get(variables), sep="/")
  data = safetensors.numpy.save({name: np.ascontiguousarray(flat[name]) for name in sorted(flat)})
  path = Path(path)
  temporary = path.with_name(path.name + ".partial")
  with open(temporary, "wb") as file:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)
  return hashlib.sha256(data).hexdigest()


def load(path: str | Path, expected: Mapping[str, Any]) -> dict[str, Any]:
  """Reads variables, strictly.

  Args:
    path: a file that `save` wrote.
    expected: variables of the same structure, arrays or shapes.

  Raises:
    WeightsError: unreadable, or parameters are missing, spare, or of another shape or type; they are named.
  """
  flat = read(path)
  wanted = traverse_util.flatten_dict(dict(expected), sep="/")
  faults = [f"missing {name}" for name in wanted if name not in flat]
  faults += [f"spare {name}" for name in flat if name not in wanted]
  kinds = {name: [f"{x[name].dtype} {tuple(x[name].shape)}" for x in (flat, wanted)] for name in wanted if name in flat}
  faults += [f"{name} is {found}, expected {kind}" for name, (found, kind) in kinds.items() if found != kind]
  if faults:
    raise WeightsError(f"{path}: does not fit the network: {'; '.join(faults[:5])}{_more(faults)}")
  return unflatten(flat)


def read(path: str | Path) -> dict[str, np.ndarray]:
  """The arrays of a safetensors file by name.

  Raises:
    WeightsError: missing or not such a file.
  """
  try:
    return safetensors.numpy.load_file(path)
  except (OSError, AttributeError, safetensors.SafetensorError) as error:  # AttributeError: NumPy has no such type
    raise WeightsError(f"{path}: not a readable safetensors file ({error})") from None


def unflatten(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """The tree of variables of what `read` returned."""
  return traverse_util.unflatten_dict(dict(arrays), sep="/")


def merge(variables: Mapping[str, Any], source: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
  """Replaces the variables that have the same name and shape in `source`.

  A 1×1 kernel with more inputs takes its last ones from there, and 0 for the others: a classifier of a fusion ends with
  the spatial map (`stajax.nets.fusion.fuse_source`), so it begins as the classifier of that map alone.

  Returns:
    The merged variables and the names of those that kept their own values.
  """
  own, other = (traverse_util.flatten_dict(dict(tree), sep="/") for tree in (variables, source))
  other = {name: _widen(x, np.shape(own[name])) if name in own else x for name, x in other.items()}
  fits = {name for name, x in own.items() if name in other and np.shape(other[name]) == np.shape(x)}
  merged = {name: other[name] if name in fits else x for name, x in own.items()}
  return traverse_util.unflatten_dict(merged, sep="/"), sorted(set(own) - fits)


def _widen(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """A kernel (1, 1, i, o) for `shape` (1, 1, more, o), zeros first; any other array as it is."""
  if kernel.ndim != 4 or len(shape) != 4 or kernel.shape[:2] != (1, 1) or shape[2] <= kernel.shape[2]:
    return kernel
  if (*kernel.shape[:2], kernel.shape[3]) != (*shape[:2], shape[3]):
    return kernel
  return np.pad(kernel, ((0, 0), (0, 0), (shape[2] - kernel.shape[2], 0), (0, 0)))


def _more(faults: list[str]) -> str:
  return f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
