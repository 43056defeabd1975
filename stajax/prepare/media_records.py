"""A listing of media files to record sets, one a part: decoded by child processes, staged, assembled.

A local run and a Beam pipeline (`stajax.prepare.beam`) go the same way, so that they give the same bytes: `plan` names
what is to be done, `stage` does one task in whatever process, `collect` says what is to be assembled of the outcomes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from stajax import __version__
from stajax.files import sha256_of_json
from stajax.media.file import MediaError
from stajax.media.image_folder import numbered_images
from stajax.media.limits import Failure, Limits
from stajax.prepare.clip import MediaSettings, prepared_clips
from stajax.prepare.listing import Item, Listing, count_remarks, shown
from stajax.prepare.progress import finished, staging_of, work
from stajax.prepare.staging import Staging, staging_key

PREPARATION = 1  # another number prepares all clips again
MAX_REMARKS = 1000  # in a summary: half of VGGSound is missing from most copies, file by file; `--check` lists all


@dataclass(frozen=True)
class Task:
  """One item that is to be staged.

  Attributes:
    key: names its outcome in staging; depends on the file's name, size and time, the settings and the versions.
    item: to be decoded.
    file: names it in messages, under the listing's root.
  """

  key: str
  item: Item
  file: str


@dataclass(frozen=True)
class Outcome:
  """What became of a task.

  Attributes:
    clips: (name, staging key) of each clip; none where the file could not be used.
    notes: what had to be left out, a line each.
    reason: why there is no clip.
  """

  clips: tuple[tuple[str, str], ...] = ()
  notes: tuple[str, ...] = ()
  reason: str = ""


def prepare(
  listing: Listing,
  out: Path,
  settings: MediaSettings | None = None,
  limits: Limits | None = None,
  processes: int = 1,
  beam: Sequence[str] | None = None,
) -> dict[str, dict[str, Any]]:
  """Writes every part of a listing as the record set `out/PART`; what is finished is left as it is.

  Args:
    listing: the source.
    out: folder of the sets; an interrupted run is gone on with.
    settings: what clips are turned into.
    limits: what a file may cost.
    processes: that decode, and write shards.
    beam: options of the Apache Beam pipeline that does so instead.

  Returns:
    The content of `out/PART/summary.json` by part.

  Raises:
    ValueError: nothing is listed, no file of a part can be used, or a part was made with other settings.
    OSError: the disk is full, or the child processes cannot work.
  """
  settings, limits = settings or MediaSettings(), limits or Limits()
  if not listing.items:
    raise ValueError(f"{listing.root}: there is no clip to prepare")
  summaries = {part: finished(out / part, facts(listing, part, settings, limits)) for part in listing.parts}
  stagings = {part: staging_of(out / part) for part in listing.parts}
  tasks = {part: plan(listing, part, settings, limits) for part, summary in summaries.items() if summary is None}
  if beam is None:
    workers, outcomes = None, _stage_all(tasks, stagings, settings, limits, processes)
  else:
    from stajax.prepare.beam import BeamWorkers  # with the extra `beam` only

    workers = BeamWorkers(tuple(beam))
    outcomes = {part: workers.stage(todo, stagings[part], settings, limits) for part, todo in tasks.items()}
  unusable = ""
  for part, staging in stagings.items():
    if summaries[part] is None:
      keys, summary = collect(listing, part, tasks[part], outcomes[part], settings, limits)
      if keys:
        from stajax.prepare.assembly import assemble  # TensorFlow Datasets takes seconds to load

        how = {"processes": processes} if workers is None else {"write": workers.write}
        summaries[part] = assemble(staging, keys, out / part, listing.categories, summary, **how)
      else:
        first = summary["skipped"][0]
        unusable = f"{out / part}: none of {len(tasks[part])} files can be used"
        unusable += f" (first: {first['file']}: {first['reason']})"
    staging.remove()
  if unusable:
    raise ValueError(unusable)
  return summaries


def facts(listing: Listing, part: str, settings: MediaSettings, limits: Limits) -> dict[str, Any]:
  """What the records of a part depend on, as its summary says it; with other facts they would be others."""
  identities = [_identity(listing, item, with_times=False) for item in listing.items if item.part == part]
  digest = sha256_of_json([*identities, *listing.categories])[:12]
  return {**_settings(settings, limits), "files": f"{len(identities)}, SHA-256 {digest}"}


def plan(listing: Listing, part: str, settings: MediaSettings, limits: Limits) -> list[Task]:
  """A task for each item of a part, in the listing's order."""
  made_with = {
    **_settings(settings, limits), "preparation": PREPARATION, "version": __version__, "av": av.__version__,
    "ffmpeg": av.library_versions,
  }  # fmt: skip
  tasks = []
  for item in listing.items:
    if item.part == part:
      identity = _identity(listing, item, with_times=True)
      key = staging_key(json.dumps(identity, sort_keys=True), made_with)
      tasks.append(Task(key, item, identity["file"]))
  return tasks


def stage(task: Task, folder: Path, settings: MediaSettings, limits: Limits) -> Outcome:
  """Decodes one item into a staging folder.

  The outcome is staged last, under the task's key: what has one (see `staged`) is finished. Call it by
  `stajax.media.limits.run_in_children`, where time and memory are limited.

  Raises:
    MemoryError: the process may not grow any more.
    OSError: staging cannot be written.
  """
  staging = Staging(folder)
  notes: list[str] = []
  made: list[tuple[str, str]] = []
  clips = prepared_clips(task.item, settings, limits, notes)
  reason = ""
  while True:
    try:
      clip = next(clips, None)
    except MemoryError:
      raise
    except MediaError as error:
      reason = _one_line(str(error).removeprefix(f"{task.item.path}: "))
    except Exception as error:  # a damaged file must not stop the others, whatever it makes a library raise
      reason = f"cannot be decoded ({type(error).__name__}: {_one_line(str(error))})"
    if reason or clip is None:
      break
    made.append((clip.name, f"{task.key}-{len(made):03d}"))
    staging.write(made[-1][1], clip)
  outcome = Outcome(reason=reason) if reason else Outcome(tuple(made), tuple(notes))
  content = json.dumps(asdict(outcome)).encode()
  staging.write_arrays(task.key, outcome=np.frombuffer(content, np.uint8))
  return outcome


def staged(task: Task, staging: Staging) -> Outcome | None:
  """What an earlier run made of a task; None where it has not come to it.

  Raises:
    ValueError: the staged outcome is damaged; delete it to have the item prepared again.
  """
  if not staging.has(task.key):
    return None
  fields = json.loads(staging.read_arrays(task.key)["outcome"].tobytes())
  clips = tuple((name, key) for name, key in fields["clips"])
  return Outcome(clips, tuple(fields["notes"]), fields["reason"]) if all(staging.has(key) for _, key in clips) else None


def collect(
  listing: Listing,
  part: str,
  tasks: Sequence[Task],
  outcomes: Sequence[Outcome | Failure],
  settings: MediaSettings,
  limits: Limits,
) -> tuple[list[str], dict[str, Any]]:
  """Staging keys in the order of the records (clips sorted by name), and the summary, for `assemble`.

  Args:
    outcomes: of the tasks, in their order.
  """
  clips: list[tuple[str, str]] = []
  skipped, notes = [], {}
  for task, outcome in zip(tasks, outcomes, strict=True):
    if outcome.reason:
      skipped.append({"file": task.file, "reason": outcome.reason.replace(f"{listing.root}{os.sep}", "")})
      continue
    clips += outcome.clips
    if outcome.notes:
      notes[task.item.name] = list(outcome.notes)
  summary = {
    "source": listing.source,
    "provenance": listing.source,
    "version": __version__,
    "settings": facts(listing, part, settings, limits),
    "limits": asdict(limits),
    "skipped": skipped,
    "notes": notes,
    "remark_counts": count_remarks(listing.remarks),
    "remarks": [asdict(remark) for remark in listing.remarks[:MAX_REMARKS]],
  }
  return [key for _, key in sorted(clips)], summary


def _stage_all(
  tasks: Mapping[str, Sequence[Task]],
  stagings: Mapping[str, Staging],
  settings: MediaSettings,
  limits: Limits,
  processes: int,
) -> dict[str, list[Outcome | Failure]]:
  """The outcomes of every part's tasks, by one pool of processes for all parts."""
  outcomes = {part: [staged(task, stagings[part]) for task in planned] for part, planned in tasks.items()}
  missing = [(part, i) for part, found in outcomes.items() for i, outcome in enumerate(found) if outcome is None]
  arguments = [(tasks[part][i], stagings[part].folder, settings, limits) for part, i in missing]
  total = sum(map(len, tasks.values()))
  for number, outcome in work("clips", total, stage, arguments, processes, limits) if missing else ():
    part, i = missing[number]
    outcomes[part][i] = outcome
  return outcomes


def _settings(settings: MediaSettings, limits: Limits) -> dict[str, Any]:
  """Time and memory are not among them: they decide which files fail, not what becomes of the others."""
  kept = ("max_seconds", "max_pixels", "max_bytes")
  return {**asdict(settings), **{name: getattr(limits, name) for name in kept}}


def _identity(listing: Listing, item: Item, with_times: bool) -> dict[str, Any]:
  """What tells an item from another one, and from a later one of its name, without reading it."""
  paths = [item.path] if item.rate is None else [path for _, path in numbered_images(item.path)]
  return {
    "name": item.name,
    "tags": item.tags,
    "rate": item.rate,
    "file": shown(item.path, listing.root),
    "wav": None if item.wav is None else shown(item.wav, listing.root),
    "files": [(path.name, *_stamp(path, with_times)) for path in [*paths, *filter(None, [item.wav])]],
  }


def _stamp(path: Path, with_times: bool) -> tuple[int, ...]:
  try:
    status = path.stat()
  except OSError:
    return (-1,)  # decoding will say what is wrong
  return (status.st_size, status.st_mtime_ns) if with_times else (status.st_size,)


def _one_line(text: str) -> str:
  return " ".join(text.split())[:500].encode("utf-8", "backslashreplace").decode()
