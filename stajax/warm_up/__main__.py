"""Compiles the programs of a model before they are needed, so that no `predict` waits for that.

  stajax warm-up [--model DIR] [--student NAME] [--precision TYPE]

Compiled programs are kept in the user's cache ($XDG_CACHE_HOME/stajax/compiled, or $JAX_COMPILATION_CACHE_DIR), for one
kind of machine and one version of JAX. Run it once after an installation, or in the build of a container image.
Exit codes: 0 done, 2 bad input.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from stajax import cli, runtime, screen
from stajax.inference import Precision
from stajax.predict.api import StudentName, load

PROGRAM = "stajax warm-up"


@dataclass(frozen=True)
class Arguments:
  """The options of `stajax warm-up`."""

  model: str | None = None
  """A trained model's folder, the work folder of its training, or the address of a model, https://… or hf://owner/name;
  by default the model that the package comes with."""
  student: StudentName | None = None
  """Compile for one student alone, instead of the fusion of all that the model has."""
  precision: Precision | None = None
  """Compile for this type of numbers, as `predict --precision` computes."""
  batch: int = 8
  """The number of frames that are computed together; `predict` uses the same by default."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  arguments = cli.parse(PROGRAM, Arguments, argv, description=__doc__)
  return cli.run(PROGRAM, lambda: _warm_up(arguments))


def _warm_up(arguments: Arguments) -> int:
  started = time.monotonic()
  folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or runtime.compiled_programs()  # first
  model = load(arguments.model, arguments.student, batch=arguments.batch, precision=arguments.precision)
  from stajax.warm_up import programs  # loads JAX

  count = 2 * len(programs.lengths(arguments.batch))
  for step, (length, has_sound) in enumerate(programs.compute(model.predictor), 1):
    what = f"{length} map{'s' if length > 1 else ''} {'with' if has_sound else 'without'} sound"
    screen.say(f"{step} of {count}: {what}")
  screen.say(f"done in {time.monotonic() - started:.0f} s; compiled programs are in {folder}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
