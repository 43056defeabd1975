"""The options of `stajax tables`."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Arguments:
  """The options of `stajax tables`."""

  runs: tyro.conf.Positional[tuple[Path, ...]]
  """Work folders of finished trainings, or model folders."""
  out: Path
  """The folder for the tables and the scores."""
  data: tuple[str, ...] = ()
  """Trees with viewers: stavis:ROOT, in the STAViS layout."""
  tags: Path | None = None
  """A table of the videos' tags (columns video, tag and, if names repeat, database); by default clips.csv of a tree."""
  database: str = "AVAD"
  """The set of Tables 1 and 3 and of the appendix."""
  retrain: bool = False
  """Train the networks that rows 9, 21 and 22 of Table 1 really need."""
  students: tuple[int, ...] = ()
  """The rows of Table 1 for which a student STA is trained from the row's maps, to stand beside them."""
  sweeps: bool = False
  """Make the appendix: T_d, T_r, m and the number of companions, each changed at inference."""
  figures: int = 0
  """The number of training clips whose pseudo-fixations are shown as pictures."""
  export: Path | None = None
  """A folder for all pseudo-fixations as png files, in a layout that `stajax evaluate --maps` reads."""
  categories: int | None = None
  """The number of tags that Table 5 counts with; by default that of the first run."""
  stride: int = 1
  """Score every n-th frame."""
  seed: int = 0
  """The seed of the random parts of AUC-J (ties) and s-AUC (draws)."""
  batch: int = 8
  """The number of frames that a model computes together."""
  processes: int | None = None
  """The number of processes that score; one per core by default."""
