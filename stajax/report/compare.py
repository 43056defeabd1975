"""Compares runs: their scores on the same videos by the same protocol, and where neither is the same, says so."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stajax.files.names import csv_text
from stajax.report.paired import summarise
from stajax.report.run_folder import RunFolder, is_finite

_LEAST_VIDEOS = 3
"""With fewer videos no interval says anything."""


@dataclass(frozen=True)
class Cell:
  """A score of one run, beside the same of the first run of its table.

  Attributes:
    score: The score of the set, None where it is not defined.
    difference: How much higher it is than that of the first run; None for the first run and undefined scores.
    half_width: Half the width of the 95% interval of the mean difference by video; NaN for few videos.
    videos: The videos in which both are defined.
    better: In how many of them the run is better than the first.
    is_sure: Whether the interval of the difference by video lies on one side of 0.
  """

  score: float | None
  difference: float | None = None
  half_width: float = math.nan
  videos: int = 0
  better: int = 0
  is_sure: bool = False


@dataclass(frozen=True)
class SetTable:
  """The scores of the runs that were scored alike on the same videos of a set.

  Attributes:
    name: The set.
    settings: How they were scored.
    num_videos: The number of videos.
    runs: The names of the runs.
    metrics: The metrics that all of them have.
    rows: For each method that at least one run has, and for each of these runs, its cells by metric.
  """

  name: str
  settings: str
  num_videos: int
  runs: tuple[str, ...]
  metrics: tuple[str, ...]
  rows: dict[str, dict[str, dict[str, Cell]]]


def compare_runs(runs: Sequence[RunFolder]) -> tuple[list[SetTable], list[str]]:
  """Returns a table for each set of videos and way of scoring, and lines on what cannot be compared."""
  groups: dict[tuple[str, str, int, frozenset[str]], list[RunFolder]] = {}
  for run in runs:
    for name in run.scores:
      groups.setdefault((name, run.settings, run.num_frames(name), run.videos_of(name)), []).append(run)
  order = list(dict.fromkeys(name for run in runs for name in run.scores))
  chosen = sorted(groups, key=lambda key: (order.index(key[0]), -len(groups[key])))
  tables = [_table(name, settings, videos, groups[name, settings, n, videos]) for name, settings, n, videos in chosen]
  return tables, _warnings(runs, tables)


def _warnings(runs: Sequence[RunFolder], tables: Sequence[SetTable]) -> list[str]:
  lines = []
  ways = list(dict.fromkeys(run.settings for run in runs))
  if len(ways) > 1:
    said = "; ".join(f"{way}: {', '.join(run.name for run in runs if run.settings == way)}" for way in ways)
    lines.append(f"the runs were scored in different ways, which cannot be compared ({said})")
  for name in dict.fromkeys(table.name for table in tables):
    if lacking := [run.name for run in runs if name not in run.scores]:
      lines.append(f"{name}: not scored by {', '.join(lacking)}")
    for way in ways:
      alike = [run for run in runs if name in run.scores and run.settings == way]
      if len({run.videos_of(name) for run in alike}) > 1:
        lines.append(f"{name}: has different videos in {', '.join(run.name for run in alike)}")
      elif len({run.num_frames(name) for run in alike}) > 1:
        lines.append(f"{name}: has different numbers of frames in {', '.join(run.name for run in alike)}")
  return lines


def _table(name: str, settings: str, videos: frozenset[str], runs: Sequence[RunFolder]) -> SetTable:
  methods = list(dict.fromkeys(method for run in runs for method in run.scores[name]))
  found = [row for run in runs for row in run.scores[name].values()]
  metrics = tuple(metric for metric in found[0] if all(metric in row for row in found)) if found else ()
  rows: dict[str, dict[str, dict[str, Cell]]] = {}
  for method in methods:
    having = [run for run in runs if method in run.scores[name]]
    rows[method] = {
      run.name: {metric: _cell(having[0], run, name, method, metric, videos) for metric in metrics} for run in having
    }
  return SetTable(name, settings, len(videos), tuple(run.name for run in runs), metrics, rows)


def _cell(first: RunFolder, run: RunFolder, set_name: str, method: str, metric: str, videos: frozenset[str]) -> Cell:
  score, before = run.scores[set_name][method][metric], first.scores[set_name][method][metric]
  if run is first or not is_finite(score) or not is_finite(before) or score is None or before is None:
    return Cell(score if is_finite(score) else None)
  ours, theirs = (each.by_video.scores.get(method, {}).get(metric, {}) for each in (run, first))
  shared = [clip for clip in ours if clip in theirs and clip.rpartition("/")[0] in videos]
  differences = np.array([ours[clip] - theirs[clip] for clip in shared], np.float64)
  differences = differences[~np.isnan(differences)]
  if not len(differences):
    return Cell(score, score - before)
  found = summarise([differences])
  half = found.half_width if found.num_clips >= _LEAST_VIDEOS else math.nan
  return Cell(score, score - before, half, found.num_clips, found.num_better, abs(found.mean) > half)


def comparison_csv(tables: Sequence[SetTable]) -> str:
  """Returns a row for each set, way of scoring, method, run and metric."""
  rows: list[list[object]] = [
    ["set", "settings", "method", "run", "metric", "score", "difference", "half_width", "videos", "higher_in"]
  ]
  for table in tables:
    for method, by_run in table.rows.items():
      for run, cells in by_run.items():
        for metric, cell in cells.items():
          numbers = [cell.score, cell.difference, cell.half_width]
          texts = ["" if x is None or math.isnan(x) else f"{x:.6f}" for x in numbers]
          counts = [cell.videos, cell.better] if cell.difference is not None else ["", ""]
          rows.append([table.name, table.settings, method, run, metric, *texts, *counts])
  return csv_text(rows)
