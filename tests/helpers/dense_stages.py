"""A work folder whose networks have random weights, and its dense stages, also as a program for several processes.

  python tests/helpers/dense_stages.py WORKDIR [STAGE …]

JAX_NUM_PROCESSES, JAX_PROCESS_ID and JAX_COORDINATOR_ADDRESS are those of `stajax train --distributed`. With
DIE_AFTER=n the process kills itself when it has written n clips in a stage.
"""

import dataclasses
import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
  sys.path.insert(0, str(Path(__file__).parents[1]))
  from stajax import runtime

  runtime.configure()

import jax
import numpy as np
import pytest

from helpers import tiny
from helpers.fake_records import CATEGORIES, fake_clips, stage
from helpers.random_variables import randomise
from helpers.runs import finish, make_run
from stajax import networks
from stajax.data.records import Records
from stajax.data.staging import Staging
from stajax.nets import base
from stajax.prepare.assembly import assemble
from stajax.train.run import Run
from stajax.train.stages import runner
from stajax.train.stages.graph import make_graph
from stajax.weights import store

STAGES = ("tag_heard", "scam_coarse", "scam_plus")
_TRAINED = (*networks.TAGGERS, networks.SWITCH, *networks.SOURCES)


def make_records(folder: Path, number: int = 8) -> Records:
  """Returns the records of eight clips of 1 to 20 frames."""
  clips = fake_clips(side=tiny.STORED, number=6)
  clips = [dataclasses.replace(clips[i % 6], name=f"clip {i}") for i in range(number)]
  staging, keys = stage(folder / "staging", clips)
  assemble(staging, keys, folder / "train", CATEGORIES, {"source": "test", "provenance": "synthetic", "skipped": []})
  return Records.open(folder / "train")


def make_workdir(folder: Path, names=_TRAINED) -> None:
  """Makes networks seem to be trained: each gets random weights."""
  run = make_run(folder, None, tiny.CONFIG)  # pyright: ignore[reportArgumentType]  # no records are needed
  for name in names:
    network = networks.make_network(name, tiny.CONFIG, len(CATEGORIES))
    size = networks.training_of(name, tiny.CONFIG).size
    run.workdir.stage(name).mkdir(parents=True)
    variables = randomise(networks.expected_variables(network, size), _TRAINED.index(name))
    finish(run, name, sha256=store.save(run.workdir.weights(name), variables))


def run_stages(folder: Path, records: Records, stages=STAGES) -> Run:
  """Runs the dense stages of a work folder that are not done yet."""
  run = make_run(folder, records, tiny.CONFIG)
  for each in make_graph(tiny.CONFIG):
    if each.name in stages and run.workdir.done(each.name) is None:
      runner._run_stage(each, run)
  return run


def results(run: Run) -> dict[str, np.ndarray]:
  """Returns whatever the finished stages have written about the frames."""
  found = {}
  for name, table in (("tag_heard", "tag_heard"), ("scam_coarse", "boxes")):
    if run.workdir.done(name) is not None:
      found[name] = run.data.table(table)
  if run.workdir.done("scam_plus") is not None:
    maps = run.data.pseudo_fixations()
    found |= {"maps": maps.read(np.arange(run.data.records.total_frames)), "weights": maps.weights}
  return found


def _die_after(count: int) -> None:
  real, written = Staging.write_arrays, []

  def write(self, key, **arrays):
    real(self, key, **arrays)
    written.append(key)
    if len(written) == count:
      os.kill(os.getpid(), signal.SIGKILL)

  Staging.write_arrays = write


def main(folder: str, *stages: str) -> None:
  base.ResNet18, jax.jit = tiny.TinyAudio, tiny.quick_jit
  if "JAX_NUM_PROCESSES" in os.environ:
    count, index = int(os.environ["JAX_NUM_PROCESSES"]), int(os.environ["JAX_PROCESS_ID"])
    jax.distributed.initialize(num_processes=count, process_id=index)
  if "DIE_AFTER" in os.environ:
    _die_after(int(os.environ["DIE_AFTER"]))
  launched = tiny.count_devices(pytest.MonkeyPatch())
  run_stages(Path(folder) / "run", Records.open(Path(folder) / "train"), stages or STAGES)
  counts = ", ".join(f"{device}: {number}" for device, number in sorted(launched.items(), key=str))
  print(f"process {jax.process_index()}: {counts}")


if __name__ == "__main__":
  main(*sys.argv[1:])
