"""Writes a trained model with weights of half the precision, as the package's own model is stored.

python -m stajax.predict.halve MODEL --out DIR [--confidence OTHER]
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from stajax import cli, screen

PROGRAM = "python -m stajax.predict.halve"


@dataclass(frozen=True)
class Arguments:
  """The options."""

  model: tyro.conf.Positional[Path]
  """A trained model's folder, or the work folder of its training."""
  out: Path
  """The folder to write."""
  confidence: Path | None = None
  """A model of the same settings that left clips out of learning: how far its maps can be trusted was measured on them,
  and MODEL, which may have learned from all clips, takes that over."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  arguments = cli.parse(PROGRAM, Arguments, argv, description=__doc__)

  def run() -> int:
    from stajax import model, runtime  # loads JAX

    runtime.configure()
    size = model.save_half(arguments.model, arguments.out, arguments.confidence)
    screen.say(f"{arguments.out}: {size / 1e6:.1f} MB")
    return 0

  return cli.run(PROGRAM, run)


if __name__ == "__main__":
  sys.exit(main())
