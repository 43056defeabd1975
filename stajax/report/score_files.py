"""Writes an evaluation as files for programs: `scores.json`, `evaluation.json` and `per_video.csv`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import stajax
from stajax.files import make_folder, write_json, write_text
from stajax.files.names import csv_text
from stajax.report.senses import sets_of
from stajax.report.tables import Scores
from stajax.report.uncertainty import bootstrap_intervals, paired_tests, shares
from stajax.scoring.baselines import CENTRE_SIGMA
from stajax.scoring.protocol import SPLITS, STEP
from stajax.scoring.protocols import PROTOCOLS
from stajax.scoring.results import Evaluation, VideoScores
from stajax.scoring.viewers import INTER_OBSERVER

STAVIS_NOTES = (
  "The score of a video is the mean over its frames, and that of a set is the mean over all rows of the test lists, so "
  "long videos do not weigh more.",
  "The other pixels of s-AUC are those fixated in other frames of the same video.",
  "For the constant map `uniform`, AUC-J is about 0.5 (ties are broken at random), and the other metrics are not "
  "defined (null).",
)
NOTES = (
  f"The baseline `centre` is a Gaussian with a standard deviation of {CENTRE_SIGMA} of the frame's width and height; "
  "`uniform` is a constant map.",
)
SYNTHETIC_NOTE = "synthetic: rendered clips with sampled viewers, not eye tracking."


def write_scores(evaluation: Evaluation, about: Mapping[str, Any], out: str | Path) -> Scores:
  """Writes `scores.json`, `evaluation.json` and `per_video.csv`, each atomically.

  Args:
    evaluation: The scores.
    about: The content of `evaluation.json`, which `describe` returned.
    out: The folder for the files; it is made if it is missing.

  Returns:
    What `scores.json` holds.
  """
  out = Path(out)
  make_folder(out)
  scores = _finite(evaluation)
  write_text(out / "per_video.csv", per_video_csv(evaluation))
  if tests := about.get("paired_tests"):
    write_text(out / "paired_tests.csv", paired_tests_csv(tests))
  if intervals := about.get("intervals"):
    write_text(out / "intervals.csv", intervals_csv(scores, intervals, about.get("shares", {})))
  write_json(out / "evaluation.json", about)
  write_json(out / "scores.json", scores)
  return scores


def _finite(evaluation: Evaluation) -> Scores:
  """Returns the scores of all sets, None where undefined."""
  return {
    name: {
      method: {metric: None if math.isnan(value) else value for metric, value in row.items()}
      for method, row in methods.items()
    }
    for name, methods in evaluation.set_scores().items()
  }


def describe(
  evaluation: Evaluation,
  notes: Sequence[str] = (),
  fold_lists: Sequence[Path] = (),
  skipped: Sequence[tuple[str, str, str]] = (),
) -> dict[str, Any]:
  """Returns the content of `evaluation.json`: protocol, settings, map sizes, frames and videos scored and left out.

  Args:
    evaluation: The scores.
    notes: Lines for people, which are shown on the page too.
    fold_lists: The test lists that were used.
    skipped: The (database, video, reason) of videos that the tree's reader skipped, beside those of the evaluation.
  """
  sets, settings = evaluation.sets(), evaluation.settings
  synthetic = [SYNTHETIC_NOTE] if any(video.database == "synthetic" for video in evaluation.videos) else []
  return {
    "protocol": settings.protocol,
    "protocol_about": PROTOCOLS[settings.protocol].about,
    "stajax": stajax.__version__,
    "seed": settings.seed,
    "s_auc_splits": SPLITS,
    "s_auc_step": STEP,
    "stride": settings.stride,
    "first_frame": settings.first_frame,
    "nan_policy": settings.nan_policy,
    "sets": {name: _describe_set(evaluation, videos) for name, videos in sets.items()},
    "groups": {
      name: sorted({video.name for video in videos}) for name, videos in sets_of(evaluation).items() if "/" in name
    },
    "map_sizes_height_width": evaluation.map_sizes,
    "fold_lists": [path.name for path in fold_lists],
    "skipped": [
      {"database": database, "video": video, "reason": reason}
      for database, video, reason in (*skipped, *evaluation.skipped)
    ],
    "notes": [*synthetic, *notes, *_protocol_notes(settings.protocol), *NOTES],
  }


def _protocol_notes(name: str) -> Sequence[str]:
  return STAVIS_NOTES if name == "stavis" else [f"protocol {name}: {PROTOCOLS[name].about}"]


def _describe_set(evaluation: Evaluation, videos: list[VideoScores]) -> dict[str, Any]:
  return {
    "videos": len({(video.database, video.name) for video in videos}),
    "list_rows": sum(video.entries for video in videos),
    "frames": sum(len(video.frames) for video in videos),
    "frames_without_map": sum(video.num_requested - len(video.frames) for video in videos),
    "methods": {
      method: {metric: _count_frames(evaluation, videos, method, metric) for metric in evaluation.settings.metrics}
      for method in evaluation.methods
    },
  }


def _count_frames(evaluation: Evaluation, videos: list[VideoScores], method: str, metric: str) -> dict[str, int]:
  """Counts the frames, and the videos, that have a score and that have none."""
  members = [video for video in videos if method in video.scores]
  values = np.concatenate([video.scores[method][metric] for video in members] or [np.empty(0)])
  undefined = int(np.isnan(values).sum())
  count_as_zero = evaluation.settings.nan_policy == "zero"
  return {
    "scored": len(values) - (0 if count_as_zero else undefined),
    "dropped": 0 if count_as_zero else undefined,
    "counted_as_zero": undefined if count_as_zero else 0,
    "videos_dropped": sum(math.isnan(evaluation.video_score(video, method, metric)) for video in members),
  }


def add_uncertainty(about: dict[str, Any], evaluation: Evaluation) -> None:
  """Adds `intervals`, `paired_tests` and, where viewers are compared, `shares` to what `describe` returned."""
  about["intervals"] = bootstrap_intervals(evaluation)
  about["paired_tests"] = paired_tests(evaluation)
  if INTER_OBSERVER in evaluation.methods:
    about["shares"] = shares(_finite(evaluation))


def paired_tests_csv(tests: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
  """Returns a row for each set, metric and pair of methods, see `uncertainty.paired_tests`."""
  table: list[list[object]] = [
    ["set", "metric", "first", "second", "videos", "difference", "low", "high", "better", "p_holm"]
  ]
  for name, rows in tests.items():
    for row in rows:
      low, high = row["interval"] or ("", "")
      numbers = [f"{x:.6g}" if x != "" else "" for x in (row["difference"], low, high)]
      names = [row["metric"], row["first"], row["second"], row["videos"]]
      table.append([name, *names, *numbers, row["better"], f"{row['p']:.4g}"])
  return csv_text(table)


def intervals_csv(
  scores: Scores,
  intervals: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]],
  shares: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> str:
  """Returns a row for each set, method and metric that has an interval: the score, the interval, and the share."""
  table: list[list[object]] = [["set", "method", "metric", "score", "low", "high", "share"]]
  for name, methods in intervals.items():
    for method, metrics in methods.items():
      for metric, (low, high) in metrics.items():
        share = shares.get(name, {}).get(method, {}).get(metric)
        numbers = [f"{x:.6f}" if x is not None else "" for x in (scores[name][method][metric], low, high, share)]
        table.append([name, method, metric, *numbers])
  return csv_text(table)


def per_video_csv(evaluation: Evaluation) -> str:
  """Returns a row for each video and method: database, video, split, list_rows, frames, method, then the metrics."""
  table: list[list[object]] = [
    ["database", "video", "split", "list_rows", "frames", "method", *evaluation.settings.metrics]
  ]
  for video in evaluation.videos:
    for method in video.scores:
      values = [evaluation.video_score(video, method, metric) for metric in evaluation.settings.metrics]
      cells = ["" if math.isnan(value) else f"{value:.6f}" for value in values]
      split = video.split or "all"
      table.append([video.database, video.name, split, video.entries, len(video.frames), method, *cells])
  return csv_text(table)
