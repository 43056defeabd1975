"""Compares methods clip by clip over several runs.

  python -m stajax.report.paired REPORT… [--pairs A:B …]

A report is a folder with `per_video.csv` and `evaluation.json`, as `stajax train` and `stajax evaluate` write it. For
each pair, the difference A − B is taken for every clip of every run. The table, in Markdown, shows the mean, the
standard error over the clips, the mean of each run, and in how many clips A is better.
"""

import csv
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from stajax import cli, screen
from stajax.files import read_json
from stajax.report.names import title_of

PROGRAM = "python -m stajax.report.paired"

PAIRS = (
  "scam:scam_coarse",
  "scam:scam_average",
  "scam:cam_s",
  "scam:cam_st",
  "scam:cam_sa",
  "scam:row_09@synthetic/foreign",
  "final:final_no_switch@synthetic/foreign",
  "scam_plus:scam",
  "final:sta",
  "final:sta_plus_short",
  "final:sta_plus_long",
)
"""What the paper claims about its parts: fine stage, selection, switch (for foreign sound), SCAM+, final fusion."""


@dataclass(frozen=True)
class Arguments:
  """The options of the comparison."""

  reports: tyro.conf.Positional[tuple[Path, ...]]
  """Report folders, or work folders that contain one."""
  pairs: tuple[str, ...] = PAIRS
  """The pairs to compare: A:B, or A:B@SET for the clips of one set of the report."""
  metrics: tuple[str, ...] = ("nss", "cc")
  """The metrics of the report to compare by."""


@dataclass(frozen=True)
class Report:
  """The scores of a run.

  Attributes:
    scores: {method: {metric: {clip: value, NaN where undefined}}}.
    groups: The names of the videos of each set.
  """

  scores: Mapping[str, Mapping[str, Mapping[str, float]]]
  groups: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Difference:
  """The difference A − B of one pair by one metric.

  Attributes:
    mean: The mean over all clips of all runs.
    error: The standard error of the mean.
    run_means: The mean of each run.
    num_clips: How many differences there are; clips in which either score is undefined are left out.
    num_better: In how many of these A > B.
    half_width: Half the width of the 95% interval of the mean, by Student's t; NaN with fewer than two differences.
  """

  mean: float
  error: float
  run_means: tuple[float, ...]
  num_clips: int
  num_better: int

  @property
  def half_width(self) -> float:
    if self.num_clips < 2:
      return math.nan
    from scipy.special import stdtrit  # imported late, as SciPy takes a while to load

    return float(stdtrit(self.num_clips - 1, 0.975)) * self.error


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  arguments = cli.parse(PROGRAM, Arguments, argv, description=__doc__)
  return cli.run(PROGRAM, lambda: print_comparison(arguments))


def print_comparison(arguments: Arguments) -> int:
  """Prints the table of all differences; returns the exit code."""
  reports = [read_report(folder) for folder in arguments.reports]
  screen.say(format_differences(reports, arguments.pairs, arguments.metrics))
  return 0


def read_report(folder: Path) -> Report:
  """Reads a report from its folder, or from the work folder that has it.

  Raises:
    ValueError: There is no report of this version.
  """
  folder = folder / "report" if (folder / "report" / "per_video.csv").is_file() else folder
  scores: dict[str, dict[str, dict[str, float]]] = {}
  path = folder / "per_video.csv"
  try:
    with path.open(newline="", encoding="utf-8") as file:
      reader = csv.DictReader(file)
      metrics = list(reader.fieldnames or ())[6:]  # after database, video, split, list_rows, frames and method
      for row in reader:
        clip = f"{row['database']}/{row['video']}/{row['split']}"
        for metric in metrics:
          value = float(row[metric]) if row[metric] else math.nan
          scores.setdefault(row["method"], {}).setdefault(metric, {})[clip] = value
    groups = read_json(folder / "evaluation.json").get("groups", {})
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(f"{path}: not a report of this version ({type(error).__name__}: {error})") from None
  return Report(scores, groups)


def compare(reports: Sequence[Report], pair: str, metric: str) -> Difference:
  """Compares one pair, A:B or A:B@SET.

  Raises:
    ValueError: A report lacks the method, the metric or the set.
  """
  return summarise([_differences(report, pair, metric) for report in reports])


def summarise(runs: Sequence[np.ndarray]) -> Difference:
  """Returns the difference of a pair from the differences (n,) of the clips of every run."""
  together = np.concatenate(runs)
  error = float(together.std(ddof=1) / math.sqrt(len(together))) if len(together) > 1 else math.nan
  return Difference(_mean(together), error, tuple(map(_mean, runs)), len(together), int(np.sum(together > 0)))


def _differences(report: Report, pair: str, metric: str) -> np.ndarray:
  """Returns the differences of the clips of one run for which both scores are defined."""
  names, _, group = pair.partition("@")
  first, _, second = names.partition(":")
  missing = [name for name in (first, second) if metric not in report.scores.get(name, {})]
  if missing or (group and group not in report.groups):
    found = ", ".join(report.scores if missing else report.groups)
    what = missing[0] if missing else group
    raise ValueError(f"{pair}: no {what!r} with {metric} in the report; found {found}")
  ours, theirs = report.scores[first][metric], report.scores[second][metric]
  members = {f"{group.partition('/')[0]}/{name}" for name in report.groups.get(group, ())}
  clips = [clip for clip in ours if clip in theirs and (not group or clip.rpartition("/")[0] in members)]
  differences = np.array([ours[clip] - theirs[clip] for clip in clips])
  return differences[~np.isnan(differences)]


def _mean(values: np.ndarray) -> float:
  return float(values.mean()) if len(values) else math.nan


def format_differences(reports: Sequence[Report], pairs: Sequence[str], metrics: Sequence[str]) -> str:
  """Returns all differences as a table in Markdown."""
  lines = ["| A − B | metric | mean ± standard error | of each run | A better |", "|---|---|---|---|---|"]
  for pair in pairs:
    names, _, group = pair.partition("@")
    words = " − ".join(title_of(name) for name in names.split(":")) + (f" ({group})" if group else "")
    for metric in metrics:
      found = compare(reports, pair, metric)
      runs = ", ".join(f"{mean:+.3f}" for mean in found.run_means)
      share = f"{found.num_better} of {found.num_clips} clips"
      lines.append(f"| {words} | {title_of(metric)} | {found.mean:+.3f} ± {found.error:.3f} | {runs} | {share} |")
  return "\n".join(lines)


if __name__ == "__main__":
  sys.exit(main())
