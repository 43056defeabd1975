"""Checkpoints of a training, written by Orbax, whose API stays behind this file."""

import hashlib
import logging
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import flax
import jax
import jaxlib.version
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from stajax.screen import one_line
from stajax.signals import deferred

for _name in ("absl", "asyncio", "concurrent.futures"):
  # Orbax logs every save, and an error once in each of its threads, with hundreds of lines.
  logging.getLogger(_name).setLevel(logging.CRITICAL)


class _LateErrors:
  """Keeps off the screen what TensorStore says about a failed save after Orbax has told why it failed.

  Arrays that are still being written then report to an event loop that is closed, each with a traceback.
  """

  def __init__(self) -> None:
    self._before = sys.unraisablehook

  def __call__(self, lost: Any, /) -> None:
    if not (lost.exc_type is RuntimeError and str(lost.exc_value) == "Event loop is closed"):
      self._before(lost)


_DIGEST = "state_sha256"
"""The key of the digest of a state, beside its environment."""


class NotFiniteError(ValueError):
  """A state has a number that is not finite; one line that names the array."""


class _Manager(ocp.CheckpointManager):
  """Orbax's manager, which never asks JAX whether several processes have to end.

  JAX agrees on a number after the last one that anybody gave it, and says so once. `stajax.signals.should_stop` gives
  it numbers that only grow; steps of this network, given in between, would let a SIGTERM be forgotten.
  """

  def reached_preemption(self, step: int) -> bool:
    """Says that nobody has to end, which the training finds out by itself."""
    return False


class Checkpoints:
  """The last checkpoints of one network; a context manager that waits for the last save.

  A checkpoint is written beside the others and gets its name when it is complete, so that a killed process leaves the
  previous one. Each has the SHA-256 of its arrays, which is compared when it is read.
  """

  def __init__(self, folder: str | Path, keep: int = 2) -> None:
    if not isinstance(sys.unraisablehook, _LateErrors):
      sys.unraisablehook = _LateErrors()
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
    self._folder = Path(folder).absolute()
    self._manager = _Manager(self._folder, options=options)

  def restore(self, state: Any) -> tuple[Any, dict[str, str], list[str]]:
    """Reads the last checkpoint that can be read; those after it are set aside, in folders `unreadable-STEP`.

    Args:
      state: Arrays of the same shapes, types and places as those of the checkpoint.

    Returns:
      The saved state, or the given one if there is no checkpoint, the environment that wrote it, and a line for each
      checkpoint that cannot be read.
    """
    faults: list[str] = []
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        with deferred():  # Orbax would say that the checkpoint cannot be read
          return *self._restore(step, state), faults
      except (MemoryError, NotImplementedError):
        raise
      except Exception as error:  # Orbax and TensorStore raise many kinds of errors for damaged files
        faults.append(f"the checkpoint of step {step} cannot be used ({one_line(error)[:300]})")
        self._set_aside(step)
    return state, {}, faults

  def _restore(self, step: int, state: Any) -> tuple[Any, dict[str, str]]:
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    restored = self._manager.restore(
      step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract), environment=ocp.args.JsonRestore())
    )
    written_by = dict(restored["environment"])
    found, expected = digest(restored["state"]), written_by.pop(_DIGEST, None)
    if expected not in (None, found):  # None: written before there were digests
      raise ValueError(f"damaged: the SHA-256 of its arrays is {found[:12]}…, expected {str(expected)[:12]}…")
    return restored["state"], written_by

  def _set_aside(self, step: int) -> None:
    """Gives an unreadable checkpoint another name, so that its step can be saved again."""
    multihost_utils.sync_global_devices(f"{self._folder}: {step} is unreadable")
    if jax.process_index() == 0:
      aside = self._folder / f"unreadable-{step}"
      shutil.rmtree(aside, ignore_errors=True)
      (self._folder / str(step)).rename(aside)
    multihost_utils.sync_global_devices(f"{self._folder}: {step} is set aside")
    self._manager.reload()

  def save(self, step: int, state: Any) -> None:
    """Saves in the background. The state is copied first, so it may be donated at once.

    Raises:
      NotFiniteError: The state has a number that is not finite; nothing is saved.
    """
    about = {**environment(), _DIGEST: digest(state)}
    saved = ocp.args.Composite(state=ocp.args.StandardSave(state), environment=ocp.args.JsonSave(about))
    with deferred():
      self._manager.save(step, args=saved)

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_: object) -> None:
    self._manager.wait_until_finished()
    self._manager.close()


def digest(state: Any) -> str:
  """Returns the SHA-256 of the arrays of a state, with their names.

  Raises:
    NotFiniteError: A number is not finite.
  """
  found = hashlib.sha256()
  for path, array in jax.tree_util.tree_leaves_with_path(state):
    name, values = jax.tree_util.keystr(path), np.ascontiguousarray(jax.device_get(array))
    if not np.isfinite(values.astype(np.float32) if values.dtype.kind == "V" else values).all():
      raise NotFiniteError(f"{name.lstrip('.')} is not finite")
    found.update(f"{name} {values.dtype} {values.shape}".encode())
    found.update(values.tobytes())
  return found.hexdigest()


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
