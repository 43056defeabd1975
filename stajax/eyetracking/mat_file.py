"""Reads one matrix of a MATLAB file, which may come from anybody, of version 4 to 7.2.

SciPy's reader crashes on damaged files, takes any amount of memory for compressed variables, and writes where the
indices of a sparse matrix point, even outside of it. This one is NumPy, checks every length before it reads, and keeps
numbers in the type in which they are stored.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAX_BYTES = 64 * 2**20
_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""NumPy's names of the types of elements, such as miINT8."""
_SPARSE = "sparse"
_CLASSES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: _SPARSE, 6: "double", 7: "single", 8: "int8", 9: "uint8"}
_CLASSES |= {10: "int16", 11: "uint16", 12: "int32", 13: "uint32", 14: "int64", 15: "uint64", 16: "function"}
_NUMERIC = {name for code, name in _CLASSES.items() if 5 <= code <= 15}
_COMPLEX = 0x0800
_OLD_TYPES = ("f8", "f4", "i4", "i2", "u2", "u1")


class _Variable(NamedTuple):
  """A variable whose numbers are not read yet.

  Attributes:
    kind: MATLAB's name of its class.
    shape: Its dimensions.
    parts: Its further elements: the numbers, after the rows and the column pointers if it is sparse.
    is_complex: Whether there are imaginary parts.
  """

  kind: str
  shape: tuple[int, ...]
  parts: list[np.ndarray]
  is_complex: bool


def read_matrix(path: Path, variable: str, max_pixels: int) -> np.ndarray:
  """Returns a variable of a MATLAB file, (H, W) numbers.

  Args:
    path: The file.
    variable: The name of the variable.
    max_pixels: The largest number of its elements.

  Raises:
    ValueError: It is damaged, has no such variable, or this is not numeric, not 2-D or too large; one line.
    NotImplementedError: It is of version 7.3.
    OSError: It cannot be read.
  """
  if path.stat().st_size > MAX_BYTES:
    raise ValueError(f"{path.stat().st_size} bytes, expected at most {MAX_BYTES}")
  content = path.read_bytes()
  found: dict[str, _Variable] = {}
  try:
    read = _old_variables if len(content) >= 4 and 0 in content[:4] else _variables
    for name, value in read(content, 9 * max_pixels):
      found.setdefault(name, value)
  except (struct.error, zlib.error, IndexError, UnicodeDecodeError) as error:
    raise ValueError(f"damaged ({error})") from None
  if variable not in found:
    raise ValueError(f"found {sorted(found) or 'no variables'}, expected a variable {variable!r}")
  kind, shape, parts, is_complex = found[variable]
  if len(shape) != 2 or not 0 < math.prod(shape) <= max_pixels or min(shape) < 0 or kind not in _NUMERIC or is_complex:
    kind = f"complex {kind}" if is_complex else kind
    raise ValueError(f"{variable} is {kind} {shape}, expected numbers (H, W), at most {max_pixels} pixels")
  if kind == _SPARSE:
    return _dense(variable, shape, parts)
  if len(parts) < 1 or parts[0].size != math.prod(shape):
    raise ValueError(f"{variable} has {parts[0].size if parts else 0} numbers, expected {shape}")
  return parts[0].reshape(shape, order="F")


def _dense(variable: str, shape: tuple[int, ...], parts: list[np.ndarray]) -> np.ndarray:
  """Returns a sparse matrix, given its rows, its column pointers and its numbers, as a dense one."""
  height, width = shape
  rows, pointers, values = parts[:3] if len(parts) >= 3 else (np.zeros(0, np.int32),) * 3
  counts = np.diff(pointers.astype(np.int64))
  if len(pointers) != width + 1 or pointers[0] != 0 or (counts < 0).any():
    raise ValueError(f"{variable} is sparse, and the pointers of its columns do not fit")
  number = int(pointers[-1])
  rows, values = rows[:number].astype(np.int64), values[:number]
  if not len(rows) == len(values) == number or ((rows < 0) | (rows >= height)).any():
    raise ValueError(f"{variable} is sparse, and has indices outside of its {height} rows")
  dense = np.zeros(shape, values.dtype)
  np.add.at(dense, (rows, np.repeat(np.arange(width), counts)), values)
  return dense


def _variables(content: bytes, most: int) -> Iterator[tuple[str, _Variable]]:
  """Yields the variables of a file of version 5 to 7.2 by name."""
  version = content[_HEADER - 4 : _HEADER]
  order = {b"IM": "<", b"MI": ">"}.get(version[2:])
  if order is None:
    raise ValueError("not a MATLAB file")
  if version in (b"\x00\x02IM", b"\x02\x00MI"):
    raise NotImplementedError("version 7.3")
  for kind, element in _elements(content[_HEADER:], order):
    if kind == _COMPRESSED:
      unpacker = zlib.decompressobj()
      element = unpacker.decompress(element, most)
      if unpacker.unconsumed_tail:
        raise ValueError(f"a variable of more than {most} bytes")
      kind, element = next(_elements(element, order), (0, b""))
    if kind == _MATRIX:
      yield _matrix(element, order)


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
  """Yields the type and the content of each element."""
  at = 0
  while at + 8 <= len(content):
    kind, size = struct.unpack_from(f"{order}II", content, at)
    if kind >> 16:  # a small element: its size and its content are in the same eight bytes
      kind, size = kind & 0xFFFF, kind >> 16
      begin, end = at + 4, at + 8
      if size > 4:
        raise ValueError("damaged (a small element of more than 4 bytes)")
    else:
      begin = at + 8
      end = begin + size + (-size % 8 if kind != _COMPRESSED else 0)
    if begin + size > len(content):
      raise ValueError("damaged (it ends early)")
    yield kind, content[begin : begin + size]
    at = end


def _matrix(content: bytes, order: str) -> tuple[str, _Variable]:
  """Returns a variable of version 5 to 7.2."""
  elements = list(_elements(content, order)) if content else []
  if len(elements) < 3:
    raise ValueError("damaged (a variable without a name)")
  (_, flags), (_, dimensions), (_, name), *parts = elements
  (described,) = struct.unpack_from(f"{order}I", flags)
  kind = _CLASSES.get(described & 0xFF, "unknown")
  shape = tuple(np.frombuffer(dimensions, f"{order}i4").tolist())
  numbers = [_numbers(kind, part, order) for kind, part in parts] if kind in _NUMERIC else []
  return name.decode("latin-1"), _Variable(kind, shape, numbers, bool(described & _COMPLEX))


def _numbers(kind: int, content: bytes, order: str) -> np.ndarray:
  if kind not in _TYPES:
    raise ValueError(f"damaged (numbers of type {kind})")
  return np.frombuffer(content, order + _TYPES[kind])


def _old_variables(content: bytes, most: int) -> Iterator[tuple[str, _Variable]]:
  """Yields the variables of a file of version 4 by name; a sparse one has rows (row, column, number)."""
  at = 0
  while at < len(content):
    order = "<" if struct.unpack_from("<i", content, at)[0] in range(5000) else ">"
    kind, height, width, is_complex, length = struct.unpack_from(f"{order}5i", content, at)
    machine, other, number, layout = (kind // divisor % 10 for divisor in (1000, 100, 10, 1))
    at += 20
    is_known = machine in (0, 1) and other == 0 and number < len(_OLD_TYPES) and layout < 3
    if not is_known or height < 0 or width < 0 or not 0 < length <= 1000:
      raise ValueError("not a MATLAB file")
    name = content[at : at + length].rstrip(b"\x00").decode("latin-1")
    dtype = np.dtype(("<" if machine == 0 else ">") + _OLD_TYPES[number])
    count = height * width
    end = at + length + count * dtype.itemsize * (2 if is_complex else 1)
    if end > len(content):
      raise ValueError("damaged (it ends early)")
    values = np.frombuffer(content, dtype, count, at + length)
    at = end
    if layout == 2:
      yield name, _old_sparse(values.reshape((height, width), order="F"), bool(is_complex))
    else:
      yield name, _Variable("char" if layout == 1 else "double", (height, width), [values], bool(is_complex))


def _old_sparse(rows: np.ndarray, is_complex: bool) -> _Variable:
  """Returns a sparse matrix of version 4, whose last row has its size."""
  if rows.shape[1] != 3 or not len(rows) or not np.isfinite(rows).all() or np.abs(rows[:, :2]).max() >= 2**31:
    raise ValueError("damaged (a sparse matrix that is not one)")
  places = rows[:, :2].astype(np.int64)
  shape, entries = tuple(places[-1].tolist()), places[:-1] - 1
  if (entries < 0).any() or (entries >= shape).any():
    raise ValueError("damaged (a sparse matrix with indices outside of it)")
  order = np.argsort(entries[:, 1], kind="stable")
  pointers = np.searchsorted(entries[order, 1], np.arange(min(shape[1], 2**25) + 1))
  return _Variable(_SPARSE, shape, [entries[order, 0], pointers, rows[:-1, 2][order]], is_complex)
