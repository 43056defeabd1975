"""How sure the scores of sets are: bootstrap intervals, tests between methods, and shares of what is possible.

Videos are what is sampled: the frames of one are alike. In intervals each video weighs what it weighs in the score: by
the list rows that name it or, where a protocol averages over frames, by its frames. Tests compare video by video.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stajax.report.tables import Scores
from stajax.scoring.protocol import metric_of
from stajax.scoring.protocols import PROTOCOLS
from stajax.scoring.results import Evaluation, VideoScores
from stajax.scoring.viewers import INTER_OBSERVER

RESAMPLES = 9999
CONFIDENCE = 0.95
_SEED = 0
_BATCH = 2000
"""How many resamples are in memory at a time."""
_LEAST_VIDEOS = 3
"""With fewer videos there are no intervals and no tests."""

Intervals = dict[str, dict[str, dict[str, tuple[float, float]]]]
"""{set: {method: {metric: (low, high)}}}"""


def video_parts(
  evaluation: Evaluation, videos: Sequence[VideoScores], method: str, metric: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the sums (n,) and the weights (n,) of the videos of one set, whose ratio of sums is the set's score."""
  parts: dict[tuple[str, str], list[float]] = {}
  by_frames = PROTOCOLS[evaluation.settings.protocol].average == "frames"
  for video in videos:
    if method not in video.scores or math.isnan(mean := evaluation.video_score(video, method, metric)):
      continue
    frames = video.scores[method][metric]
    number = frames.size if evaluation.settings.nan_policy == "zero" else np.count_nonzero(~np.isnan(frames))
    weight = video.entries * (int(number) if by_frames else 1)
    total = parts.setdefault((video.database, video.name), [0.0, 0.0])
    total[0] += mean * weight
    total[1] += weight
  sums, weights = np.array(list(parts.values()), np.float64).reshape(-1, 2).T
  return sums, weights


def video_means(evaluation: Evaluation, videos: Sequence[VideoScores], method: str, metric: str) -> dict[str, float]:
  """Returns {video: its mean score} of one set, over its splits where they differ; without undefined scores."""
  values: dict[str, list[float]] = {}
  for video in videos:
    if method in video.scores and not math.isnan(value := evaluation.video_score(video, method, metric)):
      values.setdefault(f"{video.database}/{video.name}", []).append(value)
  return {name: float(np.mean(found)) for name, found in values.items()}


def bootstrap_intervals(evaluation: Evaluation) -> Intervals:
  """Returns 95% intervals of the scores (BCa, over videos), for each set, method and metric with at least 3 videos."""
  intervals: Intervals = {}
  for name, videos in evaluation.sets().items():
    for method in evaluation.methods:
      for metric in evaluation.settings.metrics:
        sums, weights = video_parts(evaluation, videos, method, metric)
        if (interval := bootstrap_interval(sums, weights)) is not None:
          intervals.setdefault(name, {}).setdefault(method, {})[metric] = interval
  return intervals


def bootstrap_interval(sums: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float] | None:
  """Returns the interval of Σ sums / Σ weights, (n,) each; None if there are fewer than 3 or all ratios are equal.

  Without weights each is 1: the interval of the mean.
  """
  import scipy.stats  # takes half a second to load, and only evaluations need it

  weights = np.ones(sums.shape) if weights is None else weights
  if sums.size < _LEAST_VIDEOS or np.ptp(sums / weights) == 0:
    return None

  def mean(sums: np.ndarray, weights: np.ndarray, axis: int = -1) -> np.ndarray:
    return sums.sum(axis=axis) / weights.sum(axis=axis)

  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # BCa warns where it is not defined, and gives NaN
    found = scipy.stats.bootstrap(
      (sums, weights),
      mean,
      n_resamples=RESAMPLES,
      batch=_BATCH,
      paired=True,
      confidence_level=CONFIDENCE,
      rng=np.random.default_rng(_SEED),
    ).confidence_interval
  return None if math.isnan(found.low + found.high) else (float(found.low), float(found.high))


def paired_tests(evaluation: Evaluation) -> dict[str, list[dict[str, Any]]]:
  """Compares each pair of methods video by video.

  Returns:
    For each set a row for every pair and metric: `first`, `second`, `metric`, `videos`, `difference` (mean of first −
    second), `interval` (bootstrap), `better` (in how many videos the first is), and `p` of Wilcoxon's signed-rank test,
    two-sided, by Holm's correction over all rows of the set.
  """
  tests: dict[str, list[dict[str, Any]]] = {}
  for name, videos in evaluation.sets().items():
    rows: list[dict[str, Any]] = []
    for metric in evaluation.settings.metrics:
      sign = -1 if metric_of(metric).lower_is_better else 1
      means = {method: video_means(evaluation, videos, method, metric) for method in evaluation.methods}
      methods = [method for method, found in means.items() if found]
      for k, second in enumerate(methods):
        for first in methods[k + 1 :]:
          both = sorted(means[first].keys() & means[second].keys())
          differences = np.array([means[first][video] - means[second][video] for video in both])
          if differences.size < _LEAST_VIDEOS or not differences.any():
            continue
          rows.append({
            "first": first,
            "second": second,
            "metric": metric,
            "videos": len(both),
            "difference": float(differences.mean()),
            "interval": bootstrap_interval(differences),
            "better": int((sign * differences > 0).sum()),
            "p": _wilcoxon(differences),
          })  # fmt: skip
    for row, p in zip(rows, _holm([row["p"] for row in rows]), strict=True):
      row["p"] = p
    if rows:
      tests[name] = rows
  return tests


def _wilcoxon(differences: np.ndarray) -> float:
  import scipy.stats

  _, p = scipy.stats.wilcoxon(differences)
  return float(np.asarray(p))


def _holm(values: Sequence[float]) -> list[float]:
  """Returns p-values corrected for their number by Holm's step-down method."""
  corrected, highest = [0.0] * len(values), 0.0
  for rank, k in enumerate(np.argsort(values, kind="stable").tolist()):
    highest = max(highest, min(1.0, values[k] * (len(values) - rank)))
    corrected[k] = highest
  return corrected


def shares(scores: Scores) -> dict[str, dict[str, dict[str, float]]]:
  """Returns how far each method is on the way from the centre baseline (0) to inter-observer (1), where both are known.

  A metric is left out where viewers do not predict each other better than the centre does.
  """
  found: dict[str, dict[str, dict[str, float]]] = {}
  for name, methods in scores.items():
    low, high = methods.get("centre", {}), methods.get(INTER_OBSERVER, {})
    for method, row in methods.items():
      for metric, value in row.items():
        start, end = low.get(metric), high.get(metric)
        if value is not None and start is not None and end is not None and end > start:
          found.setdefault(name, {}).setdefault(method, {})[metric] = (value - start) / (end - start)
  return found


def format_uncertainty(
  about: Mapping[str, Any], metrics: Sequence[str]
) -> list[tuple[str, list[tuple[str, list[str]]]]]:
  """Returns (set, rows of (method, cells)) for the page: each interval, and the share behind it where it is known."""
  tables = []
  for name, methods in about["intervals"].items():
    share = about.get("shares", {}).get(name, {})
    rows = []
    for method, found in methods.items():
      cells = []
      for metric in metrics:
        text = f"{found[metric][0]:.3f} to {found[metric][1]:.3f}" if metric in found else "–"
        part = share.get(method, {}).get(metric)
        cells.append(text if part is None else f"{text} ({100 * part:.0f}%)")
      rows.append((method, cells))
    tables.append((name, rows))
  return tables


def format_tests(
  about: Mapping[str, Any], metrics: Sequence[str]
) -> list[tuple[str, list[tuple[str, str, int, list[str]]]]]:
  """Returns (set, rows of (first method, second, videos, cells)) for the page: each difference, and its p."""
  tables = []
  for name, tests in about["paired_tests"].items():
    pairs: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for row in tests:
      pairs.setdefault((row["first"], row["second"]), {})[row["metric"]] = row
    rows = []
    for (first, second), found in pairs.items():
      texts = {
        metric: f"{row['difference']:+.3f} (p {row['p']:.2g})".replace("-", "−", 1) for metric, row in found.items()
      }
      videos = max(row["videos"] for row in found.values())
      rows.append((first, second, videos, [texts.get(metric, "–") for metric in metrics]))
    tables.append((name, rows))
  return tables
