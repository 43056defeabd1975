"""The features that a frozen backbone makes of every frame, stored once for all networks that are trained on it.

  SET/made_of          a digest of the records and other inputs of the features
  SET/CLIP.STAGE.npy   (views, n, h, w, c) of one clip's n frames, one file for each stage of the backbone

Every file is written atomically by itself, so a stopped run continues with the next clip. Files are mapped instead of
read: a step reads only what it needs from them, and the system keeps as much as fits in memory.
Legend: K views, n frames, … any shape of frame ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import numpy as np

from stajax.data.records import Records
from stajax.data.shards import RecordError
from stajax.files import atomic_file, sha256_of_bytes, write_bytes

_BITS = np.uint16
"""NumPy's file format has no bfloat16, so that its bits are stored as integers."""


@dataclass(frozen=True)
class FeatureSet:
  """The features of all frames whose clips have been written.

  Attributes:
    path: The folder of the set.
    records: The data set with the frames.
    stages: The names of the backbone's stages that are stored.
    num_views: K, the number of views of each frame.
  """

  path: Path
  records: Records
  stages: tuple[str, ...]
  num_views: int
  _maps: dict[tuple[int, str], np.ndarray] = field(default_factory=dict, repr=False, compare=False)

  @staticmethod
  def open(path: Path, records: Records, stages: tuple[str, ...], num_views: int, *inputs: np.ndarray) -> FeatureSet:
    """Opens a set, or begins a new one.

    Args:
      path: The folder of the set.
      records: The data set.
      stages: The names of the backbone's stages.
      num_views: K.
      inputs: The other arrays that the features depend on, such as crops and views.

    Raises:
      RecordError: The set belongs to other records or other inputs.
    """
    path.mkdir(parents=True, exist_ok=True)
    digest = sha256_of_bytes(records.digest.encode(), *(np.ascontiguousarray(x).tobytes() for x in inputs))
    identity = path / "made_of"
    if not identity.exists():
      write_bytes(identity, digest.encode(), shared=True)
    elif identity.read_text(encoding="utf-8", errors="replace") != digest:
      raise RecordError(f"{path}: features of other records than {records.path}, or of other crops; delete it")
    return FeatureSet(path, records, stages, num_views)

  def has(self, clip: int) -> bool:
    """Returns whether all stages of the clip are stored."""
    return all(self._file(clip, stage).is_file() for stage in self.stages)

  def write(self, clip: int, features: Mapping[str, np.ndarray]) -> None:
    """Stores the stages (K, n, h, w, c), float32 or bfloat16, of one clip."""
    for stage in self.stages:
      x = features[stage]
      bits = x.view(_BITS) if x.dtype == ml_dtypes.bfloat16 else x
      with atomic_file(self._file(clip, stage), shared=True) as partial, partial.open("wb") as file:
        np.save(file, bits)

  def clip(self, clip: int, stage: str) -> np.ndarray:
    """Returns one stage of one clip, (K, n, h, w, c), which stays on disk.

    Raises:
      RecordError: The file is missing or damaged.
    """
    if (clip, stage) not in self._maps:
      path = self._file(clip, stage)
      try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
      except (OSError, ValueError, EOFError, OverflowError) as error:
        raise RecordError(f"{path}: not stored features ({error}); delete it to have it made again") from error
      expected = (self.num_views, int(self.records.num_frames[clip]))
      if mapped.ndim != 5 or mapped.shape[:2] != expected or mapped.dtype not in (_BITS, np.float32):
        found = f"{mapped.dtype} {mapped.shape}"
        raise RecordError(f"{path}: found {found}, expected features of {expected[0]} views of {expected[1]} frames")
      self._maps[clip, stage] = mapped.view(ml_dtypes.bfloat16) if mapped.dtype == _BITS else mapped
    return self._maps[clip, stage]

  def read(self, stage: str, ids: np.ndarray, view: np.ndarray) -> np.ndarray:
    """Returns one stage (…, h, w, c) of the frames `ids` (…), each in its `view` (…)."""
    records = self.records
    places = list(zip(records.clip_of_frame[ids].ravel().tolist(), view.ravel().tolist(), ids.ravel().tolist()))
    first = self.clip(places[0][0], stage)
    out = np.empty((*ids.shape, *first.shape[2:]), first.dtype)
    for place, (clip, which, frame) in zip(out.reshape(-1, *first.shape[2:]), places):
      place[...] = self.clip(clip, stage)[which, frame - int(records.first_frame[clip])]
    return out

  def _file(self, clip: int, stage: str) -> Path:
    return self.path / f"{clip:08d}.{stage}.npy"
