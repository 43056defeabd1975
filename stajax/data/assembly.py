"""Assembly: the record sets `clips`, `frames` and `sounds` of a data set, from staged clips."""

from __future__ import annotations

import io
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from stajax.data.records import INTEGERS, SOUND_COLUMNS
from stajax.data.shards import MAX_SHARD_BYTES, ShardWriter, write_json
from stajax.data.sound import NUM_BINS
from stajax.data.staging import PreparedClip, Staging


def _clip_features(categories: Sequence[str]) -> dict[str, Any]:
  features = tfds.features
  # A scalar feature of type float64 would be kept as float32: the Example format has no doubles.
  double = features.Tensor(shape=(), dtype=np.float64, encoding="bytes")
  return {
    "name": features.Text(),
    "tags": features.Sequence(features.ClassLabel(names=list(categories))),
    "flags": features.Sequence(features.Text()),
    "rate": double,
    "duration": double,
    **{name: np.int64 for name in INTEGERS},
    "sound_mean": np.float32,
    "sound_std": np.float32,
    "has_sound": np.bool_,
  }


def _frame_features(side: int) -> dict[str, Any]:
  return {
    "key": tfds.features.Text(),
    "image": tfds.features.Image(shape=(side, side, 3), encoding_format="jpeg"),
  }


def _sound_features() -> dict[str, Any]:
  # Without `encoding` float16 is kept as float32, at twice the size.
  columns = tfds.features.Tensor(shape=(NUM_BINS, SOUND_COLUMNS), dtype=np.float16, encoding="bytes")
  return {"key": tfds.features.Text(), "columns": columns}


def assemble(
  staging: Staging,
  keys: Sequence[str],
  out: Path,
  categories: Sequence[str],
  summary: dict[str, Any],
  max_shard_bytes: int = MAX_SHARD_BYTES,
) -> dict[str, Any]:
  """Writes a data set from staged clips; the same staging and keys give the same records.

  Everything is written to a folder beside `out` that is renamed at the end, so `out` is complete or absent.

  Args:
    staging: has every key.
    keys: in the order of the records; sort them by their clips' names.
    out: the data set's folder; must not exist.
    categories: all tags, in the order of their labels.
    summary: what `summary.json` says beside counts and categories: source, provenance, settings, skipped files.
    max_shard_bytes: size at which a new shard begins.

  Returns:
    The summary with counts.

  Raises:
    ValueError: no clips, two clips of one name, an unknown tag, no frames or frames of differing sizes.
    FileExistsError: `out` exists.
  """
  if out.exists():
    raise FileExistsError(f"{out}: exists already")
  if not keys:
    raise ValueError(f"{out}: there is no clip to write")
  partial = out.with_name(f".{out.name}.partial")
  shutil.rmtree(partial, ignore_errors=True)
  side = _frame_side(staging.read(keys[0]))
  clips, frames, sounds = (
    ShardWriter(partial / name, name, features, max_shard_bytes)
    for name, features in (
      ("clips", _clip_features(categories)),
      ("frames", _frame_features(side)),
      ("sounds", _sound_features()),
    )
  )
  names: set[str] = set()
  tags: Counter[str] = Counter()
  num_frames = num_sounds = num_silent = 0
  for key in keys:
    clip = staging.read(key)
    _check_clip(clip, side, categories, names)
    names.add(clip.name)
    tags.update(clip.tags)
    for i, frame in enumerate(clip.frames):
      frames.write({"key": f"{clip.name}/{i:06d}", "image": frame})
    pieces = _sound_pieces(clip.columns)
    for i, piece in enumerate(pieces):
      sounds.write({"key": f"{clip.name}/{i:06d}", "columns": piece})
    clips.write({
      "name": clip.name, "tags": list(clip.tags), "flags": list(clip.flags), "rate": clip.rate,
      "duration": clip.duration, "width": clip.width, "height": clip.height, "first_frame": num_frames,
      "num_frames": len(clip.frames), "first_sound": num_sounds, "num_sounds": len(pieces),
      "num_columns": clip.columns.shape[1], "sound_mean": clip.sound_mean, "sound_std": clip.sound_std,
      "has_sound": clip.has_sound,
    })  # fmt: skip
    num_frames += len(clip.frames)
    num_sounds += len(pieces)
    num_silent += not clip.has_sound
  description = f"stajax records, source {summary.get('source')}, provenance {summary.get('provenance')}"
  for writer in (clips, frames, sounds):
    writer.close(description)
  counts = {
    "clips": len(names), "frames": num_frames, "sounds": num_sounds, "clips_without_sound": num_silent,
    "clips_by_category": {category: tags[category] for category in categories},
  }  # fmt: skip
  summary = {**summary, "categories": list(categories), "side": side, "counts": counts}
  write_json(partial / "summary.json", summary)
  partial.rename(out)
  return summary


def _frame_side(clip: PreparedClip) -> int:
  if not clip.frames:
    raise ValueError(f"{clip.name}: has no frames")
  with Image.open(io.BytesIO(clip.frames[0])) as image:
    return image.width


def _check_clip(clip: PreparedClip, side: int, categories: Sequence[str], names: set[str]) -> None:
  if clip.name in names:
    raise ValueError(f"{clip.name}: two clips have this name")
  if unknown := sorted(set(clip.tags) - set(categories)):
    raise ValueError(f"{clip.name}: tag {unknown[0]!r} is not one of the categories")
  _frame_side(clip)
  for frame in clip.frames:
    with Image.open(io.BytesIO(frame)) as image:
      if image.format != "JPEG" or image.size != (side, side):
        raise ValueError(f"{clip.name}: a frame is {image.format} {image.size}, expected JPEG {(side, side)}")


def _sound_pieces(columns: np.ndarray) -> list[np.ndarray]:
  """Cuts (257, m) into records (257, 100), the last padded with zeros."""
  padded = np.pad(columns, ((0, 0), (0, -columns.shape[1] % SOUND_COLUMNS)))
  return [np.ascontiguousarray(padded[:, i : i + SOUND_COLUMNS]) for i in range(0, padded.shape[1], SOUND_COLUMNS)]
