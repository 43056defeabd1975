"""The training loop of one network: resumes from its last checkpoint, logs, saves, stops at a NaN."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from stajax.train import checkpoint
from stajax.train.logs import Log
from stajax.train.step import State, put_batch, replicate

HOST_KEYS = ("clip", "frame")
"""What of a batch stays on the host: it names examples."""


class TrainingError(Exception):
  """Training cannot go on; one line with the stage, the step and the clips."""


def train(
  name: str,
  folder: Path,
  state: State,
  make_step: Callable[[Mesh], Callable[..., Any]],
  batches: Callable[[int, int], Iterator[Mapping[str, np.ndarray]]],
  clip_names: Sequence[str],
  mesh: Mesh,
  steps: int,
  checkpoint_every: int,
  log_every: int,
) -> State:
  """Trains up to `steps`, from the last checkpoint in `folder` if there is one.

  Args:
    name: of the stage, for messages.
    folder: for checkpoints and logs.
    state: the initial state.
    make_step: of a mesh to the jitted `(state, batch) -> (state, metrics)`.
    batches: `(start, stop)` to the batches of those steps: a function of the step alone.
    clip_names: by clip index, for messages.
    checkpoint_every: steps between checkpoints; one more is saved at the end.
    log_every: steps between lines of the log, which are means over the steps between.

  Returns:
    The final state.

  Raises:
    TrainingError: the loss is not finite.
  """
  state = replicate(state, mesh)
  with checkpoint.Checkpoints(folder / "checkpoints") as checkpoints:
    restored = checkpoints.restore(state)
    if restored is not None:
      state, written_by = restored
      _tell_differences(name, written_by)
    start = int(state.step)
    if start >= steps:
      return state
    with Log(folder, start) as log, _Progress(name, start, steps) as progress:
      compiled = None
      pending: list[tuple[int, Mapping[str, np.ndarray], Mapping[str, jax.Array]]] = []
      for step, batch in enumerate(batches(start, steps), start=start + 1):
        on_host = {key: batch[key] for key in HOST_KEYS}
        on_device = put_batch({key: x for key, x in batch.items() if key not in HOST_KEYS}, mesh)
        if compiled is None:
          compiled = make_step(mesh).lower(state, on_device).compile()
        state, metrics = compiled(state, on_device)
        pending.append((step, on_host, metrics))
        saving = step % checkpoint_every == 0 or step == steps
        if step % log_every == 0 or saving:
          scalars = _collect(name, pending, clip_names)
          progress.update(len(pending), len(pending) * _global_batch(on_device), scalars)
          log.write(step, {**scalars, "examples_per_second": progress.rate})
          pending = []
        if saving:  # after _collect, so that a state that a NaN spoiled is never saved
          checkpoints.save(step, state)
  return state


def judge(
  make_metrics: Callable[[Any, Any], Mapping[str, jax.Array]],
  variables: Mapping[str, Any],
  batches: Iterator[Mapping[str, np.ndarray]],
  mesh: Mesh,
) -> dict[str, float]:
  """Means over batches of what `stajax.train.step.make_judge` says of them."""
  parts = []
  for batch in batches:
    on_device = put_batch({key: x for key, x in batch.items() if key not in HOST_KEYS}, mesh)
    parts.append(make_metrics(variables, on_device))
  fetched = jax.device_get(parts)
  return {key: float(np.mean([metrics[key] for metrics in fetched])) for key in fetched[0]}


def _global_batch(batch: Mapping[str, jax.Array]) -> int:
  return next(iter(batch.values())).shape[0]


def _collect(name: str, pending: Sequence[tuple], clip_names: Sequence[str]) -> dict[str, float]:
  """Means of the metrics of the last steps, fetched at once."""
  fetched = jax.device_get([metrics for _, _, metrics in pending])
  for (step, on_host, _), metrics in zip(pending, fetched):
    if not np.isfinite(metrics["loss"]):
      names = sorted({clip_names[clip] for clip in np.ravel(on_host["clip"])})
      raise TrainingError(f"stage {name}: the loss is {metrics['loss']} at step {step}; clips: {', '.join(names)}")
  return {key: float(np.mean([metrics[key] for metrics in fetched])) for key in fetched[0]}


def _tell_differences(name: str, written_by: Mapping[str, str]) -> None:
  for key, now in checkpoint.environment().items():
    if written_by.get(key) != now:
      tqdm.write(
        f"{name}: resumes with {key} {now!r}, the checkpoint was written with {written_by.get(key)!r}: "
        "results may differ in the last bits"
      )


class _Progress:
  """A bar with losses, examples a second and the time left."""

  def __init__(self, name: str, start: int, steps: int) -> None:
    self._bar = tqdm(desc=f"train {name}", initial=start, total=steps, unit="step", dynamic_ncols=True)
    self._since = time.monotonic()
    self.rate = 0.0

  def update(self, steps: int, examples: int, scalars: Mapping[str, float]) -> None:
    now = time.monotonic()
    self.rate = examples / max(now - self._since, 1e-9)
    self._since = now
    shown = {key: f"{value:.4g}" for key, value in scalars.items()}
    self._bar.set_postfix({**shown, "examples/s": f"{self.rate:.0f}"}, refresh=False)
    self._bar.update(steps)

  def __enter__(self) -> "_Progress":
    return self

  def __exit__(self, *_: object) -> None:
    self._bar.close()
