"""Reads tables of samples that Tobii Pro Lab and Tobii Studio export (`.tsv`), in which each sample has its fixation.

Names of columns have no unit, or one in brackets, with other spaces in each version. Tables are in UTF-8 or UTF-16, and
have decimal commas where the computer was set so.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stajax.prepare.listing import MEDIA_SUFFIXES, ListingError
from stajax.prepare.trackers.gathered import Asked, Fixation, Gathered, Shown, number, opened, video_name

SUFFIXES = (".tsv", ".txt")
_EXPECTED = "a table that Tobii Pro Lab or Tobii Studio exports"
_STARTS, _ENDS = ("VideoStimulusStart", "MovieStart"), ("VideoStimulusEnd", "MovieEnd")
_NAMES = {
  "time": ("recordingtimestamp",),
  "kind": ("eyemovementtype", "gazeeventtype"),
  "duration": ("gazeeventduration",),
  "index": ("eyemovementtypeindex", "fixationindex"),
  "viewer": ("participantname",),
  "recording": ("recordingname",),
  "event": ("event", "studioevent"),
  "value": ("eventvalue", "studioeventdata"),
  "media": ("presentedmedianame", "presentedstimulusname", "medianame"),
  "width": ("recordingresolutionwidth",),
  "height": ("recordingresolutionheight",),
  "resolution": ("recordingresolution",),
}
_NEEDED = {
  "time": "Recording timestamp",
  "kind": "Eye movement type",
  "duration": "Gaze event duration",
  "media": "Presented Media name",
}
_PLACES = (("mcsnorm", ("--units", "normalised")), ("mcspx", ("--units", "pixels")))
"""The units of places, the better ones first; any other is pixels of the screen."""
_SECONDS = {"ms": 1e-3, "µs": 1e-6, "μs": 1e-6, "us": 1e-6}


@dataclass
class _Run:
  """The samples of one fixation."""

  first: float
  last: float
  duration: float
  x: float
  y: float
  count: int = 1

  def fixation(self, seconds: float) -> Fixation:
    """Returns the fixation, given the seconds of a unit of times; durations are in milliseconds."""
    start = self.first * seconds
    return Fixation(start, start + self.duration * 1e-3, self.x, self.y)


@dataclass
class _Tobii:
  """What was found about one participant and recording; times are as they are in the table."""

  runs: list[_Run] = field(default_factory=list[_Run])
  shown: list[tuple[str, float, float]] = field(default_factory=list[tuple[str, float, float]])
  media: list[tuple[str, float, float]] = field(default_factory=list[tuple[str, float, float]])
  key: str = ""
  lost: set[str] = field(default_factory=set[str])


def read_tobii(paths: Iterable[Path], asked: Asked) -> Gathered:
  """Reads tables; the viewer is the participant.

  Raises:
    ListingError: A table lacks a column or a unit that must be known; one line.
  """
  gathered = Gathered()
  for path in paths:
    _read(path, gathered)
  return gathered


def _read(path: Path, gathered: Gathered) -> None:
  with opened(path, _EXPECTED) as file:
    reader = csv.reader(file, delimiter="\t")
    try:
      header = next(reader, [])
      columns = _Columns(path, header)
      found = _read_rows(columns, reader, gathered)
    except csv.Error as error:
      raise ListingError(f"{path}, line {reader.line_num}: {error}") from None
  runs = [run for recording in found.values() for run in recording.runs]
  if not runs:
    raise ListingError(f"{path}: has no fixation: export it with a fixation filter (Eye movement type, Fixation point)")
  seconds = _unit_of_times(path, columns, runs, gathered)
  gathered.state_units(path, _units(path, columns, gathered))
  if not any(recording.shown for recording in found.values()):
    gathered.say("no event says when a video began: it is taken to begin with its first sample")
  for (viewer, _), recording in found.items():
    gathered.lose("that have no place", len(recording.lost))
    stretches = recording.shown or recording.media
    shown = [Shown(video_name(name, path), begin * seconds, end * seconds) for name, begin, end in stretches]
    gathered.add_shown([run.fixation(seconds) for run in recording.runs], shown, viewer)


class _Columns:
  """Where the columns of a table are, and the units in their names."""

  def __init__(self, path: Path, header: Sequence[str]) -> None:
    named = [_split_name(name) for name in header]
    self.units: dict[str, str] = {}
    self._where: dict[str, int] = {}
    for key, names in _NAMES.items():
      for name in names:
        at = next((i for i, (base, _) in enumerate(named) if base == name), None)
        if at is not None and key not in self._where:
          self._where[key], self.units[key] = at, named[at][1]
    missing = [title for key, title in _NEEDED.items() if key not in self._where]
    places = {unit: i for i, (base, unit) in enumerate(named) if base in ("fixationpointx",)}
    if not places:
      missing.append("Fixation point X")
    if missing:
      raise ListingError(f"{path}: lacks the columns {', '.join(missing)}: expected {_EXPECTED}, with them")
    self.places = next((unit for unit, _ in _PLACES if unit in places), next(iter(places)))
    across, down = (("fixationpoint" + axis, self.places) for axis in "xy")
    if down not in named:
      raise ListingError(f"{path}: has Fixation point X ({self.places}) without Fixation point Y")
    self._where["x"], self._where["y"] = named.index(across), named.index(down)
    self.screens: set[str] = set()

  def text(self, row: Sequence[str], key: str) -> str:
    """Returns a cell without spaces around it; "" if there is none."""
    at = self._where.get(key, len(row))
    return row[at].strip() if at < len(row) else ""

  def note_screen(self, row: Sequence[str]) -> None:
    """Remembers the resolution of a recording."""
    size = self.text(row, "resolution") or f"{self.text(row, 'width')}x{self.text(row, 'height')}"
    if found := re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", size):
      self.screens.add(f"{found[1]}x{found[2]}")


def _split_name(name: str) -> tuple[str, str]:
  """Returns the name of a column in small letters without spaces, and its unit alike."""
  bare, _, unit = name.strip().lower().replace(" ", "").rstrip(")]").replace("[", "(").partition("(")
  return bare, unit


def _read_rows(columns: _Columns, rows: Iterable[Sequence[str]], gathered: Gathered) -> dict[tuple[str, str], _Tobii]:
  found: dict[tuple[str, str], _Tobii] = {}
  for row in rows:
    time = number(columns.text(row, "time"))
    if time is None:
      continue
    owner = columns.text(row, "viewer") or "viewer", columns.text(row, "recording")
    recording = found.setdefault(owner, _Tobii())
    columns.note_screen(row)
    _note_event(recording, time, columns.text(row, "event"), columns.text(row, "value"))
    _note_media(recording, time, columns.text(row, "media"))
    if columns.text(row, "kind").lower() != "fixation":
      recording.key = recording.key if not columns.text(row, "kind") else ""
      continue
    x, y, duration = (number(columns.text(row, key)) for key in ("x", "y", "duration"))
    key = columns.text(row, "index") or f"{x} {y}"
    if recording.key == key and recording.runs:
      run = recording.runs[-1]
      run.last, run.count = time, run.count + 1
    elif x is None or y is None or duration is None:
      recording.lost.add(key)
    else:
      recording.runs.append(_Run(time, time, duration, x, y))
      recording.lost.discard(key)
      recording.key = key
  return found


def _note_event(recording: _Tobii, time: float, event: str, value: str) -> None:
  if event in _STARTS:
    recording.shown.append((value, time, float("inf")))
  elif event in _ENDS and recording.shown and recording.shown[-1][0] == value:
    recording.shown[-1] = (value, recording.shown[-1][1], time)


def _note_media(recording: _Tobii, time: float, name: str) -> None:
  """Notes where the samples of a medium begin and end; names with a suffix that no video has are of pictures."""
  suffix = Path(name).suffix.lower()
  if not name or (re.fullmatch(r"\.[a-z]\w{2,4}", suffix) and suffix not in MEDIA_SUFFIXES):
    return
  if recording.media and recording.media[-1][0] == name:
    recording.media[-1] = (name, recording.media[-1][1], time)
  else:
    recording.media.append((name, time, time))


def _unit_of_times(path: Path, columns: _Columns, runs: Sequence[_Run], gathered: Gathered) -> float:
  """Returns the seconds of one unit of times: as the column's name says, or as the fixations' durations tell."""
  unit = columns.units["time"]
  if unit in _SECONDS:
    gathered.say(f"times in {unit}, as the column says")
    return _SECONDS[unit]
  ratios = [(run.last - run.first) / run.duration for run in runs if run.count >= 3 and run.duration > 0]
  usual = float(np.median(ratios)) if ratios else 0.0
  for name, per_millisecond in (("ms", 1.0), ("µs", 1000.0)):
    if 0.5 <= usual / per_millisecond <= 1.2:
      gathered.say(f"times in {name}, found by the durations of fixations, which are in ms")
      return _SECONDS[name]
  raise ListingError(f"{path}: the unit of Recording timestamp is not known: export columns with their units")


def _units(path: Path, columns: _Columns, gathered: Gathered) -> tuple[str, ...]:
  named: Mapping[str, tuple[str, ...]] = dict(_PLACES)
  if columns.places in named:
    what = "shares of the video's picture" if columns.places == "mcsnorm" else "pixels of the video's picture"
    gathered.say(f"places in {what} ({columns.places}, as the column says)")
    return named[columns.places]
  if len(columns.screens) > 1:
    raise ListingError(f"{path}: has recordings of several resolutions ({', '.join(sorted(columns.screens))})")
  screen = next(iter(columns.screens), "WIDTHxHEIGHT")
  gathered.say(
    f"places in pixels of a screen of {screen}, from Recording resolution"
    if columns.screens
    else "places in pixels of the screen, whose size the file does not say: state it"
  )
  return "--units", "screen", "--screen", screen
