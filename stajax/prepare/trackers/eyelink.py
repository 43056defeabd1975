"""Reads EyeLink recordings as SR Research's program edf2asc writes them: text files with events (`.asc`)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from stajax.prepare.gaze_units import SCREENS
from stajax.prepare.listing import ListingError
from stajax.prepare.trackers.gathered import Asked, Fixation, Gathered, Shown, number, opened, video_name

SUFFIXES = (".asc",)
_MILLISECONDS = 1e-3  # every time in such a file
_EYES = {"L": "left", "R": "right"}
_OFFSET = re.compile(r"(-?\d+)\s+(?=\S)")
_EXPECTED = "what edf2asc writes"


@dataclass
class _Recording:
  """What was found in a file; times are in seconds."""

  fixations: dict[str, list[Fixation]] = field(default_factory=lambda: {"left": [], "right": []})
  shown: list[Shown] = field(default_factory=list[Shown])
  messages: Counter[str] = field(default_factory=Counter[str])
  screen: tuple[float, ...] | None = None
  kinds: set[str] = field(default_factory=set[str])
  num_blocks: int = 0
  num_without_place: int = 0
  num_offsets: int = 0


def read_eyelink(paths: Iterable[Path], asked: Asked) -> Gathered:
  """Reads recordings; the viewer is the name of the file.

  Raises:
    ListingError: A file is none, has samples only, or lacks what must be known; one line.
  """
  gathered = Gathered()
  for path in paths:
    recording = _read(path, asked)
    _check(path, recording, asked)
    eye = asked.eye or next(name for name, looks in recording.fixations.items() if looks)
    _state_screen(path, recording, gathered)
    gathered.say(f"times in milliseconds, the {eye} eye")
    if recording.num_offsets:
      gathered.say("numbers before messages are taken for milliseconds that have passed since the event")
    gathered.lose("that have no place", recording.num_without_place)
    gathered.add_shown(recording.fixations[eye], recording.shown, path.stem)
  return gathered


def _read(path: Path, asked: Asked) -> _Recording:
  found = _Recording()
  start, end = (None if text is None else re.compile(text) for text in (asked.start, asked.end))
  with opened(path, _EXPECTED) as file:
    for line in file:
      word, _, rest = line.partition("\t") if line.startswith("MSG") else line.partition(" ")
      if line.startswith("MSG"):
        _read_message(path, rest if word == "MSG" else line[3:], found, start, end, asked)
      elif word == "EFIX":
        _read_fixation(rest.split(), found)
      elif line.startswith("START"):
        found.num_blocks += 1
      elif line.startswith("EVENTS"):
        found.kinds.add([*line.split(), "nothing"][1])
      elif line.startswith("END"):
        _close(found, number([*line.split(), ""][1]))
  return found


def _read_message(
  path: Path,
  text: str,
  found: _Recording,
  start: re.Pattern[str] | None,
  end: re.Pattern[str] | None,
  asked: Asked,
) -> None:
  stamp, _, words = text.strip().partition(" ")
  time = number(stamp)
  if time is None:
    return
  offset = _OFFSET.match(words)
  if offset is not None:
    found.num_offsets += 1
    time, words = time - float(offset[1]), words[offset.end() :]
  if words.startswith(("DISPLAY_COORDS", "GAZE_COORDS")):
    edges = [value for value in map(number, re.findall(r"-?[\d.]+", words)) if value is not None]
    found.screen = tuple(edges[-4:]) if len(edges) >= 4 else None
  found.messages[words.split(" ")[0]] += 1
  if end is not None and end.search(words):
    _close(found, time)
  if start is not None and (begun := start.search(words)):
    _close(found, time)
    name = begun[1] if start.groups and begun[1] else asked.video
    if name is None:
      raise ListingError(f"{path}: --start-message has no group for the name of the video, expected one, or --video")
    found.shown.append(Shown(video_name(name, path), time * _MILLISECONDS))


def _close(found: _Recording, time: float | None) -> None:
  if found.shown and found.shown[-1].end == float("inf") and time is not None:
    last = found.shown[-1]
    found.shown[-1] = Shown(last.video, last.start, time * _MILLISECONDS)


def _read_fixation(fields: list[str], found: _Recording) -> None:
  """Reads eye, start, end, duration, x, y; the size of the pupil and the resolution may follow."""
  if len(fields) < 6 or fields[0] not in _EYES:
    return
  start, end, x, y = (number(fields[i]) for i in (1, 2, 4, 5))
  if start is None or end is None or x is None or y is None:
    found.num_without_place += 1
    return
  found.fixations[_EYES[fields[0]]].append(Fixation(start * _MILLISECONDS, end * _MILLISECONDS, x, y))


def _check(path: Path, found: _Recording, asked: Asked) -> None:
  looks = {name: len(fixations) for name, fixations in found.fixations.items() if fixations}
  if not found.num_blocks:
    raise ListingError(f"{path}: has no line START, expected {_EXPECTED}")
  if not looks:
    raise ListingError(f"{path}: has no fixations (EFIX), only samples: export events, too (edf2asc without -s)")
  if wrong := found.kinds - {"GAZE"}:
    raise ListingError(f"{path}: its events are in {', '.join(sorted(wrong))}, expected GAZE, pixels of the screen")
  if len(looks) > 1 and asked.eye is None:
    raise ListingError(f"{path}: both eyes were tracked: expected --eye left or --eye right")
  if asked.eye is not None and asked.eye not in looks:
    raise ListingError(f"{path}: --eye {asked.eye}: only the {', '.join(looks)} eye was tracked")
  if not found.shown:
    usual = ", ".join(f"{word} ({count})" for word, count in found.messages.most_common(8)) or "none"
    what = "which message begins a video is not known" if asked.start is None else "no message begins a video"
    how = r"--start-message with the video's name in brackets, such as 'VIDEO (\S+)'"
    raise ListingError(f"{path}: {what}: expected {how}; messages begin with: {usual}")


def _state_screen(path: Path, found: _Recording, gathered: Gathered) -> None:
  if found.screen is None:
    gathered.say("no file says how large the screen was: state it")
    gathered.state_units(path, ("--units", "screen", "--screen", "WIDTHxHEIGHT"))
    return
  left, top, right, bottom = found.screen
  if left or top:
    raise ListingError(f"{path}: the screen begins at {left:g}, {top:g}, expected 0, 0")
  # The message has the last pixel, but some programs write the size.
  is_size = (right, bottom) in SCREENS
  width, height = int(right) + (not is_size), int(bottom) + (not is_size)
  gathered.say(f"a screen of {width}×{height} pixels, from DISPLAY_COORDS {left:g} {top:g} {right:g} {bottom:g}")
  gathered.state_units(path, ("--units", "screen", "--screen", f"{width}x{height}"))
