"""Reads what a finished run left for people: its scores, settings, learning curves, and the pictures on its page."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from stajax.files import FileError, read_json
from stajax.report.log_lines import read_log
from stajax.report.names import STAGES
from stajax.report.paired import Report, read_report
from stajax.report.tables import Scores

EXPECTED = "expected the work folder of `stajax train` or the folder that `stajax evaluate --out` wrote"
_MAX_PAGE = 2**28
_PICTURE = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+")
_RANK = re.compile(r"^(Best|Worst): |, NSS -?[\d.]+$")
"""What the titles of frames have around the frame's name."""


@dataclass(frozen=True)
class RunFolder:
  """A finished run.

  Attributes:
    name: What the run is called.
    path: Its folder.
    about: The content of `evaluation.json`.
    scores: The scores of all sets.
    by_video: The scores of every video.
    curves: The log of each stage that has one.
    frames: The pictures of each frame on the page, {frame: {caption: data URI of a JPEG}}.
  """

  name: str
  path: Path
  about: Mapping[str, Any]
  scores: Scores
  by_video: Report
  curves: Mapping[str, Sequence[Mapping[str, float]]]
  frames: Mapping[str, Mapping[str, str]]

  @property
  def settings(self) -> str:
    """How the run was scored, in words; scores of different words cannot be compared."""
    about = self.about
    every = "every frame" if about["stride"] == 1 else f"one frame in {about['stride']}"
    undefined = "count as 0" if about["nan_policy"] == "zero" else "are left out"
    first = about["first_frame"]
    return f"protocol {about['protocol']}, {every} from frame {first} on, undefined scores {undefined}"

  def num_frames(self, set_name: str) -> int:
    """Returns how many frames of a set were scored."""
    about = self.about["sets"].get(set_name)
    return int(about["frames"]) if isinstance(about, dict) and isinstance(about.get("frames"), int) else 0

  def videos_of(self, set_name: str) -> frozenset[str]:
    """Returns the videos of a set."""
    database = set_name.partition("/")[0]
    by_method = self.by_video.scores.values()
    clips = {clip.rpartition("/")[0] for row in by_method for values in row.values() for clip in values}
    members = self.by_video.groups.get(set_name)
    return frozenset(
      clip
      for clip in clips
      if clip.startswith(f"{database}/") and (members is None or clip.removeprefix(f"{database}/") in members)
    )


def read_run(path: Path, name: str) -> RunFolder:
  """Reads a run.

  Raises:
    ValueError: The folder is none, or a file in it is damaged; one line.
  """
  if not path.is_dir():
    raise ValueError(f"{path}: {'is a file' if path.exists() else 'no such folder'}, {EXPECTED}")
  folder = path / "report" if (path / "report").is_dir() else path
  if not (folder / "scores.json").is_file():
    unfinished = (path / "stages").is_dir()
    found = "is a training that has no report yet" if unfinished else "is not a run: it has no scores.json"
    raise ValueError(f"{path}: {found}, {EXPECTED}")
  try:
    scores, about = read_json(folder / "scores.json"), read_json(folder / "evaluation.json")
  except FileError as error:
    raise ValueError(str(error)) from None
  needed = {"protocol": str, "stride": int, "first_frame": int, "nan_policy": str, "sets": dict}
  about = about if isinstance(about, dict) else {}
  missing = [key for key, kind in needed.items() if not isinstance(about.get(key), kind)]
  if missing or not _are_scores(scores):
    what = f"lacks {', '.join(missing)}" if missing else "has no scores by set, method and metric"
    raise ValueError(f"{folder / ('evaluation.json' if missing else 'scores.json')}: {what}, {EXPECTED}")
  logs = {stage: read_log(path / "stages" / stage / "log.jsonl") for stage in STAGES}
  curves = {stage: [line for line in lines if _is_line(line)] for stage, lines in logs.items()}
  kept = {stage: lines for stage, lines in curves.items() if lines}
  return RunFolder(name, path, about, scores, read_report(folder), kept, read_frames(folder / "index.html"))


def _are_scores(scores: Any) -> bool:
  """Returns whether a value is {set: {method: {metric: number or None}}}."""
  return isinstance(scores, dict) and all(
    isinstance(row, dict) and all(value is None or isinstance(value, int | float) for value in row.values())
    for methods in scores.values()
    for row in (methods.values() if isinstance(methods, dict) else [None])
  )


def _is_line(line: Any) -> bool:
  return isinstance(line, dict) and all(isinstance(line.get(key), int | float) for key in ("step", "loss"))


def read_frames(page: Path) -> dict[str, dict[str, str]]:
  """Returns the pictures in a page that `write_page` wrote, by frame and caption; nothing in the page is executed.

  A page that is missing, or is no page of this package, has none.
  """
  if not page.is_file() or page.stat().st_size > _MAX_PAGE:
    return {}
  reader = _Gallery()
  reader.feed(page.read_text(encoding="utf-8", errors="replace"))
  return reader.frames


class _Gallery(HTMLParser):
  """Collects the articles of a page: their title, and the sources and captions of their figures."""

  def __init__(self) -> None:
    super().__init__()
    self.frames: dict[str, dict[str, str]] = {}
    self._title, self._source, self._text = "", "", ""
    self._inside: list[str] = []

  def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
    """Notes where the reader is, and the source of a picture."""
    if tag in ("article", "h3", "figcaption"):
      self._inside.append(tag)
      self._text = ""
    elif tag == "img" and "article" in self._inside:
      source = dict(attrs).get("src") or ""
      self._source = source if _PICTURE.fullmatch(source) else ""

  def handle_endtag(self, tag: str) -> None:
    """Takes the title of an article, or the caption of the picture before it."""
    if tag not in self._inside:
      return
    self._inside.remove(tag)
    if tag == "h3" and "article" in self._inside:
      self._title = _RANK.sub("", _RANK.sub("", " ".join(self._text.split())))
    elif tag == "figcaption" and "article" in self._inside and self._source:
      self.frames.setdefault(self._title, {})[" ".join(self._text.split())] = self._source

  def handle_data(self, data: str) -> None:
    """Collects text."""
    self._text += data


def name_runs(paths: Sequence[Path]) -> list[str]:
  """Returns a short name for each folder: as many of the last parts of its path as tell it from the others."""
  resolved = [path.resolve().parts for path in paths]
  for count in range(1, max(map(len, resolved), default=1) + 1):
    names = ["/".join(parts[-count:]) for parts in resolved]
    if len(set(names)) == len(names):
      return names
  raise ValueError("a run is given twice, expected different folders")


def is_finite(value: float | None) -> bool:
  """Returns whether a score is defined."""
  return value is not None and math.isfinite(value)
