"""The staging folder: finished clips that wait to be assembled into sets.

A build of many clips is interrupted sooner or later, and the sets can only be written as a whole. So every clip is
first written by itself, atomically, under a key that depends on all that it was made from; the next run finds it there.
Neither this module nor what it reads needs TensorFlow, so that worker processes start fast.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stajax.files import atomic_file, sha256_of_json


@dataclass(frozen=True)
class PreparedClip:
  """All that the records keep of one clip.

  name: unique in its set.
  tags: its categories, possibly none.
  flags: remarks that scores are split by, such as "foreign".
  rate: frames a second of the grid.
  width, height: native size in pixels.
  duration: seconds.
  frames: n grid frames as square JPEG files, all of one size.
  columns: (257, m) float16 log-spectrogram, not normalised; m = 0 without sound.
  sound_mean, sound_std: of the whole log-spectrogram, before the rounding to float16.
  """

  name: str
  tags: tuple[str, ...]
  flags: tuple[str, ...]
  rate: float
  width: int
  height: int
  duration: float
  frames: list[bytes]
  columns: np.ndarray
  sound_mean: float
  sound_std: float

  @property
  def has_sound(self) -> bool:
    """Whether there is at least one column of sound."""
    return self.columns.shape[1] > 0


@dataclass(frozen=True)
class ClipFacts:
  """What a staged clip says of itself without its frames and sound being read.

  frame_sizes: (n,) int64, bytes of each frame. num_columns: m. Everything else is as in `PreparedClip`.
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
  frame_sizes: np.ndarray
  num_columns: int

  @property
  def num_frames(self) -> int:
    """n, the grid frames."""
    return len(self.frame_sizes)


def staging_key(source: str, settings: dict[str, Any]) -> str:
  """Names a clip in staging: a hash of the identity of its source and of the settings (JSON values)."""
  return sha256_of_json([source, settings])[:32]


def encode_jpeg(frame: np.ndarray) -> bytes:
  """Encodes (h, w, 3) uint8 RGB as JPEG, quality 95, without chroma subsampling."""
  buffer = io.BytesIO()
  Image.fromarray(frame).save(buffer, "JPEG", quality=95, subsampling=0)
  return buffer.getvalue()


class Staging:
  """A folder with one file for every finished clip."""

  def __init__(self, folder: Path):
    self.folder = folder
    folder.mkdir(parents=True, exist_ok=True)

  def path(self, key: str) -> Path:
    return self.folder / f"{key}.npz"

  def has(self, key: str) -> bool:
    return self.path(key).is_file()

  def write(self, key: str, clip: PreparedClip) -> None:
    """Stages a clip atomically."""
    facts = {name: getattr(clip, name) for name in _FACTS}
    self.write_arrays(
      key,
      facts=np.frombuffer(json.dumps(facts).encode(), np.uint8),
      columns=np.asarray(clip.columns, np.float16),
      num_columns=np.int64(clip.columns.shape[1]),
      **join_bytes(clip.frames),
    )

  def read(self, key: str) -> PreparedClip:
    """Reads a clip back.

    Raises:
      ValueError: the file is damaged; delete it to have the clip prepared again.
    """
    arrays = self.read_arrays(key)
    return PreparedClip(**_facts(arrays), frames=split_bytes(arrays), columns=arrays["columns"])

  def read_facts(self, key: str) -> ClipFacts:
    """Reads little of a clip.

    Raises:
      ValueError: as `read`.
    """
    arrays = self.read_arrays(key, ("facts", "lengths", "num_columns"))
    return ClipFacts(**_facts(arrays), frame_sizes=arrays["lengths"], num_columns=int(arrays["num_columns"]))

  def read_frames(self, key: str) -> list[bytes]:
    """The frames of a clip alone.

    Raises:
      ValueError: as `read`.
    """
    return split_bytes(self.read_arrays(key, ("blob", "lengths")))

  def read_columns(self, key: str) -> np.ndarray:
    """The log-spectrogram of a clip alone.

    Raises:
      ValueError: as `read`.
    """
    return self.read_arrays(key, ("columns",))["columns"]

  def write_arrays(self, key: str, **arrays: np.ndarray) -> None:
    """Stages arrays atomically; several processes may write the same key."""
    with atomic_file(self.path(key), shared=True) as partial, partial.open("wb") as file:
      np.savez(file, **arrays)

  def read_arrays(self, key: str, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """All staged arrays of a key, or those of some names.

    Raises:
      ValueError: as `read`.
    """
    path = self.path(key)
    try:
      with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in (arrays if names is None else names)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
      raise ValueError(f"{path}: staged clip cannot be read ({error}); delete the file and run again") from error

  def remove(self) -> None:
    """Deletes the staged clips and the folder (only files that staging made, never a tree)."""
    for path in [*self.folder.glob("*.npz"), *self.folder.glob("*.partial")]:
      path.unlink()
    self.folder.rmdir()


_FACTS = ("name", "tags", "flags", "rate", "width", "height", "duration", "sound_mean", "sound_std")


def _facts(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
  facts = json.loads(arrays["facts"].tobytes())
  return facts | {"tags": tuple(facts["tags"]), "flags": tuple(facts["flags"])}


def join_bytes(parts: Sequence[bytes]) -> dict[str, np.ndarray]:
  """Packs byte strings into the arrays `blob` and `lengths`, which need no pickle."""
  return {
    "blob": np.frombuffer(b"".join(parts), np.uint8),
    "lengths": np.asarray([len(part) for part in parts], np.int64),
  }


def split_bytes(arrays: dict[str, np.ndarray]) -> list[bytes]:
  """Undoes `join_bytes`."""
  blob = arrays["blob"].tobytes()
  ends = np.cumsum(arrays["lengths"])
  return [blob[end - length : end] for end, length in zip(ends.tolist(), arrays["lengths"].tolist(), strict=True)]
