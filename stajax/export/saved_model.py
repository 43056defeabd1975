"""Writes a program as TensorFlow's SavedModel, through `jax.experimental.jax2tf`. TensorFlow is used only here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stajax.data.tensorflow_cpu import tf  # before what loads TensorFlow with its messages
from stajax.export.program import ExportedProgram

SIGNATURE = "serving_default"


def write_saved_model(program: ExportedProgram, folder: Path, platforms: Sequence[str]) -> None:
  """Writes a SavedModel whose signature `serving_default` takes `frames`, `sound` and `heard` and returns `maps`.

  Args:
    program: The program.
    folder: The folder to write.
    platforms: What it shall run on.

  Raises:
    ModuleNotFoundError: TensorFlow is not installed.
  """
  from jax.experimental import jax2tf

  convert: Any = jax2tf.convert
  computed = convert(
    program.maps,
    polymorphic_shapes=["b, ..."] * len(program.shapes),
    with_gradient=False,
    native_serialization_platforms=tuple(platforms),
  )

  def serve(frames: Any, sound: Any, heard: Any) -> dict[str, Any]:
    return {"maps": computed(frames, sound, heard)}

  specs = [tf.TensorSpec((None, *shape), dtype, name) for name, (shape, dtype) in program.shapes.items()]
  module: Any = tf.Module()
  module.serve = tf.function(serve, autograph=False, input_signature=specs)
  tf.saved_model.save(module, str(folder), signatures={SIGNATURE: module.serve})
