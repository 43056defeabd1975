"""Which clips of a data set have records that cannot be read.

A bit that has flipped costs the record that it is in; of a shard that is cut short nothing can be read, as the places
of its records are listed at its end. Everything has to be read to know; the answer is kept beside the sets, in
`damage.json`, and holds while the shards' sizes and times stay the same.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tqdm import tqdm

from stajax.data.shards import RecordError
from stajax.files import write_json

if TYPE_CHECKING:
  from stajax.data.records import Records

Damaged = Literal["fatal", "skip"]
FILE = "damage.json"


def find_damage(records: Records) -> dict[str, str]:
  """The names of a data set's damaged clips, and what is wrong with each; reads every frame and sound, or `FILE`."""
  path = records.path / FILE
  shards = {f"{path.parent.parent.name}/{path.name}": _identity(path) for path in _shards(records)}
  with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
    known = json.loads(path.read_text(encoding="utf-8"))
    if known["shards"] == shards and set(known["damaged"]) <= set(records.names):
      return dict(known["damaged"])

  def check(clip: int) -> str | None:
    try:
      for reader, first, number in (
        (records.frames, records.first_frame, records.num_frames),
        (records.sounds, records.first_sound, records.num_sounds),
      ):
        reader.read_range(int(first[clip]), int(first[clip] + number[clip]))
    except RecordError as error:
      return str(error)
    return None

  damaged = {}
  with ThreadPoolExecutor() as pool, _bar(records) as bar:
    try:
      for name, reason in zip(records.names, pool.map(check, range(records.num_clips)), strict=True):
        if reason is not None:
          damaged[name] = reason
        bar.update()
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      raise
  with contextlib.suppress(OSError):  # a folder that cannot be written is checked every time
    write_json(path, {"shards": shards, "damaged": damaged}, shared=True)
  return damaged


def describe_damage(records: Records) -> str:
  """One line about the clips that were left out, "" if none."""
  if not records.damaged:
    return ""
  names = list(records.damaged)
  words = f"{len(names)} of {len(names) + records.num_clips} clips are left out, whose records are damaged"
  rest = f" and {len(names) - 10} more (see {FILE})" if len(names) > 10 else ""
  return f"{records.path}: {words}: {', '.join(names[:10])}{rest}; the first: {records.damaged[names[0]]}"


def _shards(records: Records) -> Iterator[Path]:
  yield from records.frames.shards
  yield from records.sounds.shards


def _identity(shard: Path) -> list[int] | None:
  try:
    status = os.stat(shard)
  except OSError:
    return None
  return [status.st_size, status.st_mtime_ns]


def _bar(records: Records) -> Any:
  return tqdm(total=records.num_clips, desc=f"reading {records.path.name}", unit="clip", disable=None)
