"""The files that stages leave behind: their SHA-256 in `done.json`, the check of them, and doing a stage again.

`done.json` has the SHA-256 of every file that later stages or users read, and says from which results of other stages
they were made. So a file that was damaged or exchanged stops the run, and what was made from something else than what
is there now is made again, also what was only begun. Checkpoints are checked when they are read, see
`stajax.train.checkpoint`.
"""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from stajax import runtime
from stajax.config import Config, ConfigError
from stajax.data.staging import staging_of
from stajax.files import FileError, read_json, sync, write_json
from stajax.files.manifest import check_digest, digests, sha256_of_json
from stajax.hints import unknown
from stajax.train.stages.graph import Stage
from stajax.train.workdir import WEIGHTS, Workdir, WorkdirError

LOG = "log.jsonl"
_TABLES = {"label sounds": ("tag_heard", "heard_tags"), "find boxes": ("boxes",)}
"""The tables that stages write, by their work."""


def products(stage: Stage, workdir: Workdir, config: Config) -> list[Path]:
  """Returns the files and folders that a stage writes, of which some may be missing."""
  folder = workdir.stage(stage.name)
  match stage.work:
    case "prepare data":
      return [workdir.data] if config.data.source == "synthetic" else []
    case "train":
      return [folder / WEIGHTS, folder / LOG]
    case "extract student":
      return [folder / WEIGHTS]
    case "make pseudo-fixations":
      return [workdir.companions, workdir.pseudo_fixations]
    case "ask teacher":
      return [workdir.pseudo_fixations]
    case "save model":
      return [workdir.model]
    case "write report":
      return [workdir.report]
    case _:
      return [workdir.table(name) for name in _TABLES[stage.work]]


def describe(stage: Stage, workdir: Workdir, config: Config) -> tuple[dict[str, Any], dict[str, str]]:
  """Returns what the manifest `done.json` says about the files of a stage: what they were made from, their SHA-256.

  Removes what a process that was killed has left of their staging.
  """
  paths = products(stage, workdir, config)
  for path in paths:
    shutil.rmtree(staging_of(path), ignore_errors=True)
  files = digests(workdir.path, paths)
  if stage.work == "prepare data":
    # The parts that networks begin with are there before any stage.
    files |= digests(workdir.path, sorted(workdir.path.glob("init/*.safetensors")))
  return {"made_from": {need: _identity(workdir, need) for need in stage.needs}}, files


def begin(stage: Stage, workdir: Workdir, config: Config) -> None:
  """Notes from what a stage is made, in `begun.json`; what an interrupted run began with other results is removed."""
  path = workdir.stage(stage.name) / "begun.json"
  made_from = {need: _identity(workdir, need) for need in stage.needs}
  begun: Any = None
  with contextlib.suppress(FileError):
    begun = read_json(path) if path.exists() else made_from  # None: it was begun before this was written down
  if begun != made_from:
    remove(stage, workdir, config)
  if begun != made_from or not path.exists():
    write_json(path, made_from)


def check(graph: Sequence[Stage], workdir: Workdir) -> None:
  """Checks the files of all finished stages; several processes share the work.

  Raises:
    WorkdirError: A file is missing or another one; one line that names it, and what to do.
  """
  found = [(name, *file) for name in _finished(graph, workdir) for file in workdir.files(name).items()]
  mine = found[jax.process_index() :: jax.process_count()]
  for stage, name, sha256 in runtime.progress("checking files", len(mine), "file", iterable=mine, leave=False):
    try:
      check_digest(workdir.path / name, sha256)
    except FileError as error:
      how = f"`--redo {stage}` makes the files of this stage again"
      if name.startswith("init/"):
        how = "delete it, and name the file that the run began with by --init"
      raise WorkdirError(f"{error}; {how}") from None


def is_stale(stage: Stage, workdir: Workdir) -> str | None:
  """Returns the stage of which another result is there than the one from which a finished stage was made, or None."""
  made_from = workdir.outcome(stage.name).get("made_from", {})
  return next((need for need in stage.needs if made_from.get(need, "") not in ("", _identity(workdir, need))), None)


def redo(names: Sequence[str], graph: Sequence[Stage], workdir: Workdir, config: Config) -> None:
  """Removes the results of stages that are to be done again; networks go on from their last checkpoint.

  The log of the steps up to there is kept, unless it is damaged.

  Raises:
    ConfigError: There is no such stage.
  """
  stages = {stage.name: stage for stage in graph}
  for name in names:
    if name not in stages:
      raise ConfigError(f"--redo: {unknown('stage', name, stages)}")
  for name in names if jax.process_index() == 0 else ():
    kept = [log] if _is_intact(log := workdir.stage(name) / LOG, name, workdir) else []
    remove(stages[name], workdir, config, with_checkpoints=False, kept=kept)


def _is_intact(path: Path, stage: str, workdir: Workdir) -> bool:
  """Returns whether a file of a stage is what it was when the stage was finished, or the stage was not finished."""
  try:
    written = workdir.files(stage)
    check_digest(path, written[path.relative_to(workdir.path).as_posix()])
  except KeyError:  # nothing is known about it
    return True
  except WorkdirError:  # `done.json` is missing or damaged
    return path.exists()
  except FileError:
    return False
  return True


def remove(
  stage: Stage, workdir: Workdir, config: Config, with_checkpoints: bool = True, kept: Sequence[Path] = ()
) -> None:
  """Removes the results of a stage, `done.json` first, so that a process that is killed leaves no finished stage."""
  forget(stage.name, workdir)
  found = [path for path in products(stage, workdir, config) if path not in kept]
  more = [workdir.stage(stage.name) / "checkpoints"] if with_checkpoints else []
  for path in [*found, *map(staging_of, found), *more]:
    if path.is_dir() and not path.is_symlink():
      shutil.rmtree(path)
    else:
      with contextlib.suppress(FileNotFoundError):
        path.unlink()


def forget(stage: str, workdir: Workdir) -> None:
  """Lets a stage be unfinished, also if the power fails."""
  path = workdir.stage(stage) / "done.json"
  if path.is_dir():
    shutil.rmtree(path)
  elif path.exists():
    path.unlink()
    sync(path.parent)


def _finished(graph: Sequence[Stage], workdir: Workdir) -> Iterator[str]:
  return (stage.name for stage in graph if workdir.done(stage.name) is not None)


def _identity(workdir: Workdir, stage: str) -> str:
  """Returns what stands for the results of a finished stage; "" if it was finished before this was written down."""
  files = {name: sha256 for name, sha256 in workdir.files(stage).items() if Path(name).name != LOG}  # it has times
  return sha256_of_json(files)[:32] if files else ""
