"""What readers of eye trackers' files give: fixations by video, their units, and what was left out.

Fixations are on the clock of a recording; `add_shown` puts them on the clock of each video that was shown meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import TextIO

from stajax.files import make_folder, write_text
from stajax.files.names import csv_text
from stajax.prepare.listing import MEDIA_SUFFIXES, NOT_TEXT, ListingError, check_file_name, text_encoding

MAX_BYTES = 2**33
TIMED = ("time", "duration", "x", "y", "viewer")
NUMBERED = ("frame", "x", "y", "viewer")

Row = tuple[float | int | str, ...]


@dataclass(frozen=True)
class Asked:
  """What a user states about recordings, None where nothing is stated.

  Attributes:
    eye: The eye whose fixations are taken where both were tracked.
    start: A regular expression for the message with which a video begins; its first group is the video's name.
    end: A regular expression for the message with which a video ends.
    video: The name of the video, where messages do not have it.
  """

  eye: str | None = None
  start: str | None = None
  end: str | None = None
  video: str | None = None


@dataclass(frozen=True)
class Fixation:
  """A fixation, in seconds on the clock of the recording and in the units of the file."""

  start: float
  end: float
  x: float
  y: float


@dataclass(frozen=True)
class Shown:
  """A stretch of a recording in which a video was shown, in seconds on the same clock."""

  video: str
  start: float
  end: float = math.inf


@dataclass
class Gathered:
  """The fixations of all videos.

  Attributes:
    units: The options that state the units to `stajax prepare videos`; one set of them for all files.
    columns: The names of the columns of all tables.
    tables: The rows of each video's table, by the path of the table without its suffix.
    said: What was found in the files, once for each kind of finding.
    lost: How many fixations were left out, by the reason.
  """

  units: tuple[str, ...] | None = None
  columns: tuple[str, ...] = TIMED
  tables: dict[str, list[Row]] = field(default_factory=dict[str, list[Row]])
  said: list[str] = field(default_factory=list[str])
  lost: dict[str, int] = field(default_factory=dict[str, int])

  def say(self, line: str) -> None:
    """Notes what was found, once."""
    if line not in self.said:
      self.said.append(line)

  def lose(self, reason: str, number: int = 1) -> None:
    """Counts fixations that are left out."""
    if number:
      self.lost[reason] = self.lost.get(reason, 0) + number

  def state_units(self, path: Path, units: tuple[str, ...]) -> None:
    """Sets the units of a file; raises ListingError if those of an earlier file were others."""
    if self.units not in (None, units):
      before, now = " ".join(self.units or ()), " ".join(units)
      raise ListingError(f"{path}: its units are {now}, those of the files before are {before}: prepare them apart")
    self.units = units

  def add_shown(self, fixations: Iterable[Fixation], shown: Sequence[Shown], viewer: str) -> None:
    """Adds the fixations of a recording to the tables of the videos that were shown; each counts as long as it was."""
    for stretch in shown:
      self.tables.setdefault(stretch.video, [])
    for look in fixations:
      is_used = False
      for stretch in shown:
        start, end = max(look.start, stretch.start), min(look.end, stretch.end)
        if end > start:
          is_used = True
          row = (round(start - stretch.start, 6), round(end - start, 6), look.x, look.y, viewer)
          self.tables[stretch.video].append(row)
      self.lose("while no video was shown", not is_used)

  def write(self, out: Path) -> int:
    """Writes the tables that have rows; returns their number."""
    number = 0
    for name, rows in self.tables.items():
      if rows:
        path = out / f"{name}.csv"
        make_folder(path.parent)
        ordered = sorted(rows, key=lambda row: (str(row[-1]), row[0]))
        write_text(path, csv_text([self.columns, *ordered]))
        number += 1
    return number


def video_name(text: str, path: Path) -> str:
  """Returns the name of a video from what a file calls it, which may be a path of another system.

  Raises:
    ListingError: It is no name of a file.
  """
  name = PureWindowsPath(text.strip().strip("\"'")).name
  stem, dot, suffix = name.rpartition(".")
  name = stem if dot and f".{suffix.lower()}" in MEDIA_SUFFIXES else name
  try:
    check_file_name(name, f"{path}: video {text!r}")
  except ValueError as error:
    raise ListingError(str(error)) from None
  return name


def number(text: str) -> float | None:
  """Returns a number that may have a decimal comma, or None where a tracker wrote that there is none."""
  try:
    value = float(text.strip().replace(",", ".", 1))
  except ValueError:
    return None
  return value if math.isfinite(value) else None


@contextmanager
def opened(path: Path, expected: str) -> Iterator[TextIO]:
  """Opens a text file in UTF-8, or in UTF-16 where its first bytes say so.

  Raises:
    ListingError: It cannot be read, is no text, or is larger than `MAX_BYTES`.
  """
  try:
    if path.stat().st_size > MAX_BYTES:
      raise ListingError(f"{path}: has {path.stat().st_size} bytes, expected at most {MAX_BYTES}")
    with path.open(encoding=text_encoding(path), newline="") as file:
      yield file
  except OSError as error:
    raise ListingError(f"{path}: cannot be read ({error.strerror}), expected {expected}") from None
  except UnicodeError:
    raise ListingError(f"{path}: is {NOT_TEXT}, expected {expected}") from None
