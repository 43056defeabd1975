"""Preparation on Apache Beam: the workers of any Beam runner stage the clips and write the shards.

The workers and the process that starts them share the folders of the source and of the output, on a disk that all of
them mount. Beam is given numbers only; the tasks and their outcomes lie in the staging folder. Therefore the pipeline
is small however many clips there are, finished work survives whatever happens to the job, and the next run continues
from there. This module needs the extra `beam`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from stajax import runtime
from stajax.data.staging import Staging, pack_json, unpack_json
from stajax.media.limits import Failure, Limits, run_in_children
from stajax.prepare.assembly import Shard, write_planned
from stajax.prepare.clip import MediaSettings
from stajax.prepare.listing import Item
from stajax.prepare.media_tasks import Outcome, Task, read_outcome, stage

CHUNK = 64  # clips that a worker decodes before it reports to Beam; each chunk gets a child process of its own


@dataclass(frozen=True)
class BeamWorkers:
  """The workers of a Beam runner, for `stajax.prepare.media_records.prepare`.

  Attributes:
    options: The options of the pipeline, such as `--runner=FlinkRunner`.
    chunk: The number of clips in a unit of work.
  """

  options: tuple[str, ...]
  chunk: int = CHUNK

  def stage(self, tasks: Sequence[Task], settings: MediaSettings, limits: Limits) -> list[Outcome | Failure]:
    """Stages the tasks that have no outcome yet; returns the outcomes of all tasks, in their order.

    Raises:
      OSError: The pipeline failed.
    """
    missing = [task for task in tasks if read_outcome(task) is None]
    for task in missing:
      Staging(task.staging).path(_failure_key(task)).unlink(missing_ok=True)  # an earlier run may have left it
    chunks = [missing[start : start + self.chunk] for start in range(0, len(missing), self.chunk)]
    if chunks:
      folder = missing[0].staging
      for number, chunk in enumerate(chunks):
        _write(folder, _key("tasks", number), [asdict(task) for task in chunk])
      self._run(partial(_stage_chunk, folder, settings, limits), len(chunks))
    return [read_outcome(task) or Failure(_read(task.staging, _failure_key(task))) for task in tasks]

  def write(self, shards: Sequence[Shard]) -> list[tuple[int, int]]:
    """Writes planned shards; returns the number of records and their bytes for each.

    Raises:
      OSError: The pipeline failed.
    """
    folder = shards[0].staging
    for number, shard in enumerate(shards):
      _write(folder, _key("shard", number), asdict(shard))
    self._run(partial(_write_shard, folder), len(shards))
    written = (_read(folder, _key("written", number)) for number in range(len(shards)))
    return [(length, size) for length, size in written]

  def _run(self, function: Callable[[int], None], count: int) -> None:
    """Calls a function for the numbers below `count` in Beam's workers; some runners may call it twice for a number."""
    runtime.run_on_beam(self.options, function, count)


def _stage_chunk(folder: Path, settings: MediaSettings, limits: Limits, number: int) -> None:
  tasks = [_task(fields) for fields in _read(folder, _key("tasks", number))]
  missing = [task for task in tasks if read_outcome(task) is None]
  for index, outcome in run_in_children(stage, [(task, settings, limits) for task in missing], 1, limits):
    if isinstance(outcome, Failure):
      _write(missing[index].staging, _failure_key(missing[index]), outcome.reason)


def _write_shard(folder: Path, number: int) -> None:
  fields = _read(folder, _key("shard", number))
  paths = {name: Path(fields[name]) for name in ("staging", "folder")}
  names = {name: tuple(fields[name]) for name in ("keys", "categories")}
  _write(folder, _key("written", number), list(write_planned(Shard(**{**fields, **paths, **names}))))


def _task(fields: dict[str, Any]) -> Task:
  item = fields["item"]
  sound_file = None if item["sound_file"] is None else Path(item["sound_file"])
  item = Item(**{**item, "path": Path(item["path"]), "tags": tuple(item["tags"]), "sound_file": sound_file})
  return Task(fields["key"], item, fields["file"], Path(fields["staging"]))


def _write(folder: Path, key: str, value: Any) -> None:
  Staging(folder).write_arrays(key, json=pack_json(value))


def _read(folder: Path, key: str) -> Any:
  return unpack_json(Staging(folder).read_arrays(key)["json"])


def _key(kind: Literal["tasks", "shard", "written"], number: int) -> str:
  return f"beam-{kind}-{number:06d}"


def _failure_key(task: Task) -> str:
  return f"{task.key}-failure"
