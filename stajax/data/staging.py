"""The staging folder, where arrays of finished clips wait to be assembled into a set.

A build of many clips is interrupted sooner or later, and a set can only be written as a whole. Therefore every clip is
first written by itself, atomically, under a key that depends on everything it was made from; the next run finds it
there. This module loads no TensorFlow, so that worker processes start fast.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stajax.files import atomic_file, make_folder
from stajax.files.manifest import sha256_of_json


def staging_key(source: str, settings: dict[str, Any]) -> str:
  """Returns a clip's name in staging: a hash of the identity of its source and of the settings (JSON values)."""
  return sha256_of_json([source, settings])[:32]


def staging_of(path: Path) -> Path:
  """Returns the staging folder of a set, which lies beside it."""
  return path.with_name(f".{path.name}.staging")


class Staging:
  """A folder with one file of arrays for every key.

  Attributes:
    folder: The folder; it is created if it is missing.
  """

  def __init__(self, folder: Path) -> None:
    self.folder = folder
    make_folder(folder)

  def path(self, key: str) -> Path:
    """Returns the path of a key's file, whether or not the file exists."""
    return self.folder / f"{key}.npz"

  def has(self, key: str) -> bool:
    """Returns whether a key is staged."""
    return self.path(key).is_file()

  def write_arrays(self, key: str, **arrays: np.ndarray) -> None:
    """Stages arrays atomically; several processes may write the same key."""
    with atomic_file(self.path(key), shared=True) as partial, partial.open("wb") as file:
      np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]  # NumPy's stub takes the names for `allow_pickle`

  def read_arrays(self, key: str, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Reads the staged arrays of a key: all of them, or only those with the given names.

    Raises:
      ValueError: The file is damaged; once it is deleted, the clip is prepared again.
    """
    path = self.path(key)
    try:
      with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in (arrays if names is None else names)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
      raise ValueError(f"{path}: staged clip cannot be read ({error}); delete the file and run again") from error

  def remove(self) -> None:
    """Deletes the staged files and the folder; it deletes only files that staging wrote, never a tree."""
    for path in [*self.folder.glob("*.npz"), *self.folder.glob("*.partial")]:
      path.unlink()
    self.folder.rmdir()


def pack_json(value: Any) -> np.ndarray:
  """Packs a value into an array, as JSON; what JSON does not know, such as a path, becomes a string."""
  return np.frombuffer(json.dumps(value, default=str).encode(), np.uint8)


def unpack_json(array: np.ndarray) -> Any:
  """Returns the value that `pack_json` packed."""
  return json.loads(array.tobytes())


def join_bytes(parts: Sequence[bytes]) -> dict[str, np.ndarray]:
  """Packs byte strings into the arrays `blob` and `lengths`, which need no pickle."""
  return {
    "blob": np.frombuffer(b"".join(parts), np.uint8),
    "lengths": np.asarray([len(part) for part in parts], np.int64),
  }


def split_bytes(arrays: dict[str, np.ndarray]) -> list[bytes]:
  """Returns the byte strings that `join_bytes` packed."""
  blob = arrays["blob"].tobytes()
  ends = np.cumsum(arrays["lengths"])
  return [blob[end - length : end] for end, length in zip(ends.tolist(), arrays["lengths"].tolist(), strict=True)]
