"""Tables of fixations, one a video, and what they say about every frame: fixated pixels and their density.

A table is text with a header line that names the columns, in any order, separated by commas, semicolons or tabs:

  frame      number of the frame, or instead
  time       seconds from the first frame; and, if wanted,
  duration   seconds for which the viewer looked there, otherwise it is the frame shown at `time`
  x, y       pixels of the upright picture; 0, 0 is its upper left corner
  viewer     who; if given, viewers count alike in a frame, whatever their number of rows
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, isfinite
from pathlib import Path
from typing import TextIO

import numpy as np

from stajax.prepare.listing import ListingError

SUFFIXES = (".csv", ".tsv")
MAX_BYTES = 2**30
MAX_HEADER = 2**16
MAX_LOOKS = 2**24  # rows times the frames that each of them covers
TOLERANCE = 1e-3  # seconds; times of frames are rounded to milliseconds by some formats
REACH = 5  # sigma; beyond it a thousand Gaussians together do not reach 1 of 255

Annotation = tuple[np.ndarray, np.ndarray]
"""Of one frame: fixated pixels (H, W) bool, and density (H, W) uint8 with the maximum 255."""


@dataclass(frozen=True)
class Shown:
  """The frames that are annotated: frame k is shown from k / rate.

  Attributes:
    rate: frames a second.
    numbers: (n,) int, ascending: the number of frame k in the media file, which a table may count by.
    height: of the picture, pixels.
    width: likewise.
  """

  rate: float
  numbers: np.ndarray
  height: int
  width: int

  def __len__(self) -> int:
    return len(self.numbers)


def read_header(path: Path) -> tuple[str, list[str]]:
  """The delimiter and the columns of a table.

  Raises:
    ListingError: it is no such table.
  """
  with _opened(path) as file:
    first = file.readline(MAX_HEADER)
  delimiter = next((sign for sign in "\t;," if sign in first), ",")
  columns = [name.strip().strip('"').lower() for name in first.strip().split(delimiter)]
  has_place = columns.count("x") == columns.count("y") == 1
  if not has_place or columns.count("frame") + columns.count("time") != 1:
    found = ", ".join(columns)[:80] or "nothing"
    raise ListingError(f"{path}: the first line is {found!r}, expected names of columns: x, y, and frame or time")
  return delimiter, columns


class FixationTable:
  """The rows of a table, by the frames that they are about."""

  def __init__(self, path: Path, shown: Shown, sigma: float, first_frame: int, notes: list[str]) -> None:
    """Reads a table.

    Args:
      path: of the table.
      shown: the frames.
      sigma: of the Gaussian around each fixation, as a part of the picture's width.
      first_frame: number that the table gives the first frame.
      notes: receives a line for each thing that had to be left out.

    Raises:
      ListingError: it is no such table, or has no row about these frames.
    """
    self._path, self._shown, self._sigma = path, shown, sigma * shown.width
    rows = _Rows(path)
    begin, end = rows.frames(shown, first_frame)
    x, y = np.floor(rows.x), np.floor(rows.y)
    is_seen = (x >= 0) & (x < shown.width) & (y >= 0) & (y < shown.height)
    is_timely = end > begin
    for words, number in (
      ("that are no numbers", rows.num_bad),
      (f"outside of the picture of {shown.width}×{shown.height} pixels", int((~is_seen).sum())),
      (f"outside of the {len(shown)} frames", int((is_seen & ~is_timely).sum())),
    ):
      if number:
        notes.append(f"fixations: {number} of {len(x) + rows.num_bad} rows {words} left out")
    kept = is_seen & is_timely
    if not kept.any():
      raise ListingError(f"{path}: none of its {len(x) + rows.num_bad} rows is about a pixel of a frame")
    count = int(shown.numbers[-1]) + 1
    if rows.is_counted and first_frame == 0 and rows.key[kept].min() >= 1 and rows.key.max() == count:
      notes.append(f"fixations: frames run to {count}, of {count}: are they counted from 1? (see --first-frame)")
    if int((end - begin)[kept].sum()) > MAX_LOOKS:
      raise ListingError(f"{path}: its rows cover more than {MAX_LOOKS} frames in all")
    begin, counts = begin[kept], (end - begin)[kept]
    looks = np.repeat(np.arange(len(begin)), counts)
    frames = np.repeat(begin - np.cumsum(counts) + counts, counts) + np.arange(len(looks))
    order = np.argsort(frames, kind="stable")
    frames, looks = frames[order], looks[order]
    self._pixels = (y[kept] * shown.width + x[kept]).astype(np.int64)[looks]
    self._viewers = rows.viewers[kept][looks]
    self._bounds = np.searchsorted(frames, np.arange(len(shown) + 1))

  def frame(self, number: int) -> Annotation | None:
    """Frame `number` (0-based); None where nobody looked at it, so that it is not scored."""
    chosen = slice(*self._bounds[number : number + 2])
    pixels, viewers = self._pixels[chosen], self._viewers[chosen]
    if not len(pixels):
      return None
    _, who, looks = np.unique(viewers, return_inverse=True, return_counts=True)
    places, which = np.unique(pixels, return_inverse=True)
    weights = np.bincount(which, 1 / looks[who] if viewers[0] >= 0 else None).astype(np.float32)
    height, width = self._shown.height, self._shown.width
    density = gaussians(places // width, places % width, weights, self._sigma, height, width)
    fixated = np.zeros(height * width, bool)
    fixated[places] = True
    return fixated.reshape(height, width), np.round(density * (255 / density.max())).astype(np.uint8)


def gaussians(y: np.ndarray, x: np.ndarray, weights: np.ndarray, sigma: float, height: int, width: int) -> np.ndarray:
  """A weighted sum of Gaussians around pixels, each up to `REACH` sigma: (height, width) float32, not normalised.

  Args:
    y: (n,) rows.
    x: (n,) columns.
    weights: (n,).
    sigma: pixels.
    height: of the map.
    width: of the map.
  """
  total = np.zeros((height, width), np.float32)
  reach = ceil(REACH * sigma)
  bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-3)) ** 2).astype(np.float32)
  for row, column, weight in zip(y.tolist(), x.tolist(), weights.tolist()):
    top, left = max(0, row - reach), max(0, column - reach)
    down = weight * bell[top - row + reach : height - row + reach]
    along = bell[left - column + reach : width - column + reach]
    total[top : top + len(down), left : left + len(along)] += down[:, None] * along  # a Gaussian is a product of two
  return total


class _Rows:
  """The columns of a table; rows with anything else than finite numbers are counted only.

  Attributes:
    key: (n,) float64 frame numbers or times.
    x, y: (n,) float64.
    viewers: (n,) int64, -1 throughout where the table does not say.
    is_counted: the key is frame numbers.
    num_bad: rows that are left out.
  """

  def __init__(self, path: Path) -> None:
    delimiter, columns = read_header(path)
    self.is_counted = "frame" in columns
    key = columns.index("frame" if self.is_counted else "time")
    places = [key, columns.index("x"), columns.index("y")]
    lasts = columns.index("duration") if "duration" in columns and not self.is_counted else None
    viewer = columns.index("viewer") if "viewer" in columns else None
    values, durations, viewers, names = array("d"), array("d"), array("q"), {}
    self.num_bad = 0
    with _opened(path) as file:
      reader = csv.reader(file, delimiter=delimiter)
      next(reader, None)
      try:
        for fields in reader:
          if not any(fields):
            continue
          row = _numbers(fields, places if lasts is None else [*places, lasts])
          if row is None or (viewer is not None and viewer >= len(fields)):
            self.num_bad += 1
            continue
          values.extend(row[:3])
          durations.append(0.0 if lasts is None else max(row[3], 0.0))
          viewers.append(-1 if viewer is None else names.setdefault(fields[viewer].strip(), len(names)))
      except csv.Error as error:
        raise ListingError(f"{path}, line {reader.line_num}: {error}") from None
    self.key, self.x, self.y = np.array(values, np.float64).reshape(-1, 3).T
    self.viewers, self._durations = np.array(viewers, np.int64), np.array(durations, np.float64)

  def frames(self, shown: Shown, first_frame: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) int64 each: the first frame that a row is about, and the one after the last; equal where there is none."""
    last = len(shown)
    if self.is_counted:
      numbers = np.floor(self.key) - first_frame
      begin, end = np.searchsorted(shown.numbers, numbers), np.searchsorted(shown.numbers, numbers, side="right")
      return begin, end
    first = np.floor((self.key + TOLERANCE) * shown.rate)
    end = np.ceil((self.key + self._durations - TOLERANCE) * shown.rate)
    begin, end = np.clip(first, 0, last), np.clip(np.maximum(end, first + 1), 0, last)
    return begin.astype(np.int64), np.maximum(begin, end).astype(np.int64)


def _numbers(fields: list[str], places: list[int]) -> list[float] | None:
  try:
    numbers = [float(fields[place]) for place in places]
  except (ValueError, IndexError):
    return None
  return numbers if all(map(isfinite, numbers)) else None


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
  """A table that is a file of a size that can be."""
  try:
    if not path.is_file():
      raise ListingError(f"{path}: {'is not a file' if path.exists() else 'no such file'}, expected a table")
    if (size := path.stat().st_size) > MAX_BYTES:
      raise ListingError(f"{path}: has {size} bytes, expected a table of at most {MAX_BYTES}")
    with path.open(encoding="utf-8-sig", newline="") as file:
      yield file
  except OSError as error:
    raise ListingError(f"{path}: cannot be read ({error.strerror})") from None
  except UnicodeDecodeError:
    raise ListingError(f"{path}: is not text, expected a table") from None
