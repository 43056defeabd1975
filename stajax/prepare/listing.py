"""What a source of clips holds, before anything is decoded: an `Item` for each clip, and remarks about what is wrong.

The readers in `stajax.prepare.layouts` turn a folder into a `Listing`, and `stajax.prepare.media_records` turns
that into records. This module needs neither TensorFlow nor PyAV.
"""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

Kind = Literal["missing", "spare", "doubtful", "dropped"]

MEDIA_SUFFIXES = frozenset((
  *(".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf"),
  *(".ogg", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv"),
))  # fmt: skip
"""The suffixes that a folder of videos is searched for; what is in a file turns out when it is decoded."""

MAX_TEXT_BYTES = 2**28
MAX_GAPS = 8  # that are named in a remark about missing numbers


class ListingError(ValueError):
  """A source that cannot be read, such as a folder that is not in its layout; one line that names the file."""


class NothingUsableError(ValueError):
  """A preparation of which no file at all can be used; one line that names the first file and the reason."""


@dataclass(frozen=True)
class Item:
  """One clip of a source.

  Attributes:
    name: A name that is unique in its part, usually of letters, digits and `-_.`; records are sorted by it.
    path: A media file, or a folder of numbered images.
    tags: Its categories, possibly several or none.
    part: The set that it belongs to, one of `train`, `val` and `test`.
    rate: The frames per second of a folder of images; None for a media file.
    wav: The sound that lies apart from the picture; None where the media file has its own, or where there is none.
  """

  name: str
  path: Path
  tags: tuple[str, ...] = ()
  part: str = "train"
  rate: float | None = None
  wav: Path | None = None


@dataclass(frozen=True)
class Remark:
  """Something about a source that a person should know.

  Attributes:
    kind: One of `missing` (listed, but not there), `spare` (there, but not listed), `doubtful` (used, but should be
      looked at) and `dropped` (a row that says nothing that could be used).
    file: What it is about: a file, or a file and a line.
    reason: The reason, one line.
  """

  kind: Kind
  file: str
  reason: str


@dataclass(frozen=True)
class Listing:
  """A source of clips.

  Attributes:
    source: The kind of the source.
    root: Its folder.
    categories: All categories in the order of their labels.
    items: Its clips, sorted by part and name.
    remarks: What a person should know of it.
  """

  source: str
  root: Path
  categories: tuple[str, ...]
  items: tuple[Item, ...]
  remarks: tuple[Remark, ...] = ()

  def __post_init__(self) -> None:
    object.__setattr__(self, "items", tuple(sorted(self.items, key=lambda item: (item.part, item.name))))
    for before, after in zip(self.items, self.items[1:]):
      if (before.part, before.name) == (after.part, after.name):
        raise ListingError(f"{self.root}: {before.path} and {after.path} would both be the clip {before.name!r}")

  @property
  def parts(self) -> tuple[str, ...]:
    """The names of the parts that have clips."""
    return tuple(dict.fromkeys(item.part for item in self.items))


def resolve_inside(root: Path, *names: str) -> Path:
  """Returns the path of names that were read from a file, under a root that was given by a person.

  Raises:
    ListingError: A name is absolute or goes up, or a link leads out of the root.
  """
  for name in names:
    if not _parts(name):
      raise ListingError(f"{root}: {name!r} is not a path inside this folder")
  path = Path(root, *names)
  if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
    raise ListingError(f"{path}: leads out of {root}")
  return path


def check_file_name(name: str, at: str) -> str:
  """Returns a name that was read from a file, if it can be that of a file or folder, without a path.

  Raises:
    ListingError: It is something else; the message begins with `at`.
  """
  if not re.fullmatch(r"[\w-]+", name) and _parts(name) != {name}:  # the first is fast
    raise ListingError(f"{at}: {name[:80]!r} is not the name of a file")
  return name


def _parts(name: str) -> set[str]:
  """Returns the folders and the file of a relative path on any system; nothing if it is none, or goes up."""
  parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
  leads_out = ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor
  return set() if "\0" in name or leads_out else parts


def check_category(name: str, categories: Collection[str], at: str) -> str:
  """Returns a category that was read from a file, if it is a known one.

  Raises:
    ListingError: It is not one of those expected; the message begins with `at` and names the nearest one.
  """
  if name not in categories:
    near = difflib.get_close_matches(name, categories, n=1, cutoff=0)
    raise ListingError(f"{at}: {name[:80]!r} is not a category, the nearest is {near[0]!r}")
  return name


def check_folder(folder: Path, expected: str) -> None:
  """Raises ListingError, which says what was expected, if a path is not that of a folder."""
  if not folder.is_dir():
    found = "is not a folder" if folder.exists() else "no such folder"
    raise ListingError(f"{folder}: {found}, expected {expected}")


def find_visible_files(folder: Path) -> Iterator[Path]:
  """Yields the files under a folder, sorted in each one, without hidden files and folders."""
  for parent, folders, files in os.walk(folder):
    folders[:] = sorted(name for name in folders if not name.startswith("."))
    yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def find_media_files(folder: Path) -> list[Path]:
  """Returns all files under a folder whose names look like videos, but neither hidden ones nor links out of it."""
  root = os.path.realpath(folder)
  return [
    path
    for path in find_visible_files(folder)
    if path.suffix.lower() in MEDIA_SUFFIXES
    and (not path.is_symlink() or Path(os.path.realpath(path)).is_relative_to(root))
  ]


def read_lines(path: Path) -> list[str]:
  """Reads the lines of a UTF-8 file, with or without a byte order mark.

  Raises:
    ListingError: The file is missing, not text or larger than `MAX_TEXT_BYTES`.
  """
  path = Path(path)
  try:
    if path.exists() and not path.is_file():  # reading a pipe would not end
      raise ListingError(f"{path}: is not a file, expected text")
    if (size := path.stat().st_size) > MAX_TEXT_BYTES:
      raise ListingError(f"{path}: has {size} bytes, expected text of at most {MAX_TEXT_BYTES}")
    return path.read_text(encoding="utf-8-sig").splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise ListingError(f"{path}: cannot be read as text ({error.args[-1] if error.args else error})") from None


def display_path(path: Path, root: Path) -> str:
  """Returns a path as remarks name it: relative to the root if it is in it, in characters that can be written."""
  relative = path.relative_to(root) if path.is_relative_to(root) else path
  return relative.as_posix().encode("utf-8", "backslashreplace").decode()


def find_missing_numbers(present: Iterable[int], last: int, form: str = "{:05d}") -> tuple[int, str]:
  """Finds the numbers from 1 to `last` that are missing.

  Args:
    present: The numbers that are there.
    last: The last number that should be there.
    form: How a number is written.

  Returns:
    How many there are, and which ones in words, such as "00003, 00007 to 00012"; of very many gaps the first ones.
  """
  gaps, expected = [], 1
  for number in [*sorted(number for number in set(present) if 1 <= number <= last), last + 1]:
    if number > expected:
      gaps.append((expected, number - 1))
    expected = number + 1
  words = [form.format(a) if a == b else f"{form.format(a)} to {form.format(b)}" for a, b in gaps]
  if len(words) > MAX_GAPS:
    words[MAX_GAPS:] = [f"and {len(words) - MAX_GAPS} more such"]
  return sum(b + 1 - a for a, b in gaps), ", ".join(words)


def count_remarks(remarks: Sequence[Remark]) -> dict[str, int]:
  """Returns how many remarks there are of each kind."""
  return dict(Counter(remark.kind for remark in remarks))


def format_remarks(remarks: Iterable[Remark]) -> list[str]:
  """Returns a line for each remark: kind, file, reason."""
  return [f"{remark.kind:8} {remark.file}: {remark.reason}" for remark in remarks]
