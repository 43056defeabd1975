"""A table of media files with their tags, for the source `csv`."""

from __future__ import annotations

import csv
import re
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from stajax.prepare.layouts.names import name_clips
from stajax.prepare.listing import Item, Listing, ListingError, Remark, check_folder, find_inside, read_lines

PARTS = ("train", "val", "test")


def read_table(table: Path, root: Path) -> Listing:
  """Lists the rows of a CSV file whose first line names the columns `path`, `tags` and, optionally, `part`.

  Tags are separated by `;` or `|`. Several rows of a file in one part become a clip with all their tags. Rows without
  a part are in `train`. The categories are all tags, sorted. Other columns are ignored.

  Args:
    table: A UTF-8 file, with commas or tabs between columns.
    root: The folder that the paths are relative to; none of them may lead out of it.

  Raises:
    ListingError: The table cannot be read, has no such columns, an unknown part, or a path that leaves the root.
  """
  table, root = Path(table), Path(root)
  check_folder(root, "that of the files")
  remarks: list[Remark] = []
  tags_of: dict[tuple[str, str], list[str]] = {}
  for number, row in _rows(table):
    at = f"{table.name}, line {number}"
    try:
      file = _find_file(row, at, root, remarks)
    except ListingError as error:
      raise ListingError(f"{table}, line {number}: {error}") from None
    if file is None:
      continue
    part, name = file
    if (part, name) in tags_of:
      remarks.append(Remark("doubtful", at, f"{name} is listed before: its tags are joined"))
    elif other := next((other for other in PARTS if (other, name) in tags_of), None):
      remarks.append(Remark("doubtful", at, f"{name} is in {other} and in {part}"))
    known = tags_of.setdefault((part, name), [])
    known += [tag for tag in dict.fromkeys(_tags(row)) if tag not in known]
  if not tags_of:
    raise ListingError(f"{table}: names no file that is there, expected rows of path, tags and, optionally, part")
  files = sorted({name for _, name in tags_of})
  names = dict(zip(files, name_clips([PurePosixPath(name) for name in files])))
  items = tuple(Item(names[file], root / file, tuple(tags), part) for (part, file), tags in tags_of.items())
  categories = tuple(sorted({tag for item in items for tag in item.tags}))
  return Listing("csv", root, categories, items, tuple(remarks))


def _find_file(row: dict[str, str], at: str, root: Path, remarks: list[Remark]) -> tuple[str, str] | None:
  """Returns the part and the path under the root of a row's file, or None, usually with a remark, if it has none."""
  if not any(row.values()):
    return None
  if not row["path"]:
    remarks.append(Remark("dropped", at, "has no path"))
    return None
  part = row.get("part") or "train"
  if part not in PARTS:
    raise ListingError(f"part {part!r}, expected {', '.join(PARTS)} or nothing")
  path = find_inside(root, row["path"])
  if not _tags(row):
    remarks.append(Remark("doubtful", at, f"{row['path']} has no tag"))
  if not path.is_file():
    found = "is not a file" if path.exists() else "is not there"
    remarks.append(Remark("missing", row["path"], f"listed in {at}, {found}"))
    return None
  return part, path.relative_to(root).as_posix()


def _tags(row: dict[str, str]) -> list[str]:
  return [tag for tag in map(str.strip, re.split("[;|]", normalize("NFC", row["tags"]))) if tag]


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
  """Returns the line numbers and stripped fields of the rows below the header; missing fields are empty."""
  lines = read_lines(table)
  delimiter = "\t" if lines and "\t" in lines[0] and "," not in lines[0] else ","
  reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
  try:
    header = [name.strip().lower() for name in next(reader, [])]
    missing = [name for name in ("path", "tags") if header.count(name) != 1]
    if missing:
      found = ", ".join(header)[:80] or "nothing"
      raise ListingError(f"{table}: the first line is {found!r}, expected column names with one {missing[0]!r}")
    rows = []
    for fields in reader:
      if len(fields) > len(header):
        raise ListingError(
          f"{table}, line {reader.line_num}: {len(fields)} fields, expected {len(header)} (quote a field with commas)"
        )
      padded = [*map(str.strip, fields), *[""] * (len(header) - len(fields))]
      rows.append((reader.line_num, dict(zip(header, padded))))
    return rows
  except csv.Error as error:
    raise ListingError(f"{table}, line {reader.line_num}: {error}") from None
