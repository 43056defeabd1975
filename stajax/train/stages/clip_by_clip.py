"""Values of all training frames, computed clip by clip.

Clip i belongs to process i modulo the number of processes, and each of a process's devices takes its next clip when it
is free. Finished clips are kept, so a run that was stopped goes on with the others, also in other processes.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from stajax import networks, runtime
from stajax.data.frame_table import FrameTableWriter
from stajax.data.map_set import MapWriter
from stajax.inference.local_devices import Device, on_local_devices
from stajax.signals import should_stop
from stajax.train.loop import Stopped
from stajax.train.run import Run, TrainedNetworks


def make_table(
  run: Run,
  name: str,
  compute: Callable[[int, TrainedNetworks], np.ndarray],
  description: str,
  summary: dict[str, Any],
  read: Sequence[str] = (),
) -> np.ndarray:
  """Returns a table of the training frames; computes it if it is not there.

  Args:
    run: The run whose table it is.
    name: The name of the table.
    compute: A function of a clip's index, and of the networks on a device, that returns the values (n, …) of the clip's
      n frames.
    description: What is computed, for the progress bar.
    summary: What the table depends on, as JSON values.
    read: The names of the networks that are run.
  """
  path = run.workdir.table(name)
  if not path.exists():
    writer = FrameTableWriter(path, run.data.records)
    write_all(writer, lambda *of: (compute(*of),), run, description, summary, read)
  return run.data.table(name)


def write_all(
  writer: FrameTableWriter | MapWriter,
  compute: Callable[[int, TrainedNetworks], tuple[np.ndarray, ...]],
  run: Run,
  description: str,
  summary: dict[str, Any],
  read: Sequence[str] = (),
) -> None:
  """Computes and writes the values of every training clip that the writer does not have yet.

  Args:
    writer: The writer of a table or of maps.
    compute: A function of a clip's index, and of the networks on a device, that returns what `writer.write` takes.
    run: The run whose training clips they are.
    description: What is computed, for the progress bar.
    summary: What the result depends on, as JSON values.
    read: The names of the networks that are run.

  Raises:
    Stopped: One of several processes was told to end; what is written is kept.
  """
  _open_features(run, read)
  own_clips = range(jax.process_index(), run.data.records.num_clips, jax.process_count())
  missing = [clip for clip in own_clips if not writer.has(clip)]

  def work(device: Device, clips: Iterator[int]) -> Iterator[int]:
    trained = run.trained.on(device)
    for clip in clips:
      writer.write(clip, *compute(clip, trained))
      yield clip

  done = len(own_clips) - len(missing)
  # Short clips leave a device idle while the host prepares the next one. Long ones are launched in several batches, and
  # two of them could be too large. Several processes on a machine fill each other's gaps.
  is_short = int(run.data.records.num_frames.max(initial=0)) <= run.config.inference_batch
  threads = 2 if is_short and jax.process_count() == 1 else 1
  questions = _Questions(description, run.data.records.num_clips)
  with runtime.progress(description, len(own_clips), "clip", done) as bar:
    for _ in on_local_devices(missing, work, threads):
      bar.update()
      questions.ask()
  questions.ask_the_rest()
  multihost_utils.sync_global_devices(description)
  if jax.process_index() == 0:
    writer.finish(summary)
  multihost_utils.sync_global_devices(f"{writer.path.name} written")


class _Questions:
  """Asks whether to stop, equally often in all processes, whose numbers of clips differ: see `should_stop`.

  Args:
    description: What is computed.
    num_clips: The number of clips of all processes.
  """

  def __init__(self, description: str, num_clips: int) -> None:
    self._description, self._left = description, -(-num_clips // jax.process_count())

  def ask(self) -> None:
    """Raises Stopped if the processes have agreed to end."""
    self._left -= 1
    if should_stop():
      raise Stopped(f"{self._description}: stopped between two clips; the same command goes on from there")

  def ask_the_rest(self) -> None:
    """Asks as often as for the clips that this process did not have to compute."""
    while self._left > 0:
      self.ask()


def _open_features(run: Run, names: Sequence[str]) -> None:
  """Opens the stored features of a frozen backbone that networks read.

  All processes do this together before they share the clips, since they wait for each other where features are missing.
  """
  if not run.config.has_frozen_backbone:
    return
  seeing = [name for name in names if networks.NETWORKS[name].sees]
  sets = {(networks.training_of(name, run.config).size, networks.sees_crops(name, run.config)) for name in seeing}
  for size, cropped in sorted(sets):
    run.data.features(size, cropped)
