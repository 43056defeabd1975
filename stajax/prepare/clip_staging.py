"""Prepared clips: what the records keep of a clip, and the staging folder where clips wait to be assembled."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from stajax.data.staging import Staging, join_bytes, pack_json, split_bytes, unpack_json


@dataclass(frozen=True)
class ClipFacts:
  """What is known about a clip besides its frames and its sound.

  Attributes:
    name: A name that is unique in its set.
    tags: The clip's categories, possibly none.
    flags: Labels by which scores are split, such as "foreign".
    rate: The frames per second of the grid.
    width: The native width in pixels.
    height: The native height in pixels.
    duration: The length in seconds.
    sound_mean: The mean of the whole log-spectrogram, before the rounding to float16.
    sound_std: The standard deviation of the whole log-spectrogram, likewise.
  """

  name: str
  tags: tuple[str, ...]
  flags: tuple[str, ...]
  rate: float
  width: int
  height: int
  duration: float
  sound_mean: float
  sound_std: float


@dataclass(frozen=True)
class PreparedClip(ClipFacts):
  """All that the records keep of one clip.

  Attributes:
    frames: The n grid frames as square JPEG files, all of one size.
    columns: (257, m) float16, the log-spectrogram, not normalised; m = 0 without sound.
  """

  frames: list[bytes]
  columns: np.ndarray

  @property
  def has_sound(self) -> bool:
    """Whether there is at least one column of sound."""
    return self.columns.shape[1] > 0


@dataclass(frozen=True)
class StagedClip(ClipFacts):
  """A staged clip whose frames and sound are not read.

  Attributes:
    frame_sizes: (n,) int64, the bytes of each frame.
    num_columns: The number m of spectrogram columns.
  """

  frame_sizes: np.ndarray
  num_columns: int

  @property
  def num_frames(self) -> int:
    """The number n of grid frames."""
    return len(self.frame_sizes)


class ClipStaging(Staging):
  """A staging folder of prepared clips; the methods that read a clip raise ValueError if it is damaged."""

  def write(self, key: str, clip: PreparedClip) -> None:
    """Stages a clip atomically."""
    facts = {field.name: getattr(clip, field.name) for field in fields(ClipFacts)}
    self.write_arrays(
      key,
      facts=pack_json(facts),
      columns=np.asarray(clip.columns, np.float16),
      num_columns=np.asarray(clip.columns.shape[1], np.int64),
      **join_bytes(clip.frames),
    )

  def read(self, key: str) -> PreparedClip:
    """Reads a whole clip."""
    arrays = self.read_arrays(key)
    return PreparedClip(**_facts(arrays), frames=split_bytes(arrays), columns=arrays["columns"])

  def read_facts(self, key: str) -> StagedClip:
    """Reads a clip without its frames and its sound."""
    arrays = self.read_arrays(key, ("facts", "lengths", "num_columns"))
    return StagedClip(**_facts(arrays), frame_sizes=arrays["lengths"], num_columns=int(arrays["num_columns"]))

  def read_frames(self, key: str) -> list[bytes]:
    """Reads only the frames of a clip."""
    return split_bytes(self.read_arrays(key, ("blob", "lengths")))

  def read_columns(self, key: str) -> np.ndarray:
    """Reads only the log-spectrogram of a clip."""
    return self.read_arrays(key, ("columns",))["columns"]


def _facts(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
  facts = unpack_json(arrays["facts"])
  return facts | {"tags": tuple(facts["tags"]), "flags": tuple(facts["flags"])}
