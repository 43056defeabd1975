"""The features that a frozen backbone makes of every frame, stored once for all networks that are trained on it.

  SET/made_of          a digest of the records and other inputs of the features
  SET/CLIP.STAGE.npy   (views, n, h, w, c) of one clip's n frames, one file for each stage of the backbone
  SET/CLIP.STAGE.bin   the same in little space, see `stajax.data.packed_features`
  SET/packings.npz     how the features of every stage are packed, where they are
  SET/CLIP.json        the SHA-256 of the clip's files and of the packings; written last

Every file is written atomically by itself, so a stopped run continues with the next clip. Files are mapped instead of
read: a step reads only what it needs from them, and the system keeps as much as fits in memory. Before a file is used
for the first time in a run, its SHA-256 is compared.
Legend: K views, n frames, … any shape of frame ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from stajax.data import packed_features
from stajax.data.packed_features import PackedFile, Packing
from stajax.data.records import Records
from stajax.data.shards import RecordError
from stajax.files import FileError, atomic_file, make_folder, write_bytes
from stajax.files.manifest import check_digest, digests, read_manifest, sha256_of_bytes, sha256_of_file, write_manifest

_BITS = np.uint16
"""NumPy's file format has no bfloat16, so that its bits are stored as integers."""
_AGAIN = "delete it to have it made again"


@dataclass(frozen=True)
class FeatureSet:
  """The features of all frames whose clips have been written.

  Attributes:
    path: The folder of the set.
    records: The data set with the frames.
    stages: The names of the backbone's stages that are stored.
    num_views: K, the number of views of each frame.
    is_packed: Whether the features are packed.
  """

  path: Path
  records: Records
  stages: tuple[str, ...]
  num_views: int
  is_packed: bool = False
  _maps: dict[tuple[int, str], np.ndarray | PackedFile] = field(default_factory=dict, repr=False, compare=False)

  @staticmethod
  def open(
    path: Path,
    records: Records,
    stages: tuple[str, ...],
    num_views: int,
    *inputs: np.ndarray,
    is_packed: bool = False,
  ) -> FeatureSet:
    """Opens a set, or begins a new one.

    Args:
      path: The folder of the set.
      records: The data set.
      stages: The names of the backbone's stages.
      num_views: K.
      inputs: The other arrays that the features depend on, such as crops and views.
      is_packed: Whether the features are packed.

    Raises:
      RecordError: The set belongs to other records or other inputs.
    """
    make_folder(path)
    digest = sha256_of_bytes(records.digest.encode(), *(np.ascontiguousarray(x).tobytes() for x in inputs))
    identity = path / "made_of"
    if not identity.exists():
      write_bytes(identity, digest.encode(), shared=True)
    elif identity.read_text(encoding="utf-8", errors="replace") != digest:
      raise RecordError(f"{path}: features of other records than {records.path}, or of other crops; delete it")
    return FeatureSet(path, records, stages, num_views, is_packed)

  def has(self, clip: int) -> bool:
    """Returns whether all stages of the clip are stored, and their SHA-256."""
    return all(path.is_file() for path in (self._manifest(clip), *self._files(clip)))

  def write(self, clip: int, features: Mapping[str, np.ndarray]) -> None:
    """Stores the stages (K, n, h, w, c), float32, bfloat16 or codes, of one clip."""
    for stage in self.stages:
      x = features[stage]
      if self.is_packed:
        packed_features.write(self._file(clip, stage), x)
        continue
      bits = x.view(_BITS) if x.dtype == ml_dtypes.bfloat16 else x
      with atomic_file(self._file(clip, stage)) as partial, partial.open("wb") as file:
        np.save(file, bits)
    write_manifest(self._manifest(clip), {}, digests(self.path, [*self._files(clip), self.packings_file]))

  def clip(self, clip: int, stage: str) -> np.ndarray | PackedFile:
    """Returns one stage of one clip as it is stored, (K, n, h, w, c), which stays on disk.

    Raises:
      RecordError: The file is missing or damaged, or is not the one that was written.
    """
    if (clip, stage) not in self._maps:
      path = self._file(clip, stage)
      self._check(clip, path)
      mapped = PackedFile(path) if self.is_packed else _map(path)
      expected = (self.num_views, int(self.records.num_frames[clip]))
      if mapped.ndim != 5 or mapped.shape[:2] != expected:
        found = f"{mapped.dtype} {mapped.shape}"
        raise RecordError(f"{path}: found {found}, expected features of {expected[0]} views of {expected[1]} frames")
      self._maps[clip, stage] = mapped
    return self._maps[clip, stage]

  @property
  def packings_file(self) -> Path:
    """The file that says how features are packed."""
    return self.path / "packings.npz"

  @cached_property
  def packings(self) -> dict[str, Packing]:
    """How each stage is packed; empty where none is.

    Raises:
      RecordError: The file is missing or damaged.
    """
    return packed_features.read_packings(self.packings_file) if self.is_packed else {}

  @cached_property
  def _sha256_of_packings(self) -> str:
    try:
      return sha256_of_file(self.packings_file)
    except OSError as error:
      raise RecordError(f"{self.packings_file}: {error.strerror or error}; delete its folder") from None

  def decode(self, stage: str, stored: Any) -> Any:
    """Returns the features of a stage from what is stored of them, (…, c) of NumPy or of JAX."""
    return self.packings[stage].decode(stored) if self.is_packed else stored

  def frames(self, clip: int, stage: str) -> np.ndarray:
    """Returns the features (n, h, w, c) of one stage of one clip in the first view."""
    stored = self.clip(clip, stage)
    return self.decode(stage, np.stack([stored[0, frame] for frame in range(stored.shape[1])]))

  def read(self, stage: str, ids: np.ndarray, view: np.ndarray) -> np.ndarray:
    """Returns one stage (…, h, w, c) of the frames `ids` (…) as it is stored, each in its `view` (…)."""
    records = self.records
    places = list(zip(records.clip_of_frame[ids].ravel().tolist(), view.ravel().tolist(), ids.ravel().tolist()))
    first = self.clip(places[0][0], stage)
    out = np.empty((*ids.shape, *first.shape[2:]), first.dtype)
    for place, (clip, which, frame) in zip(out.reshape(-1, *first.shape[2:]), places):
      place[...] = self.clip(clip, stage)[which, frame - int(records.first_frame[clip])]
    return out

  def _file(self, clip: int, stage: str) -> Path:
    return self.path / f"{clip:08d}.{stage}.{'bin' if self.is_packed else 'npy'}"

  def _files(self, clip: int) -> list[Path]:
    return [self._file(clip, stage) for stage in self.stages]

  def _manifest(self, clip: int) -> Path:
    return self.path / f"{clip:08d}.json"

  def _check(self, clip: int, path: Path) -> None:
    """Compares the SHA-256 of a clip's file, and of the packings, with what was written down."""
    manifest = self._manifest(clip)
    try:
      written = read_manifest(manifest)[1]
      if path.name not in written:
        raise FileError(f"{manifest}: is not about {path.name}")
      check_digest(path, written[path.name])
    except (FileError, OSError) as error:
      raise RecordError(f"{error}; {_AGAIN}") from None
    if self.is_packed and self._sha256_of_packings != written.get(self.packings_file.name):
      raise RecordError(f"{self.packings_file}: not the packings of {path.name}; delete its folder")


def _map(path: Path) -> np.ndarray:
  """Maps features that are stored as they are."""
  try:
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
  except (OSError, ValueError, EOFError, OverflowError) as error:
    raise RecordError(f"{path}: not stored features ({error}); {_AGAIN}") from error
  if mapped.dtype not in (_BITS, np.float32):
    raise RecordError(f"{path}: found {mapped.dtype} {mapped.shape}, expected features")
  return mapped.view(ml_dtypes.bfloat16) if mapped.dtype == _BITS else mapped
