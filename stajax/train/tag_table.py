"""The table that says which classes of an off-the-shelf tagger correspond to the tags of the clips.

The table has rows `tag,class`. A tag may have several rows, and so may a class. A row without a class says that the
tagger does not know the tag. A row without a tag names a class that is no tag of these clips: where it is louder than
the tag, the tag does not count as heard. An example is `,Speech` where people talk over the clips. Without such rows
tags are compared with each other only, as taggers that are trained here do.
"""

import csv
import difflib
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stajax.config import ConfigError
from stajax.files import write_text
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
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerows([_HEADER, *rows])
  write_text(path, text.getvalue())


def read_table(path: Path, tags: Sequence[str], classes: Sequence[str]) -> tuple[list[np.ndarray], str]:
  """Reads a table.

  Returns:
    The class indices of each tag and then those of the rows without a tag; and the text of the table.

  Raises:
    ConfigError: The table cannot be read, or a row has an unknown tag or class; the message names the line.
  """
  try:
    lines = read_lines(path)
  except ListingError as error:
    raise ConfigError(str(error)) from None
  reader = csv.reader(lines, skipinitialspace=True)
  members: list[set[int]] = [set() for _ in (*tags, "")]
  try:
    for number, row in enumerate(reader):
      fields, where = tuple(field.strip() for field in row), f"{path}, line {reader.line_num}"
      if number == 0:
        if fields != _HEADER:
          raise ConfigError(f"{where}: found {','.join(fields)[:80]!r}, expected tag,class")
      elif any(fields):
        tag, index = _parse_row(fields, tags, classes, where)
        members[tag].update(index)
  except csv.Error as error:
    raise ConfigError(f"{path}, line {reader.line_num}: {error}") from None
  if reader.line_num == 0:
    raise ConfigError(f"{path}: is empty, expected tag,class")
  return [np.array(sorted(member), np.int64) for member in members], "\n".join(lines) + "\n"


def _parse_row(
  fields: tuple[str, ...], tags: Sequence[str], classes: Sequence[str], where: str
) -> tuple[int, list[int]]:
  """Returns the index of a row's tag, or -1 if it has none, and a list with the index of its class, if it has one."""
  if len(fields) != 2:
    found = f"found {len(fields)} columns, expected tag,class"
    raise ConfigError(f"{where}: {found}; put a name with a comma in double quotes")
  tag, name = fields
  at = _find(tag, tags, f"{where}: {{!r}} is not a tag of the clips") if tag else -1
  return at, [_find(name, classes, f"{where}: {{!r}} is not a class of the tagger")] if name else []


def _find(name: str, names: Sequence[str], message: str) -> int:
  if name in names:
    return names.index(name)
  near = difflib.get_close_matches(name, names, n=1, cutoff=0)
  raise ConfigError(f"{message.format(name[:80])}, the nearest is {near[0]!r}")
