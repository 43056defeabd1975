"""Puts several runs beside each other: scores with differences, learning curves in one picture, the same frames.

  stajax report RUN RUN … --out DIR

A RUN is the work folder of `stajax train` or the folder that `stajax evaluate --out` wrote. It writes `index.html`, one
page without other files, and `comparison.csv`. Differences are to the first run. Runs that were scored on other videos
or in another way are told apart, on the page and by a line, and never compared.
Exit codes: 0 done, 2 bad input.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from stajax import cli, screen
from stajax.files import write_text

PROGRAM = "stajax report"


@dataclass(frozen=True)
class CompareArguments:
  """The options of `stajax report`."""

  runs: tyro.conf.Positional[tuple[Path, ...]]
  """The folders of at least two runs; differences are to the first."""
  out: Path
  """The folder for index.html and comparison.csv."""
  names: tuple[str, ...] = ()
  """What the runs are called, in their order; by default their folders' names."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  arguments = cli.parse(PROGRAM, CompareArguments, argv, description=__doc__)
  return cli.run(PROGRAM, lambda: compare(arguments))


def compare(arguments: CompareArguments) -> int:
  """Writes the comparison; returns the exit code.

  Raises:
    ValueError: An argument is not a run, or there are too few; one line.
  """
  from stajax.report.compare import compare_runs, comparison_csv
  from stajax.report.compare_page import write_comparison
  from stajax.report.run_folder import name_runs, read_run

  paths = arguments.runs
  if len(paths) < 2:
    raise ValueError(f"found {len(paths)} run{'s' if len(paths) != 1 else ''}, expected at least two")
  names = list(arguments.names) or name_runs(paths)
  if len(names) != len(paths) or len(set(names)) < len(names):
    raise ValueError(f"--names {' '.join(names)}: expected {len(paths)} different names")
  runs = [read_run(path, name) for path, name in zip(paths, names)]
  tables, warnings = compare_runs(runs)
  cli.make_out_folder("--out", arguments.out)
  write_text(arguments.out / "comparison.csv", comparison_csv(tables))
  write_comparison(arguments.out, runs, tables, warnings)
  for line in warnings:
    screen.say(f"note: {line}", is_about_a_fault=True)
  shared = sum(len(table.runs) > 1 for table in tables)
  screen.say(f"{len(runs)} runs, {shared} sets that several were scored on alike; see {arguments.out / 'index.html'}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
