"""Checkpoints of a training, written by Orbax, whose API stays behind this file."""

import logging
import os
import platform
from pathlib import Path
from typing import Any

import flax
import jax
import jaxlib.version
import numpy as np
import optax
import orbax.checkpoint as ocp

logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax logs every save at INFO


class Checkpoints:
  """The last checkpoints of one network; a context manager that waits for the last save.

  A checkpoint is written beside the others and gets its name when it is complete, so that a killed process leaves the
  previous one.
  """

  def __init__(self, folder: str | Path, keep: int = 2) -> None:
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
    self._manager = ocp.CheckpointManager(Path(folder).absolute(), options=options)

  def restore(self, state: Any) -> tuple[Any, dict[str, str]] | None:
    """Reads the last checkpoint.

    Args:
      state: Arrays of the same shapes, types and places as those of the checkpoint.

    Returns:
      The saved state and the environment that wrote it, or None if there is no checkpoint.
    """
    step = self._manager.latest_step()
    if step is None:
      return None
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    restored = self._manager.restore(
      step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract), environment=ocp.args.JsonRestore())
    )
    return restored["state"], restored["environment"]

  def save(self, step: int, state: Any) -> None:
    """Saves in the background. The state is copied first, so it may be donated at once."""
    self._manager.save(
      step,
      args=ocp.args.Composite(state=ocp.args.StandardSave(state), environment=ocp.args.JsonSave(environment())),
    )

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_: object) -> None:
    self._manager.wait_until_finished()
    self._manager.close()


def environment() -> dict[str, str]:
  """Returns the versions, settings and hardware that bit-identical results depend on."""
  return {
    "python": platform.python_version(),
    "jax": jax.__version__,
    "jaxlib": jaxlib.version.__version__,
    "flax": flax.__version__,
    "optax": optax.__version__,
    "numpy": np.__version__,
    "xla_flags": os.environ.get("XLA_FLAGS", ""),
    "devices": f"{jax.device_count()} × {jax.devices()[0].device_kind}",
    "processor": _processor(),
    "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
  }


def _processor() -> str:
  try:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
      if line.startswith("model name"):
        return line.split(":", 1)[1].strip()
  except OSError:
    pass
  return platform.processor() or platform.machine()
