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
  with runtime.progress(description, len(own_clips), "clip", done) as bar:
    for _ in on_local_devices(missing, work):
      bar.update()
  multihost_utils.sync_global_devices(description)
  if jax.process_index() == 0:
    writer.finish(summary)
  multihost_utils.sync_global_devices(f"{writer.path.name} written")


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
