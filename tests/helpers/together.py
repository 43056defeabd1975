"""Trains a small network on 3 examples a step, alone or as one of several processes, as `stajax train` does.

  python -m helpers.together FOLDER STEPS [PROCESS STEP WHAT]

At a step, one process fails: WHAT is `error`, or the number of a signal that it sends to itself.
"""

import os
import sys
from pathlib import Path

import numpy as np

from stajax import cli, runtime
from stajax.runtime import processes

BATCH = 3


def train(folder: Path, steps: int, devices=None, fail=lambda number: None):
  """Returns the final state."""
  import jax

  from helpers.small_network import SIZE, Small, make_batch, start
  from stajax.data.batch_settings import HostShare
  from stajax.train import loop, optimizer, step

  network, mesh = Small(), step.make_mesh(devices)
  update = optimizer.make_optimizer("sgd", lambda _: 2e-3, 0.9, 1e-3, (1.0, 2.0, 10.0, 20.0))
  slots = np.array(HostShare(jax.process_index(), jax.process_count(), num_devices=mesh.size).slots_of(BATCH))

  def batches(first, last):
    for number in range(first + 1, last + 1):
      fail(number)
      batch = {key: x[np.minimum(slots, BATCH - 1)] for key, x in make_batch(number, BATCH).items()}
      yield batch | ({} if mesh.size == 1 else {"counts": np.where(slots < BATCH, BATCH, 0).astype(np.float32)})

  job = loop.Job("small", folder, steps, BATCH, checkpoint_every=2, log_every=1)
  train_step = step.make_train_step(network, step.classification_loss(SIZE), update, mesh)
  return loop.train(job, start(network, mesh, update), train_step, batches, ["a", "b", "c"], mesh)


def main() -> int:
  """Trains as one of several processes."""
  if not processes.is_worker():
    return processes.supervise("toy", "helpers.together", sys.argv[1:])
  runtime.configure()
  processes.join_processes()
  folder, steps, *failure = sys.argv[1:]

  def fail(number):
    import jax

    process, at, what = failure
    if (jax.process_index(), number) == (int(process), int(at)):
      if what == "error":
        raise OSError("no space is left")
      os.kill(os.getpid(), int(what))

  def command() -> int:
    from stajax import cli
    from stajax.train.loop import Stopped

    def all_steps() -> int:
      train(Path(folder), int(steps), fail=fail if failure else lambda number: None)
      print("all steps are done")
      return 0

    try:
      return cli.run("toy", all_steps, errors=(), reports=False)
    except Stopped as error:
      return cli.fail("toy", str(error), 75)

  return processes.run_together("toy", command, cli.report)


if __name__ == "__main__":
  sys.exit(main())
