"""Writes a trained model with what int8 needs: how large the inputs of its convolutions get.

  python -m stajax.predict.calibrate MODEL --out DIR [--clips 32]

They are found on frames of embedded clips, which are rendered for the purpose; no fixations are looked at. The result
is the same model, whose `model.json` says them. `--precision int8` of `stajax predict` and `stajax export` takes it.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from stajax import cli, screen

PROGRAM = "python -m stajax.predict.calibrate"
_SEED = 1
"""Embedded clips that models are trained on have other seeds, by default 0."""


@dataclass(frozen=True)
class Arguments:
  """The options."""

  model: tyro.conf.Positional[Path]
  """A trained model's folder, or the work folder of its training."""
  out: Path
  """The folder to write."""
  clips: int = 32
  """The number of embedded clips; each gives two frames."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  arguments = cli.parse(PROGRAM, Arguments, argv, description=__doc__)

  def run() -> int:
    if arguments.clips < 1:
      raise ValueError(f"--clips {arguments.clips}: expected at least 1")
    from stajax import model, networks, runtime  # loads JAX

    runtime.configure()
    from stajax.inference.precision import calibrate

    found = model.load(arguments.model)
    size = max(networks.training_of(name, found.config).size for name in found.variables)
    ranges = calibrate(found, embedded_frames(arguments.clips, size))
    model.save_calibrated(arguments.model, arguments.out, ranges)
    screen.say(f"{arguments.out}: the inputs of {len(ranges)} convolutions, on {2 * arguments.clips} frames")
    return 0

  return cli.run(PROGRAM, run)


def embedded_frames(clips: int, size: int) -> np.ndarray:
  """Renders two frames of each of some embedded clips, two seconds apart: (2·clips, size, size, 3) uint8."""
  from stajax.prepare.synthetic import Settings, make_scene
  from stajax.prepare.synthetic.render import render

  settings = Settings(size=size, rate=2.0, seconds=4.0)
  return np.concatenate([render(make_scene(_SEED, index, "train", settings))[1::4] for index in range(clips)])


if __name__ == "__main__":
  sys.exit(main())
