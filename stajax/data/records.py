"""Prepared data sets: the record sets `clips`, `frames` and `sounds` in one folder, and `summary.json`.

`frames` has one JPEG a record and `sounds` one hundred spectrogram columns (0.994 s) a record, so that a fragment costs
a few small reads; the ids of a clip's frames and sounds are consecutive.
Legend: C clips, c categories, n frames of a clip.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stajax.data.schema import INTEGERS
from stajax.data.shards import RecordError, ShardReader
from stajax.data.sound import NUM_BINS
from stajax.data.tensorflow_cpu import tf


def parse(serialized: Sequence[bytes] | tf.Tensor, name: str) -> tf.Tensor:
  """One string feature, `image`, `map` or `columns`, of a batch of serialized records."""
  return tf.io.parse_example(serialized, {name: tf.io.FixedLenFeature((), tf.string)})[name]


@dataclass(frozen=True)
class Records:
  """A prepared data set: tables about its clips in memory, frames and sounds on disk.

  tags: (C, c) float32 of 0 and 1. rate: (C,) float64, frames a second. width, height: (C,) int64, native pixels.
  duration: (C,) float64, seconds. first_frame, num_frames, first_sound, num_sounds, num_columns: (C,) int64, ids into
  the frames and sounds. sound_mean, sound_std: (C,) float32. has_sound: (C,) bool. side: stored frame size in pixels.
  provenance: says "synthetic" where the clips are.
  """

  path: Path
  categories: tuple[str, ...]
  names: tuple[str, ...]
  flags: tuple[tuple[str, ...], ...]
  tags: np.ndarray
  rate: np.ndarray
  duration: np.ndarray
  width: np.ndarray
  height: np.ndarray
  first_frame: np.ndarray
  num_frames: np.ndarray
  first_sound: np.ndarray
  num_sounds: np.ndarray
  num_columns: np.ndarray
  sound_mean: np.ndarray
  sound_std: np.ndarray
  has_sound: np.ndarray
  side: int
  provenance: str
  summary: dict[str, Any]
  frames: ShardReader
  sounds: ShardReader

  @staticmethod
  def open(path: str | Path) -> Records:
    """Opens a data set and reads its table of clips.

    Raises:
      RecordError: a part of it is missing, damaged, or does not belong to the others.
    """
    path = Path(path)
    if not (path / "summary.json").is_file():
      raise RecordError(f"{path}: not a prepared data set (expected summary.json, clips, frames and sounds in it)")
    clips, frames, sounds = (ShardReader(path / name) for name in ("clips", "frames", "sounds"))
    try:
      summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
      categories = tuple(clips.features["tags"].feature.names)
      side = int(frames.features["image"].shape[0])
      tables = _read_tables(clips, len(categories))
    except (ValueError, KeyError, AttributeError, TypeError, tf.errors.OpError) as error:
      if isinstance(error, RecordError):
        raise
      raise RecordError(f"{path}: not a prepared data set of this version ({error})".partition("\n")[0]) from error
    for first, number, reader in (("first_frame", "num_frames", frames), ("first_sound", "num_sounds", sounds)):
      ends = np.cumsum(tables[number])
      if not np.array_equal(tables[first], ends - tables[number]) or ends[-1] != len(reader):
        raise RecordError(f"{reader.folder}: {len(reader)} records, but the clips name {ends[-1]}")
    provenance = str(summary.get("provenance", "unknown"))
    return Records(
      path, categories, side=side, provenance=provenance, summary=summary, frames=frames, sounds=sounds, **tables
    )

  @property
  def num_clips(self) -> int:
    return len(self.names)

  @property
  def total_frames(self) -> int:
    """Grid frames of all clips; frame ids (and ids of map sets) are in [0, total_frames)."""
    return len(self.frames)

  @cached_property
  def clip_of_frame(self) -> np.ndarray:
    """(total_frames,) int32: the clip of every frame id."""
    return np.repeat(np.arange(self.num_clips, dtype=np.int32), self.num_frames)

  def frame_bytes(self, ids: np.ndarray) -> list[bytes]:
    """Serialized records of the frames `ids`."""
    return self.frames.read(ids)

  def clip_frames(self, clip: int, size: int | None = None, threads: int | None = None) -> np.ndarray:
    """All grid frames of a clip, (n, S, S, 3) uint8.

    Args:
      clip: index in [0, num_clips).
      size: smallest size wanted; S is then that of the pipeline's `decode_size`, otherwise the stored side.
      threads: of decoding.
    """
    first = int(self.first_frame[clip])
    serialized = self.frames.read_range(first, first + int(self.num_frames[clip]))
    jpegs = parse(serialized, "image").numpy().tolist()
    out = scaled_side(self.side, decode_ratio(self.side, size or self.side))

    def decode(jpeg: bytes) -> np.ndarray:
      try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
          if image.size != (self.side, self.side):
            raise ValueError(f"{image.size} pixels, expected {self.side}")
          image.draft("RGB", (out, out))
          return np.asarray(image.convert("RGB"))
      except (OSError, ValueError) as error:
        raise RecordError(f"{self.frames.folder}: bad frame in {self.names[clip]} ({error})") from error

    with ThreadPoolExecutor(threads) as pool:
      return np.stack(list(pool.map(decode, jpegs)))

  def clip_columns(self, clip: int) -> np.ndarray:
    """The whole log-spectrogram of a clip, (257, m) float16, not normalised; m = 0 without sound."""
    if not self.has_sound[clip]:
      return np.zeros((NUM_BINS, 0), np.float16)
    first = int(self.first_sound[clip])
    serialized = self.sounds.read_range(first, first + int(self.num_sounds[clip]))
    pieces = [np.frombuffer(piece, np.float16).reshape(NUM_BINS, -1) for piece in parse(serialized, "columns").numpy()]
    return np.concatenate(pieces, axis=1)[:, : int(self.num_columns[clip])]


def _read_tables(clips: ShardReader, num_categories: int) -> dict[str, Any]:
  fixed = {name: tf.io.FixedLenFeature((), tf.int64) for name in (*INTEGERS, "has_sound")}
  fixed |= {name: tf.io.FixedLenFeature((), tf.float32) for name in ("sound_mean", "sound_std")}
  fixed |= {name: tf.io.FixedLenFeature((), tf.string) for name in ("name", "rate", "duration")}
  ragged = {"tags": tf.io.RaggedFeature(tf.int64), "flags": tf.io.RaggedFeature(tf.string)}
  columns = tf.io.parse_example(clips.read_range(0, len(clips)), fixed | ragged)
  tags = columns["tags"]
  multi_hot = np.zeros((len(clips), num_categories), np.float32)
  multi_hot[tags.value_rowids().numpy(), tags.flat_values.numpy()] = 1
  tables = {name: columns[name].numpy() for name in (*INTEGERS, "sound_mean", "sound_std")}
  for name in ("rate", "duration"):
    tables[name] = tf.io.decode_raw(columns[name], tf.float64)[:, 0].numpy()
  return tables | {
    "names": tuple(name.decode() for name in columns["name"].numpy()),
    "flags": tuple(tuple(flag.decode() for flag in flags) for flags in columns["flags"].to_list()),
    "tags": multi_hot,
    "has_sound": columns["has_sound"].numpy() != 0,
  }


def decode_ratio(side: int, size: int) -> int:
  """The largest factor in 1, 2, 4, 8 by which JPEG can be decoded smaller and still have `size` pixels a side."""
  return next((ratio for ratio in (8, 4, 2) if scaled_side(side, ratio) >= size), 1)


def scaled_side(side: int, ratio: int) -> int:
  """Side of a JPEG that is decoded at 1/ratio."""
  return -(-side // ratio)
