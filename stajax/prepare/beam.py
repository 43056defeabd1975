"""The same preparation on Apache Beam: clips are staged, and shards written, by the workers of any Beam runner.

Workers and the process that starts them share the folders of the source and of the output (a disk that all mount).
Beam is given numbers only: what is to be done lies in the staging folder, as do the outcomes. Therefore the pipeline is
small however many clips there are, what was done survives whatever becomes of the job, and the next run goes on from
there. It needs the extra `beam`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stajax.data.staging import Staging
from stajax.media.limits import Failure, Limits, run_in_children
from stajax.prepare.assembly import Shard, write_planned
from stajax.prepare.clip import MediaSettings
from stajax.prepare.listing import Item
from stajax.prepare.media_tasks import Outcome, Task, read_outcome, stage

CHUNK = 64  # clips that a worker decodes before it tells Beam; it starts a child process for each chunk


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
    """Returns what became of the tasks, in their order.

    Raises:
      OSError: The pipeline failed.
    """
    missing = [task for task in tasks if read_outcome(task) is None]
    for task in missing:
      Staging(task.staging).path(_failure_key(task)).unlink(missing_ok=True)  # of an earlier run
    chunks = [missing[start : start + self.chunk] for start in range(0, len(missing), self.chunk)]
    if chunks:
      folder = missing[0].staging
      for number, chunk in enumerate(chunks):
        _write(folder, _tasks_key(number), [asdict(task) for task in chunk])
      self._run(partial(_stage_chunk, folder, settings, limits), len(chunks))
    return [read_outcome(task) or Failure(_read(task.staging, _failure_key(task))) for task in tasks]

  def write(self, shards: Sequence[Shard]) -> list[tuple[int, int]]:
    """Writes planned shards; returns the number of records and their bytes for each.

    Raises:
      OSError: The pipeline failed.
    """
    folder = shards[0].staging
    for number, shard in enumerate(shards):
      _write(folder, _shard_key(number), asdict(shard))
    self._run(partial(_write_shard, folder), len(shards))
    written = (_read(folder, _written_key(number)) for number in range(len(shards)))
    return [(length, size) for length, size in written]

  def _run(self, function: Callable[[int], None], count: int) -> None:
    """Calls a function for the numbers below `count` in Beam's workers; some runners do it twice for one of them."""
    try:
      import apache_beam as beam  # pyright: ignore[reportMissingImports]  # it comes with the extra `beam` only
      from apache_beam.options.pipeline_options import PipelineOptions  # pyright: ignore[reportMissingImports]
    except ImportError:
      raise OSError("Apache Beam is not installed: pip install 'stajax[beam]'") from None
    try:
      with beam.Pipeline(options=PipelineOptions(list(self.options))) as pipeline:
        _ = pipeline | beam.Create(range(count)) | beam.Reshuffle() | beam.Map(function)
    except Exception as error:  # a runner raises whatever it likes, with the worker's whole traceback as the message
      lines = [line for line in str(error).splitlines() if line.strip()]
      raise OSError(f"the Beam pipeline failed: {lines[-1].strip() if lines else type(error).__name__}") from error


def _stage_chunk(folder: Path, settings: MediaSettings, limits: Limits, number: int) -> None:
  tasks = [_task(fields) for fields in _read(folder, _tasks_key(number))]
  missing = [task for task in tasks if read_outcome(task) is None]
  for index, outcome in run_in_children(stage, [(task, settings, limits) for task in missing], 1, limits):
    if isinstance(outcome, Failure):
      _write(missing[index].staging, _failure_key(missing[index]), outcome.reason)


def _write_shard(folder: Path, number: int) -> None:
  fields = _read(folder, _shard_key(number))
  paths = {name: Path(fields[name]) for name in ("staging", "folder")}
  names = {name: tuple(fields[name]) for name in ("keys", "categories")}
  _write(folder, _written_key(number), list(write_planned(Shard(**{**fields, **paths, **names}))))


def _task(fields: dict[str, Any]) -> Task:
  item = fields["item"]
  wav = None if item["wav"] is None else Path(item["wav"])
  item = Item(**{**item, "path": Path(item["path"]), "tags": tuple(item["tags"]), "wav": wav})
  return Task(fields["key"], item, fields["file"], Path(fields["staging"]))


def _write(folder: Path, key: str, value: Any) -> None:
  content = json.dumps(value, default=str).encode()
  Staging(folder).write_arrays(key, json=np.frombuffer(content, np.uint8))


def _read(folder: Path, key: str) -> Any:
  return json.loads(Staging(folder).read_arrays(key, ("json",))["json"].tobytes())


def _tasks_key(number: int) -> str:
  return f"beam-tasks-{number:06d}"


def _failure_key(task: Task) -> str:
  return f"{task.key}-failure"


def _shard_key(number: int) -> str:
  return f"beam-shard-{number:06d}"


def _written_key(number: int) -> str:
  return f"beam-written-{number:06d}"
