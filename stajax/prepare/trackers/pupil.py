"""Reads fixations in the picture of Pupil Labs' scene cameras: exports of Pupil Player (Core) and of Pupil Cloud.

The videos are those of the scene camera, one for each recording; a table has the numbers of their frames, because the
clock of the recording and the frames are told apart in both.

  Core: …/exports/000/  fixations.csv, export_info.csv, world.mp4
  Cloud (Invisible, Neon): …/recording/  fixations.csv, world_timestamps.csv, name.mp4
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from stajax.prepare.listing import MEDIA_SUFFIXES, ListingError
from stajax.prepare.trackers.gathered import NUMBERED, Asked, Gathered, number, opened

_FIXATIONS = "fixations.csv"
_CORE = ("start_frame_index", "end_frame_index", "norm_pos_x", "norm_pos_y")
_CLOUD = ("start timestamp [ns]", "end timestamp [ns]", "fixation x [px]", "fixation y [px]")
_ON_PICTURE = "fixation detected in reference image"
_MAX_FRAMES = 100_000
"""The most frames of one fixation; nobody looks at one place for half an hour."""


def find_fixations(root: Path, paths: Iterable[Path]) -> list[Path]:
  """Returns the tables of fixations among files under a folder.

  Raises:
    ListingError: There are none; the line says what to export where there are samples only.
  """
  paths = list(paths)
  found = [path for path in paths if path.name == _FIXATIONS]
  if not found:
    samples = next((path for path in paths if path.name in ("gaze_positions.csv", "gaze.csv")), None)
    if samples is not None:
      how = f"expected {_FIXATIONS} beside it: export with the plugin Fixation Detector, or from Pupil Cloud"
      raise ListingError(f"{samples}: has samples only, {how}")
    raise ListingError(f"{root}: no {_FIXATIONS} is in this folder")
  return found


def read_core(root: Path, paths: Iterable[Path], asked: Asked) -> Gathered:
  """Reads exports of Pupil Player; the viewer is the recording's folder.

  Raises:
    ListingError: A file is missing, or is another one; one line.
  """
  gathered = Gathered(("--units", "normalised", "--origin", "bottom"), NUMBERED)
  gathered.say("places in shares of the scene camera's picture, from its lower left corner")
  for path in find_fixations(root, paths):
    first = _first_frame(path.with_name("export_info.csv"))
    rows = gathered.tables.setdefault(_video_beside(root, path), [])
    viewer = path.parent.relative_to(root).as_posix() if path.parent != root else root.resolve().name
    for row in _rows(path, _CORE):
      begin, end, x, y = (number(row[name]) for name in _CORE)
      if begin is None or end is None or x is None or y is None:
        gathered.lose("that have no place or time")
        continue
      frames = range(max(0, int(begin) - first), int(end) - first + 1)
      _add(path, rows, frames, x, y, viewer)
      gathered.lose("before the export's first frame", not frames)
  return gathered


def read_cloud(root: Path, paths: Iterable[Path], asked: Asked) -> Gathered:
  """Reads exports of Pupil Cloud (Invisible, Neon); the viewer is the recording's folder.

  Raises:
    ListingError: A file is missing, or is another one; one line.
  """
  gathered = Gathered(("--units", "pixels"), NUMBERED)
  gathered.say("places in pixels of the scene camera's picture, times in ns, as the columns say")
  for path in find_fixations(root, paths):
    found = list(_rows(path, _CLOUD))
    stamps = np.array([int(row["timestamp [ns]"]) for row in _stamps(path.with_name("world_timestamps.csv"))], np.int64)
    rows = gathered.tables.setdefault(_video_beside(root, path), [])
    viewer = path.parent.relative_to(root).as_posix() if path.parent != root else root.resolve().name
    for row in found:
      x, y = (number(row[name]) for name in _CLOUD[2:])
      if x is None or y is None or not (row[_CLOUD[0]].isdigit() and row[_CLOUD[1]].isdigit()):
        gathered.lose("that have no place or time")
        continue
      # A frame is seen until the next one: the fixation begins on the last frame before it.
      begin = max(0, int(np.searchsorted(stamps, int(row[_CLOUD[0]]), side="right")) - 1)
      end = int(np.searchsorted(stamps, int(row[_CLOUD[1]]), side="left"))
      _add(path, rows, range(begin, end), x, y, viewer)
      gathered.lose("outside of the scene video", begin >= end)
  return gathered


def _add(path: Path, rows: list[tuple[float | int | str, ...]], frames: range, x: float, y: float, viewer: str) -> None:
  if len(frames) > _MAX_FRAMES:
    raise ListingError(f"{path}: a fixation of {len(frames)} frames, expected at most {_MAX_FRAMES}")
  rows.extend((frame, x, y, viewer) for frame in frames)


def _video_beside(root: Path, path: Path) -> str:
  """Returns the path of the video beside a table, relative to the root and without its suffix."""
  videos = sorted(file for file in path.parent.iterdir() if file.suffix.lower() in MEDIA_SUFFIXES and file.is_file())
  world = [file for file in videos if file.stem == "world"] or videos
  if len(world) != 1:
    names = ", ".join(file.name for file in videos) or "none"
    raise ListingError(f"{path}: expected the video of the scene camera beside it, found {names}")
  return world[0].relative_to(root).with_suffix("").as_posix()


def _rows(path: Path, needed: Sequence[str]) -> Iterable[Mapping[str, str]]:
  """Yields the rows of a table with a header; raises ListingError if it lacks columns."""
  with opened(path, "a table of fixations") as file:
    reader = csv.DictReader(file)
    names = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = names
    if _ON_PICTURE in names:
      raise ListingError(f"{path}: has fixations on a reference image, expected those of the scene camera's video")
    if missing := [name for name in needed if name not in names]:
      other = _CLOUD if needed == _CORE else _CORE
      kind = "pupil-cloud" if other == _CLOUD else "pupil-core"
      hint = f"; it is of --tracker {kind}" if all(name in names for name in other) else ""
      raise ListingError(f"{path}: lacks the columns {', '.join(missing)}{hint}")
    try:
      yield from ({name: str(value or "") for name, value in row.items() if name} for row in reader)
    except csv.Error as error:
      raise ListingError(f"{path}, line {reader.line_num}: {error}") from None


def _stamps(path: Path) -> list[Mapping[str, str]]:
  if not path.is_file():
    raise ListingError(f"{path}: no such file, expected the times of the scene video's frames")
  rows = list(_rows(path, ("timestamp [ns]",)))
  if not rows or not all(row["timestamp [ns]"].isdigit() for row in rows):
    raise ListingError(f"{path}: expected a time in nanoseconds for each frame")
  return rows


def _first_frame(path: Path) -> int:
  """Returns the number of the first frame of an export, which its information has as "Frame Index Range:"."""
  if not path.is_file():
    raise ListingError(f"{path}: no such file, expected that of the export, which says where its video begins")
  with opened(path, "the information on an export of Pupil Player") as file:
    found = re.search(r"Frame Index Range:?\W+(\d+)\s*-\s*(\d+)", file.read(2**16))
  if found is None:
    raise ListingError(f"{path}: has no Frame Index Range, expected that of the export")
  return int(found[1])
