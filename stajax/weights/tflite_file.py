"""Reads the constants of TFLite files as arrays. The network in such a file is not run, nor prepared to be run.

The interpreter, which comes with the extra `yamnet`, checks the file and finds the constants in it. Those that are
quantised become float32 again: (integer - zero point) · scale, with a scale for all of them or for each channel.
"""

from pathlib import Path
from typing import Any

import numpy as np

from stajax.runtime import quiet_libraries
from stajax.weights.store import Arrays, WeightsError

MAGIC = b"TFL3"
"""What such a file has from its fifth byte on."""
MAX_BYTES = 2**28


def open_tflite(path: Path) -> Arrays:
  """Opens a TFLite file; its arrays are its constants.

  Raises:
    WeightsError: The file is damaged or too large, or the interpreter is not installed.
  """
  try:
    # Only the extra `yamnet` installs it.
    from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]
  except ImportError as error:
    raise WeightsError(f"{path}: needs the package ai-edge-litert, pip install 'stajax[yamnet]' ({error})") from None
  try:
    if (size := path.stat().st_size) > MAX_BYTES:
      raise ValueError(f"{size} bytes, expected at most {MAX_BYTES}")
    with quiet_libraries():
      interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
    details = {detail["name"]: detail for detail in reversed(interpreter.get_tensor_details())}
  except (OSError, ValueError, RuntimeError) as error:
    raise WeightsError(f"{path}: not a readable TFLite file ({' '.join(str(error).split())})") from None
  constants = {name: x for name, detail in details.items() if (x := _constant(interpreter, detail)) is not None}

  def read(name: str) -> np.ndarray:
    parameters = details[name]["quantization_parameters"]
    return dequantised(
      constants[name], parameters["scales"], parameters["zero_points"], parameters["quantized_dimension"]
    )

  return Arrays({name: x.shape for name, x in constants.items()}, read)


def _constant(interpreter: Any, detail: dict[str, Any]) -> np.ndarray | None:
  """Returns a tensor's numbers where the file has them; None for what only a run would compute."""
  try:
    found = interpreter.get_tensor(detail["index"])
  except ValueError:
    return None
  return found if found.dtype.kind in "fiu" else None


def dequantised(integers: np.ndarray, scales: np.ndarray, zero_points: np.ndarray, axis: int) -> np.ndarray:
  """Returns (integers - zero point) · scale, float32, or the array itself where there are no scales.

  Args:
    integers: Of any shape.
    scales: (1,) for all, or (channels,); (0,) for none.
    zero_points: Likewise.
    axis: The axis of the channels.
  """
  if not len(scales):
    return integers
  shape = [1] * integers.ndim
  if len(scales) > 1:
    shape[axis] = -1
  return (integers.astype(np.float32) - zero_points.reshape(shape)) * scales.reshape(shape).astype(np.float32)
