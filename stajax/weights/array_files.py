"""Reads files of named arrays: both of PyTorch's formats, npz, safetensors, TFLite. Nothing in them is executed."""

import contextlib
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import safetensors

from stajax.weights import tflite_file, torch_file
from stajax.weights.store import Arrays, WeightsError

_MAX_INFLATION = 1032
"""The most bytes that one byte of a deflated stream can become."""
_HEADER_READERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}


@contextlib.contextmanager
def open_arrays(path: str | Path) -> Iterator[Arrays]:
  """Opens a file of arrays, whatever its name says about its format. They can be read until the block ends.

  Raises:
    WeightsError: The file is missing, damaged or of no known format, or it asks for more than arrays.
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
  elif start[4:8] == tflite_file.MAGIC:
    yield tflite_file.open_tflite(path)
  elif start[:1] == b"\x80" or start[:1].isalpha() or start[:1] == b"(":  # how a pickle can begin
    yield torch_file.open_legacy(path)
  else:
    found = "an empty file" if not start else f"a file that begins with {start[:8]!r}"
    raise WeightsError(f"{path}: {found}, expected PyTorch's formats, npz, safetensors or TFLite")


def _open_npz(path: Path, archive: zipfile.ZipFile) -> Arrays:
  members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
  size, shapes = path.stat().st_size, {}
  for name, info in members.items():
    try:
      shapes[name] = _read_npy_shape(archive, info, size)
    except torch_file.FAULTS as error:
      raise WeightsError(f"{path}: {name}: {error}") from None

  def read(name: str) -> np.ndarray:
    try:
      with archive.open(members[name]) as member:
        return np.lib.format.read_array(member, allow_pickle=False)
    except torch_file.FAULTS as error:
      raise WeightsError(f"{path}: {name}: {error}") from None

  return Arrays(shapes, read)


def _read_npy_shape(archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: int) -> tuple[int, ...]:
  """Reads the shape of an array from its header, and checks that a zip file of `size` bytes can hold it."""
  with archive.open(info) as member:
    version = np.lib.format.read_magic(member)
    if version not in _HEADER_READERS:
      raise ValueError(f"version {version} of NumPy's format")
    shape, _, dtype = _HEADER_READERS[version](member)
    claimed = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or dtype.kind not in "fiub":
      raise ValueError(f"its type is {dtype}, expected numbers")
    possible = _MAX_INFLATION * min(info.compress_size, size)
    if claimed != info.file_size - member.tell() or info.file_size > possible:
      raise ValueError(f"it claims {claimed} bytes, which a file of {size} cannot hold there")
  return shape


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
