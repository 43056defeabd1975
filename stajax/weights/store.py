"""Keeps trained variables as safetensors files: plain arrays, so that nothing in them can run."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from stajax.files import FileError, read_bytes, write_bytes
from stajax.files.manifest import check_digest, sha256_of_bytes

_ABOUT = "stajax"
"""The key of the files' metadata."""
_MAX_SHOWN = 5
"""The most faults of each kind that a message names."""


class WeightsError(ValueError):
  """A weights file cannot be used; one line that names the file, what was found and what was expected."""


@dataclass(frozen=True)
class Arrays:
  """The named arrays of a file, none of which is read yet.

  Attributes:
    shapes: The shapes of all of them by name.
    read: Reads one by its name; raises WeightsError.
  """

  shapes: dict[str, tuple[int, ...]]
  read: Callable[[str], np.ndarray]


def save(path: str | Path, variables: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> str:
  """Writes a network's variables atomically; equal variables give equal bytes.

  Args:
    path: The file to write.
    variables: The tree of variables.
    about: What `read_about` is to return, as JSON; it goes into the file.

  Returns:
    The SHA-256 of the file.
  """
  flat = flatten(jax.device_get(variables))
  # A single entry, because the library writes several in no fixed order.
  metadata = None if about is None else {_ABOUT: json.dumps(about, sort_keys=True)}
  data = safetensors.numpy.save({name: np.ascontiguousarray(flat[name]) for name in sorted(flat)}, metadata)
  write_bytes(path, data)
  return sha256_of_bytes(data)


def load(path: str | Path, expected: Mapping[str, Any] | None, sha256: str | None = None) -> dict[str, Any]:
  """Reads variables, strictly. Those that are stored as float16, where float32 is expected, become float32.

  Args:
    path: A file that `save` wrote.
    expected: Variables of the same structure, arrays or shapes; None where the SHA-256 vouches for them. Then all that
      is float16 becomes float32.
    sha256: The SHA-256 that the file must have; None for any.

  Raises:
    WeightsError: The file is unreadable or another one, or parameters are missing, spare, or of another shape or type;
      the message names them.
  """
  if expected is None:
    found = read(path, sha256)
    return unflatten({name: x.astype(np.float32) if x.dtype == np.float16 else x for name, x in found.items()})
  wanted = flatten(expected)
  flat = {name: _widen(x, wanted.get(name)) for name, x in read(path, sha256).items()}
  check_fit(path, flat, wanted)
  return unflatten(flat)


def _widen(array: np.ndarray, wanted: Any) -> np.ndarray:
  is_half = array.dtype == np.float16 and wanted is not None and wanted.dtype == np.float32
  return array.astype(np.float32) if is_half else array


def check_fit(path: str | Path, found: Mapping[str, Any], wanted: Mapping[str, Any], what: str = "the network") -> None:
  """Checks that arrays are the wanted ones.

  Args:
    path: The file that the message names.
    found: The arrays by name.
    wanted: The wanted arrays or shapes by name.
    what: What the arrays are for, for the message.

  Raises:
    WeightsError: Arrays are missing, spare, or of another shape or type; the message names them.
  """
  both = [name for name in wanted if name in found]
  kinds = {name: [f"{x[name].dtype} {tuple(x[name].shape)}" for x in (found, wanted)] for name in both}
  check_names(
    path,
    [f"missing {name}" for name in wanted if name not in found],
    [f"spare {name}" for name in found if name not in wanted],
    [f"{name} is {kind}, expected {expected}" for name, (kind, expected) in kinds.items() if kind != expected],
    what=what,
  )


def check_names(path: str | Path, *faults: Sequence[str], what: str) -> None:
  """Raises a WeightsError that names the first faults of each kind, if there are any."""
  shown = [fault for kind in faults for fault in kind[:_MAX_SHOWN]]
  more = sum(map(len, faults)) - len(shown)
  if shown:
    raise WeightsError(f"{path}: does not fit {what}: {'; '.join(shown)}{f'; and {more} more' if more else ''}")


def select(
  path: str | Path, arrays: Mapping[str, np.ndarray], part: str, expected: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Returns the arrays of one part of a network, such as `visual`, strictly.

  Args:
    path: The file that the message names.
    arrays: The arrays by names such as `params/visual/conv1_1/conv/bias`; those of other parts are ignored.
    part: The second component of the names.
    expected: The variables of the network, arrays or shapes.

  Raises:
    WeightsError: There are none, or they do not fit; see `check_fit`.
  """
  found, wanted = (
    {name: x for name, x in tree.items() if name.split("/")[1:2] == [part]} for tree in (arrays, flatten(expected))
  )
  if not found:
    parts = sorted({"/".join(name.split("/")[1:2]) for name in arrays} - {""})
    raise WeightsError(f"{path}: has nothing of {part!r}, only of {', '.join(parts[:8]) or 'nothing'}")
  check_fit(path, found, wanted, f"{part!r} of the network")
  return found


def read(path: str | Path, sha256: str | None = None) -> dict[str, np.ndarray]:
  """Reads the arrays of a safetensors file by name.

  Args:
    path: The file.
    sha256: The SHA-256 that the file must have; None for any.

  Raises:
    WeightsError: It is missing, not such a file, or another one.
  """
  try:
    content = read_bytes(path)
    if sha256 is not None:
      check_digest(Path(path), sha256, content)
    return dict(sorted(safetensors.numpy.load(content).items()))  # it gives them in a random order
  except FileError as error:
    raise WeightsError(str(error)) from None
  except (OSError, AttributeError, KeyError, safetensors.SafetensorError) as error:  # the middle two: an unknown type
    raise WeightsError(f"{path}: not a readable safetensors file ({error})") from None


def read_about(path: str | Path) -> dict[str, Any]:
  """Reads what `save` was given as `about`; empty if it was given nothing.

  Raises:
    WeightsError: It is missing, not such a file, or what it says is not JSON.
  """
  try:
    with safetensors.safe_open(path, "np") as file:
      about = json.loads((file.metadata() or {}).get(_ABOUT, "{}"))
  except (OSError, ValueError, RecursionError, safetensors.SafetensorError) as error:
    raise WeightsError(f"{path}: not a readable safetensors file ({error})") from None
  return about if isinstance(about, dict) else {}


def flatten(variables: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a tree of variables by names such as `params/visual/conv1_1/conv/bias`."""
  return dict(traverse_util.flatten_dict(dict(variables), sep="/"))


def unflatten(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Returns the tree of variables, given what `read` or `flatten` returned."""
  return traverse_util.unflatten_dict(dict(arrays), sep="/")


def merge(variables: Mapping[str, Any], source: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
  """Replaces the variables that have the same name and shape in `source`.

  Returns:
    The merged variables and the names of those that kept their own values.
  """
  own, other = flatten(variables), flatten(source)
  fits = {name for name, x in own.items() if name in other and np.shape(other[name]) == np.shape(x)}
  merged = {name: other[name] if name in fits else x for name, x in own.items()}
  return unflatten(merged), sorted(set(own) - fits)
