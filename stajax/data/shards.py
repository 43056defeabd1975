"""Sets of records on disk: ArrayRecord shards with the metadata of TensorFlow Datasets, and random reads from them.

A set is a folder `NAME/VERSION/` that `tfds.builder_from_directory` opens (with `as_data_source`, because ArrayRecord
has no `as_dataset`). This module loads TensorFlow Datasets, but not TensorFlow.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from stajax.data.metadata import check_metadata
from stajax.data.protos import Encoder, find_bytes
from stajax.files import FileError, atomic_file, make_folder

VERSION = "1.0.0"
SPLIT = "data"
MAX_SHARD_BYTES = 2**30
_SECONDS_FROM_MEMORY = 3e-4  # reads that take longer had to wait for the disk; a tenth of this is usual


class RecordError(ValueError):
  """A set of records is missing, incomplete or damaged; the message names the file."""


def shard_path(folder: Path, name: str, index: int, count: int) -> Path:
  """Returns the file of shard `index` of `count` of the set `name`; `folder` is the same as for `ShardReader`."""
  return folder / VERSION / f"{name}-{SPLIT}.array_record-{index:05d}-of-{count:05d}"


def write_shard(path: Path, records: Iterable[bytes]) -> tuple[int, int]:
  """Writes one shard atomically; several processes may write the same one.

  Returns:
    The number of its records and the sum of their bytes.
  """
  make_folder(path.parent)
  length = size = 0
  with atomic_file(path, shared=True) as partial:
    writer = _open_writer(partial)
    for record in records:
      writer.write(record)
      length, size = length + 1, size + len(record)
    writer.close()
  return length, size


def write_metadata(
  folder: Path,
  name: str,
  features: tfds.features.FeaturesDict,
  lengths: Sequence[int],
  num_bytes: int,
  description: str,
) -> None:
  """Writes the metadata that make shards a set, without which the set does not open.

  Args:
    folder: The folder of the set, as for `shard_path`.
    name: The name of the set.
    features: The features of its records.
    lengths: The number of records in each shard.
    num_bytes: The size of all records.
    description: The description of the set in the metadata.
  """
  template = tfds.core.ShardedFileTemplate(
    dataset_name=name,
    data_dir=folder / VERSION,  # pyright: ignore[reportArgumentType]  # it accepts any kind of path
    split=SPLIT,
    filetype_suffix="array_record",
  )
  split = tfds.core.SplitInfo(name=SPLIT, shard_lengths=list(lengths), num_bytes=num_bytes, filename_template=template)
  tfds.folder_dataset.write_metadata(
    data_dir=folder / VERSION,
    features=features,
    split_infos=[split],
    version=VERSION,
    filename_template=template,
    check_data=False,  # the check reads by `as_dataset`
    description=description,
  )


def _open_writer(path: Path) -> ArrayRecordWriter:
  # Images are compressed already, and float16 spectrograms hardly shrink.
  return ArrayRecordWriter(str(path), "group_size:1,uncompressed")


class ShardWriter:
  """Writes one set, shard after shard; `close` adds the metadata without which the set does not open.

  The folder should be a temporary one that is renamed when everything in it is closed.
  """

  def __init__(
    self, folder: Path, name: str, features: Mapping[str, Any], max_shard_bytes: int = MAX_SHARD_BYTES
  ) -> None:
    """Begins a set in `folder/VERSION`, which must not exist.

    Args:
      folder: The folder of the set, which usually ends in `name`.
      name: The name of the set in the metadata; the names of its shards begin with it.
      features: The TFDS features of one record.
      max_shard_bytes: A shard is closed when it holds this many bytes of records.
    """
    (folder / VERSION).mkdir(parents=True)
    self._folder, self._name, self._max_shard_bytes = folder, name, max_shard_bytes
    self._encode = Encoder(features)
    self._writer: ArrayRecordWriter | None = None
    self._lengths: list[int] = []
    self._sizes: list[int] = []

  def write(self, example: dict[str, Any]) -> None:
    """Appends one record."""
    record, writer = self._encode(example), self._writer
    if writer is None or self._sizes[-1] + len(record) > self._max_shard_bytes:
      writer = self._begin_shard()
    writer.write(record)
    self._lengths[-1] += 1
    self._sizes[-1] += len(record)

  def close(self, description: str) -> None:
    """Gives the shards their names, `…-00001-of-00005`, and writes the metadata."""
    writer = self._writer or self._begin_shard()  # a set may be empty, but TFDS needs a file
    writer.close()
    for index in range(len(self._lengths)):
      self._partial(index).rename(shard_path(self._folder, self._name, index, len(self._lengths)))
    features, size = self._encode.features, sum(self._sizes)
    write_metadata(self._folder, self._name, features, self._lengths, size, description)

  def _partial(self, index: int) -> Path:
    return self._folder / VERSION / f"{self._name}-{index:05d}.partial"

  def _begin_shard(self) -> ArrayRecordWriter:
    if self._writer is not None:
      self._writer.close()
    self._writer = writer = _open_writer(self._partial(len(self._lengths)))
    self._lengths.append(0)
    self._sizes.append(0)
    return writer


class ShardReader:
  """Reads serialized records of one set in any order; safe to use from several threads.

  Attributes:
    folder: The folder of the shards.
    features: The TFDS features of one record.
    shards: The files.
  """

  def __init__(self, folder: Path, complete: bool = True) -> None:
    """Opens `folder/VERSION`; the shards themselves are opened when they are first read.

    Args:
      folder: The folder of the set.
      complete: Whether a missing shard is an error at once, instead of when it is read.

    Raises:
      RecordError: There is no such set, or a shard of it is missing.
    """
    self.folder = folder / VERSION
    if not (self.folder / "dataset_info.json").is_file():
      raise RecordError(f"{self.folder}: not a set of records (expected dataset_info.json and ArrayRecord shards)")
    try:
      check_metadata(self.folder)
      builder = tfds.builder_from_directory(self.folder)
      split = builder.info.splits[SPLIT]
    except FileError as error:
      raise RecordError(str(error)) from None
    except Exception as error:  # TensorFlow Datasets raises many kinds of errors for damaged metadata
      detail = str(error).strip().partition("\n")[0] or type(error).__name__
      raise RecordError(f"{self.folder}: the set's metadata cannot be read ({detail})") from error
    self.features: Any = builder.info.features  # a FeaturesDict by name
    self.shards = [Path(path) for path in split.filepaths]
    if outside := [path for path in self.shards if path.parent != self.folder]:
      raise RecordError(f"{self.folder}: a shard is not in this folder: {outside[0]}")
    for shard in self.shards:
      if complete and not shard.is_file():
        raise RecordError(f"{shard}: shard missing from its set")
    self._ends = np.cumsum(np.asarray(split.shard_lengths, np.int64))
    self._readers: list[ArrayRecordReader | None] = [None] * len(self.shards)
    self._lock = threading.Lock()

  def __len__(self) -> int:
    return int(self._ends[-1])

  def read(self, ids: np.ndarray | Sequence[int]) -> list[bytes]:
    """Reads records by id, with one call for each shard; a record that is named several times is read once.

    Args:
      ids: (n,) integers in [0, len(self)), in any order.

    Returns:
      n serialized `tf.train.Example` protos in the order of `ids`.

    Raises:
      IndexError: An id is out of range.
      RecordError: A shard is truncated or damaged.
    """
    wanted, positions = np.unique(np.asarray(ids, np.int64), return_inverse=True)
    if wanted.size == 0:
      return []
    if wanted[0] < 0 or wanted[-1] >= len(self):
      raise IndexError(f"{self.folder}: record {wanted[0]} or {wanted[-1]} is not in [0, {len(self)})")
    shard_of = np.searchsorted(self._ends, wanted, side="right")
    records: list[bytes] = []
    for shard in np.unique(shard_of):
      begin = self._ends[shard - 1] if shard else 0
      records += self._read_shard(int(shard), (wanted[shard_of == shard] - begin).tolist())
    return [records[position] for position in positions]

  def read_range(self, begin: int, end: int) -> list[bytes]:
    """Reads the records of [begin, end)."""
    return self.read(np.arange(begin, end))

  def _read_shard(self, shard: int, positions: list[int]) -> list[bytes]:
    try:
      with self._lock:
        reader = self._readers[shard]
        if reader is None:
          # There is no read-ahead, because neighbours in a shard are rarely read together.
          options = "readahead_buffer_size:0,max_parallelism:0"
          reader = ArrayRecordReader(str(self.shards[shard]), options, file_reader_buffer_size=32768)
          expected = int(self._ends[shard] - (self._ends[shard - 1] if shard else 0))
          if reader.num_records() != expected:  # a truncated shard has 0, but reading it may not fail
            raise ValueError(f"{reader.num_records()} records, expected {expected}")
          self._readers[shard] = reader
      return _read_records(reader, positions)
    except (RuntimeError, IndexError, ValueError) as error:
      detail = str(error).partition("\n")[0]
      raise RecordError(f"{self.shards[shard]}: shard truncated or damaged ({detail})") from error


def _read_records(reader: ArrayRecordReader, positions: list[int]) -> list[bytes]:
  """Reads records one by one while the system has them in memory, and all that are left at once after a slow read.

  ArrayRecord reads a list with threads, which wait for a disk together but cost more than reads from memory.
  """
  records: list[bytes] = []
  for done, position in enumerate(positions, start=1):
    begin = time.perf_counter()
    records += reader.read([position])
    if time.perf_counter() - begin > _SECONDS_FROM_MEMORY and done < len(positions):
      return records + reader.read(positions[done:])
  return records


class SelectedReader(ShardReader):
  """Reads some stretches of a set's records, which get successive ids of their own."""

  def __init__(self, reader: ShardReader, begins: np.ndarray, lengths: np.ndarray) -> None:
    """Selects stretches.

    Args:
      reader: The reader of all records.
      begins: (k,) int64, the id of the first record of each stretch.
      lengths: (k,) int64, the number of its records.
    """
    self._reader, self._ends = reader, np.cumsum(lengths)
    self._shifts = begins - (self._ends - lengths)
    self.folder, self.features, self.shards = reader.folder, reader.features, reader.shards

  def read(self, ids: np.ndarray | Sequence[int]) -> list[bytes]:
    """Reads records by id, as `ShardReader.read` does."""
    ids = np.asarray(ids, np.int64)
    if ids.size and (ids.min() < 0 or ids.max() >= len(self)):
      raise IndexError(f"{self.folder}: record {ids.min()} or {ids.max()} is not in [0, {len(self)})")
    return self._reader.read(ids + self._shifts[np.searchsorted(self._ends, ids, side="right")])


def read_bytes(reader: ShardReader, ids: np.ndarray | Sequence[int], name: str) -> list[bytes]:
  """Returns a feature of type bytes of the records `ids`; repeated ids give the same object.

  Args:
    reader: The reader of the set.
    ids: (n,) integers, in any order.
    name: The name of the feature: `image`, `map` or `columns`.

  Raises:
    RecordError: A shard is damaged, or a record does not have the feature.
  """
  wanted, positions = np.unique(np.asarray(ids, np.int64), return_inverse=True)
  try:
    values = [find_bytes(record, name) for record in reader.read(wanted)]
    return [values[position] for position in positions]
  except ValueError as error:
    raise error if isinstance(error, RecordError) else RecordError(f"{reader.folder}: {error}") from error
