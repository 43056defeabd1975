"""Trains the networks of a configuration: runs the stages that are not done yet, in order, and ends with the report.

  stajax train --config configs/X.py [--workdir DIR] [--init NAME=FILE] [overrides such as --sta.steps 100]

Training resumes exactly where it was stopped. `--config FILE --help` lists every field that can be overridden;
`--init` names a file of trained weights for `visual` or `sound`, and may be repeated.
Exit codes: 0 all is done, 1 training failed, 2 the configuration or the data cannot be used, 75 with --distributed
after SIGTERM (the step is saved, and the same command goes on).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stajax import cli, runtime
from stajax import config as configuration
from stajax.train.scale_batch import scale_batches

PROGRAM = "stajax train"
STOPPED = 75
"""The exit code after SIGTERM: all is saved, and the same command goes on. It is EX_TEMPFAIL of sysexits.h."""


@dataclass(frozen=True)
class Arguments(cli.ConfigArguments):
  """The options of `stajax train` that are not fields of the configuration."""

  workdir: Path | None = None
  """The folder for everything that training writes; runs/NAME by default."""
  distributed: bool = False
  """This is one of several hosts that train together."""
  scale_batch: int = 1
  """Train with batches so many times larger, as many times fewer steps, a higher rate and a warm-up, to fill many
  devices. The factor belongs to the configuration of a work folder."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  try:
    arguments, config = cli.parse_with_config(PROGRAM, Arguments, argv, __doc__)
    config = scale_batches(config, arguments.scale_batch)
  except configuration.ConfigError as error:
    return cli.fail(PROGRAM, error)
  if arguments.distributed and not runtime.is_worker():
    return runtime.supervise(PROGRAM, "stajax.train", sys.argv[1:] if argv is None else argv)
  return run(config, arguments.workdir or Path("runs") / config.name, arguments.distributed)


def run(config: configuration.Config, workdir: Path, distributed: bool = False) -> int:
  """Trains, and prints a line at the end; returns the exit code of `main`."""
  runtime.configure()

  def command() -> int:
    return cli.run(PROGRAM, lambda: _run(config, workdir), errors=(OSError,))

  if not distributed:
    return command()
  runtime.join_processes()
  return runtime.run_together(PROGRAM, command)


def _run(config: configuration.Config, workdir: Path) -> int:
  from stajax.data.shards import RecordError
  from stajax.train.loop import Stopped, TrainingError
  from stajax.train.stages import runner
  from stajax.train.workdir import WorkdirError
  from stajax.weights.store import WeightsError

  try:
    print(runner.run_all(config, workdir))
  except (configuration.ConfigError, RecordError, WeightsError, WorkdirError) as error:
    return cli.fail(PROGRAM, error)
  except TrainingError as error:
    return cli.fail(PROGRAM, str(error), code=1)
  except Stopped as error:
    return cli.fail(PROGRAM, str(error), code=STOPPED)
  return 0


if __name__ == "__main__":
  sys.exit(main())
