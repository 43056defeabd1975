"""Data sets of which some clips have records that cannot be read.

A bit that has flipped costs the record that it is in; of a shard that is cut short nothing can be read, as the places
of its records are listed at its end. Everything has to be read to know; the answer is kept beside the sets, in
`damage.json`, and holds while the shards' sizes and times stay the same.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from stajax.data.records import Records
from stajax.data.shards import RecordError
from stajax.files import write_json

FILE = "damage.json"


def open_intact(path: str | Path) -> Records:
  """Opens a data set without the clips whose frames or sounds cannot be read.

  Raises:
    RecordError: A part of the set is missing or does not belong to the others, or no clip is intact.
  """
  records = Records.open(path, complete=False)
  return records.without(find_damage(records))


def find_damage(records: Records) -> dict[str, str]:
  """Returns what is wrong with each damaged clip, by name.

  Every frame and sound is read, unless that was done before and nothing has changed since.
  """
  path = records.path / FILE
  shards = {
    f"{shard.parent.parent.name}/{shard.name}": _size_and_time(shard)
    for shard in [*records.frames.shards, *records.sounds.shards]
  }
  with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
    known = json.loads(path.read_text(encoding="utf-8"))
    if known["shards"] == shards and set(known["damaged"]) <= set(records.names):
      return dict(known["damaged"])
  damaged = _read_all(records)
  with contextlib.suppress(OSError):  # a folder that cannot be written is checked every time
    write_json(path, {"shards": shards, "damaged": damaged}, shared=True)
  return damaged


def describe_damage(records: Records) -> str:
  """Returns one line about the clips that were left out, "" if there are none."""
  if not records.damaged:
    return ""
  names = list(records.damaged)
  words = f"{len(names)} of {len(names) + records.num_clips} clips are left out, whose records are damaged"
  rest = f" and {len(names) - 10} more (see {FILE})" if len(names) > 10 else ""
  return f"{records.path}: {words}: {', '.join(names[:10])}{rest}; the first: {records.damaged[names[0]]}"


def _read_all(records: Records) -> dict[str, str]:
  """Reads all clips in threads and returns the damaged ones, in order."""
  check, damaged = _make_check(records), {}
  bar = tqdm(total=records.num_clips, desc=f"reading {records.path.name}", unit="clip", disable=None)
  with ThreadPoolExecutor() as pool, bar:
    try:
      for name, reason in zip(records.names, pool.map(check, range(records.num_clips)), strict=True):
        if reason is not None:
          damaged[name] = reason
        bar.update()
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      raise
  return damaged


def _make_check(records: Records) -> Callable[[int], str | None]:
  """Makes the function that reads a clip and returns what is wrong with it."""
  parts = (
    (records.frames, records.first_frame, records.num_frames),
    (records.sounds, records.first_sound, records.num_sounds),
  )

  def check(clip: int) -> str | None:
    try:
      for reader, first, number in parts:
        reader.read_range(int(first[clip]), int(first[clip] + number[clip]))
    except RecordError as error:
      return str(error)
    return None

  return check


def _size_and_time(shard: Path) -> list[int] | None:
  try:
    status = os.stat(shard)
  except OSError:
    return None
  return [status.st_size, status.st_mtime_ns]
