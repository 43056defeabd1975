"""Tables with a small value for every grid frame (a switch, a box): one array in the order of the frame ids.

A stage writes the values clip by clip into staging, and continues there after an interruption. `finish` writes the
table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stajax.data.records import Records
from stajax.data.shards import RecordError
from stajax.data.staging import Staging, staging_of
from stajax.files import atomic_folder, read_json, write_json


class FrameTableWriter:
  """Writes a table for some records; several processes may each use one writer for different clips.

  Attributes:
    path: The folder of the table.
  """

  def __init__(self, path: Path, records: Records) -> None:
    self.path, self._records = path, records
    self._staging = Staging(staging_of(path))

  def has(self, clip: int) -> bool:
    """Returns whether the clip's values are staged already."""
    return self._staging.has(f"{clip:08d}")

  def write(self, clip: int, values: np.ndarray) -> None:
    """Stages the values (n, …) of one clip's n frames, atomically; raises ValueError unless there are n."""
    if len(values) != self._records.num_frames[clip]:
      raise ValueError(f"{self._records.names[clip]}: {len(values)} values for {self._records.num_frames[clip]} frames")
    self._staging.write_arrays(f"{clip:08d}", values=values)

  def finish(self, summary: dict[str, Any]) -> None:
    """Writes the table from the staged values of all clips and removes the staging folder.

    Raises:
      RecordError: A clip is missing, or its staged values are damaged.
    """
    missing = [name for clip, name in enumerate(self._records.names) if not self.has(clip)]
    if missing:
      raise RecordError(f"{self.path}: {len(missing)} clips have no values yet, the first is {missing[0]}")
    try:
      staged = [self._staging.read_arrays(f"{clip:08d}")["values"] for clip in range(self._records.num_clips)]
    except ValueError as error:
      raise RecordError(str(error)) from error
    with atomic_folder(self.path) as partial:
      np.save(partial / "values.npy", np.concatenate(staged))
      write_json(partial / "summary.json", {**summary, "records": self._records.digest})
    self._staging.remove()


def read_frame_table(path: Path, records: Records) -> np.ndarray:
  """Returns the values (total_frames, …) of the frames of some records.

  Raises:
    RecordError: The table is missing or damaged, or belongs to other records.
  """
  try:
    summary = read_json(path / "summary.json")
    # Mapped first, so that a damaged header cannot ask for any amount of memory.
    values = np.array(np.load(path / "values.npy", mmap_mode="r", allow_pickle=False))
  except (OSError, ValueError, EOFError, OverflowError) as error:
    raise RecordError(f"{path}: not a table of frames ({error})") from error
  if not isinstance(summary, dict) or summary.get("records") != records.digest:
    raise RecordError(f"{path}: these are values of other records than {records.path}")
  if values.shape[:1] != (records.total_frames,):
    raise RecordError(f"{path / 'values.npy'}: found shape {values.shape}, expected {records.total_frames} values")
  return values
