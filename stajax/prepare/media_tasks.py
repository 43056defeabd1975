"""The tasks of preparing media files, one for each file: planning tasks, doing one, and reading its outcome.

A local run and a Beam pipeline (`stajax.prepare.beam`) do the same tasks in the same way, so that both give the same
bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av

from stajax import __version__
from stajax.data.staging import pack_json, staging_key, unpack_json
from stajax.files.manifest import sha256_of_json
from stajax.media.limits import Limits
from stajax.prepare.clip import MediaSettings, prepare_clips
from stajax.prepare.clip_staging import ClipStaging, PreparedClip
from stajax.prepare.item_media import item_files, read_stamp
from stajax.prepare.listing import Item, Listing, display_path
from stajax.prepare.progress import explain_failure

PREPARATION = 2  # a change of this number prepares all clips again


@dataclass(frozen=True)
class Task:
  """One item that is to be staged.

  Attributes:
    key: The name of its outcome in staging, which depends on the file's name, size and time, on the settings and on the
      versions.
    item: The item that is to be decoded.
    file: The file's name in messages, under the listing's root.
    staging: The staging folder.
  """

  key: str
  item: Item
  file: str
  staging: Path


@dataclass(frozen=True)
class Outcome:
  """The outcome of a task.

  Attributes:
    clips: The name and the staging key of each clip; empty if the file could not be used.
    notes: A line for each thing that had to be left out.
    reason: The reason why there is no clip.
  """

  clips: tuple[tuple[str, str], ...] = ()
  notes: tuple[str, ...] = ()
  reason: str = ""


def collect_facts(listing: Listing, part: str, settings: MediaSettings, limits: Limits) -> dict[str, Any]:
  """Returns the facts that the records of a part depend on, as its summary states them."""
  identities = [_identity(listing, item, with_times=False) for item in listing.items if item.part == part]
  digest = sha256_of_json([*identities, *listing.categories])[:12]
  return {**_settings(settings, limits), "files": f"{len(identities)}, SHA-256 {digest}"}


def plan_tasks(listing: Listing, part: str, staging: Path, settings: MediaSettings, limits: Limits) -> list[Task]:
  """Returns a task for each item of a part, in the listing's order."""
  made_with = {
    **_settings(settings, limits), "preparation": PREPARATION, "version": __version__, "av": av.__version__,
    "ffmpeg": av.library_versions,
  }  # fmt: skip
  tasks = []
  for item in listing.items:
    if item.part == part:
      identity = _identity(listing, item, with_times=True)
      key = staging_key(json.dumps(identity, sort_keys=True), made_with)
      tasks.append(Task(key, item, identity["file"], staging))
  return tasks


def stage(task: Task, settings: MediaSettings, limits: Limits) -> Outcome:
  """Decodes one item into its staging folder.

  The outcome is staged last, under the task's key, so that a task with an outcome (see `read_outcome`) is finished.
  Call this function by `stajax.media.limits.run_in_children`, where time and memory are limited.

  Raises:
    MemoryError: The process may not grow any more.
    OSError: The staging folder cannot be written to.
  """
  staging = ClipStaging(task.staging)
  notes: list[str] = []
  made: list[tuple[str, str]] = []
  try:
    for clip in _decoded_clips(task.item, settings, limits, notes):
      made.append((clip.name, f"{task.key}-{len(made):03d}"))
      staging.write(made[-1][1], clip)
    outcome = Outcome(tuple(made), tuple(notes))
  except _UnusableError as error:
    outcome = Outcome(reason=str(error))
  staging.write_arrays(task.key, outcome=pack_json(asdict(outcome)))
  return outcome


def read_outcome(task: Task) -> Outcome | None:
  """Returns the outcome of a task from an earlier run, or None if there is none.

  Raises:
    ValueError: The staged outcome is damaged; once it is deleted, the item is prepared again.
  """
  staging = ClipStaging(task.staging)
  if not staging.has(task.key):
    return None
  fields = unpack_json(staging.read_arrays(task.key)["outcome"])
  clips = tuple((name, key) for name, key in fields["clips"])
  return Outcome(clips, tuple(fields["notes"]), fields["reason"]) if all(staging.has(key) for _, key in clips) else None


class _UnusableError(Exception):
  """The reason why an item cannot be used."""


def _decoded_clips(item: Item, settings: MediaSettings, limits: Limits, notes: list[str]) -> Iterator[PreparedClip]:
  """Yields the clips of an item; turns whatever a library raises at a damaged file into `_UnusableError`."""
  try:
    yield from prepare_clips(item, settings, limits, notes)
  except MemoryError:
    raise
  except Exception as error:
    raise _UnusableError(explain_failure(error, item.path)) from error


def _settings(settings: MediaSettings, limits: Limits) -> dict[str, Any]:
  """Returns all settings except the limits on time and memory, which decide which files fail but change no clip."""
  kept = ("max_seconds", "max_pixels", "max_bytes", "sound")
  return {**asdict(settings), **{name: getattr(limits, name) for name in kept}}


def _identity(listing: Listing, item: Item, with_times: bool) -> dict[str, Any]:
  """Returns what identifies an item and the version of its files, without reading them."""
  return {
    "name": item.name,
    "tags": item.tags,
    "rate": item.rate,
    "file": display_path(item.path, listing.root),
    "wav": None if item.sound_file is None else display_path(item.sound_file, listing.root),
    "files": [(path.name, *read_stamp(path, with_times)) for path in item_files(item)],
  }
