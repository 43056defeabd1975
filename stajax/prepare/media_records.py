"""Turns a listing of media files into record sets, one for each part, by decoding, staging and assembling the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stajax import __version__
from stajax.media.limits import Failure, Limits
from stajax.prepare.clip import MediaSettings
from stajax.prepare.listing import Listing, NothingUsableError, count_remarks
from stajax.prepare.media_tasks import Outcome, Task, collect_facts, plan_tasks, read_outcome, stage
from stajax.prepare.progress import (
  complete,
  describe_none_usable,
  describe_skipped,
  open_staging,
  read_finished,
)

if TYPE_CHECKING:
  from stajax.prepare.assembly import Shard

MAX_REMARKS = 1000  # in a summary, because most copies of VGGSound lack half of its files; `--check` lists all


class Workers(Protocol):
  """The workers of a preparation: processes of this machine, or those of a Beam runner."""

  def stage(self, tasks: Sequence[Task], settings: MediaSettings, limits: Limits) -> Sequence[Outcome | Failure]:
    """Stages the tasks that have no outcome yet; returns the outcomes of all tasks, in their order."""
    ...

  def write(self, shards: Sequence[Shard]) -> Sequence[tuple[int, int]]:
    """Writes planned shards; returns the number of records and their bytes for each."""
    ...


@dataclass(frozen=True)
class LocalWorkers:
  """Child processes of this one.

  Attributes:
    processes: The number of processes that decode media and write shards.
  """

  processes: int = 1

  def stage(self, tasks: Sequence[Task], settings: MediaSettings, limits: Limits) -> list[Outcome | Failure]:
    """Stages the tasks that have no outcome yet; returns the outcomes of all tasks, in their order."""
    arguments = [(task, settings, limits) for task in tasks]
    return complete("clips", [read_outcome(task) for task in tasks], stage, arguments, self.processes, limits)

  def write(self, shards: Sequence[Shard]) -> list[tuple[int, int]]:
    """Writes planned shards; returns the number of records and their bytes for each."""
    from stajax.prepare.assembly import write_shards  # TensorFlow Datasets takes seconds to load

    return write_shards(shards, self.processes)


def prepare(
  listing: Listing,
  out: Path,
  settings: MediaSettings | None = None,
  limits: Limits | None = None,
  workers: Workers | None = None,
) -> dict[str, dict[str, Any]]:
  """Writes every part of a listing as the record set `out/PART`; a finished set is left as it is.

  Args:
    listing: The source.
    out: The folder of the sets; an interrupted run continues where it stopped.
    settings: The grid and the segments of the clips.
    limits: The limits for a file.
    workers: The workers; by default a single process.

  Returns:
    The content of `out/PART/summary.json` by part.

  Raises:
    NothingUsableError: No file of any part can be used.
    ValueError: Nothing is listed, no file of a part can be used, or a part was made with other settings.
    OSError: The disk is full, or the workers cannot work.
  """
  settings, limits, workers = settings or MediaSettings(), limits or Limits(), workers or LocalWorkers()
  if not listing.items:
    raise ValueError(f"{listing.root}: there is no clip to prepare")
  finished = {part: read_finished(out / part, collect_facts(listing, part, settings, limits)) for part in listing.parts}
  stagings = {part: open_staging(out / part) for part in finished}
  tasks = {
    part: plan_tasks(listing, part, staging.folder, settings, limits)
    for part, staging in stagings.items()
    if finished[part] is None
  }
  outcomes = iter(workers.stage([task for own in tasks.values() for task in own], settings, limits))
  summaries = {part: summary for part, summary in finished.items() if summary is not None}
  unusable = ""
  for part, staging in stagings.items():
    if part in tasks:
      own = list(islice(outcomes, len(tasks[part])))
      keys, summary = collect_outcomes(listing, tasks[part], own, settings, limits)
      if keys:
        from stajax.prepare.assembly import assemble  # TensorFlow Datasets takes seconds to load

        summaries[part] = assemble(staging, keys, out / part, listing.categories, summary, write=workers.write)
      else:
        unusable = describe_none_usable(out / part, "files", summary["skipped"])
    staging.remove()
  if unusable:
    raise (ValueError if summaries else NothingUsableError)(unusable)
  return {part: summaries[part] for part in finished if part in summaries}  # in the order of the parts


def collect_outcomes(
  listing: Listing,
  tasks: Sequence[Task],
  outcomes: Sequence[Outcome | Failure],
  settings: MediaSettings,
  limits: Limits,
) -> tuple[list[str], dict[str, Any]]:
  """Returns the staging keys in the order of the records (clips sorted by name), and the summary, for `assemble`.

  Args:
    listing: The source.
    tasks: The tasks of one part, at least one.
    outcomes: The outcomes of the tasks, in their order.
    settings: The grid and the segments of the clips.
    limits: The limits for a file.
  """
  clips: list[tuple[str, str]] = []
  skipped, notes = [], {}
  for task, outcome in zip(tasks, outcomes, strict=True):
    if isinstance(outcome, Failure) or outcome.reason:
      skipped.append(describe_skipped(task.file, outcome.reason, listing.root))
      continue
    clips += outcome.clips
    if outcome.notes:
      notes[task.item.name] = list(outcome.notes)
  summary = {
    "source": listing.source,
    "provenance": listing.source,
    "version": __version__,
    "settings": collect_facts(listing, tasks[0].item.part, settings, limits),
    "limits": asdict(limits),
    "skipped": skipped,
    "notes": notes,
    "remark_counts": count_remarks(listing.remarks),
    "remarks": [asdict(remark) for remark in listing.remarks[:MAX_REMARKS]],
  }
  return [key for _, key in sorted(clips)], summary
