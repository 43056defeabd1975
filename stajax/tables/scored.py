"""Scores of runs on trees with viewers, which are kept in a folder and not computed again.

A model's maps are computed on all devices of the process. A stopped command goes on with the videos without scores.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import stajax
from stajax import screen
from stajax.evaluate.kept_scores import KeptScores
from stajax.evaluate.methods import Methods
from stajax.eyetracking import StavisTree, StavisVideo, read_groups
from stajax.files import FileError, read_json
from stajax.files.manifest import check_digest, digests, read_manifest, sha256_of_file, write_manifest
from stajax.report.score_files import describe, write_scores
from stajax.report.tables import Scores
from stajax.scoring.protocol import Settings
from stajax.scoring.videos import MethodMaps, Share, evaluate_videos

_SCORES = ("scores", "evaluation")
"""The files of scores that are kept."""


@dataclass(frozen=True)
class Tree:
  """A tree with viewers, and its root."""

  root: Path
  tree: StavisTree

  @property
  def databases(self) -> tuple[str, ...]:
    """The names of its sets."""
    return tuple(dict.fromkeys(video.database for video in self.tree.videos))


@dataclass(frozen=True)
class Scorer:
  """Scores methods on trees.

  Attributes:
    out: The folder for all scores.
    settings: Which frames are scored.
    processes: The number of processes that score; None for one per core.
    tags: A table of tags that the maps depend on, if there is one.
    failed: The videos that could not be scored, as DATABASE/VIDEO; `score` adds to it.
  """

  out: Path
  settings: Settings
  processes: int | None
  tags: Path | None = None
  failed: set[str] = field(default_factory=set)

  def score(self, name: str, tree: Tree, depends_on: Any, make: Callable[[], Methods]) -> tuple[Scores, dict[str, Any]]:
    """Returns the scores of methods on a tree, and what `evaluation.json` says about them.

    Args:
      name: The name of the folder for the scores.
      tree: The tree.
      depends_on: What the maps depend on, as JSON values: where it is the same, finished scores are read.
      make: Returns the methods; it is called only if they have to be scored.
    """
    folder = self.out / name
    request = {
      "stajax": stajax.__version__,
      "root": str(tree.root.resolve()),
      "videos": [[video.database, video.name, video.num_frames] for video in tree.tree.videos],
      "settings": [self.settings.seed, self.settings.stride, self.settings.first_frame, self.settings.nan_policy],
      "tags": self.tags and sha256_of_file(self.tags),
      "maps": depends_on,
    }
    request = json.loads(json.dumps(request))
    if (found := _finished(folder, request)) is not None:
      screen.say(f"{name}: scored already")
      self._note_failed(found[1])
      return found
    chosen, kept = make(), KeptScores.open(folder, request)
    evaluation = evaluate_videos(
      tree.tree.videos,
      chosen.maps,
      self.settings,
      groups=read_groups(tree.root),
      processes=self.processes,
      progress=True,
      share=Share(chosen.packs or [[video] for video in tree.tree.videos], chosen.threads, kept),
    )
    for database, video, reason in evaluation.skipped:
      screen.say(f"{name}: skipped {database}/{video}: {reason}", is_about_a_fault=True)
    about = describe(evaluation, [*tree.tree.notes, *chosen.notes], tree.tree.fold_lists, tree.tree.skipped)
    about["rows"] = dict(chosen.row_titles)
    scores = write_scores(evaluation, about, folder)
    files = digests(folder, [folder / f"{each}.json" for each in _SCORES])
    write_manifest(folder / "request.json", request, files)  # last, as it says that the scores are complete
    kept.remove()
    self._note_failed(about)
    return scores, about

  def _note_failed(self, about: Mapping[str, Any]) -> None:
    self.failed.update(f"{each['database']}/{each['video']}" for each in about["skipped"])


def _finished(folder: Path, request: Any) -> tuple[Scores, dict[str, Any]] | None:
  try:
    found, files = read_manifest(folder / "request.json")
    if found != request:
      return None
    for name, sha256 in files.items():
      check_digest(folder / name, sha256)
    scores, evaluation = (read_json(folder / f"{name}.json") for name in _SCORES)
    return scores, evaluation
  except FileError:  # there is none, or it is damaged: it is made anew
    return None


def renamed(maps: MethodMaps, names: Mapping[str, str]) -> MethodMaps:
  """Returns only some methods of maps, under other names."""

  def chosen(video: StavisVideo, frames: Sequence[int]) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    for chunk, found in maps(video, frames):
      yield chunk, {new: found[old] for old, new in names.items()}

  return chosen


def merge(parts: Sequence[Scores]) -> Scores:
  """Returns the scores of all parts: sets, and their methods, side by side."""
  merged: Scores = {}
  for part in parts:
    for name, methods in part.items():
      merged.setdefault(name, {}).update(methods)
  return merged
