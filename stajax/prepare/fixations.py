"""Tables of fixations, one for each video, and the fixated pixels and densities of frames that are made from them.

A table is text with a header line that names the columns, in any order, separated by commas, semicolons or tabs:

  frame      the number of the frame; or instead of it
  time       seconds from the first frame
  duration   optional, seconds for which the viewer looked there; without it, a row is about the frame shown at `time`
  x, y       pixels of the upright picture; 0, 0 is its upper left corner
  viewer     optional, who looked; all viewers of a frame then have the same weight, however many rows they have

Other units have to be stated, see `stajax.prepare.gaze_units`. Numbers may have decimal commas, if columns are
separated by something else or numbers are quoted.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, isfinite
from pathlib import Path
from typing import TextIO

import numpy as np

from stajax.prepare.constant_rate import ShownFrames
from stajax.prepare.gaze_units import (
  SECONDS,
  GazeUnits,
  doubt_about_durations,
  doubt_about_numbers,
  doubt_about_places,
  doubt_about_times,
)
from stajax.prepare.listing import NOT_TEXT, ListingError, text_encoding

SUFFIXES = (".csv", ".tsv")
MAX_BYTES = 2**30
MAX_HEADER = 2**16
MAX_LOOKS = 2**24  # the largest number of pairs of a row and a frame that it covers
TOLERANCE = 1e-3  # seconds, because some formats round the times of frames to milliseconds
REACH = 5  # in standard deviations; farther away a thousand Gaussians together do not reach 1 of 255

Annotation = tuple[np.ndarray, np.ndarray]
"""The annotation of one frame: fixated pixels (H, W) bool, or how often each is fixated, and density (H, W), uint8 with
the maximum 255 or, where none of it may be lost, uint16."""


def read_header(path: Path) -> tuple[str, list[str]]:
  """Returns the delimiter and the columns of a table.

  Raises:
    ListingError: The file is not such a table.
  """
  with _opened(path) as file:
    first = file.readline(MAX_HEADER)
  delimiter = next((sign for sign in "\t;," if sign in first), ",")
  columns = [name.strip().strip('"').lower() for name in first.strip().split(delimiter)]
  has_place = columns.count("x") == columns.count("y") == 1
  if not has_place or columns.count("frame") + columns.count("time") != 1:
    found = ", ".join(columns)[:80] or "nothing"
    expected = "names of columns: x, y, and frame or time, with commas, semicolons or tabs between them"
    raise ListingError(f"{path}: the first line is {found!r}, expected {expected}")
  return delimiter, columns


class FixationTable:
  """The rows of a table, sorted by the frames that they are about."""

  def __init__(
    self, path: Path, frames: ShownFrames, sigma: float, first_frame: int, units: GazeUnits, notes: list[str]
  ) -> None:
    """Reads a table.

    Args:
      path: The table.
      frames: The frames that are annotated.
      sigma: The standard deviation of the Gaussian around each fixation, as a fraction of the picture's width.
      first_frame: The number of the first frame in the table.
      units: What was stated about the table.
      notes: Receives a line for each thing that had to be left out.

    Raises:
      ListingError: The file is not such a table, has no row about these frames, or is probably in other units.
    """
    self._height, self._width, self._sigma = frames.height, frames.width, sigma * frames.width
    rows = _read_rows(path, units, notes)
    if (doubt := _doubt(rows, frames, first_frame, units)) is not None:
      raise ListingError(f"{path}: {doubt}")
    columns, lines = units.pixels(rows.x, rows.y, frames)
    begin, end = rows.frames(frames, first_frame)
    kept = _usable_rows(rows, columns, lines, frames, end > begin, notes)
    if not kept.any():
      count = len(rows) + rows.num_bad
      why = f", {rows.num_bad} of them are no numbers" if rows.num_bad else ""
      raise ListingError(f"{path}: none of its {count} rows is about a pixel of a frame{why}")
    _note_doubtful_count(rows, kept, frames, first_frame, notes)
    begin, lengths = begin[kept], (end - begin)[kept]
    if int(lengths.sum()) > MAX_LOOKS:
      raise ListingError(f"{path}: its rows cover more than {MAX_LOOKS} frames in all")
    # A look is a pair of a row and one of its frames. From here on, looks are in the order of the frames.
    row_of_look = np.repeat(np.arange(len(begin)), lengths)
    frame_of_look = np.repeat(begin - np.cumsum(lengths) + lengths, lengths) + np.arange(len(row_of_look))
    order = np.argsort(frame_of_look, kind="stable")
    pixels = (lines[kept] * frames.width + columns[kept]).astype(np.int64)
    self._pixels = pixels[row_of_look[order]]
    self._viewers = rows.viewers[kept][row_of_look[order]]
    self._bounds = np.searchsorted(frame_of_look[order], np.arange(len(frames) + 1))

  def frame(self, number: int) -> Annotation | None:
    """Returns the annotation of a frame (0 is the first), or None if nobody looked at it, so that it is not scored."""
    chosen = slice(*self._bounds[number : number + 2])
    pixels, viewers = self._pixels[chosen], self._viewers[chosen]
    if not len(pixels):
      return None
    _, who, looks = np.unique(viewers, return_inverse=True, return_counts=True)
    places, which = np.unique(pixels, return_inverse=True)
    weights = np.bincount(which, 1 / looks[who] if viewers[0] >= 0 else None).astype(np.float32)
    shape = (self._height, self._width)
    density = sum_gaussians(places // self._width, places % self._width, weights, self._sigma, shape)
    fixated = np.zeros(self._height * self._width, bool)
    fixated[places] = True
    return fixated.reshape(shape), np.round(density * (255 / density.max())).astype(np.uint8)


def sum_gaussians(
  y: np.ndarray, x: np.ndarray, weights: np.ndarray, sigma: float, shape: tuple[int, int]
) -> np.ndarray:
  """Returns a weighted sum of Gaussians around pixels; each is cut off at `REACH` standard deviations.

  Args:
    y: (n,) The rows of the pixels.
    x: (n,) The columns of the pixels.
    weights: (n,) The weight of each Gaussian.
    sigma: The Gaussians' standard deviation in pixels.
    shape: The height and the width of the result.

  Returns:
    (height, width) float32, not normalised.
  """
  height, width = shape
  total = np.zeros(shape, np.float32)
  reach = ceil(REACH * sigma)
  bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-3)) ** 2).astype(np.float32)
  for row, column, weight in zip(y.tolist(), x.tolist(), weights.tolist()):
    top, left = max(0, row - reach), max(0, column - reach)
    down = weight * bell[top - row + reach : height - row + reach]
    along = bell[left - column + reach : width - column + reach]
    total[top : top + len(down), left : left + len(along)] += (
      down[:, None] * along
    )  # a 2-D Gaussian is the product of two 1-D ones
  return total


@dataclass(frozen=True)
class _Rows:
  """The columns of a table; rows with anything but finite numbers are only counted.

  Attributes:
    key: (n,) float64, frame numbers or times.
    x: (n,) float64.
    y: (n,) float64.
    durations: (n,) float64, seconds.
    viewers: (n,) int64, the number of each row's viewer; all are -1 if the table has no such column.
    has_frame_numbers: Whether the key holds frame numbers.
    num_bad: The number of rows that are left out.
  """

  key: np.ndarray
  x: np.ndarray
  y: np.ndarray
  durations: np.ndarray
  viewers: np.ndarray
  has_frame_numbers: bool
  num_bad: int

  def __len__(self) -> int:
    return len(self.key)

  def frames(self, shown: ShownFrames, first_frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first frame that each row is about and the one after the last; they are equal for a row without any.

    Returns:
      Two arrays (n,) int64.
    """
    if self.has_frame_numbers:
      numbers = np.floor(self.key) - first_frame
      return np.searchsorted(shown.numbers, numbers), np.searchsorted(shown.numbers, numbers, side="right")
    last = len(shown)
    first = np.floor((self.key + TOLERANCE) * shown.rate)
    end = np.ceil((self.key + self.durations - TOLERANCE) * shown.rate)
    begin, end = np.clip(first, 0, last), np.clip(np.maximum(end, first + 1), 0, last)
    return begin.astype(np.int64), np.maximum(begin, end).astype(np.int64)


def _read_rows(path: Path, units: GazeUnits, notes: list[str]) -> _Rows:
  delimiter, columns = read_header(path)
  has_frame_numbers = "frame" in columns
  places = [columns.index(name) for name in ("frame" if has_frame_numbers else "time", "x", "y")]
  if "duration" in columns and not has_frame_numbers:
    places.append(columns.index("duration"))
  viewer = columns.index("viewer") if "viewer" in columns else None
  values, durations, viewers, num_bad, num_long = array("d"), array("d"), array("q"), 0, 0
  numbers = _Numbers()
  numbers_of_viewers: dict[str, int] = {}
  for fields in _fields(path, delimiter):
    row = numbers.read(fields, places) if not any(fields[len(columns) :]) else None
    num_long += any(fields[len(columns) :])
    if row is None or (viewer is not None and viewer >= len(fields)):
      num_bad += 1
      continue
    values.extend(row[:3])
    durations.append(max(row[3], 0.0) if len(row) > 3 else 0.0)
    name = None if viewer is None else fields[viewer].strip()
    viewers.append(-1 if name is None else numbers_of_viewers.setdefault(name, len(numbers_of_viewers)))
  if num_long > len(viewers):
    advice = "decimal commas? Put semicolons or tabs between the columns"
    raise ListingError(f"{path}: {num_long} rows have more fields than the {len(columns)} names of columns: {advice}")
  numbers.check(path, notes)
  key, x, y = np.array(values, np.float64).reshape(-1, 3).T
  scale = 1.0 if has_frame_numbers else SECONDS[units.time or "s"]
  lengths = np.array(durations, np.float64) * SECONDS[units.duration or units.time or "s"]
  return _Rows(key * scale, x, y, lengths, np.array(viewers, np.int64), has_frame_numbers, num_bad)


def _doubt(rows: _Rows, frames: ShownFrames, first_frame: int, units: GazeUnits) -> str | None:
  """Returns why the rows are probably in other units than was stated, or None."""
  if (doubt := doubt_about_places(rows.x, rows.y, frames, units)) is not None:
    return doubt
  if rows.has_frame_numbers:
    return doubt_about_numbers(rows.key - first_frame, frames)
  if units.time is None and (doubt := doubt_about_times(rows.key, rows.viewers, frames)) is not None:
    return doubt
  return doubt_about_durations(rows.durations) if units.time is None and units.duration is None else None


def _fields(path: Path, delimiter: str) -> Iterator[list[str]]:
  """Yields the fields of each row below the header, except empty rows."""
  with _opened(path) as file:
    reader = csv.reader(file, delimiter=delimiter)
    next(reader, None)
    try:
      yield from filter(any, reader)
    except csv.Error as error:
      raise ListingError(f"{path}, line {reader.line_num}: {error}") from None


class _Numbers:
  """Reads numbers with decimal points or decimal commas, of which a table may have only one kind."""

  def __init__(self) -> None:
    self._with_comma: str | None = None  # the first number with a decimal comma
    self._with_point: str | None = None
    self._is_plainly_decimal = False  # whether a comma cannot be one between thousands

  def read(self, fields: list[str], places: list[int]) -> list[float] | None:
    """Returns the numbers in some fields, or None unless all are finite numbers."""
    try:
      numbers = [self._read(fields[place]) for place in places]
    except (ValueError, IndexError):
      return None
    return numbers if all(map(isfinite, numbers)) else None

  def _read(self, text: str) -> float:
    if "," not in text:
      if self._with_point is None and "." in text:
        self._with_point = text.strip()
      return float(text)
    number = float(text.replace(",", ".", 1))  # fails for a second comma, or a comma and a point
    self._with_comma = self._with_comma or text.strip()
    self._is_plainly_decimal |= re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", text.strip()) is None
    return number

  def check(self, path: Path, notes: list[str]) -> None:
    """Raises ListingError if it is doubtful what commas in numbers mean; `notes` receives a line if there are any."""
    if self._with_comma is None:
      return
    if self._with_point is not None:
      found = f"numbers with commas ({self._with_comma}) and with points ({self._with_point})"
      raise ListingError(f"{path}: {found}, expected only one of them")
    if not self._is_plainly_decimal:
      raise ListingError(f"{path}: does {self._with_comma} mean thousands? Expected numbers without commas, or 0,5")
    notes.append("fixations: commas in numbers are read as decimal points")


def _usable_rows(
  rows: _Rows, x: np.ndarray, y: np.ndarray, frames: ShownFrames, has_frame: np.ndarray, notes: list[str]
) -> np.ndarray:
  """Returns (n,) bool, whether each row is about a pixel (x, y) of a frame; `notes` names the kinds of other rows."""
  is_inside = (x >= 0) & (x < frames.width) & (y >= 0) & (y < frames.height)
  for words, number in (
    ("that are no numbers", rows.num_bad),
    (f"outside of the picture of {frames.width}×{frames.height} pixels", int((~is_inside).sum())),
    (f"outside of the {len(frames)} frames", int((is_inside & ~has_frame).sum())),
  ):
    if number:
      notes.append(f"fixations: {number} of {len(rows) + rows.num_bad} rows {words} left out")
  return is_inside & has_frame


def _note_doubtful_count(
  rows: _Rows, kept: np.ndarray, frames: ShownFrames, first_frame: int, notes: list[str]
) -> None:
  """Adds a note if a table seems to count frames from 1 although counting from 0 was asked for."""
  count = int(frames.numbers[-1]) + 1
  if rows.has_frame_numbers and first_frame == 0 and rows.key[kept].min() >= 1 and rows.key.max() == count:
    notes.append(f"fixations: frames run to {count}, of {count}: are they counted from 1? (see --first-frame)")


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
  """Opens a table; raises ListingError unless it is a text file of at most `MAX_BYTES`."""
  try:
    if not path.is_file():
      raise ListingError(f"{path}: {'is not a file' if path.exists() else 'no such file'}, expected a table")
    if (size := path.stat().st_size) > MAX_BYTES:
      raise ListingError(f"{path}: has {size} bytes, expected a table of at most {MAX_BYTES}")
    with path.open(encoding=text_encoding(path), newline="") as file:
      yield file
  except OSError as error:
    raise ListingError(f"{path}: cannot be read ({error.strerror})") from None
  except UnicodeError:
    raise ListingError(f"{path}: is {NOT_TEXT}, expected a table") from None
