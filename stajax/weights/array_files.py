"""Files of named arrays: both formats of PyTorch, NumPy's npz, safetensors. Nothing in them can run."""

import contextlib
import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import safetensors

from stajax.weights import torch_file
from stajax.weights.store import Arrays, WeightsError

_MOST_DEFLATED = 1032
"""Bytes that one byte of a deflated stream can become."""
_FAULTS = (ValueError, OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What reading a member of a damaged zip file raises."""
_READERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}


@contextlib.contextmanager
def open_arrays(path: str | Path) -> Iterator[Arrays]:
  """Opens a file of arrays, whatever its name says about its format; they can be read until the block ends.

  Raises:
    WeightsError: missing, of no known format, damaged, or it asks for more than arrays.
  """
  path = Path(path)
  try:
    with open(path, "rb") as file:
      start = file.read(16)
  except OSError as error:
    raise WeightsError(f"{path}: {error.strerror}") from None
  if start.startswith(b"PK"):
    try:
      archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
      raise WeightsError(f"{path}: a damaged zip file ({error})") from None
    with archive:
      if torch_file.pickles(archive):
        yield torch_file.open_zip(path, archive)
      elif (names := archive.namelist()) and all(name.endswith(".npy") for name in names):
        yield _open_npz(path, archive)
      else:
        raise WeightsError(f"{path}: a zip file with neither data.pkl nor .npy in it, expected PyTorch's or an npz")
  elif start[8:9] == b"{":
    with contextlib.ExitStack() as stack:
      yield _open_safetensors(path, stack)
  elif start[:1] == b"\x80" or start[:1].isalpha() or start[:1] == b"(":  # how a pickle can begin
    yield torch_file.open_legacy(path)
  else:
    found = "an empty file" if not start else f"a file that begins with {start[:8]!r}"
    raise WeightsError(f"{path}: {found}, expected PyTorch's formats, npz or safetensors")


def _open_npz(path: Path, archive: zipfile.ZipFile) -> Arrays:
  whole, shapes = path.stat().st_size, {}
  members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
  for name, info in members.items():
    try:
      with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        if version not in _READERS:
          raise ValueError(f"version {version} of NumPy's format")
        shape, _, dtype = _READERS[version](member)
        claimed = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or dtype.kind not in "fiub":
          raise ValueError(f"its type is {dtype}, expected numbers")
        possible = _MOST_DEFLATED * min(info.compress_size, whole)
        if claimed != info.file_size - member.tell() or info.file_size > possible:
          raise ValueError(f"it claims {claimed} bytes, which a file of {whole} cannot hold there")
    except _FAULTS as error:
      raise WeightsError(f"{path}: {name}: {error}") from None
    shapes[name] = shape

  def read(name: str) -> np.ndarray:
    try:
      with archive.open(members[name]) as member:
        return np.lib.format.read_array(member, allow_pickle=False)
    except _FAULTS as error:
      raise WeightsError(f"{path}: {name}: {error}") from None

  return Arrays(shapes, read)


def _open_safetensors(path: Path, stack: contextlib.ExitStack) -> Arrays:
  try:
    file = stack.enter_context(safetensors.safe_open(path, "np"))
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118, not a dict
  except (OSError, safetensors.SafetensorError) as error:
    raise WeightsError(f"{path}: not a readable safetensors file ({error})") from None

  def read(name: str) -> np.ndarray:
    try:
      return file.get_tensor(name)
    except (TypeError, AttributeError, safetensors.SafetensorError) as error:  # NumPy has no such type
      raise WeightsError(f"{path}: {name}: {error}") from None

  return Arrays(shapes, read)
