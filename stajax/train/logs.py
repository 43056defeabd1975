"""Training curves, as lines of JSON and as TensorBoard event files."""

import json
import os
from pathlib import Path

import numpy as np

from stajax.files import make_folder, write_text
from stajax.report.log_lines import read_log


class Log:
  """Writes the scalars of one training; a context manager.

  On a resume, the lines of steps that will be repeated are dropped first.
  """

  def __init__(self, folder: str | Path, start_step: int) -> None:
    import tensorflow as tf  # It belongs to the extra `train` and is slow to import.

    folder = Path(folder)
    make_folder(folder)
    path = folder / "log.jsonl"
    kept = [line for line in read_log(path) if line["step"] <= start_step]
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
    self._lines = open(path, "a", buffering=1)  # noqa: SIM115, closed by __exit__
    self._events = tf.summary.create_file_writer(str(folder / "tensorboard"))
    self._write_scalar = tf.summary.scalar

  def write(self, step: int, scalars: dict[str, float]) -> None:
    """Writes the scalars of a step."""
    self._lines.write(json.dumps({"step": step, **{k: float(np.float32(v)) for k, v in scalars.items()}}) + "\n")
    with self._events.as_default():
      for name, value in scalars.items():
        self._write_scalar(name, value, step=step)

  def sync(self) -> None:
    """Waits until all lines are on the disk."""
    os.fsync(self._lines.fileno())

  def __enter__(self) -> "Log":
    return self

  def __exit__(self, *_: object) -> None:
    self._lines.close()
    self._events.close()
