"""Files that PyTorch's `save` wrote, in both its formats, read without PyTorch and without running anything in them.

The zip format (since 1.6) holds `data.pkl` and one member a storage; the older one is a row of pickles with storages
behind. A tensor is a view of a storage (offset, shape and strides), which it may share with others. All sizes that a
file claims are held against its bytes before anything is allocated.
"""

import math
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from stajax.weights import plain_pickle
from stajax.weights.plain_pickle import Ignored, PickleError
from stajax.weights.store import Arrays, WeightsError

_PICKLE = "data.pkl"
_MAX_PICKLE = 16 * 2**20
_MAX_AXES = 16
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_STATES = ("model_state_dict", "state_dict", "model")
"""Where a checkpoint keeps its parameters, if several of its entries hold tensors."""

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
    return 2 if self.dtype == _BFLOAT16 else np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class _Storage:
  kind: _Kind
  key: str
  length: int

  @property
  def size(self) -> int:
    return self.length * self.kind.size


@dataclass(frozen=True)
class _Tensor:
  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def pickles(archive: zipfile.ZipFile) -> list[str]:
  """The members of a zip file that are called `data.pkl`, one in what PyTorch wrote."""
  return [name for name in archive.namelist() if name.split("/")[-1] == _PICKLE]


def open_zip(path: Path, archive: zipfile.ZipFile) -> Arrays:
  """The tensors of a file in the zip format; they are read one at a time, and the archive must stay open for that.

  Raises:
    WeightsError: not such a file, or it asks for anything but tensors and plain values.
  """
  try:
    (pickle,) = pickles(archive)
  except ValueError:
    raise WeightsError(f"{path}: a zip file with more than one {_PICKLE}, expected one that PyTorch wrote") from None
  root = pickle.removesuffix(_PICKLE)
  whole = path.stat().st_size

  def member(name: str, size: int | None = None) -> bytes:
    info = archive.NameToInfo.get(name)
    if info is None:
      raise PickleError(f"it has no {name}")
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > whole:
      raise PickleError(f"{name} is compressed or longer than the file, expected what PyTorch writes")
    if size is not None and info.file_size != size:
      raise PickleError(f"{name} has {info.file_size} bytes, its tensors claim {size}")
    if size is None and info.file_size > _MAX_PICKLE:
      raise PickleError(f"{name} has {info.file_size} bytes, expected at most {_MAX_PICKLE}")
    return archive.read(info)

  try:
    if f"{root}byteorder" in archive.NameToInfo and member(f"{root}byteorder").strip() != b"little":
      raise PickleError("its numbers are not little-endian")
    storages: dict[str, _Storage] = {}
    value = _load(BytesIO(member(pickle)), storages)
    for key, storage in storages.items():
      info = archive.NameToInfo.get(f"{root}data/{key}")
      if info is None or info.file_size != storage.size or info.header_offset + storage.size > whole:
        found = "is missing" if info is None else f"has {info.file_size} bytes"
        raise PickleError(f"{root}data/{key} {found}, its tensors claim {storage.size} in a file of {whole}")
    return _arrays(path, value, lambda storage: member(f"{root}data/{storage.key}", storage.size))
  except (PickleError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
    raise WeightsError(f"{path}: {error}") from None


def open_legacy(path: Path) -> Arrays:
  """The tensors of a file in the format before 1.6; they are read one at a time.

  Raises:
    WeightsError: not such a file, or it asks for anything but tensors and plain values.
  """
  whole = path.stat().st_size
  with open(path, "rb") as file:
    stream = BytesIO(file.read(min(whole, _MAX_PICKLE)))
    try:
      if _load(stream, {}) != _MAGIC:
        raise PickleError("a pickle, but not of PyTorch")
      if _load(stream, {}) != _PROTOCOL:
        raise PickleError(f"PyTorch's older format in another version than {_PROTOCOL}")
      system = _load(stream, {})
      if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise PickleError("its numbers are not little-endian")
      storages: dict[str, _Storage] = {}
      value, keys = _load(stream, storages), _load(stream, {})
      if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise PickleError("its list of storages is not that of its tensors")
      starts: dict[str, int] = {}
      at = stream.tell()
      for key in keys:
        file.seek(at)
        found, claimed = file.read(8), storages[key]
        at += 8
        if key in starts or found != struct.pack("<q", claimed.length) or at + claimed.size > whole:
          raise PickleError(
            f"storage {key} is repeated, cut off or of another length; its tensors claim {claimed.size} bytes in a file"
            f" of {whole}"
          )
        starts[key] = at
        at += claimed.size
    except (PickleError, struct.error, OSError) as error:
      raise WeightsError(f"{path}: {error}") from None

  def read(storage: _Storage) -> bytes:
    with open(path, "rb") as file:
      file.seek(starts[storage.key])
      return file.read(storage.size)

  return _arrays(path, value, read)


def _load(stream: BytesIO, storages: dict[str, _Storage]) -> Any:
  """One pickle; the storages that it names are added to `storages`."""

  def persistent(identifier: Any) -> _Storage:
    match identifier:
      case ("storage", _Kind() as kind, str() as key, str(), int() as length, *view) if 0 <= length < 2**62:
        if any(part is not None for part in view):
          raise PickleError(f"storage {key[:40]} is a view of another one, as PyTorch before 0.4 wrote")
        storage = _Storage(kind, key, length)
        if storages.setdefault(key, storage) != storage:
          raise PickleError(f"storage {key[:40]} has two types or lengths")
        return storage
    raise PickleError("a tensor without a storage of numbers")

  return plain_pickle.load(stream, _ALLOWED, persistent)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
  numbers = (offset, *shape, *strides)
  if not isinstance(storage, _Storage) or len(shape) != len(strides) or len(shape) > _MAX_AXES:
    raise PickleError("a tensor without a storage, or with shape and strides that differ in length")
  if not all(isinstance(number, int) and 0 <= number < 2**62 for number in numbers):
    raise PickleError("a tensor with an offset, a size or a stride that is negative or no number")
  count = math.prod(shape)
  last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
  # Strides of 0 would make a large tensor of a small storage.
  if count > storage.length or (count and last >= storage.length):
    raise PickleError(f"a tensor of {count} elements in a storage of {storage.length}")
  return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
  return tensor


def _dictionary(*items: Any) -> dict[str, Any]:
  if items:
    raise PickleError("an OrderedDict with arguments")
  return {}


def _size(sizes: Any) -> tuple[Any, ...]:
  if not isinstance(sizes, tuple):
    raise PickleError("a torch.Size of something else than a tuple")
  return sizes


def _ignore(*_: Any) -> Ignored:
  return Ignored()


_ALLOWED: dict[str, Any] = {
  "collections.OrderedDict": _dictionary,
  "torch._utils._rebuild_tensor": _rebuild_tensor,
  "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
  "torch._utils._rebuild_parameter": _rebuild_parameter,
  "torch.Size": _size,
  "torch.device": _ignore,
  **{f"torch.{name}Storage": _Kind(dtype) for name, dtype in _TYPES.items()},
  **{
    f"torch.{name}": Ignored()
    for name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
  },
  # What checkpoints keep beside parameters: the arguments of the training and numbers of NumPy's types, unread.
  "argparse.Namespace": _ignore,
  "numpy.dtype": _ignore,
  "numpy.core.multiarray.scalar": _ignore,
  "numpy._core.multiarray.scalar": _ignore,
  "_codecs.encode": _ignore,
}


def _arrays(path: Path, value: Any, read: Callable[[_Storage], bytes]) -> Arrays:
  """The dictionary of tensors in what a pickle held: it itself, or the one in it."""
  tensors = _tensors(value)
  if not tensors and isinstance(value, dict):
    # Each once, or thousands of names for one large dictionary would take for ever.
    once = {id(inner): (key, inner) for key, inner in value.items()}
    states = {key: state for key, inner in once.values() if (state := _tensors(inner))}
    chosen = [key for key in _STATES if key in states][:1] or list(states)
    if len(chosen) == 1:
      tensors = states[chosen[0]]
  if not tensors:
    found = ", ".join(key[:40] for key in list(value)[:8]) if isinstance(value, dict) else type(value).__name__
    raise WeightsError(f"{path}: found {found or 'nothing'}, expected a dictionary of tensors or one in {_STATES[0]}")

  def array(name: str) -> np.ndarray:
    tensor = tensors[name]
    dtype, size = tensor.storage.kind.dtype, tensor.storage.kind.size
    try:
      data = read(tensor.storage)
    except (PickleError, zipfile.BadZipFile, OSError) as error:
      raise WeightsError(f"{path}: {name}: {error}") from None
    flat = np.frombuffer(data, "<u2" if dtype == _BFLOAT16 else dtype)
    view = np.lib.stride_tricks.as_strided(
      flat[tensor.offset :], tensor.shape, [stride * size for stride in tensor.strides], writeable=False
    )
    return (view.astype("<u4") << 16).view("<f4") if dtype == _BFLOAT16 else view.copy()

  return Arrays({name: tensor.shape for name, tensor in tensors.items()}, array)


def _tensors(value: Any) -> dict[str, _Tensor]:
  if not isinstance(value, dict):
    return {}
  return {name: tensor for name, tensor in value.items() if isinstance(tensor, _Tensor)}
