"""VGGSound (Chen et al. 2020): clips of ten seconds from YouTube, of 309 classes.

  vggsound.csv                YouTubeID,start_seconds,label,train|test      without a header line
  stat.csv                    label,count,group                             may be missing
  …/<YouTubeID>_000030.mp4    30 is start_seconds

The files train.csv and test.csv of the authors' repository, with rows `<YouTubeID>_000030.mp4,label`, can take the
place of vggsound.csv.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from stajax.prepare.layouts.tagged import MediaIndex, Row, find_clips, join_rows
from stajax.prepare.listing import (
  Listing,
  ListingError,
  Remark,
  check_category,
  check_file_name,
  check_folder,
  read_lines,
)

NUM_CATEGORIES = 309
SECONDS = 10  # the length of a clip
TABLE, SPLITS, CATEGORIES = "vggsound.csv", {"train": "train.csv", "test": "test.csv"}, "stat.csv"


def read_vggsound(root: Path, table: Path | None = None, videos: Path | None = None) -> Listing:
  """Lists VGGSound, or as much of it as there is: one clip for each row whose file exists, in `train` and `test`.

  Media files are searched for in all folders, by the name `<YouTubeID>_000030` or one that download tools give, which
  ends in `_30`, `_30000_40000` (milliseconds) or `_30.000_40.000`. The categories are those of stat.csv or, without it,
  of all rows; they are sorted. A clip of both parts is in `test` only.

  Args:
    root: The folder with the lists (or with a folder `data` that has them) and the media files.
    table: The file vggsound.csv, train.csv or test.csv, if it lies elsewhere.
    videos: The folder of the media files, if they lie elsewhere.

  Raises:
    ListingError: There is no list, or a list has a row in another form, an unknown label, or a name that is a path.
  """
  root = Path(root)
  check_folder(root, f"that of {TABLE}")
  if videos is not None:
    check_folder(videos, "the one with the media files")
  tables = [table] if table is not None else _tables(root)
  remarks: list[Remark] = []
  stat = _beside(root, tables[0], CATEGORIES)
  categories = read_classes(stat) if stat is not None else None
  rows = [row for path in tables for row in _rows(path, categories)]
  if categories is None:
    categories = sorted({row.tag for row in rows})
    remarks.append(Remark("missing", CATEGORIES, f"the {len(categories)} labels of the rows are the categories"))
  if len(categories) != NUM_CATEGORIES:
    file = tables[0].name if stat is None else CATEGORIES
    remarks.append(Remark("doubtful", file, f"has {len(categories)} labels, VGGSound has {NUM_CATEGORIES}"))
  clips, doubts = join_rows(rows, several_tags="has another label")
  index = MediaIndex(videos or root)
  items, missing = find_clips(clips, index, _stems, root)
  names = " or ".join(path.name for path in tables)
  remarks += [*doubts, *missing, *index.spare(root, names)]
  return Listing("vggsound", root, tuple(categories), tuple(items), tuple(remarks))


def _tables(root: Path) -> list[Path]:
  for names in ([TABLE], SPLITS.values()):
    for folder in (root, root / "data"):
      if found := [folder / name for name in names if (folder / name).is_file()]:
        return found
  raise ListingError(f"{root}: has neither {TABLE} nor {' or '.join(SPLITS.values())}, nor has a folder data in it")


def _beside(root: Path, table: Path, name: str) -> Path | None:
  candidates = (table.parent / name, root / name, root / "data" / name)
  return next((path for path in candidates if path.is_file()), None)


def read_classes(stat: Path) -> list[str]:
  """Returns the sorted labels of a stat.csv, in the order of the outputs of VGGSound's own classifiers.

  Raises:
    ListingError: The file cannot be read, or has no rows.
  """
  labels = [fields[0] for _, fields in _fields(stat) if len(fields) < 2 or fields[1].isdigit()]  # without the header
  if not labels:
    raise ListingError(f"{stat}: has no rows, expected label,count,group")
  return sorted(set(labels))


def _rows(table: Path, categories: Collection[str] | None) -> Iterator[Row]:
  known = None if categories is None else dict.fromkeys(categories)
  default = next((part for part, name in SPLITS.items() if name == table.name), None)
  for number, fields in _fields(table):
    at = f"{table}, line {number}"
    clip, label, part = _parse(fields, default, at)
    if not clip:
      if number == 1:  # column names
        continue
      raise ListingError(f"{at}: found {','.join(fields)[:80]!r}, expected YouTubeID,start_seconds,label,train|test")
    if known is not None:
      check_category(label, known, at)
    yield Row(check_file_name(clip, at), label, part, f"{table.name}, line {number}")


def _parse(fields: Sequence[str], default: str | None, at: str) -> tuple[str, str, str]:
  """Returns the clip, label and part of a row in one of the two forms; the clip is empty if it has neither form."""
  if len(fields) == 4 and re.fullmatch(r"\d{1,6}(\.0+)?", fields[1]) and fields[0] and fields[2]:
    if fields[3] not in SPLITS:
      raise ListingError(f"{at}: split {fields[3][:80]!r}, expected {' or '.join(SPLITS)}")
    return f"{fields[0]}_{int(float(fields[1])):06d}", fields[2], fields[3]
  if len(fields) == 2 and (match := re.fullmatch(r"(.+_\d{6})(\.\w+)?", fields[0])) and fields[1]:
    if default is None:
      raise ListingError(f"{at}: has no split, expected a file named {' or '.join(SPLITS.values())}")
    return match[1], fields[1], default
  return "", "", ""


def _fields(path: Path) -> Iterator[tuple[int, list[str]]]:
  """Yields the line numbers and fields of the rows; labels with commas are quoted."""
  reader = csv.reader(read_lines(path), skipinitialspace=True)
  try:
    for fields in reader:
      if any(fields):
        yield reader.line_num, [field.strip() for field in fields]
  except csv.Error as error:
    raise ListingError(f"{path}, line {reader.line_num}: {error}") from None


def _stems(clip: str) -> list[str]:
  video, start = clip[:-7], int(clip[-6:])
  end = start + SECONDS
  return [clip, f"{video}_{start}", f"{video}_{start * 1000}_{end * 1000}", f"{video}_{start}.000_{end}.000"]
