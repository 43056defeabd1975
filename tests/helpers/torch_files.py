"""Writes files in PyTorch's two formats without PyTorch, opcode by opcode, so that tests can also write wrong ones.

Also reads them, and asserts that wrong ones are refused.
"""

import struct
import tracemalloc
import zipfile
from typing import NamedTuple

import numpy as np
import pytest

from stajax.weights.array_files import open_arrays
from stajax.weights.store import WeightsError

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
ORDERED = b"ccollections\nOrderedDict\n)R"


class Raw(bytes):
  """The opcodes that leave one value on the stack."""


class Tensor(NamedTuple):
  """A view of a storage, as its pickle describes it."""

  key: str
  count: int  # of the storage
  shape: tuple[int, ...]
  strides: tuple[int, ...]
  offset: int = 0
  kind: str = "FloatStorage"
  rebuild: str = "_rebuild_tensor_v2"
  view: tuple = ()


def encode(value, legacy=False):
  """Returns the opcodes of a value, in protocol 2."""
  match value:
    case Raw():
      return bytes(value)
    case Tensor(key, count, shape, strides, offset, kind, rebuild, view):
      storage = encode(("storage", Raw(b"ctorch\n" + kind.encode() + b"\n"), key, "cpu", count, *view)) + b"Q"
      rest = b"" if rebuild == "_rebuild_tensor" else b"\x89" + ORDERED
      parts = storage + encode(offset) + encode(shape) + encode(strides) + rest
      return b"ctorch._utils\n" + rebuild.encode() + b"\n(" + parts + b"tR"
    case None | bool():
      return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    case int():
      data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
      return b"\x8a" + struct.pack("B", len(data)) + data
    case str():
      data = value.encode()
      return b"X" + struct.pack("<I", len(data)) + data
    case tuple():
      return b"(" + b"".join(map(encode, value)) + b"t"
    case list():
      return b"](" + b"".join(map(encode, value)) + b"e"
    case dict():
      return ORDERED + b"(" + b"".join(encode(x) for item in value.items() for x in item) + b"u"
  raise TypeError(type(value))


def pickled(value):
  return b"\x80\x02" + encode(value) + b"."


def write_zip(path, value, storages, root="archive", byteorder=b"little", compression=zipfile.ZIP_STORED):
  """Writes a file in the zip format; `storages` holds arrays or bytes by key."""
  with zipfile.ZipFile(path, "w", compression) as archive:
    archive.writestr(f"{root}/data.pkl", value if isinstance(value, bytes) else pickled(value))
    if byteorder is not None:
      archive.writestr(f"{root}/byteorder", byteorder)
    for key, data in storages.items():
      archive.writestr(f"{root}/data/{key}", data if isinstance(data, bytes) else data.tobytes())
    archive.writestr(f"{root}/version", b"3\n")


def write_legacy(path, value, storages, little_endian=True, magic=MAGIC, protocol=PROTOCOL, keys=None, counts=None):
  """Writes a file in the older format; `keys` and `counts` replace the true ones."""
  system = {"protocol_version": protocol, "little_endian": little_endian, "type_sizes": {"int": 4}}
  keys = list(storages) if keys is None else keys
  with open(path, "wb") as file:
    for part in (magic, protocol, system, value, keys):
      file.write(part if isinstance(part, bytes) and not isinstance(part, Raw) else pickled(part))
    for key in keys:
      data = storages.get(key, b"")
      count = (counts or {}).get(key, len(data) // 4 if isinstance(data, bytes) else data.size)
      file.write(struct.pack("<q", count) + (data if isinstance(data, bytes) else data.tobytes()))


def write_state(write, path, state, wrap=lambda state: state):
  """Writes arrays by name as contiguous tensors, each with a storage of its own, by one of the two functions."""
  kinds = {"float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage", "int64": "LongStorage"}
  tensors, storages = {}, {}
  for number, (name, array) in enumerate(state.items()):
    array = np.ascontiguousarray(array)
    strides = tuple(stride // array.itemsize for stride in array.strides)
    view = (None,) if write is write_legacy else ()
    kind = kinds[array.dtype.name]
    tensors[name] = Tensor(str(number), array.size, array.shape, strides, kind=kind, view=view)
    storages[str(number)] = array
  write(path, wrap(tensors), storages)


FORMATS = pytest.mark.parametrize("write", [write_zip, write_legacy], ids=["zip", "legacy"])
BASE = np.arange(12, dtype=np.float32)


def read(path):
  """Returns all arrays of a file by name."""
  with open_arrays(path) as arrays:
    found = {name: np.asarray(arrays.read(name)) for name in arrays.shapes}
    assert {name: x.shape for name, x in found.items()} == arrays.shapes
    return found


def assert_refused(path, *messages):
  """Asserts that a file is refused by one line that names it and says all of the messages."""
  with pytest.raises(WeightsError) as error:
    read(path)
  text = str(error.value)
  assert text.startswith(f"{path}: ") and "\n" not in text and len(text) < 500
  for message in messages:
    assert message in text


def peak_memory(action):
  """Returns how many bytes an action allocated at most; NumPy's arrays count."""
  tracemalloc.start()
  action()
  most = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  return most
