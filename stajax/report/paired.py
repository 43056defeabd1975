"""Compares methods clip by clip over several runs: python -m stajax.report.paired REPORT… [--pairs A:B …].

A report is a folder with `per_video.csv` and `evaluation.json`, as `stajax train` and `stajax evaluate` write it. Of
each pair the difference A − B is taken for every clip of every run; the table shows its mean, its standard error over
the clips, the mean of each run, and in how many clips A is better.
"""

import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from stajax.report.names import title_of
from stajax.scoring.protocol import METRICS

PAIRS = (
  "scam:scam_coarse",
  "scam:scam_average",
  "scam:row_09@synthetic/foreign",
  "final:final_no_switch@synthetic/foreign",
  "scam_plus:scam",
  "final:sta",
)
"""What the paper claims of its parts: fine stage, selection, switch (where sound is foreign), SCAM+, final fusion."""


@dataclass(frozen=True)
class Arguments:
  """Compares methods clip by clip over several runs; prints a table in Markdown."""

  reports: tyro.conf.Positional[tuple[Path, ...]]
  """Report folders, or work folders that contain one."""
  pairs: tuple[str, ...] = PAIRS
  """A:B, or A:B@SET for the clips of one set of the report."""
  metrics: tuple[str, ...] = ("nss", "cc")
  """Of the report's metrics."""


@dataclass(frozen=True)
class Difference:
  """A − B of one pair and metric: mean and standard error over all clips of all runs, and how often A is better.

  Attributes:
    run_means: of each run.
    clips: number of differences; clips in which either is undefined are left out.
    better: of these, those with A > B.
  """

  mean: float
  error: float
  run_means: tuple[float, ...]
  clips: int
  better: int


def read_report(folder: Path) -> tuple[dict[str, dict[str, dict[str, float]]], dict[str, list[str]]]:
  """The scores {method: {metric: {clip: value}}} of a report, and the clips of its sets.

  Raises:
    ValueError: not a report.
  """
  folder = folder / "report" if (folder / "report" / "per_video.csv").is_file() else folder
  scores: dict[str, dict[str, dict[str, float]]] = {}
  path = folder / "per_video.csv"
  try:
    with path.open(newline="", encoding="utf-8") as file:
      for row in csv.DictReader(file):
        clip = f"{row['database']}/{row['video']}/{row['split']}"
        for metric in METRICS:
          value = float(row[metric]) if row[metric] else math.nan
          scores.setdefault(row["method"], {}).setdefault(metric, {})[clip] = value
    groups = json.loads((folder / "evaluation.json").read_text(encoding="utf-8")).get("groups", {})
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(f"{path}: not a report of this version ({type(error).__name__}: {error})") from None
  return scores, groups


def compare(reports: Sequence[tuple[Mapping, Mapping]], pair: str, metric: str) -> Difference:
  """The difference of one pair, A:B or A:B@SET.

  Raises:
    ValueError: a report lacks the method, the metric or the set.
  """
  names, _, group = pair.partition("@")
  better, _, worse = names.partition(":")
  runs = []
  for scores, groups in reports:
    unknown = [name for name in (better, worse) if metric not in scores.get(name, {})]
    if unknown or (group and group not in groups):
      found = ", ".join(groups) if not unknown else ", ".join(scores)
      raise ValueError(f"{pair}: no {unknown[0] if unknown else group!r} with {metric} in the report; found {found}")
    first, second = scores[better][metric], scores[worse][metric]
    clips = [clip for clip in first if clip in second and (not group or clip.split("/")[1] in groups[group])]
    differences = np.array([first[clip] - second[clip] for clip in clips])
    runs.append(differences[~np.isnan(differences)])
  together = np.concatenate(runs)
  error = float(together.std(ddof=1) / math.sqrt(len(together))) if len(together) > 1 else math.nan
  means = tuple(float(run.mean()) if len(run) else math.nan for run in runs)
  return Difference(float(together.mean()) if len(together) else math.nan, error, means, len(together),
                    int(np.sum(together > 0)))  # fmt: skip


def format_table(reports: Sequence[tuple[Mapping, Mapping]], pairs: Sequence[str], metrics: Sequence[str]) -> str:
  """All differences as a table in Markdown."""
  lines = ["| A − B | metric | mean ± standard error | of each run | A better |", "|---|---|---|---|---|"]
  for pair in pairs:
    names, _, group = pair.partition("@")
    words = " − ".join(title_of(name) for name in names.split(":")) + (f" ({group})" if group else "")
    for metric in metrics:
      found = compare(reports, pair, metric)
      runs = ", ".join(f"{mean:+.3f}" for mean in found.run_means)
      share = f"{found.better} of {found.clips} clips"
      lines.append(f"| {words} | {title_of(metric)} | {found.mean:+.3f} ± {found.error:.3f} | {runs} | {share} |")
  return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  arguments = tyro.cli(Arguments, args=argv, prog="stajax.report.paired", description=__doc__)
  try:
    print(format_table([read_report(path) for path in arguments.reports], arguments.pairs, arguments.metrics))
  except ValueError as error:
    print(f"stajax.report.paired: {error}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main())
