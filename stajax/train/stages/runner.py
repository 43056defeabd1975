"""Runs the stages that are not done yet. A finished stage has a `done.json` and is not run again."""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils
from tqdm import tqdm

from stajax import config as configuration
from stajax.cli import make_out_folder
from stajax.config import Config
from stajax.files import write_text
from stajax.files.manifest import write_manifest
from stajax.runtime import memory
from stajax.screen import counted
from stajax.train import external_taggers, initial_weights, train_network
from stajax.train.run import Run, open_run
from stajax.train.stages import stage_files
from stajax.train.stages.audio_switch import label_sounds
from stajax.train.stages.checks import check
from stajax.train.stages.graph import Stage, make_graph
from stajax.train.stages.prepare_data import prepare_data
from stajax.train.stages.pseudo_fixations import find_boxes, make_pseudo_fixations
from stajax.train.stages.save_model import save_model
from stajax.train.stages.teacher_maps import ask_teacher, check_teacher
from stajax.train.workdir import Workdir, WorkdirError

_REPORTED = ("score_data", "score_stride")
"""The fields of the configuration that only the report depends on."""


def run_all(config: Config, folder: Path, redo: Sequence[str] = ()) -> str:
  """Runs the stages of a configuration that are not done yet, in order.

  Args:
    config: The configuration.
    folder: The work folder.
    redo: The names of stages that are done again, even if they are finished.

  Returns:
    A one-line summary.

  Raises:
    WorkdirError: The folder belongs to another configuration, or a file of a finished stage is damaged.
    ConfigError: The configuration cannot be run here.
    BlockingIOError: Another training writes there.
    TrainingError, RecordError, WeightsError: See `stajax.train.loop`, `stajax.data.shards`, `stajax.weights.store`.
  """
  check(config)
  run, started = open_run(config, folder), time.monotonic()
  parts = initial_weights.read(config, run.workdir)  # before the folder is claimed
  if jax.process_index() == 0:
    make_out_folder("--workdir", folder)
  with run.workdir.lock() if jax.process_index() == 0 else contextlib.nullcontext():
    _claim(config, run.workdir)
    initial_weights.save(parts, config, run.workdir)
    num_run = _run_stages(run, redo)
  seconds = time.monotonic() - started
  took = f"{counted(num_run, 'stage')} in {seconds:.0f} s" if num_run else "everything was done already"
  return f"{config.name}: {took}; report: {run.workdir.report / 'index.html'}; model: {run.workdir.model}"


def _run_stages(run: Run, redo: Sequence[str]) -> int:
  """Runs the stages that are not done yet, or not any more; returns their number."""
  config = run.config
  multihost_utils.sync_global_devices("initial parts")
  if config.hearing.kind != "trained" and any(stage.work == "label sounds" for stage in make_graph(config)):
    external_taggers.check(run)
  graph = make_graph(config)
  stage_files.redo(redo, graph, run.workdir, config)
  multihost_utils.sync_global_devices("stages removed")
  stage_files.check(graph, run.workdir)
  if config.is_distilled and run.workdir.done("teacher_maps") is None:
    check_teacher(config)
  num_run = 0
  for number, stage in enumerate(graph, start=1):
    if _is_done(stage, run):
      continue
    if jax.process_index() == 0:
      tqdm.write(f"stage {number} of {len(graph)}: {stage.name}")
    _run_stage(stage, run)
    num_run += 1
  return num_run


def _claim(config: Config, workdir: Workdir) -> None:
  """Saves the resolved configuration, or compares it with the one that is there.

  What only the report depends on may change: the report is then made again.
  """
  path = workdir.config
  if path.is_file():
    text = path.read_text(encoding="utf-8", errors="replace")
    begun_with = configuration.loads(text, str(path))
    changes = configuration.differences(begun_with, config)
    if changes and begun_with == config.model_copy(update={name: getattr(begun_with, name) for name in _REPORTED}):
      if jax.process_index() == 0:
        stage_files.forget("report", workdir)
        write_text(path, configuration.dumps(config))
    elif changes:
      begun = f"was begun with another configuration ({'; '.join(changes)})"
      raise WorkdirError(f"{workdir.path}: {begun}; use another --workdir")
  elif jax.process_index() == 0:
    write_text(path, configuration.dumps(config))


def _is_done(stage: Stage, run: Run) -> bool:
  """Returns whether a stage is finished; what was made from other results than those that are there is removed."""
  if run.workdir.done(stage.name) is None:
    return False
  changed = stage_files.is_stale(stage, run.workdir)
  multihost_utils.sync_global_devices(f"{stage.name} is known")  # all have looked before the first one removes
  if changed is None:
    return True
  if jax.process_index() == 0:
    tqdm.write(f"{stage.name}: was made from another result of {changed} than the one that is there, so it is redone")
    stage_files.remove(stage, run.workdir, run.config)
  multihost_utils.sync_global_devices(f"{stage.name} removed")
  return False


def _run_stage(stage: Stage, run: Run) -> None:
  """Does the work of a stage and writes its `done.json`; all hosts wait for each other."""
  missing = [need for need in stage.needs if run.workdir.done(need) is None]
  if missing:
    raise WorkdirError(f"{run.workdir.path}: stage {stage.name} needs {', '.join(missing)}")
  started = time.monotonic()
  if jax.process_index() == 0:
    stage_files.begin(stage, run.workdir, run.config)
  multihost_utils.sync_global_devices(f"{stage.name} begins")
  about = do_work(stage, run)
  memory.give_back_freed_memory()  # so that what stages kept for themselves does not add up
  multihost_utils.sync_global_devices(stage.name)
  if jax.process_index() == 0:
    seconds = round(time.monotonic() - started, 1)
    made_from, files = stage_files.describe(stage, run.workdir, run.config)
    about = {"stage": stage.name, "seconds": seconds, **about, **made_from}
    write_manifest(run.workdir.stage(stage.name) / "done.json", about, files)
  multihost_utils.sync_global_devices(f"{stage.name} done")


def do_work(stage: Stage, run: Run) -> dict[str, Any]:
  """Does the work of a stage; returns what its `done.json` says."""
  match stage.work:
    case "prepare data":
      return prepare_data(run)
    case "train":
      return train_network.train(stage.name, run)
    case "label sounds":
      return label_sounds(run)
    case "find boxes":
      return find_boxes(run)
    case "make pseudo-fixations":
      return make_pseudo_fixations(run)
    case "ask teacher":
      return ask_teacher(run)
    case "extract student":
      return train_network.extract_student(stage.name, run)
    case "save model":
      return save_model(run)
    case "write report":
      from stajax.train.stages.write_report import write_report  # loads plotting

      return write_report(run) if jax.process_index() == 0 else {}
