"""Checks the metadata of record sets before TensorFlow Datasets reads them, because sets may come from anybody.

TensorFlow Datasets would open the file that a template of names points at, wherever that is, and would import any
module that a feature names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stajax.files import FileError, read_json

TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
"""The names of shards, as they are written here."""
MAX_RECORDS = 2**40
_FEATURES = "tensorflow_datasets.core.features."
_MAX_LABELS = 100_000


def check_metadata(folder: Path) -> None:
  """Checks `dataset_info.json` and `features.json` of a set of records.

  Args:
    folder: The folder with both and the shards.

  Raises:
    FileError: A file is not such metadata, or leads out of the folder; one line that names it.
  """
  path = folder / "dataset_info.json"
  about = _object(path, read_json(path))
  _check_name(path, "name", about.get("name"))
  if about.get("fileFormat", "array_record") != "array_record":
    raise FileError(f"{path}: fileFormat is {about['fileFormat']!r}, expected 'array_record'")
  splits = about.get("splits")
  if not isinstance(splits, list) or not splits:
    raise FileError(f"{path}: has no splits")
  for split in splits:
    found = _object(path, split)
    _check_name(path, "the name of a split", found.get("name"))
    if found.get("filepathTemplate", TEMPLATE) != TEMPLATE:
      raise FileError(f"{path}: filepathTemplate is {str(found['filepathTemplate'])[:80]!r}, expected {TEMPLATE!r}")
    _check_lengths(path, found.get("shardLengths"))
  path = folder / "features.json"
  for key, value in _pairs(read_json(path)):
    if key in ("pythonClassName", "type") and not str(value).startswith(_FEATURES):
      raise FileError(f"{path}: a feature of type {str(value)[:80]!r}, expected those of TensorFlow Datasets")
    if key == "numClasses" and not (str(value).isdecimal() and len(str(value)) < 12 and int(value) <= _MAX_LABELS):
      raise FileError(f"{path}: numClasses is {str(value)[:80]!r}, expected at most {_MAX_LABELS}")


def _object(path: Path, value: Any) -> dict[str, Any]:
  if not isinstance(value, dict):
    raise FileError(f"{path}: found {type(value).__name__}, expected an object")
  return value


def _check_name(path: Path, what: str, name: Any) -> None:
  if not (isinstance(name, str) and re.fullmatch(r"\w{1,100}", name)):
    raise FileError(f"{path}: {what} is {str(name)[:80]!r}, expected letters, digits and underscores")


def _check_lengths(path: Path, lengths: Any) -> None:
  """Checks the numbers of records in each shard; JSON made of protocol buffers has them as texts."""
  expected = f"{path}: shardLengths {str(lengths)[:80]!r}, expected a number of records for each shard"
  if not isinstance(lengths, list) or not lengths:
    raise FileError(expected)
  if not all(isinstance(x, int | str) and re.fullmatch(r"\d{1,13}", str(x)) for x in lengths):
    raise FileError(expected)
  if sum(map(int, lengths)) > MAX_RECORDS:
    raise FileError(f"{path}: shardLengths name more than {MAX_RECORDS} records")


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
  """Yields all keys of nested JSON objects, and what they stand for."""
  waiting = [value]
  while waiting:
    found = waiting.pop()
    if isinstance(found, dict):
      yield from found.items()
      waiting += found.values()
    elif isinstance(found, list):
      waiting += found
