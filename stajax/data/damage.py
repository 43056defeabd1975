"""Finds the clips of a data set whose records cannot be read.

A flipped bit damages only the record that it is in. A truncated shard cannot be read at all, because the places of its
records are listed at its end. Finding damage means reading everything, so the result is kept beside the sets, in
`damage.json`, and is valid while the shards' sizes and times stay the same.
"""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from stajax import runtime
from stajax.data.records import Records
from stajax.data.shards import RecordError
from stajax.files import read_json, write_json

FILE = "damage.json"


def open_intact(path: str | Path) -> Records:
  """Opens a data set without the clips whose frames or sounds cannot be read.

  Raises:
    RecordError: A part of the set is missing or does not belong to the others, or no clip is undamaged.
  """
  records = Records.open(path, complete=False)
  return records.without(find_damage(records))


def find_damage(records: Records) -> dict[str, str]:
  """Returns the reason for each damaged clip, by name.

  Every frame and sound is read, unless this was done before and nothing has changed since.
  """
  path = records.path / FILE
  shards = {
    f"{shard.parent.parent.name}/{shard.name}": _size_and_time(shard)
    for shard in [*records.frames.shards, *records.sounds.shards]
  }
  with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
    known = read_json(path)
    if known["shards"] == shards and set(known["damaged"]) <= set(records.names):
      return dict(known["damaged"])
  damaged = _read_all(records)
  with contextlib.suppress(OSError):  # a set in a folder that cannot be written to is checked every time
    write_json(path, {"shards": shards, "damaged": damaged}, shared=True)
  return damaged


def describe_damage(records: Records) -> str:
  """Returns one line about the clips that were left out, or "" if there are none."""
  if not records.damaged:
    return ""
  names = list(records.damaged)
  words = f"{len(names)} of {len(names) + records.num_clips} clips are left out, whose records are damaged"
  rest = f" and {len(names) - 10} more (see {FILE})" if len(names) > 10 else ""
  return f"{records.path}: {words}: {', '.join(names[:10])}{rest}; the first: {records.damaged[names[0]]}"


def _read_all(records: Records) -> dict[str, str]:
  """Reads all clips in threads and returns the damaged ones, in order."""
  damaged = {}
  bar = runtime.progress(f"reading {records.path.name}", records.num_clips, "clip")
  with ThreadPoolExecutor() as pool, bar:
    try:
      faults = pool.map(partial(_find_fault, records), range(records.num_clips))
      for name, reason in zip(records.names, faults, strict=True):
        if reason is not None:
          damaged[name] = reason
        bar.update()
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      raise
  return damaged


def _find_fault(records: Records, clip: int) -> str | None:
  """Reads a clip; returns the reason why it cannot be read, or None."""
  first_frame, first_sound = records.first_frame[clip], records.first_sound[clip]
  try:
    records.frames.read_range(first_frame, first_frame + records.num_frames[clip])
    records.sounds.read_range(first_sound, first_sound + records.num_sounds[clip])
  except RecordError as error:
    return str(error)
  return None


def _size_and_time(shard: Path) -> list[int] | None:
  try:
    status = os.stat(shard)
  except OSError:
    return None
  return [status.st_size, status.st_mtime_ns]
