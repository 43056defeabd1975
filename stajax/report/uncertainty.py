"""How sure the means over videos are: bootstrap intervals, tests between methods, and shares of what is possible.

Videos are what is sampled: the frames of one are alike. A video that several list rows name counts as one here.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stajax.report.tables import Scores
from stajax.scoring.protocol import METRICS
from stajax.scoring.results import Evaluation, VideoScores
from stajax.scoring.viewers import INTER_OBSERVER

RESAMPLES = 9999
CONFIDENCE = 0.95
_SEED = 0
_LEAST_VIDEOS = 3
"""With fewer videos there are no intervals and no tests."""

Intervals = dict[str, dict[str, dict[str, tuple[float, float]]]]
"""{set: {method: {metric: (low, high)}}}"""


def video_means(evaluation: Evaluation, videos: Sequence[VideoScores], method: str, metric: str) -> dict[str, float]:
  """Returns {video: its mean score} of one set, over its splits where they differ; without undefined scores."""
  values: dict[str, list[float]] = {}
  for video in videos:
    if method in video.scores and not math.isnan(value := evaluation.video_score(video, method, metric)):
      values.setdefault(f"{video.database}/{video.name}", []).append(value)
  return {name: float(np.mean(found)) for name, found in values.items()}


def bootstrap_intervals(evaluation: Evaluation) -> Intervals:
  """Returns 95% intervals of the mean over videos (BCa), for every set, method and metric with at least 3 videos."""
  intervals: Intervals = {}
  for name, videos in evaluation.sets().items():
    for method in evaluation.methods:
      for metric in METRICS:
        values = np.array(list(video_means(evaluation, videos, method, metric).values()))
        if (interval := bootstrap_interval(values)) is not None:
          intervals.setdefault(name, {}).setdefault(method, {})[metric] = interval
  return intervals


def bootstrap_interval(values: np.ndarray) -> tuple[float, float] | None:
  """Returns the interval of the mean of values (n,), or None if they are fewer than 3 or all equal."""
  import scipy.stats  # takes half a second to load, and only evaluations need it

  if values.size < _LEAST_VIDEOS or np.ptp(values) == 0:
    return None
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # BCa warns where it is not defined, and gives NaN
    found = scipy.stats.bootstrap(
      (values,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, rng=np.random.default_rng(_SEED)
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
    for metric in METRICS:
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
            "better": int((differences > 0).sum()),
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


def format_uncertainty(about: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, list[str]]]]]:
  """Returns (set, rows of (method, cells)) for the page: each interval, and the share behind it where it is known."""
  tables = []
  for name, methods in about["intervals"].items():
    share = about.get("shares", {}).get(name, {})
    rows = []
    for method, metrics in methods.items():
      cells = []
      for metric in METRICS:
        text = f"{metrics[metric][0]:.3f} to {metrics[metric][1]:.3f}" if metric in metrics else "–"
        part = share.get(method, {}).get(metric)
        cells.append(text if part is None else f"{text} ({100 * part:.0f}%)")
      rows.append((method, cells))
    tables.append((name, rows))
  return tables
