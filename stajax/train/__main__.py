"""python -m stajax.train --config configs/X.py [--workdir DIR] [--init NAME=FILE] [overrides such as --sta.steps 100]

Runs the stages that are not done yet, in order, resumes exactly where it was stopped, and ends with the report.
`--config FILE --help` lists every field that can be overridden. Exit codes: 0 done, 1 training failed, 2 bad input.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  from stajax import config as configuration

  # Two parsers in a row: the fields that can be overridden are known only when the configuration file is read.
  parser = argparse.ArgumentParser("stajax train", description=__doc__, add_help=False, allow_abbrev=False)
  parser.add_argument("--config", type=Path)
  parser.add_argument("--workdir", type=Path)
  parser.add_argument("--distributed", action="store_true")
  arguments, overrides = parser.parse_known_args(argv)
  if arguments.config is None:
    print(__doc__)
    print("  --workdir DIR    where everything goes; runs/NAME by default\n  --distributed    one of several hosts")
    print("  --init NAME=FILE trained weights for `visual` or `sound` of the networks; may be repeated")
    return 0 if {"-h", "--help"} & set(overrides) else 2
  try:
    config = configuration.override(configuration.load(arguments.config), overrides)
  except configuration.ConfigError as error:
    print(f"stajax train: {error}", file=sys.stderr)
    return 2
  return run(config, arguments.workdir or Path("runs") / config.name, arguments.distributed)


def run(config: "configuration.Config", workdir: Path, distributed: bool = False) -> int:  # noqa: F821
  """Trains; prints a line at the end. Returns the exit code of `main`."""
  from stajax import runtime

  runtime.configure()
  import jax

  if distributed:
    # SLURM, Open MPI and Cloud TPU are detected; elsewhere the launcher says it (see `launch/`).
    number, index = os.environ.get("JAX_NUM_PROCESSES"), os.environ.get("JAX_PROCESS_ID")
    jax.distributed.initialize(
      num_processes=None if number is None else int(number), process_id=None if index is None else int(index)
    )
  from stajax.config import ConfigError
  from stajax.data.shards import RecordError
  from stajax.train import stages
  from stajax.train.loop import TrainingError
  from stajax.weights.store import WeightsError

  try:
    print(stages.run_all(config, workdir))
  except (ConfigError, RecordError, WeightsError, stages.StageError) as error:
    print(f"stajax train: {error}", file=sys.stderr)
    return 2
  except TrainingError as error:
    print(f"stajax train: {error}", file=sys.stderr)
    return 1
  return 0


if __name__ == "__main__":
  sys.exit(main())
