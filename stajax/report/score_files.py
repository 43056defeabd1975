"""An evaluation as files for programs, `scores.json`, `evaluation.json` and `per_video.csv`, and as lines of text."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from stajax.files import write_json, write_text
from stajax.report.names import title_of
from stajax.scoring.baselines import CENTRE_SIGMA
from stajax.scoring.protocol import METRICS, SPLITS, STEP
from stajax.scoring.results import Evaluation, VideoScores

Scores = dict[str, dict[str, dict[str, float | None]]]
"""{set: {method: {metric: value, None where undefined}}}"""

NOTES = (
  "A frame's score → mean over the video's frames → mean over all rows of the test lists; never weighted by frames.",
  "s-AUC's other pixels are those fixated in the same video's other frames.",
  f"centre: a Gaussian with a deviation of {CENTRE_SIGMA} of the frame's width and height. uniform: a constant map, "
  "for which AUC-J is about 0.5 (ties are broken at random) and the other metrics are not defined (null).",
)
SYNTHETIC_NOTE = "synthetic: rendered clips with sampled viewers, not eye tracking."


def write_scores(evaluation: Evaluation, about: Mapping, out: str | Path) -> Scores:
  """Writes `scores.json`, `evaluation.json` and `per_video.csv` into `out`, each atomically.

  Args:
    about: what `describe` returned, the content of evaluation.json.

  Returns:
    What `scores.json` holds: {set: {method: {metric: value, None where undefined}}}.
  """
  out = Path(out)
  out.mkdir(parents=True, exist_ok=True)
  scores = {
    name: {method: {metric: _null(value) for metric, value in row.items()} for method, row in methods.items()}
    for name, methods in evaluation.set_scores().items()
  }
  write_text(out / "per_video.csv", per_video_csv(evaluation))
  write_json(out / "evaluation.json", about)
  write_json(out / "scores.json", scores)
  return scores


def describe(
  evaluation: Evaluation,
  notes: Sequence[str] = (),
  fold_lists: Sequence[Path] = (),
  skipped: Sequence[tuple[str, str, str]] = (),
) -> dict:
  """What `evaluation.json` holds: protocol, settings, frames scored and dropped, map sizes, what was left out.

  Args:
    notes: lines for people; they are shown on the page too.
    fold_lists: the test lists that were used.
    skipped: (database, video, reason) of videos that the tree's reader left out, beside those of the evaluation.
  """
  sets = evaluation.sets()
  synthetic = [SYNTHETIC_NOTE] if any(video.database == "synthetic" for video in evaluation.videos) else []
  return {
    "protocol": "stavis",
    "stajax": _version(),
    "seed": evaluation.settings.seed,
    "s_auc_splits": SPLITS,
    "s_auc_step": STEP,
    "stride": evaluation.settings.stride,
    "first_frame": evaluation.settings.first_frame,
    "nan_policy": evaluation.settings.nan_policy,
    "sets": {name: _describe_set(evaluation, videos) for name, videos in sets.items()},
    "groups": {name: sorted({video.name for video in sets[name]}) for name in evaluation.groups if name in sets},
    "map_sizes_height_width": evaluation.map_sizes,
    "fold_lists": [path.name for path in fold_lists],
    "skipped": [
      {"database": database, "video": video, "reason": reason}
      for database, video, reason in (*skipped, *evaluation.skipped)
    ],
    "notes": [*synthetic, *notes, *NOTES],
  }


def _describe_set(evaluation: Evaluation, videos: list[VideoScores]) -> dict:
  frames: dict[str, dict[str, dict[str, int]]] = {}
  for method in evaluation.methods:
    members = [video for video in videos if method in video.scores]
    for metric in METRICS:
      values = np.concatenate([video.scores[method][metric] for video in members] or [np.empty(0)])
      undefined = int(np.isnan(values).sum())
      kept = evaluation.settings.nan_policy == "zero"
      frames.setdefault(method, {})[metric] = {
        "scored": len(values) - (0 if kept else undefined),
        "dropped": 0 if kept else undefined,
        "counted_as_zero": undefined if kept else 0,
        "videos_dropped": sum(math.isnan(evaluation.video_score(video, method, metric)) for video in members),
      }
  return {
    "videos": len({(video.database, video.name) for video in videos}),
    "list_rows": sum(video.entries for video in videos),
    "frames": sum(len(video.frames) for video in videos),
    "frames_without_map": sum(video.num_asked - len(video.frames) for video in videos),
    "methods": frames,
  }


def per_video_csv(evaluation: Evaluation) -> str:
  """One row a video and method: database, video, split, list_rows, frames, method, then the metrics."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(["database", "video", "split", "list_rows", "frames", "method", *METRICS])
  for video in evaluation.videos:
    for method in video.scores:
      values = [evaluation.video_score(video, method, metric) for metric in METRICS]
      cells = ["" if math.isnan(value) else f"{value:.6f}" for value in values]
      split = video.split or "all"
      writer.writerow([video.database, video.name, split, video.entries, len(video.frames), method, *cells])
  return text.getvalue()


def format_table(scores: Scores) -> str:
  """The scores as lines of text."""
  width = max((len(method) for methods in scores.values() for method in methods), default=0)
  lines = []
  for name, methods in scores.items():
    lines.append(f"{name}")
    lines.append(" " * (width + 4) + "".join(f"{title_of(metric):>8}" for metric in METRICS))
    for method, row in methods.items():
      lines.append(f"  {method:<{width + 2}}" + "".join(f"{format_score(row[metric]):>8}" for metric in METRICS))
  return "\n".join(lines)


def format_score(value: float | None) -> str:
  """Three decimals; a dash where the score is not defined."""
  return "–" if value is None else f"{round(value, 3) + 0.0:.3f}"  # + 0.0: never "-0.000"


def _null(value: float) -> float | None:
  return None if math.isnan(value) else value


def _version() -> str:
  try:
    return version("stajax")
  except PackageNotFoundError:
    return "not installed"
