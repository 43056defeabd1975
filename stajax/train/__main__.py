"""Trains the networks of a configuration: runs the stages that are not done yet, in order, and ends with the report.

  stajax train --config configs/X.py [--workdir DIR] [--init NAME=FILE] [overrides such as --sta.steps 100]

Training resumes exactly where it was stopped; what was damaged since is named, and `--redo STAGE` makes it again.
`--config FILE --help` lists every field that can be overridden;
`--init` names a file of trained weights for `visual` or `sound`, and may be repeated.
Exit codes: 0 all is done, 1 training failed, 2 the configuration or the data cannot be used, 70 an unexpected error,
75 after SIGTERM (the step is saved, and the same command goes on), 130 after Ctrl-C.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from stajax import cli, runtime, screen
from stajax import config as configuration
from stajax.runtime import memory, processes
from stajax.train.scale_batch import scale_batches

PROGRAM = "stajax train"


@dataclass(frozen=True)
class Arguments(cli.ConfigArguments):
  """The options of `stajax train` that are not fields of the configuration."""

  workdir: Path | None = None
  """The folder for everything that training writes; runs/NAME by default."""
  redo: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
  """A stage to do again, such as one whose files were damaged. May be repeated. What was made from it is made again,
  too, if it comes out differently."""
  distributed: bool = False
  """This is one of several hosts that train together."""
  scale_batch: int = 1
  """Train with batches so many times larger, as many times fewer steps, a higher rate and a warm-up, to fill many
  devices. The factor belongs to the configuration of a work folder."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  argv = list(sys.argv[1:] if argv is None else argv)
  return cli.run(PROGRAM, lambda: _main(argv), errors=(), reports=not processes.is_worker())


def _main(argv: Sequence[str]) -> int:
  arguments, config = cli.parse_with_config(PROGRAM, Arguments, argv, __doc__)
  config = scale_batches(config, arguments.scale_batch)
  if arguments.distributed and not processes.is_worker():
    return processes.supervise(PROGRAM, "stajax.train", argv)
  return run(config, arguments.workdir or Path("runs") / config.name, arguments.distributed, arguments.redo)


def run(config: configuration.Config, workdir: Path, distributed: bool = False, redo: Sequence[str] = ()) -> int:
  """Trains, and prints a line at the end; returns the exit code of `main`."""
  memory.keep_freed_memory()  # before there are threads, which would have pools of their own
  runtime.configure()

  def command() -> int:
    return cli.run(PROGRAM, lambda: _run(config, workdir, redo), errors=(), reports=not distributed)

  if not distributed:
    return command()
  processes.join_processes()
  return processes.run_together(PROGRAM, command, cli.report)


def _run(config: configuration.Config, workdir: Path, redo: Sequence[str]) -> int:
  with cli.ended_by_interrupts(PROGRAM):
    from stajax.train.loop import Stopped, TrainingError
    from stajax.train.stages import runner
  try:
    screen.say(runner.run_all(config, workdir, redo))
  except TrainingError as error:
    return cli.fail(PROGRAM, str(error), code=1)
  except Stopped as error:
    return cli.fail(PROGRAM, str(error), code=cli.STOPPED)
  return 0


if __name__ == "__main__":
  sys.exit(main())
