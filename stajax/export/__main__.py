"""Writes a model as files that run without this package: StableHLO for JAX, and a SavedModel for TensorFlow.

  stajax export --out DIR [--model DIR] [--student NAME] [--precision TYPE] [--saved-model]

DIR is a new or an empty folder. `model.stablehlo` takes three frames and a second of sound and gives maps, for batches
of any size, on CPUs, CUDA GPUs and TPUs. `export.json` says how its inputs are made of a video, and what is left to do
with its maps. A model with all three students takes groups of five fragments; `--student sta` takes one.
Exit codes: 0 done, 2 bad input.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stajax import cli, runtime, screen
from stajax.inference import Precision
from stajax.predict.api import SHIPPED_NAME, StudentName

PROGRAM = "stajax export"


@dataclass(frozen=True)
class Arguments:
  """The options of `stajax export`."""

  out: Path
  """The folder for the files, new or empty."""
  model: str | None = None
  """A trained model's folder, the work folder of its training, or the address of a model, https://… or hf://owner/name;
  by default the model that the package comes with."""
  student: StudentName | None = None
  """Export one student alone, instead of the fusion of all that the model has."""
  precision: Precision | None = None
  """Compute convolutions in this type; by default that of the model, and float32 where it leaves that open. int8 is for
  what encodes frames, and needs a model that `python -m stajax.predict.calibrate` wrote."""
  saved_model: bool = False
  """Write a SavedModel for TensorFlow, too. This needs TensorFlow (the extra `train`)."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  arguments = cli.parse(PROGRAM, Arguments, argv, description=__doc__)
  return cli.run(PROGRAM, lambda: _export(arguments))


def _export(arguments: Arguments) -> int:
  runtime.configure()
  from stajax.export.files import SIDECAR, read_model, write_export  # JAX takes a second to load
  from stajax.inference.precision import at_precision
  from stajax.model import SHIPPED
  from stajax.weights.locate import locate

  source = arguments.model
  folder, name = (SHIPPED, SHIPPED_NAME) if source is None else (locate(source), source)
  model = at_precision(read_model(folder, arguments.student), arguments.precision, name)
  about = write_export(model, arguments.out, arguments.student, arguments.saved_model, name)
  size = sum(path.stat().st_size for path in arguments.out.rglob("*") if path.is_file())
  students = ", ".join(about["model"]["students"])
  where = arguments.out / SIDECAR
  screen.say(f"{arguments.out}: {students}, {size / 1e6:.1f} MB; how to use the files: {where}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
