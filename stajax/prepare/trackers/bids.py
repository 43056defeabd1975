"""Reads eye tracking in BIDS: samples (`_physio.tsv.gz`), the fixations in them, and what was shown.

  sub-01_task-watch_recording-eye1_physio.tsv.gz, .json        samples; PhysioType is eyetrack
  sub-01_task-watch_recording-eye1_physioevents.tsv.gz, .json  fixations, on the clock of the samples
  sub-01_task-watch_events.tsv, .json                          stim_file with onset and duration; the screen

Both `.tsv.gz` files have no header: their columns are named in the JSON file beside them, or in one of the same ending
in a folder above, whose name has fewer parts.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stajax.files import FileError, read_json
from stajax.prepare.listing import ListingError
from stajax.prepare.trackers.gathered import Asked, Fixation, Gathered, Shown, number, opened, video_name

_ENDING = "_physio.tsv.gz"
_MAX_SAMPLES = 200_000_000
_SECONDS = {"s": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "millisecond": 1e-3, "milliseconds": 1e-3,
            "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "microseconds": 1e-6, "ns": 1e-9, "nanoseconds": 1e-9}  # fmt: skip
_PIXELS = ("pixel", "pixels", "px")


def read_bids(root: Path, paths: Iterable[Path], asked: Asked) -> Gathered:
  """Reads the eye tracking of a BIDS data set; the viewer is the subject.

  Raises:
    ListingError: A file lacks what must be known, such as fixations or units; one line.
  """
  gathered = Gathered()
  found = 0
  for path in paths:
    if not path.name.endswith(_ENDING):
      continue
    about = _sidecar(root, path)
    if about.get("PhysioType") != "eyetrack":
      continue
    eye = about.get("RecordedEye")
    found += 1
    if asked.eye is None and "_recording-" in path.name and len(_eyes_beside(root, path)) > 1:
      raise ListingError(f"{path}: both eyes were tracked: expected --eye left or --eye right")
    if asked.eye is None or eye in (None, asked.eye, "cyclopean"):
      _read(root, path, about, gathered)
  if not found:
    raise ListingError(f"{root}: no *{_ENDING} of eye tracking (PhysioType eyetrack) is in this folder")
  return gathered


def _read(root: Path, path: Path, about: Mapping[str, Any], gathered: Gathered) -> None:
  samples = _columns(path, about, ("timestamp", "x_coordinate", "y_coordinate"))
  units = {name: _units_of(path, about, name) for name in ("timestamp", "x_coordinate", "y_coordinate")}
  if units["timestamp"] not in _SECONDS:
    raise ListingError(f"{path}: timestamp has the unit {units['timestamp']!r}, expected one of {', '.join(_SECONDS)}")
  if units["x_coordinate"] not in _PIXELS or units["y_coordinate"] not in _PIXELS:
    raise ListingError(f"{path}: x_coordinate has the unit {units['x_coordinate']!r}, expected pixel")
  if about.get("SampleCoordinateSystem", "gaze-on-screen") != "gaze-on-screen":
    raise ListingError(f"{path}: places are {about['SampleCoordinateSystem']}, expected gaze-on-screen")
  seconds = _SECONDS[units["timestamp"]]
  begin = number(str(about.get("StartTime", 0)))
  if begin is None:
    raise ListingError(f"{path}: StartTime is {about['StartTime']!r}, expected seconds")
  shown, screen = _shown(root, path)
  gathered.state_units(path, screen)
  gathered.say(f"times in {units['timestamp']}, places in {units['x_coordinate']}, as the JSON files say")
  looks = []
  for onset, duration in _fixations(root, path):
    inside = slice(*np.searchsorted(samples["timestamp"], (onset, onset + duration / seconds)))
    x, y = samples["x_coordinate"][inside], samples["y_coordinate"][inside]
    if not np.isfinite(x).any() or not np.isfinite(y).any():
      gathered.lose("that have no place")
      continue
    start = begin + (onset - samples["timestamp"][0]) * seconds
    looks.append(Fixation(start, start + duration, float(np.nanmean(x)), float(np.nanmean(y))))
  gathered.say("the place of a fixation is the mean of its samples")
  gathered.add_shown(looks, shown, path.name.partition("_")[0])


def _fixations(root: Path, path: Path) -> list[tuple[float, float]]:
  """Returns the onset of each fixation on the clock of the samples, and its duration in seconds."""
  events = path.with_name(path.name.replace("_physio.", "_physioevents."))
  if not events.is_file():
    how = "export the fixations that the eye tracker found, too"
    raise ListingError(f"{path}: has samples only, expected {events.name} beside it with fixations: {how}")
  about = _sidecar(root, events)
  rows = _rows(events, about)
  names = about["Columns"]
  if missing := [name for name in ("onset", "duration", "trial_type") if name not in names]:
    raise ListingError(f"{events}: lacks the columns {', '.join(missing)}")
  places = [names.index(name) for name in ("onset", "duration", "trial_type")]
  found: list[tuple[float, float]] = []
  for row in rows:
    onset, duration, kind = (row[i] if i < len(row) else "" for i in places)
    if kind.strip().lower() == "fixation" and (a := number(onset)) is not None and (b := number(duration)) is not None:
      found.append((a, b))
  if not found:
    raise ListingError(f"{events}: has no row whose trial_type is fixation")
  unit = str(about.get("duration", {}).get("Units", "s"))
  if unit not in _SECONDS:
    raise ListingError(f"{events}: duration has the unit {unit!r}, expected one of {', '.join(_SECONDS)}")
  return [(onset, duration * _SECONDS[unit]) for onset, duration in found]


def _shown(root: Path, path: Path) -> tuple[list[Shown], tuple[str, ...]]:
  """Returns the videos that were shown during a recording, and the options that state the screen."""
  base = re.sub(r"_recording-[^_]+", "", path.name.removesuffix(_ENDING))
  events = path.with_name(f"{base}_events.tsv")
  if not events.is_file():
    raise ListingError(f"{path}: no {events.name} is beside it, expected one with the column stim_file")
  shown: list[Shown] = []
  with opened(events, "a table of events") as file:
    reader = csv.DictReader(file, delimiter="\t")
    if "stim_file" not in (reader.fieldnames or ()):
      raise ListingError(f"{events}: has no column stim_file, expected the video that is shown from each onset on")
    for row in reader:
      onset, duration = number(row.get("onset") or ""), number(row.get("duration") or "")
      name = (row.get("stim_file") or "").strip()
      if onset is not None and name not in ("", "n/a"):
        end = onset + duration if duration else float("inf")
        shown.append(Shown(video_name(name, events), onset, end))
  screen = _sidecar(root, events, required=False).get("StimulusPresentation", {})
  size, origin = screen.get("ScreenResolution"), screen.get("ScreenOrigin", ["top", "left"])
  if list(origin) != ["top", "left"]:
    raise ListingError(f"{events}: ScreenOrigin is {origin}, expected top, left")
  if isinstance(size, list) and len(size) == 2 and all(isinstance(side, int | float) for side in size):
    return shown, ("--units", "screen", "--screen", f"{size[0]:g}x{size[1]:g}")
  return shown, ("--units", "screen", "--screen", "WIDTHxHEIGHT")


def _eyes_beside(root: Path, path: Path) -> set[Any]:
  """Returns the eyes of all recordings of the same run."""
  base, _, _ = path.name.partition("_recording-")
  others = path.parent.glob(f"{base}_recording-*{_ENDING}")
  found = [about for other in others if (about := _sidecar(root, other)).get("PhysioType") == "eyetrack"]
  return {about.get("RecordedEye") for about in found}


def _units_of(path: Path, about: Mapping[str, Any], column: str) -> str:
  entry = about.get(column)
  if not isinstance(entry, Mapping) or "Units" not in entry:
    raise ListingError(f"{path}: its JSON file does not say the Units of {column}")
  return str(entry["Units"])


def _sidecar(root: Path, path: Path, required: bool = True) -> dict[str, Any]:
  """Returns what the JSON files of a file say; those in its own folder count more than those above."""
  stem = path.name.removesuffix(".gz").removesuffix(".tsv")
  parts = stem.split("_")
  found: dict[str, Any] = {}
  folders = [path.parent, *path.parent.parents]
  inside = folders[: folders.index(root) + 1] if root in folders else folders[:1]
  for folder in reversed(inside):
    named = [file for file in folder.glob(f"*{parts[-1]}.json") if set(file.stem.split("_")) <= set(parts)]
    for file in sorted(named, key=lambda file: len(file.stem)):
      try:
        content = read_json(file)
      except FileError as error:
        raise ListingError(str(error)) from None
      if not isinstance(content, dict):
        raise ListingError(f"{file}: expected an object")
      found |= content
  if required and not found:
    raise ListingError(f"{path}: no {stem}.json is beside it, expected its columns and units")
  return found


def _rows(path: Path, about: Mapping[str, Any]) -> list[list[str]]:
  """Returns the rows of a `.tsv.gz` file without a header."""
  if not isinstance(about.get("Columns"), list):
    raise ListingError(f"{path}: its JSON file has no list Columns")
  rows: list[list[str]] = []
  try:
    with gzip.open(path, "rt", encoding="utf-8") as file:
      for line in file:
        rows.append(line.rstrip("\r\n").split("\t"))
        if len(rows) > _MAX_SAMPLES:
          raise ListingError(f"{path}: has more than {_MAX_SAMPLES} rows")
  except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
    raise ListingError(f"{path}: cannot be read as a table in gzip ({' '.join(str(error).split())[:200]})") from None
  return rows


def _columns(path: Path, about: Mapping[str, Any], needed: tuple[str, ...]) -> dict[str, np.ndarray]:
  """Returns columns of samples as numbers, NaN where there is none; times have to ascend."""
  rows, names = _rows(path, about), about["Columns"]
  if missing := [name for name in needed if name not in names]:
    raise ListingError(f"{path}: lacks the columns {', '.join(missing)}")
  found = {}
  for name in needed:
    at = names.index(name)
    values = [number(row[at]) if at < len(row) else None for row in rows]
    found[name] = np.array([np.nan if value is None else value for value in values], np.float64)
  times = found["timestamp"]
  if not len(times) or not np.isfinite(times).all() or (np.diff(times) < 0).any():
    raise ListingError(f"{path}: expected times that ascend in the column timestamp")
  return found
