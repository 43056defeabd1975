"""A listing of media files to record sets, one a part: decoded by child processes, staged, assembled.

A local run (`prepare`) and a Beam pipeline go the same way, so that they give the same bytes: `plan` names what is to
be done, `stage` does one task in whatever process, `collect` says what is to be assembled of the outcomes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from stajax import __version__
from stajax.data.clip_media import MediaSettings, prepared_clips
from stajax.data.image_folder import numbered_images
from stajax.data.limits import Failure, Limits
from stajax.data.listing import Item, Listing, count_remarks
from stajax.data.media import MediaError
from stajax.data.preparation import finished, staging_of, work
from stajax.data.staging import Staging, staging_key

PREPARATION = 1  # another number prepares all clips again


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
) -> dict[str, dict[str, Any]]:
  """Writes every part of a listing as the record set `out/PART`; what is finished is left as it is.

  Args:
    listing: the source.
    out: folder of the sets; an interrupted run is gone on with.
    settings: what clips are turned into.
    limits: what a file may cost.
    processes: that decode.

  Returns:
    The content of `out/PART/summary.json` by part.

  Raises:
    ValueError: nothing is listed, no clip of a part can be used, or a part was made with other settings.
    OSError: the disk is full, or the child processes cannot work.
  """
  settings, limits = settings or MediaSettings(), limits or Limits()
  raise NotImplementedError


def plan(listing: Listing, part: str, settings: MediaSettings, limits: Limits) -> list[Task]:
  """A task for each item of a part, in the listing's order."""
  raise NotImplementedError


def stage(task: Task, folder: Path, settings: MediaSettings, limits: Limits) -> Outcome:
  """Decodes one item into a staging folder, or finds there what an earlier run made of it.

  The outcome is staged last, under the task's key: what has one is finished. Call it by
  `stajax.data.limits.run_in_children`, where time and memory are limited.

  Raises:
    MemoryError: the process may not grow any more.
    OSError: staging cannot be written.
  """
  raise NotImplementedError


def collect(
  listing: Listing,
  part: str,
  tasks: Sequence[Task],
  outcomes: Sequence[Outcome],
  settings: MediaSettings,
  limits: Limits,
) -> tuple[list[str], dict[str, Any]]:
  """Staging keys in the order of the records (clips sorted by name), and the summary, for `assemble`.

  Args:
    outcomes: of the tasks; a `Failure` of limits counts as `Outcome(reason=…)`.
  """
  raise NotImplementedError
