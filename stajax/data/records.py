"""Prepared data sets: the record sets `clips`, `frames` and `sounds` in one folder, and `summary.json`.

A record of `frames` has one JPEG, and a record of `sounds` has one hundred spectrogram columns (0.994 s), so that a
fragment costs a few small reads. The ids of a clip's frames and sounds are consecutive.
Legend: C clips, c categories, n frames of a clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stajax.data.frame_sides import decode_ratio
from stajax.data.jpeg import FrameDecoder
from stajax.data.schema import INTEGERS, SOUND_COLUMNS
from stajax.data.shards import RecordError, SelectedReader, ShardReader, read_bytes
from stajax.data.tensorflow_cpu import tf
from stajax.files import FileError, read_json
from stajax.files.manifest import sha256_of_json
from stajax.media.spectrogram import NUM_BINS


@dataclass(frozen=True)
class Records:
  """A prepared data set, with tables about its clips in memory, and frames and sounds on disk.

  Attributes:
    path: The folder.
    categories: The names of the tags.
    names: The names of the clips.
    flags: The labels of each clip, such as `foreign` for a sound that belongs to nothing visible.
    tags: (C, c) float32 of 0 and 1.
    rate: (C,) float64, frames per second.
    duration: (C,) float64, seconds.
    width: (C,) int64, pixels of the original picture.
    height: (C,) int64, likewise.
    first_frame: (C,) int64, the id of the clip's first frame.
    num_frames: (C,) int64.
    first_sound: (C,) int64, the id of the clip's first record of sound.
    num_sounds: (C,) int64, its number of records of sound.
    num_columns: (C,) int64, its number of spectrogram columns.
    sound_mean: (C,) float32, the mean of the spectrogram.
    sound_std: (C,) float32, its standard deviation.
    has_sound: (C,) bool.
    side: The side of the stored frames in pixels.
    provenance: Where the clips come from; "synthetic" if they were rendered.
    summary: The content of `summary.json`.
    frames: The reader of frames.
    sounds: The reader of sounds.
    damaged: The reasons why clips were left out, by their names.
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
  damaged: dict[str, str] = field(default_factory=dict)

  @staticmethod
  def open(path: str | Path, complete: bool = True) -> Records:
    """Opens a data set and reads its table of clips.

    Args:
      path: The data set's folder.
      complete: Whether a missing shard of frames or sounds is an error at once, instead of when it is read.

    Raises:
      RecordError: A part of the set is missing or damaged, or does not belong to the others.
    """
    path = Path(path)
    if not (path / "summary.json").is_file():
      raise RecordError(f"{path}: not a prepared data set (expected summary.json, clips, frames and sounds in it)")
    clips = ShardReader(path / "clips")
    if not len(clips):
      raise RecordError(f"{path}: has no clips, expected at least one")
    frames, sounds = (ShardReader(path / name, complete) for name in ("frames", "sounds"))
    try:
      summary = read_json(path / "summary.json")
      provenance = str(summary.get("provenance", "unknown"))
      categories = tuple(clips.features["tags"].feature.names)
      side = int(frames.features["image"].shape[0])
      tables = _read_tables(clips, len(categories))
    except (ValueError, KeyError, IndexError, AttributeError, TypeError, tf.errors.OpError) as error:
      if isinstance(error, RecordError):
        raise
      if isinstance(error, FileError):
        raise RecordError(str(error)) from None
      raise RecordError(f"{path}: not a prepared data set of this version ({error})".partition("\n")[0]) from error
    for first, number, reader in (("first_frame", "num_frames", frames), ("first_sound", "num_sounds", sounds)):
      ends = np.cumsum(tables[number])
      if not np.array_equal(tables[first], ends - tables[number]) or ends[-1] != len(reader):
        raise RecordError(f"{reader.folder}: {len(reader)} records, but the clips name {ends[-1]}")
    return Records(
      path, categories, side=side, provenance=provenance, summary=summary, frames=frames, sounds=sounds, **tables
    )

  def without(self, damaged: Mapping[str, str]) -> Records:
    """Returns a view without the named clips; its ids of frames and sounds are successive, as in every set.

    Args:
      damaged: The reasons why clips are left out, by their names.

    Raises:
      RecordError: No clip would be left.
    """
    if not damaged:
      return self
    kept = np.flatnonzero([name not in damaged for name in self.names])
    if not kept.size:
      raise RecordError(f"{self.path}: records of every clip are damaged; the first: {next(iter(damaged.values()))}")
    changes: dict[str, Any] = {}
    for column in fields(self):
      value = getattr(self, column.name)
      if isinstance(value, np.ndarray):
        changes[column.name] = value[kept]
    for name in ("frame", "sound"):
      begins, lengths = changes[f"first_{name}"], changes[f"num_{name}s"]
      changes[f"{name}s"] = SelectedReader(getattr(self, f"{name}s"), begins, lengths)
      changes[f"first_{name}"] = np.cumsum(lengths) - lengths
    names, flags = (tuple(values[clip] for clip in kept) for values in (self.names, self.flags))
    return replace(self, names=names, flags=flags, damaged=dict(damaged), **changes)

  @cached_property
  def digest(self) -> str:
    """A digest that differs between data sets whose frame ids mean different frames."""
    return sha256_of_json([self.names, self.num_frames.tolist(), self.rate.tolist()])[:32]

  @property
  def num_clips(self) -> int:
    return len(self.names)

  @property
  def total_frames(self) -> int:
    """The number of grid frames of all clips; frame ids (and ids of map sets) are in [0, total_frames)."""
    return len(self.frames)

  @cached_property
  def clip_of_frame(self) -> np.ndarray:
    """(total_frames,) int32: the clip of every frame id."""
    return np.repeat(np.arange(self.num_clips, dtype=np.int32), self.num_frames)

  def clip_frames(self, clip: int, size: int | None = None, threads: int | None = None) -> np.ndarray:
    """Returns all grid frames of a clip, (n, S, S, 3) uint8.

    Args:
      clip: The index of the clip in [0, num_clips).
      size: The smallest side that is large enough, by default the stored side; S is the stored side over 1, 2, 4 or 8.
      threads: The number of threads that decode.
    """
    first = int(self.first_frame[clip])
    jpegs = read_bytes(self.frames, np.arange(first, first + int(self.num_frames[clip])), "image")
    decode = FrameDecoder(self.side, decode_ratio(self.side, size or self.side), threads)
    try:
      return decode(jpegs)
    except ValueError as error:
      raise RecordError(f"{self.frames.folder}: bad frame in {self.names[clip]} ({error})") from error

  def clip_columns(self, clip: int) -> np.ndarray:
    """Returns the whole log-spectrogram of a clip, (257, m) float16, not normalised; m = 0 without sound."""
    if not self.has_sound[clip]:
      return np.zeros((NUM_BINS, 0), np.float16)
    first = int(self.first_sound[clip])
    pieces = self.sound_columns(np.arange(first, first + int(self.num_sounds[clip])))
    return np.concatenate(pieces, axis=1)[:, : int(self.num_columns[clip])]

  def sound_columns(self, ids: np.ndarray) -> list[np.ndarray]:
    """Returns the columns of the n records of sound `ids` (n,): each (257, 100) float16, not normalised."""
    pieces = read_bytes(self.sounds, ids, "columns")
    for piece in pieces:
      if len(piece) != 2 * NUM_BINS * SOUND_COLUMNS:
        found = f"{len(piece)} bytes of sound in a record, expected {2 * NUM_BINS * SOUND_COLUMNS}"
        raise RecordError(f"{self.sounds.folder}: {found}")
    return [np.frombuffer(piece, np.float16).reshape(NUM_BINS, SOUND_COLUMNS) for piece in pieces]


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
