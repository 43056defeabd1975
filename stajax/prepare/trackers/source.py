"""The source `gaze` of `stajax prepare`: exports of eye trackers become the tables that the source `videos` reads."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stajax.cli import make_out_folder
from stajax.files import find_visible_files
from stajax.prepare.listing import ListingError
from stajax.prepare.summary_text import Result
from stajax.screen import counted

Tracker = Literal["tobii", "eyelink", "pupil-core", "pupil-cloud", "bids"]


@dataclass(frozen=True, kw_only=True)
class Gaze:
  """Turns what eye trackers export into a table of fixations for each video, which `stajax prepare videos` reads.

  Fixations are those that the eye tracker's own software found; recordings with samples only are refused. Units are
  found in the files, and the command that goes on from here is printed with them.
  """

  root: Path
  """A file, or the folder with the exports."""
  tracker: Tracker
  """tobii: tables of Pro Lab or Studio (.tsv). eyelink: .asc of edf2asc. pupil-core: exports of Pupil Player.
  pupil-cloud: of Pupil Cloud (Invisible, Neon). bids: a data set with *_physio.tsv.gz."""
  out: Path
  """The folder for the tables."""
  eye: Literal["left", "right"] | None = None
  """The eye, where both were tracked (eyelink, bids)."""
  start_message: str | None = None
  r"""With eyelink: a regular expression for the messages with which videos begin; its first group, such as in
  'VIDEO (\S+)', is the name of the video."""
  end_message: str | None = None
  """With eyelink: a regular expression for the messages with which videos end; else the next start and END do."""
  video: str | None = None
  """With eyelink: the name of the video, where the messages do not have it."""

  def run(self) -> Result:
    """Writes the tables."""
    from stajax.prepare.trackers import bids, eyelink, pupil, tobii
    from stajax.prepare.trackers.gathered import Asked

    for option, text in (("--start-message", self.start_message), ("--end-message", self.end_message)):
      try:
        re.compile(text or "")
      except re.error as error:
        raise ValueError(f"{option} {text}: {error}, expected a regular expression") from None
    if self.tracker != "eyelink" and (self.start_message or self.end_message or self.video):
      raise ValueError(f"--start-message, --end-message and --video belong to eyelink, not to {self.tracker}")
    if not self.root.exists():
      raise ListingError(f"{self.root}: no such file or folder")
    root = self.root if self.root.is_dir() else self.root.parent
    paths = list(find_visible_files(self.root)) if self.root.is_dir() else [self.root]
    asked = Asked(self.eye, self.start_message, self.end_message, self.video)
    if self.tracker == "tobii":
      gathered = tobii.read_tobii(self._with(paths, tobii.SUFFIXES), asked)
    elif self.tracker == "eyelink":
      gathered = eyelink.read_eyelink(self._with(paths, eyelink.SUFFIXES), asked)
    elif self.tracker == "bids":
      gathered = bids.read_bids(root, paths, asked)
    else:
      read = pupil.read_core if self.tracker == "pupil-core" else pupil.read_cloud
      gathered = read(root, paths, asked)
    if not any(gathered.tables.values()):
      lost = ", ".join(f"{count} {reason}" for reason, count in gathered.lost.items()) or "none was found"
      raise ListingError(f"{self.root}: no fixation is on a video: {lost}")
    make_out_folder("--out", self.out)
    number = gathered.write(self.out)
    rows = sum(map(len, gathered.tables.values()))
    lines = [*gathered.said, *(f"{count} fixations {reason} are left out" for reason, count in gathered.lost.items())]
    lines += [f"{name}: no fixation" for name, found in gathered.tables.items() if not found]
    go_on = shlex.join(["stajax", "prepare", "videos", "--root", "VIDEOS", "--tables", str(self.out)])
    units = " ".join(gathered.units or ())
    made = f"{counted(number, 'table')}, {counted(rows, 'row')}"
    lines.append(f"{self.out}: {self.tracker}, {made}; go on with: {go_on} {units} --out TREE")
    return Result("\n".join(lines))

  def _with(self, paths: list[Path], suffixes: tuple[str, ...]) -> list[Path]:
    found = [path for path in paths if path.suffix.lower() in suffixes]
    if not found:
      raise ListingError(f"{self.root}: no file of {self.tracker} ({', '.join(suffixes)}) is here")
    return found
