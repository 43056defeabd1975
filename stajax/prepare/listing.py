"""The contents of a source of clips, before anything is decoded: an `Item` for each clip, and remarks about problems.

The readers in `stajax.prepare.layouts` turn a folder into a `Listing`, and `stajax.prepare.media_records` turns a
listing into records. This module needs neither TensorFlow nor PyAV.
"""

from __future__ import annotations

import codecs
import difflib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from stajax.files import find_visible_files

Kind = Literal["missing", "spare", "doubtful", "dropped"]

MEDIA_SUFFIXES = frozenset((
  *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".insv", ".ivf", ".m2ts", ".m2v", ".m4v"),
  *(".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogg", ".ogv", ".qt", ".rm", ".rmvb"),
  *(".ts", ".vob", ".webm", ".wmv", ".wtv", ".y4m"),
))  # fmt: skip
"""The suffixes that a folder of videos is searched for; decoding shows what a file really holds."""

MAX_TEXT_BYTES = 2**28
NOT_TEXT = "not text in UTF-8, or in UTF-16 with a byte order mark"
"""What messages say of a file in another encoding, or of none."""
MAX_GAPS = 8  # the number of gaps that a remark about missing numbers names


class ListingError(ValueError):
  """A source cannot be read, such as a folder in another layout; the message is one line that names the file."""


class NothingUsableError(ValueError):
  """A preparation has no usable file at all; the message is one line that names the first file and the reason."""


@dataclass(frozen=True)
class Item:
  """One clip of a source.

  Attributes:
    name: A name that is unique in its part, usually of letters, digits and `-_.`; records are sorted by it.
    path: A media file, or a folder of numbered images.
    tags: Its categories, possibly several or none.
    part: The set that it belongs to, which is one of `train`, `val` and `test`.
    rate: The frames per second of a folder of images; None for a media file.
    sound_file: A separate file with the sound; None if the media file has its own sound, or if there is no sound.
  """

  name: str
  path: Path
  tags: tuple[str, ...] = ()
  part: str = "train"
  rate: float | None = None
  sound_file: Path | None = None


@dataclass(frozen=True)
class Remark:
  """A remark about a source for the person who prepares it.

  Attributes:
    kind: One of `missing` (listed, but not there), `spare` (there, but not listed), `doubtful` (used, but should be
      looked at) and `dropped` (a row or a file that cannot be used).
    file: The file that the remark is about, possibly with a line.
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
    remarks: The remarks about it.
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
  """Returns the path of names that were read from a file, under a root that the user gave.

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


def find_inside(root: Path, name: str) -> Path:
  """Returns the path of a name that was read from a file, as `resolve_inside` does, also if it is spelled otherwise.

  Where no file has the name, backslashes separate folders as on Windows, and accents may be encoded otherwise (NFC or
  NFD, as macOS does). The path may not exist.

  Raises:
    ListingError: As for `resolve_inside`.
  """
  path = resolve_inside(root, name)
  if path.exists():
    return path
  found = root
  for part in PurePosixPath(name.replace("\\", "/")).parts:
    if not (found / part).exists():
      part = _names_by_form(found).get(unicodedata.normalize("NFC", part), part)
    found /= part
  return resolve_inside(root, found.relative_to(root).as_posix()) if found.exists() else path


def _names_by_form(folder: Path) -> dict[str, str]:
  """Returns the names in a folder, which may not exist, by their NFC forms."""
  try:
    return _listed_names(os.fspath(folder), folder.stat().st_mtime_ns)
  except OSError:
    return {}


@lru_cache(16)
def _listed_names(folder: str, _changed: int) -> dict[str, str]:
  return {unicodedata.normalize("NFC", name): name for name in sorted(os.listdir(folder))}


def check_file_name(name: str, at: str) -> str:
  """Returns a name that was read from a file if it is a plain name of a file or folder, not a path.

  Raises:
    ListingError: It is not; the message begins with `at`.
  """
  if not re.fullmatch(r"[\w-]+", name) and _parts(name) != {name}:  # the first check is fast
    raise ListingError(f"{at}: {name[:80]!r} is not the name of a file")
  return name


def _parts(name: str) -> set[str]:
  """Returns the parts of a relative path on any system; nothing if the path is not relative or goes up."""
  parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
  leads_out = ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor
  return set() if "\0" in name or leads_out else parts


def check_category(name: str, categories: Collection[str], at: str) -> str:
  """Returns a category that was read from a file if it is a known one.

  Raises:
    ListingError: It is unknown; the message begins with `at` and names the nearest category.
  """
  if name not in categories:
    near = difflib.get_close_matches(name, categories, n=1, cutoff=0)
    raise ListingError(f"{at}: {name[:80]!r} is not a category, the nearest is {near[0]!r}")
  return name


def check_folder(folder: Path, expected: str) -> None:
  """Raises ListingError unless a path is a folder; the message names what was expected."""
  if not folder.is_dir():
    found = "is not a folder" if folder.exists() else "no such folder"
    raise ListingError(f"{folder}: {found}, expected {expected}")


def find_media_files(folder: Path, unread: list[Path] | None = None) -> list[Path]:
  """Returns the files under a folder that are named as videos, without hidden files; links are followed.

  `unread` receives the folders that cannot be read.
  """
  return [path for path in find_visible_files(folder, unread) if path.suffix.lower() in MEDIA_SUFFIXES]


def unread_remarks(unread: list[Path], root: Path) -> list[Remark]:
  """Returns a remark for each folder below the root that cannot be read."""
  return [Remark("missing", display_path(path, root), "a folder that cannot be read") for path in unread]


def text_encoding(path: Path) -> str:
  """Returns the encoding of a text file: UTF-16 where its first bytes say so, as spreadsheets write it, else UTF-8.

  Raises:
    OSError: The file cannot be read.
  """
  with path.open("rb") as file:
    first = file.read(2)
  return "utf-16" if first in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def read_lines(path: Path) -> list[str]:
  """Reads the lines of a file in UTF-8, with or without a byte order mark, or in UTF-16 with one.

  Raises:
    ListingError: The file is missing, not text or larger than `MAX_TEXT_BYTES`.
  """
  path = Path(path)
  try:
    if path.exists() and not path.is_file():  # reading a pipe would not end
      raise ListingError(f"{path}: is not a file, expected text")
    if (size := path.stat().st_size) > MAX_TEXT_BYTES:
      raise ListingError(f"{path}: has {size} bytes, expected text of at most {MAX_TEXT_BYTES}")
    return path.read_text(encoding=text_encoding(path)).splitlines()
  except OSError as error:
    raise ListingError(f"{path}: cannot be read as text ({error.args[-1] if error.args else error})") from None
  except UnicodeError:
    raise ListingError(f"{path}: cannot be read as text ({NOT_TEXT})") from None


def display_path(path: Path, root: Path) -> str:
  """Returns a path as remarks name it: relative to the root if it lies inside, in characters that can be printed."""
  relative = path.relative_to(root) if path.is_relative_to(root) else path
  return relative.as_posix().replace("\n", "\\n").encode("utf-8", "backslashreplace").decode()


def find_missing_numbers(present: Iterable[int], last: int, form: str = "{:05d}") -> tuple[int, str]:
  """Finds the numbers from 1 to `last` that are missing.

  Args:
    present: The numbers that are there.
    last: The last number that should be there.
    form: How a number is written.

  Returns:
    The number of missing numbers, and their description, such as "00003, 00007 to 00012", with the first gaps only
    if there are very many.
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


def spare_files(folder: Path, used: Collection[Path], root: Path) -> list[Remark]:
  """Returns a remark for each visible file under a folder that is not among those that are used."""
  found = (path for path in find_visible_files(folder) if path not in used and path.is_file())
  return [Remark("spare", display_path(path, root), "not named as a media file") for path in found]


def describe_remarks(remarks: Sequence[Remark]) -> str:
  """Returns how many remarks of each kind there are, for people who did not ask for them; "" without any."""
  counts = ", ".join(f"{number} {kind}" for kind, number in count_remarks(remarks).items())
  return f"; in the source {counts} (--check lists them)" if counts else ""


def count_remarks(remarks: Sequence[Remark]) -> dict[str, int]:
  """Returns how many remarks there are of each kind."""
  return dict(Counter(remark.kind for remark in remarks))
