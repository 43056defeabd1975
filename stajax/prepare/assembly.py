"""Assembles the record sets `clips`, `frames` and `sounds` of a data set from staged clips.

A shard holds whole clips. The clips of each shard are planned first, from their sizes alone. Therefore shards can be
written by any process in any order, and the bytes are the same after an interruption, with many processes and with
Apache Beam.
This module loads no TensorFlow.
"""

from __future__ import annotations

import io
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from stajax import runtime
from stajax.data.protos import Encoder
from stajax.data.schema import SETS, SOUND_COLUMNS, Set, set_features
from stajax.data.shards import MAX_SHARD_BYTES, shard_path, write_metadata, write_shard
from stajax.files import partial_path, put_in_place, write_json
from stajax.media.limits import Failure, run_in_children
from stajax.media.spectrogram import NUM_BINS
from stajax.prepare.clip_staging import ClipStaging, StagedClip

RECORD_OVERHEAD = 100  # the largest number of bytes that a record has besides its name and its content
BYTES_A_PROCESS = 2**29  # this process writes as many bytes while another one starts


@dataclass(frozen=True)
class Shard:
  """One planned shard, with all that a process needs to write it; it is small and can be pickled.

  Attributes:
    set: The set that it belongs to.
    index: Its number in the set.
    count: The number of shards in the set.
    keys: The staging keys of the clips that it holds.
    first_frame: The id of the first frame of these clips.
    first_sound: The id of their first sound record.
    staging: The folder of the staged clips.
    folder: The temporary folder of the data set.
    side: The side of the frames in pixels.
    categories: All tags.
  """

  set: Set
  index: int
  count: int
  keys: tuple[str, ...]
  first_frame: int
  first_sound: int
  staging: Path
  folder: Path
  side: int
  categories: tuple[str, ...]


@dataclass(frozen=True)
class AssemblyPlan:
  """The plan of a data set.

  Attributes:
    out: The data set's folder.
    partial: The folder that the data set is written to until it is complete.
    shards: The shards that are to be written.
    summary: The content of its `summary.json`.
  """

  out: Path
  partial: Path
  shards: tuple[Shard, ...]
  summary: dict[str, Any]


def assemble(
  staging: ClipStaging,
  keys: Sequence[str],
  out: Path,
  categories: Sequence[str],
  summary: dict[str, Any],
  max_shard_bytes: int = MAX_SHARD_BYTES,
  write: Callable[[Sequence[Shard]], Sequence[tuple[int, int]]] | None = None,
) -> dict[str, Any]:
  """Writes a data set from staged clips; the same staging and keys give the same bytes.

  Everything is written to a folder beside `out` that is renamed at the end, so `out` is complete or absent.

  Args:
    staging: The staging folder, which has every key.
    keys: The staging keys in the order of the records; sort them by their clips' names.
    out: The data set's folder; it must not exist.
    categories: All tags, in the order of their labels.
    summary: The content of `summary.json` besides counts and categories: source, provenance, settings, skipped files.
    max_shard_bytes: The largest size of a shard's records; a larger clip gets a shard of its own.
    write: The function that writes the shards; by default `write_shards`, in this process.

  Returns:
    The summary with counts.

  Raises:
    ValueError: There are no clips, two clips have the same name, a tag is unknown, or a clip has no frames or frames of
      different sizes.
    FileExistsError: `out` exists.
  """
  plan = plan_assembly(staging, keys, out, categories, summary, max_shard_bytes)
  return finish_assembly(plan, (write or write_shards)(plan.shards))


def write_shards(shards: Sequence[Shard], processes: int = 1) -> list[tuple[int, int]]:
  """Writes planned shards; returns the number of records and their bytes for each.

  Args:
    shards: All shards of a data set.
    processes: The largest number of processes that write; small data sets are written by this process alone.
  """
  staged = {ClipStaging(shard.staging).path(key) for shard in shards for key in shard.keys}
  size = sum(path.stat().st_size for path in staged)
  processes = min(processes, len(shards), 1 + size // BYTES_A_PROCESS)
  written: list[tuple[int, int]] = [(0, 0)] * len(shards)
  with runtime.progress("shards", len(shards), "shard") as bar:
    for index, result in run_in_children(write_planned, [(shard,) for shard in shards], processes):
      if isinstance(result, Failure):  # its process died
        raise OSError(f"{shards[index].folder}: a shard could not be written: {result.reason}")
      written[index] = result
      bar.update()
  return written


def plan_assembly(
  staging: ClipStaging,
  keys: Sequence[str],
  out: Path,
  categories: Sequence[str],
  summary: dict[str, Any],
  max_shard_bytes: int = MAX_SHARD_BYTES,
) -> AssemblyPlan:
  """Decides which clips are in which shard, and clears the folder that they are written to.

  The arguments and exceptions are those of `assemble`, except that the sizes of frames are not checked.
  """
  if out.exists():
    raise FileExistsError(f"{out}: exists already")
  if not keys:
    raise ValueError(f"{out}: there is no clip to write")
  partial = partial_path(out)
  shutil.rmtree(partial, ignore_errors=True)
  measured = _measure(staging, keys, categories)
  with Image.open(io.BytesIO(staging.read_frames(keys[0])[0])) as image:
    side = image.width
  first_frames = np.cumsum([0, *measured.num_frames]).tolist()
  first_sounds = np.cumsum([0, *measured.num_sounds]).tolist()
  shards: list[Shard] = []
  for name in SETS:
    planned = plan_shards(measured.sizes[name], max_shard_bytes)
    shards += [
      Shard(
        set=name, index=index, count=len(planned), keys=tuple(keys[clips.start : clips.stop]),
        first_frame=first_frames[clips.start], first_sound=first_sounds[clips.start],
        staging=staging.folder, folder=partial, side=side, categories=tuple(categories),
      )
      for index, clips in enumerate(planned)
    ]  # fmt: skip
  counts = {
    "clips": len(keys), "frames": first_frames[-1], "sounds": first_sounds[-1],
    "clips_without_sound": measured.num_silent,
    "clips_by_category": {category: measured.tags[category] for category in categories},
  }  # fmt: skip
  summary = {**summary, "categories": list(categories), "side": side, "counts": counts}
  return AssemblyPlan(out, partial, tuple(shards), summary)


@dataclass
class _Measured:
  """The numbers that the plan needs of all clips; for 200,000 clips these fit into memory, but all their facts do not.

  Attributes:
    num_frames: The number of frames of each clip.
    num_sounds: The number of sound records of each clip.
    sizes: The bytes of each clip's records in each set.
    num_silent: The number of clips without sound.
    tags: The number of clips with each tag.
  """

  num_frames: list[int]
  num_sounds: list[int]
  sizes: dict[Set, list[int]]
  num_silent: int
  tags: Counter[str]


def _measure(staging: ClipStaging, keys: Sequence[str], categories: Sequence[str]) -> _Measured:
  measured = _Measured([], [], {name: [] for name in SETS}, 0, Counter())
  names: set[str] = set()
  for key in keys:
    clip = staging.read_facts(key)
    _check_facts(clip, categories, names)
    names.add(clip.name)
    num_sounds = -(-clip.num_columns // SOUND_COLUMNS)
    overhead = RECORD_OVERHEAD + len(clip.name.encode())
    measured.tags.update(clip.tags)
    measured.num_silent += not clip.num_columns
    measured.num_frames.append(clip.num_frames)
    measured.num_sounds.append(num_sounds)
    measured.sizes["frames"].append(int(clip.frame_sizes.sum()) + clip.num_frames * overhead)
    measured.sizes["sounds"].append(num_sounds * (2 * NUM_BINS * SOUND_COLUMNS + overhead))
    num_bytes = 5 * RECORD_OVERHEAD + overhead + sum(len(text.encode()) + 10 for text in clip.flags)
    measured.sizes["clips"].append(num_bytes)
  return measured


def plan_shards(sizes: Sequence[int], max_bytes: int) -> list[range]:
  """Divides successive clips among shards: as many as fit into each, or a single clip that is larger than a shard.

  Args:
    sizes: The bytes of each clip's records; 0 for a clip without records.
    max_bytes: The largest size of a shard.

  Returns:
    The clips of each shard. There is at least one shard; none is empty unless all sizes are 0.
  """
  begins, used = [0], 0
  for clip, size in enumerate(sizes):
    if size and used and used + size > max_bytes:
      begins.append(clip)
      used = 0
    used += size
  return [range(begin, end) for begin, end in zip(begins, [*begins[1:], len(sizes)], strict=True)]


def _check_facts(clip: StagedClip, categories: Sequence[str], names: set[str]) -> None:
  if clip.name in names:
    raise ValueError(f"{clip.name}: two clips have this name")
  if unknown := sorted(set(clip.tags) - set(categories)):
    raise ValueError(f"{clip.name}: tag {unknown[0]!r} is not one of the categories")
  if not clip.num_frames:
    raise ValueError(f"{clip.name}: has no frames")


def write_planned(shard: Shard) -> tuple[int, int]:
  """Writes a planned shard atomically, one clip at a time; returns the number of its records and their bytes.

  Raises:
    ValueError: A frame is not a JPEG file of the planned side, or a staged clip is damaged.
  """
  examples = {"clips": _clip_examples, "frames": _frame_examples, "sounds": _sound_examples}[shard.set]
  encode = Encoder(set_features(shard.set, shard.side, shard.categories))
  path = shard_path(shard.folder / shard.set, shard.set, shard.index, shard.count)
  return write_shard(path, map(encode, examples(shard)))


def finish_assembly(plan: AssemblyPlan, written: Sequence[tuple[int, int]]) -> dict[str, Any]:
  """Completes a data set whose shards are written.

  Args:
    plan: The plan of the data set.
    written: The number of records and their bytes of each shard, as `write_planned` returned them.

  Returns:
    The content of `summary.json`.
  """
  source, provenance = plan.summary.get("source"), plan.summary.get("provenance")
  description = f"stajax records, source {source}, provenance {provenance}"
  for name in SETS:
    own = [facts for shard, facts in zip(plan.shards, written, strict=True) if shard.set == name]
    features = tfds.features.FeaturesDict(set_features(name, plan.summary["side"], plan.summary["categories"]))
    lengths, sizes = zip(*own)
    write_metadata(plan.partial / name, name, features, lengths, sum(sizes), description)
  write_json(plan.partial / "summary.json", plan.summary)
  put_in_place(plan.partial, plan.out)
  return plan.summary


def _clip_examples(shard: Shard) -> Iterator[dict[str, Any]]:
  staging, first_frame, first_sound = ClipStaging(shard.staging), shard.first_frame, shard.first_sound
  for clip in map(staging.read_facts, shard.keys):
    num_sounds = -(-clip.num_columns // SOUND_COLUMNS)
    yield {
      "name": clip.name, "tags": list(clip.tags), "flags": list(clip.flags), "rate": clip.rate,
      "duration": clip.duration, "width": clip.width, "height": clip.height, "first_frame": first_frame,
      "num_frames": clip.num_frames, "first_sound": first_sound, "num_sounds": num_sounds,
      "num_columns": clip.num_columns, "sound_mean": clip.sound_mean, "sound_std": clip.sound_std,
      "has_sound": clip.num_columns > 0,
    }  # fmt: skip
    first_frame += clip.num_frames
    first_sound += num_sounds


def _frame_examples(shard: Shard) -> Iterator[dict[str, Any]]:
  staging = ClipStaging(shard.staging)
  for key in shard.keys:
    name = staging.read_facts(key).name
    for i, frame in enumerate(staging.read_frames(key)):
      with Image.open(io.BytesIO(frame)) as image:
        if image.format != "JPEG" or image.size != (shard.side, shard.side):
          expected = f"expected JPEG {(shard.side, shard.side)}"
          raise ValueError(f"{name}: a frame is {image.format} {image.size}, {expected}")
      yield {"key": f"{name}/{i:06d}", "image": frame}


def _sound_examples(shard: Shard) -> Iterator[dict[str, Any]]:
  staging = ClipStaging(shard.staging)
  for key in shard.keys:
    name = staging.read_facts(key).name
    columns = staging.read_columns(key)
    padded = np.pad(columns, ((0, 0), (0, -columns.shape[1] % SOUND_COLUMNS)))  # the last record ends with zeros
    for i, start in enumerate(range(0, padded.shape[1], SOUND_COLUMNS)):
      yield {"key": f"{name}/{i:06d}", "columns": np.ascontiguousarray(padded[:, start : start + SOUND_COLUMNS])}
