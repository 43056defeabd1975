"""Writes the files of `stajax export`: the program as StableHLO, for TensorFlow too, and a sidecar about it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from jax import export

from stajax import hints, networks
from stajax import model as models
from stajax.export.describe import describe
from stajax.export.program import ExportedProgram, make_program
from stajax.files import atomic_folder, find_visible_files, write_bytes, write_json
from stajax.files.manifest import sha256_of_file

if TYPE_CHECKING:  # as in stajax.model
  from stajax.config import Config

PLATFORMS = ("cpu", "cuda", "tpu")
"""What the program is lowered for; a convolution may be computed in another way on each."""
PROGRAM_NAME, SAVED_MODEL, SIDECAR = "model.stablehlo", "saved_model", "export.json"
BATCH = "b"
"""The name of the axis of any length."""


def read_model(folder: Path, student: str | None) -> models.Model:
  """Reads the networks that predict from a model folder, or from the work folder that contains it.

  Raises:
    ModelError, ConfigError, WeightsError: The model cannot be used, or has no such student; one line.
  """

  def names(config: "Config") -> tuple[str, ...]:
    known = networks.students_of(config)
    if student is not None and student not in known:
      raise models.ModelError(f"{folder}: has no student {student}, {hints.expected(student, known)}")
    return networks.predicting_networks(config, student)

  return models.load(folder, names)


def write_export(model: models.Model, out: Path, student: str | None, saved_model: bool, name: str) -> dict[str, Any]:
  """Writes a model's program into a new folder.

  Args:
    model: The model.
    out: The folder, which is missing or empty.
    student: The student whose maps are the final ones; None for all that the model has.
    saved_model: Whether a SavedModel is written, too, which needs TensorFlow.
    name: The model's name, for people.

  Returns:
    What the sidecar says.

  Raises:
    FileExistsError: The folder has something in it.
  """
  if out.is_dir() and any(out.iterdir()):
    raise FileExistsError(f"{out}: has files in it, expected a new or an empty folder")
  program = make_program(model, None if student is None else (student,))
  with atomic_folder(out) as partial:
    write_bytes(partial / PROGRAM_NAME, serialise(program))
    if saved_model:
      from stajax.export.saved_model import write_saved_model  # loads TensorFlow

      write_saved_model(program, partial / SAVED_MODEL, PLATFORMS)
    found = sorted(find_visible_files(partial))
    files = {path.relative_to(partial).as_posix(): sha256_of_file(path) for path in found}
    about = describe(model, program, PLATFORMS, files, name)
    write_json(partial / SIDECAR, about)
  return about


def serialise(program: ExportedProgram) -> bytes:
  """Returns the program as `jax.export` serialises it, for batches of any size and for all `PLATFORMS`."""
  (batch,) = export.symbolic_shape(BATCH)
  arguments = [jax.ShapeDtypeStruct((batch, *shape), dtype) for shape, dtype in program.shapes.values()]
  return bytes(export.export(jax.jit(program.maps), platforms=PLATFORMS)(*arguments).serialize())
