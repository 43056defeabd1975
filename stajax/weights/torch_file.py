"""Reads files that PyTorch's `save` wrote, in both its formats, without PyTorch and without running anything in them.

The zip format (since 1.6) holds `data.pkl` and one member for each storage; the older one is a row of pickles with the
storages behind them. A tensor is a view of a storage (offset, shape and strides), which it may share with others. All
sizes that a file claims are checked against its bytes before anything is allocated.
"""

import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stajax.weights import plain_pickle
from stajax.weights.plain_pickle import Ignored, PickleError
from stajax.weights.store import Arrays, WeightsError

FAULTS = (ValueError, OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged file, or a member of a damaged zip file, raises."""

_PICKLE = "data.pkl"
_MAX_PICKLE = 16 * 2**20
_MAX_AXES = 16
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_STATES = ("model_state_dict", "state_dict", "model")
"""The entry of a checkpoint that has its parameters, if several entries hold tensors."""

# NumPy has no bfloat16: it is read as the upper halves of float32.
_BFLOAT16 = "bfloat16"
_TYPES = {
  "Float": "<f4",
  "Double": "<f8",
  "Half": "<f2",
  "BFloat16": _BFLOAT16,
  "Long": "<i8",
  "Int": "<i4",
  "Short": "<i2",
  "Char": "i1",
  "Byte": "u1",
  "Bool": "?",
}


@dataclass(frozen=True)
class _Kind:
  """A type of storage."""

  dtype: str

  @property
  def size(self) -> int:
    """The bytes of one element."""
    return 2 if self.dtype == _BFLOAT16 else np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class _Storage:
  kind: _Kind
  key: str
  length: int

  @property
  def size(self) -> int:
    """The bytes of the storage."""
    return self.length * self.kind.size


@dataclass(frozen=True)
class _Tensor:
  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def pickles(archive: zipfile.ZipFile) -> list[str]:
  """Returns the members of a zip file that are called `data.pkl`; in what PyTorch wrote there is one."""
  return [name for name in archive.namelist() if name.split("/")[-1] == _PICKLE]


def open_zip(path: Path, archive: zipfile.ZipFile) -> Arrays:
  """Opens the tensors of a file in the zip format. They are read one at a time, for which the archive must stay open.

  Raises:
    WeightsError: It is not such a file, or it asks for anything but tensors and plain values.
  """
  try:
    (pickle,) = pickles(archive)
  except ValueError:
    raise WeightsError(f"{path}: a zip file with more than one {_PICKLE}, expected one that PyTorch wrote") from None
  members = _Members(archive, pickle.removesuffix(_PICKLE), path.stat().st_size)
  storages: dict[str, _Storage] = {}
  try:
    if members.has("byteorder") and members.read("byteorder").strip() != b"little":
      raise PickleError("its numbers are not little-endian")
    value = _load(BytesIO(members.read(_PICKLE)), storages)
    for storage in storages.values():
      members.check(storage)
  except FAULTS as error:
    raise _damaged(path, error) from None
  return _arrays(path, value, members.read_storage)


def open_legacy(path: Path) -> Arrays:
  """Opens the tensors of a file in the format before 1.6. They are read one at a time.

  Raises:
    WeightsError: It is not such a file, or it asks for anything but tensors and plain values.
  """
  size = path.stat().st_size
  with open(path, "rb") as file:
    stream = BytesIO(file.read(min(size, _MAX_PICKLE)))
    try:
      _check_legacy_header(stream)
      storages: dict[str, _Storage] = {}
      value, keys = _load(stream, storages), _load(stream, {})
      if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise PickleError("its list of storages is not that of its tensors")
      starts = _find_legacy_storages(file, stream.tell(), size, [storages[key] for key in keys])
    except (PickleError, struct.error, OSError) as error:
      raise _damaged(path, error) from None

  def read(storage: _Storage) -> bytes:
    with open(path, "rb") as file:
      file.seek(starts[storage.key])
      return file.read(storage.size)

  return _arrays(path, value, read)


@dataclass(frozen=True)
class _Members:
  """The members of a zip file, which are read only if they are as PyTorch writes them.

  Attributes:
    archive: The zip file.
    root: What the members' names begin with.
    size: The bytes of the zip file.
  """

  archive: zipfile.ZipFile
  root: str
  size: int

  def has(self, name: str) -> bool:
    return f"{self.root}{name}" in self.archive.NameToInfo

  def read(self, name: str, size: int | None = None) -> bytes:
    """Reads a member of exactly `size` bytes, or of any size that a pickle may have; raises PickleError otherwise."""
    name = f"{self.root}{name}"
    info = self.archive.NameToInfo.get(name)
    if info is None:
      raise PickleError(f"it has no {name}")
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > self.size:
      raise PickleError(f"{name} is compressed or longer than the file, expected what PyTorch writes")
    if size is not None and info.file_size != size:
      raise PickleError(f"{name} has {info.file_size} bytes, its tensors claim {size}")
    if size is None and info.file_size > _MAX_PICKLE:
      raise PickleError(f"{name} has {info.file_size} bytes, expected at most {_MAX_PICKLE}")
    return self.archive.read(info)

  def read_storage(self, storage: _Storage) -> bytes:
    return self.read(f"data/{storage.key}", storage.size)

  def check(self, storage: _Storage) -> None:
    """Raises PickleError if the file does not hold all bytes that a storage claims."""
    name = f"{self.root}data/{storage.key}"
    info = self.archive.NameToInfo.get(name)
    if info is None or info.file_size != storage.size or info.header_offset + storage.size > self.size:
      found = "is missing" if info is None else f"has {info.file_size} bytes"
      raise PickleError(f"{name} {found}, its tensors claim {storage.size} in a file of {self.size}")


def _check_legacy_header(stream: BytesIO) -> None:
  if _load(stream, {}) != _MAGIC:
    raise PickleError("a pickle, but not of PyTorch")
  if _load(stream, {}) != _PROTOCOL:
    raise PickleError(f"PyTorch's older format in another version than {_PROTOCOL}")
  system = _load(stream, {})
  if not isinstance(system, dict) or system.get("little_endian") is not True:
    raise PickleError("its numbers are not little-endian")


def _find_legacy_storages(file: BinaryIO, position: int, size: int, storages: Sequence[_Storage]) -> dict[str, int]:
  """Returns where the bytes of each storage begin, by key.

  Args:
    file: The file.
    position: Where the first storage is: its length, then its bytes.
    size: The bytes of the file.
    storages: The storages in the order in which they stand there.
  """
  starts: dict[str, int] = {}
  for storage in storages:
    file.seek(position)
    length = file.read(8)
    position += 8
    if storage.key in starts or length != struct.pack("<q", storage.length) or position + storage.size > size:
      raise PickleError(
        f"storage {storage.key} is repeated, cut off or of another length; its tensors claim {storage.size} bytes in a"
        f" file of {size}"
      )
    starts[storage.key] = position
    position += storage.size
  return starts


def _load(stream: BytesIO, storages: dict[str, _Storage]) -> Any:
  """Reads one pickle; adds the storages that it names to `storages`."""

  def find_storage(identifier: Any) -> _Storage:
    match identifier:
      case ("storage", _Kind() as kind, str() as key, str(), int() as length, *view) if 0 <= length < 2**62:
        if any(part is not None for part in view):
          raise PickleError(f"storage {key[:40]} is a view of another one, as PyTorch before 0.4 wrote")
        storage = _Storage(kind, key, length)
        if storages.setdefault(key, storage) != storage:
          raise PickleError(f"storage {key[:40]} has two types or lengths")
        return storage
    raise PickleError("a tensor without a storage of numbers")

  return plain_pickle.load(stream, _ALLOWED, find_storage)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
  numbers = (offset, *shape, *strides)
  if not isinstance(storage, _Storage) or len(shape) != len(strides) or len(shape) > _MAX_AXES:
    raise PickleError("a tensor without a storage, or with shape and strides that differ in length")
  if not all(isinstance(number, int) and 0 <= number < 2**62 for number in numbers):
    raise PickleError("a tensor with an offset, a size or a stride that is negative or no number")
  count = math.prod(shape)
  last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
  # Strides of 0 would make a large tensor out of a small storage.
  if count > storage.length or (count and last >= storage.length):
    raise PickleError(f"a tensor of {count} elements in a storage of {storage.length}")
  return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
  return tensor


def _make_dictionary(*items: Any) -> dict[str, Any]:
  if items:
    raise PickleError("an OrderedDict with arguments")
  return {}


def _make_size(sizes: Any) -> tuple[Any, ...]:
  if not isinstance(sizes, tuple):
    raise PickleError("a torch.Size of something else than a tuple")
  return sizes


def _ignore(*_: Any) -> Ignored:
  return Ignored()


_ALLOWED: dict[str, Any] = {
  "collections.OrderedDict": _make_dictionary,
  "torch._utils._rebuild_tensor": _rebuild_tensor,
  "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
  "torch._utils._rebuild_parameter": _rebuild_parameter,
  "torch.Size": _make_size,
  "torch.device": _ignore,
  **{f"torch.{name}Storage": _Kind(dtype) for name, dtype in _TYPES.items()},
  **{
    f"torch.{name}": Ignored()
    for name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
  },
  # Checkpoints keep these beside parameters, and nobody reads them: the training's arguments, numbers of NumPy's types.
  "argparse.Namespace": _ignore,
  "numpy.dtype": _ignore,
  "numpy.core.multiarray.scalar": _ignore,
  "numpy._core.multiarray.scalar": _ignore,
  "_codecs.encode": _ignore,
}


def _arrays(path: Path, value: Any, read: Callable[[_Storage], bytes]) -> Arrays:
  """Returns the tensors of a pickle as arrays; `read` gives the bytes of a storage."""
  tensors = _find_tensors(path, value)

  def array(name: str) -> np.ndarray:
    tensor = tensors[name]
    dtype, size = tensor.storage.kind.dtype, tensor.storage.kind.size
    try:
      data = read(tensor.storage)
    except FAULTS as error:
      raise _damaged(f"{path}: {name}", error) from None
    flat = np.frombuffer(data, "<u2" if dtype == _BFLOAT16 else dtype)
    view = np.lib.stride_tricks.as_strided(
      flat[tensor.offset :], tensor.shape, [stride * size for stride in tensor.strides], writeable=False
    )
    return (view.astype("<u4") << 16).view("<f4") if dtype == _BFLOAT16 else view.copy()

  return Arrays({name: tensor.shape for name, tensor in tensors.items()}, array)


def _find_tensors(path: Path, value: Any) -> Mapping[str, _Tensor]:
  """Returns the dictionary of tensors in what a pickle held: the dictionary itself, or the one in it."""
  if tensors := _tensors_of(value):
    return tensors
  if isinstance(value, dict):
    # Each dictionary once, or thousands of names for one large dictionary would take forever.
    once = {id(inner): (key, inner) for key, inner in value.items()}
    states = {key: state for key, inner in once.values() if (state := _tensors_of(inner))}
    chosen = [key for key in _STATES if key in states][:1] or list(states)
    if len(chosen) == 1:
      return states[chosen[0]]
  found = ", ".join(key[:40] for key in list(value)[:8]) if isinstance(value, dict) else type(value).__name__
  raise WeightsError(f"{path}: found {found or 'nothing'}, expected a dictionary of tensors or one in {_STATES[0]}")


def _tensors_of(value: Any) -> dict[str, _Tensor]:
  if not isinstance(value, dict):
    return {}
  return {name: tensor for name, tensor in value.items() if isinstance(tensor, _Tensor)}


def _damaged(place: Path | str, error: Exception) -> WeightsError:
  return WeightsError(f"{place}: {str(error) or 'the file is cut off'}")
