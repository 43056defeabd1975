"""Writes a trained model with weights of half the precision, as the package's own model is stored.

python -m stajax.predict.halve MODEL --out DIR
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from stajax import cli

PROGRAM = "python -m stajax.predict.halve"


@dataclass(frozen=True)
class Arguments:
  """The options."""

  model: tyro.conf.Positional[Path]
  """A trained model's folder, or the work folder of its training."""
  out: Path
  """The folder to write."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  arguments = cli.parse(PROGRAM, Arguments, argv, description=__doc__)

  def run() -> int:
    from stajax import model, runtime  # loads JAX

    runtime.configure()
    cli.say(f"{arguments.out}: {model.save_half(arguments.model, arguments.out) / 1e6:.1f} MB")
    return 0

  return cli.run(PROGRAM, run)


if __name__ == "__main__":
  sys.exit(main())
