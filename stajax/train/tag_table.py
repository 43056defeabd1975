"""The table that says which classes of an off-the-shelf tagger correspond to the tags of the clips.

The table has rows `tag,class`. A tag may have several rows, and so may a class. A row without a class says that the
tagger does not know the tag. A row without a tag names a class that is no tag of these clips: where it is louder than
the tag, the tag does not count as heard. An example is `,Speech` where people talk over the clips. Without such rows
tags are compared with each other only, as taggers that are trained here do.
"""

import csv
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stajax.config import ConfigError
from stajax.files import write_text
from stajax.files.names import csv_name, csv_text
from stajax.prepare.listing import ListingError, read_lines

_HEADER = ("tag", "class")
_SILENCE = "Silence"  # a class of YAMNet


def guess_rows(tags: Sequence[str], classes: Sequence[str]) -> list[tuple[str, str]]:
  """Returns rows that match tags to classes of the same name; case, plurals and punctuation do not matter.

  A part of the name is enough for classes such as "Violin, fiddle" or "Frying (food)". A tag that no class fits gets a
  row without a class. Silence becomes a class that is no tag.
  """
  names = [(name, {_plain(name), *(_plain(_bare(part)) for part in (name, *name.split(",")))}) for name in classes]
  rows = []
  for tag in tags:
    found = [name for name, forms in names if forms & {_plain(tag), _plain(_bare(tag))} - {""}]
    rows += [(tag, name) for name in found or [""]]
  if _SILENCE in classes and _SILENCE not in {name for _, name in rows}:
    rows.append(("", _SILENCE))
  return rows


def _bare(name: str) -> str:
  """Returns a name without its parts in parentheses."""
  return re.sub(r"\([^)]*\)", " ", name)


def _plain(name: str) -> str:
  """Returns a name in lower case, without punctuation and without the s of plurals."""
  return " ".join(re.sub(r"(?<=..[^s])s$", "", word) for word in re.findall(r"[^\W_]+", name.casefold()))


def write_table(path: Path, rows: Sequence[tuple[str, str]]) -> None:
  """Writes a table, atomically."""
  write_text(path, csv_text([_HEADER, *rows]))


class TagTable(NamedTuple):
  """A table that was read.

  Attributes:
    members: The class indices of each tag, and then those of the rows without a tag.
    text: The text of the table.
    spare: The tags in it that are none of the clips', in the order of the rows.
  """

  members: list[np.ndarray]
  text: str
  spare: tuple[str, ...]


def read_table(path: Path, tags: Sequence[str], classes: Sequence[str]) -> TagTable:
  """Reads a table. It may have rows of tags that no clip has, so that one table suits several sets of clips.

  Raises:
    ConfigError: The table cannot be read, a row has an unknown class, or no row a tag of the clips; the message names
      the line.
  """
  try:
    lines = read_lines(path)
  except ListingError as error:
    raise ConfigError(str(error)) from None
  reader = csv.reader(lines, skipinitialspace=True)
  members: list[set[int]] = [set() for _ in (*tags, "")]
  spare: dict[str, int] = {}
  try:
    for number, row in enumerate(reader):
      fields, where = tuple(csv_name(field.strip()) for field in row), f"{path}, line {reader.line_num}"
      if number == 0:
        if fields != _HEADER:
          raise ConfigError(f"{where}: found {','.join(fields)[:80]!r}, expected tag,class")
      elif any(fields):
        tag, index = _parse_row(fields, classes, where)
        if tag and tag not in tags:
          spare.setdefault(tag, reader.line_num)
        else:
          members[tags.index(tag) if tag else -1].update(index)
  except csv.Error as error:
    raise ConfigError(f"{path}, line {reader.line_num}: {error}") from None
  if reader.line_num == 0:
    raise ConfigError(f"{path}: is empty, expected tag,class")
  if spare and not any(members[:-1]):
    tag, line = next(iter(spare.items()))
    _find(tag, tags, f"{path}, line {line}: {{!r}} is not a tag of the clips")
  found = [np.array(sorted(member), np.int64) for member in members]
  return TagTable(found, "\n".join(lines) + "\n", tuple(spare))


def _parse_row(fields: tuple[str, ...], classes: Sequence[str], where: str) -> tuple[str, list[int]]:
  """Returns a row's tag and a list with the index of its class, if it has one."""
  if len(fields) != 2:
    found = f"found {len(fields)} columns, expected tag,class"
    raise ConfigError(f"{where}: {found}; put a name with a comma in double quotes")
  tag, name = fields
  return tag, [_find(name, classes, f"{where}: {{!r}} is not a class of the tagger")] if name else []


def _find(name: str, names: Sequence[str], message: str) -> int:
  if name in names:
    return names.index(name)
  near = difflib.get_close_matches(name, names, n=1, cutoff=0)
  raise ConfigError(f"{message.format(name[:80])}, the nearest is {near[0]!r}")
