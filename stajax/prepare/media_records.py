"""Turns a listing of media files into record sets, one for each part: the files are decoded, staged and assembled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stajax import __version__
from stajax.media.limits import Failure, Limits
from stajax.prepare.clip import MediaSettings
from stajax.prepare.clip_staging import ClipStaging
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

MAX_REMARKS = 1000  # in a summary: half of VGGSound is missing from most copies, file by file; `--check` lists all


class Workers(Protocol):
  """Who does the work of a preparation: processes of this machine, or those of a Beam runner."""

  def stage(self, tasks: Sequence[Task], settings: MediaSettings, limits: Limits) -> Sequence[Outcome | Failure]:
    """Returns what became of the tasks, in their order."""
    ...

  def write(self, shards: Sequence[Shard]) -> Sequence[tuple[int, int]]:
    """Writes planned shards; returns the number of records and their bytes for each."""
    ...


@dataclass(frozen=True)
class LocalWorkers:
  """Child processes of this one.

  Attributes:
    processes: The number of processes that decode, and write shards.
  """

  processes: int = 1

  def stage(self, tasks: Sequence[Task], settings: MediaSettings, limits: Limits) -> list[Outcome | Failure]:
    """Returns what became of the tasks, in their order."""
    found = [read_outcome(task) for task in tasks]
    return complete("clips", found, stage, lambda number: (tasks[number], settings, limits), self.processes, limits)

  def write(self, shards: Sequence[Shard]) -> list[tuple[int, int]]:
    """Writes planned shards; returns the number of records and their bytes for each."""
    from stajax.prepare.assembly import write_shards  # TensorFlow Datasets takes seconds to load

    return write_shards(shards, self.processes)


@dataclass(frozen=True)
class _Part:
  """One part of a listing.

  Attributes:
    name: The part's name.
    out: The folder of its record set.
    summary: The content of its `summary.json` where it is finished already.
    staging: Its staging folder.
    tasks: What there is to do for it.
  """

  name: str
  out: Path
  summary: dict[str, Any] | None
  staging: ClipStaging
  tasks: list[Task]


def prepare(
  listing: Listing,
  out: Path,
  settings: MediaSettings | None = None,
  limits: Limits | None = None,
  workers: Workers | None = None,
) -> dict[str, dict[str, Any]]:
  """Writes every part of a listing as the record set `out/PART`; what is finished is left as it is.

  Args:
    listing: The source.
    out: The folder of the sets; an interrupted run is gone on with.
    settings: What clips are turned into.
    limits: What a file may cost.
    workers: Who does the work; by default a single process.

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
  parts = _parts(listing, out, settings, limits)
  outcomes = iter(workers.stage([task for part in parts for task in part.tasks], settings, limits))
  summaries: dict[str, dict[str, Any]] = {}
  unusable = ""
  for part in parts:
    summary = part.summary
    if summary is None:
      own = list(islice(outcomes, len(part.tasks)))
      keys, summary = collect_outcomes(listing, part.tasks, own, settings, limits)
      if keys:
        from stajax.prepare.assembly import assemble  # TensorFlow Datasets takes seconds to load

        summary = assemble(part.staging, keys, part.out, listing.categories, summary, write=workers.write)
      else:
        unusable = describe_none_usable(part.out, "files", summary["skipped"])
        summary = None
    if summary is not None:
      summaries[part.name] = summary
    part.staging.remove()
  if unusable:
    raise (ValueError if summaries else NothingUsableError)(unusable)
  return summaries


def _parts(listing: Listing, out: Path, settings: MediaSettings, limits: Limits) -> list[_Part]:
  """Returns the parts of a listing, once it is known that none of them was made with other settings."""
  summaries = {
    part: read_finished(out / part, collect_facts(listing, part, settings, limits)) for part in listing.parts
  }
  parts = []
  for name, summary in summaries.items():
    staging = open_staging(out / name)
    tasks = plan_tasks(listing, name, staging.folder, settings, limits) if summary is None else []
    parts.append(_Part(name, out / name, summary, staging, tasks))
  return parts


def collect_outcomes(
  listing: Listing,
  tasks: Sequence[Task],
  outcomes: Sequence[Outcome | Failure],
  settings: MediaSettings,
  limits: Limits,
) -> tuple[list[str], dict[str, Any]]:
  """Returns staging keys in the order of the records (clips sorted by name), and the summary, for `assemble`.

  Args:
    listing: The source.
    tasks: The tasks of one part, at least one.
    outcomes: What became of them, in their order.
    settings: What clips are turned into.
    limits: What a file may cost.
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
