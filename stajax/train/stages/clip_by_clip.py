"""Values of all training frames, computed clip by clip: hosts share the clips, and finished ones are kept."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from stajax.data.frame_table import FrameTableWriter
from stajax.data.map_set import MapWriter
from stajax.train.run import Run


def make_table(
  run: Run, name: str, compute: Callable[[int], np.ndarray], description: str, summary: dict[str, Any]
) -> np.ndarray:
  """Returns a table of the training frames; computes it if it is not there.

  Args:
    run: The run whose table it is.
    name: The name of the table.
    compute: A function of a clip's index that returns the values (n, …) of its n frames.
    description: What is computed, for the progress bar.
    summary: What the table depends on, as JSON values.
  """
  path = run.workdir.table(name)
  if not path.exists():
    write_all(FrameTableWriter(path, run.data.records), lambda clip: (compute(clip),), run, description, summary)
  return run.data.table(name)


def write_all(
  writer: FrameTableWriter | MapWriter,
  compute: Callable[[int], tuple[np.ndarray, ...]],
  run: Run,
  description: str,
  summary: dict[str, Any],
) -> None:
  """Computes and writes the values of every training clip that the writer does not have yet.

  Args:
    writer: The writer of a table or of maps.
    compute: A function of a clip's index that returns what `writer.write` takes.
    run: The run whose training clips they are.
    description: What is computed, for the progress bar.
    summary: What the result depends on, as JSON values.
  """
  own_clips = range(jax.process_index(), run.data.records.num_clips, jax.process_count())
  for clip in tqdm(own_clips, desc=description, unit="clip", dynamic_ncols=True):
    if not writer.has(clip):
      writer.write(clip, *compute(clip))
  multihost_utils.sync_global_devices(description)
  if jax.process_index() == 0:
    writer.finish(summary)
  multihost_utils.sync_global_devices(f"{writer.path.name} written")
