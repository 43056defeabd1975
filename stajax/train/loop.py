"""The training loop of one network: it resumes from the last checkpoint, logs, saves, and stops at a NaN."""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from stajax import runtime
from stajax.signals import should_stop, stops_by_itself
from stajax.train import checkpoint
from stajax.train.logs import Log
from stajax.train.step import State, put_batch, replicate

HostBatch = Mapping[str, np.ndarray]

HOST_KEYS = ("clip", "frame")
"""The parts of a batch that stay on the host, because they only name the examples."""


class TrainingError(Exception):
  """Training cannot go on; one line with the stage, the step and the clips."""


class Stopped(Exception):
  """Training was asked to end early, and has saved its state; one line with the stage and the step."""


@dataclass(frozen=True)
class Job:
  """What the loop has to do.

  Attributes:
    name: The name of the stage, for messages.
    folder: Where checkpoints and logs are written.
    steps: The number of steps of the whole training.
    batch: The number of examples of all hosts in a step.
    checkpoint_every: The number of steps between checkpoints; one more is saved at the end.
    log_every: The number of steps between lines of the log; each line has the means over these steps.
  """

  name: str
  folder: Path
  steps: int
  batch: int
  checkpoint_every: int
  log_every: int


class _PendingStep(NamedTuple):
  """A step whose metrics have not been fetched yet."""

  step: int
  clips: np.ndarray
  metrics: Mapping[str, jax.Array]


def train(
  job: Job,
  state: State,
  train_step: jax.stages.Wrapped,
  batches: Callable[[int, int], Iterable[HostBatch]],
  clip_names: Sequence[str],
  mesh: Mesh,
) -> State:
  """Trains a network, from the last checkpoint in the job's folder if there is one.

  Args:
    job: The number of steps, and where and how often to save and log.
    state: The initial state.
    train_step: The jitted function (state, batch) → (state, metrics).
    batches: Returns the batches of the steps from a first one up to a last one; a batch depends on its step alone.
    clip_names: The names of the clips by index, for messages.
    mesh: The devices.

  Returns:
    The final state.

  Raises:
    TrainingError: The loss is not finite, or a number of the state that is to be saved.
    Stopped: This process, or one of several, was told to end; the state is saved.
  """
  with checkpoint.Checkpoints(job.folder / "checkpoints") as checkpoints:
    state = _resume(job.name, replicate(state, mesh), checkpoints)
    start = int(state.step)
    if start >= job.steps:
      return state
    with (
      _open_log(job.folder, start) as log,
      _Progress(job.name, start, job.steps) as progress,
      contextlib.ExitStack() as stack,
    ):
      compiled, pending = None, []
      for step, batch in enumerate(batches(start, job.steps), start=start + 1):
        on_devices = put_on_devices(batch, mesh)
        if compiled is None:
          compiled = train_step.lower(state, on_devices).compile()
          stack.enter_context(stops_by_itself())  # only now: compiling may take minutes, and there is nothing to save
        state, metrics = compiled(state, on_devices)
        pending.append(_PendingStep(step, batch["clip"], metrics))
        is_stopped = should_stop()
        is_saved = step % job.checkpoint_every == 0 or step == job.steps or is_stopped
        if step % job.log_every == 0 or is_saved:
          scalars = _mean_metrics(job.name, pending, clip_names)
          progress.update(len(pending), len(pending) * job.batch, scalars)
          if log is not None:
            log.write(step, {**scalars, "examples_per_second": progress.rate})
          pending = []
        if is_saved and log is not None:
          log.sync()  # a step that is saved is never logged again
        if is_saved:  # only after the metrics were checked, so that a state that a NaN spoiled is never saved
          _save(job.name, step, state, checkpoints)
        if is_stopped:  # at the last step, too: what comes then may take hours, and does not ask
          raise Stopped(
            f"stage {job.name}: stopped at step {step}, which is saved; the same command goes on from there"
          )
  return state


def evaluate(
  evaluation_step: Callable[[Mapping[str, Any], Mapping[str, jax.Array]], Mapping[str, jax.Array]],
  variables: Mapping[str, Any],
  batches: Iterable[HostBatch],
  mesh: Mesh,
) -> dict[str, float]:
  """Returns the means over batches of the metrics of `stajax.train.step.make_evaluation_step`."""
  fetched = jax.device_get([evaluation_step(variables, put_on_devices(batch, mesh)) for batch in batches])
  return _means(fetched)


def put_on_devices(batch: HostBatch, mesh: Mesh) -> dict[str, jax.Array]:
  """Puts a batch on the devices, without the parts that stay on the host."""
  return put_batch({key: x for key, x in batch.items() if key not in HOST_KEYS}, mesh)


def _open_log(folder: Path, start: int) -> contextlib.AbstractContextManager[Log | None]:
  """Opens the log; of several processes, only the first one writes."""
  return Log(folder, start) if jax.process_index() == 0 else contextlib.nullcontext()


def _resume(name: str, state: State, checkpoints: checkpoint.Checkpoints) -> State:
  """Returns the state of the last checkpoint, or the given one if there is none.

  Prints how the environment differs from the one that wrote the checkpoint.
  """
  state, written_by, faults = checkpoints.restore(state)
  for fault in faults:
    tqdm.write(f"{name}: {fault}; goes on from {f'step {int(state.step)}' if written_by else 'the beginning'}")
  for key, now in checkpoint.environment().items() if written_by else ():
    if written_by.get(key) != now:
      tqdm.write(
        f"{name}: resumes with {key} {now!r}, the checkpoint was written with {written_by.get(key)!r}: "
        "results may differ in the last bits"
      )
  return state


def _save(name: str, step: int, state: State, checkpoints: checkpoint.Checkpoints) -> None:
  """Saves a state whose numbers are all finite.

  Raises:
    TrainingError: One is not.
  """
  try:
    checkpoints.save(step, state)
  except checkpoint.NotFiniteError as error:
    raise TrainingError(f"stage {name}: {error} after step {step}, which is not saved") from None


def _mean_metrics(name: str, pending: Sequence[_PendingStep], clip_names: Sequence[str]) -> dict[str, float]:
  """Returns the means of the metrics of the last steps, fetched at once.

  Raises:
    TrainingError: A loss is not finite.
  """
  fetched = jax.device_get([step.metrics for step in pending])
  for step, metrics in zip(pending, fetched, strict=True):
    if not np.isfinite(metrics["loss"]):
      names = sorted({clip_names[int(clip)] for clip in np.ravel(step.clips)})
      at = f"the loss is {metrics['loss']} at step {step.step}"
      raise TrainingError(f"stage {name}: {at}; clips: {', '.join(names)}")
  return _means(fetched)


def _means(metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
  return {key: float(np.mean([of_step[key] for of_step in metrics])) for key in metrics[0]}


class _Progress:
  """A progress bar with the losses, the examples per second and the time left; a context manager."""

  def __init__(self, name: str, start: int, steps: int) -> None:
    self._bar = runtime.progress(f"train {name}", steps, "step", start)
    self._since = time.monotonic()
    self.rate = 0.0

  def update(self, steps: int, examples: int, scalars: Mapping[str, float]) -> None:
    """Moves the bar on and shows the scalars."""
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
