"""Evaluation from Python, as `stajax.evaluate_maps` offers it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stajax.evaluate.methods import array_methods, file_methods
from stajax.eyetracking import is_avimos, parse_data, read_groups, read_tree
from stajax.scoring.protocol import Settings
from stajax.scoring.results import Evaluation
from stajax.scoring.videos import evaluate_videos


def evaluate_maps(
  maps: str | Path | Mapping[str, np.ndarray],
  data: str | Path,
  databases: Sequence[str] = (),
  settings: Settings | None = None,
  processes: int = 1,
) -> Evaluation:
  """Scores maps that were made by any program on eye-tracking videos, as `stajax evaluate --maps` does.

  Args:
    maps: A folder as the command takes it; or an array (n, h, w) for each video, by `VIDEO` or `DATABASE/VIDEO`, for
      its first n frames. What the numbers are is recognised, see `notes`, and each map is brought to 8 bits.
    data: The videos: `stavis:ROOT` or just ROOT, a tree in the STAViS layout; or `avimos:ROOT`.
    databases: The databases of the tree to score; all if none is named.
    settings: Which frames are scored, and how; by default all, by the protocol `avimos` for
      `avimos:ROOT` and otherwise `stavis`.
    processes: The number of processes that score. With more than one, a script needs the guard
      `if __name__ == "__main__"`.

  Returns:
    The scores of `maps` and of baselines: `set_scores()` has them by set, method and metric; `skipped` names the
    videos that have none, with the reason; `notes` says what the numbers in the maps were taken for.

  Raises:
    ValueError: The tree or the maps cannot be used; a line that names the file.
  """
  root = parse_data(str(data))
  settings = settings or Settings(protocol="avimos" if is_avimos(str(data)) else "stavis")
  tree = read_tree(root, databases or None, need_frames=False)
  methods = array_methods(maps, tree.videos) if isinstance(maps, Mapping) else file_methods(Path(maps), tree.videos)
  evaluation = evaluate_videos(tree.videos, methods.maps, settings, groups=read_groups(root), processes=processes)
  return dataclasses.replace(
    evaluation, skipped=(*tree.skipped, *evaluation.skipped), notes=(*tree.notes, *methods.notes)
  )
