"""Assembly: the record sets `clips`, `frames` and `sounds` of a data set, from staged clips.

A shard holds whole clips. Which ones is planned first, from the clips' sizes alone; so shards can be written in any
process and any order, and the bytes are the same: of a run that was interrupted, of many processes, of Apache Beam.
Loads no TensorFlow.
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
from tqdm import tqdm

from stajax.data.examples import Encoder
from stajax.data.schema import SETS, SOUND_COLUMNS, Set, set_features
from stajax.data.shards import MAX_SHARD_BYTES, shard_path, write_metadata, write_shard
from stajax.files import partial_path, write_json
from stajax.media.limits import run_in_children
from stajax.media.spectrogram import NUM_BINS
from stajax.prepare.staging import ClipFacts, Staging

RECORD_OVERHEAD = 100  # bytes of a frame's or sound's record beside the name and the content, at most
BYTES_A_PROCESS = 2**29  # what this one has written before another has started


@dataclass(frozen=True)
class Shard:
  """One planned shard: all that a process needs to write it. Small, and can be pickled.

  Attributes:
    set: which set it belongs to.
    index, count: its number in the set, and how many there are.
    keys: staging keys of the clips that it holds.
    first_frame, first_sound: ids of the first frame and sound of these clips.
    staging: folder of the staged clips.
    folder: the data set's folder, a temporary one.
    side: of the frames, pixels.
    categories: all tags.
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
class Plan:
  """A data set that is to be written: its shards, and what `finish` needs when they are."""

  out: Path
  partial: Path
  shards: tuple[Shard, ...]
  summary: dict[str, Any]


def assemble(
  staging: Staging,
  keys: Sequence[str],
  out: Path,
  categories: Sequence[str],
  summary: dict[str, Any],
  max_shard_bytes: int = MAX_SHARD_BYTES,
  processes: int = 1,
  write: Callable[[Sequence[Shard], Staging], Sequence[tuple[int, int]]] | None = None,
) -> dict[str, Any]:
  """Writes a data set from staged clips; the same staging and keys give the same bytes.

  Everything is written to a folder beside `out` that is renamed at the end, so `out` is complete or absent.

  Args:
    staging: has every key.
    keys: in the order of the records; sort them by their clips' names.
    out: the data set's folder; must not exist.
    categories: all tags, in the order of their labels.
    summary: what `summary.json` says beside counts and categories: source, provenance, settings, skipped files.
    max_shard_bytes: of records in a shard; a clip that is larger has a shard of its own.
    processes: that write shards; other processes than this one only where there is work for several.
    write: writes them otherwise, see `stajax.prepare.beam`.

  Returns:
    The summary with counts.

  Raises:
    ValueError: no clips, two clips of one name, an unknown tag, no frames or frames of differing sizes.
    FileExistsError: `out` exists.
  """
  plan = plan_assembly(staging, keys, out, categories, summary, max_shard_bytes)
  if write is not None:
    return finish(plan, write(plan.shards, staging))
  size = sum(path.stat().st_size for path in map(staging.path, keys))
  processes = min(processes, len(plan.shards), 1 + size // BYTES_A_PROCESS)
  written: list[tuple[int, int]] = [(0, 0)] * len(plan.shards)
  with tqdm(total=len(plan.shards), desc="shards", unit="shard", disable=None) as bar:
    for index, result in run_in_children(write_planned, [(shard,) for shard in plan.shards], processes):
      written[index] = result
      bar.update()
  return finish(plan, written)


def plan_assembly(
  staging: Staging,
  keys: Sequence[str],
  out: Path,
  categories: Sequence[str],
  summary: dict[str, Any],
  max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Plan:
  """Decides which clips are in which shard, and clears the folder that they are written to.

  Args and exceptions are those of `assemble`, but for frames of differing sizes.
  """
  if out.exists():
    raise FileExistsError(f"{out}: exists already")
  if not keys:
    raise ValueError(f"{out}: there is no clip to write")
  partial = partial_path(out)
  shutil.rmtree(partial, ignore_errors=True)
  # Of 200,000 clips there is memory for these numbers, not for the facts themselves.
  num_frames, num_sounds, num_silent = [], [], 0
  sizes: dict[Set, list[int]] = {name: [] for name in SETS}
  names: set[str] = set()
  tags: Counter[str] = Counter()
  for key in keys:
    clip = staging.read_facts(key)
    _check_facts(clip, categories, names)
    names.add(clip.name)
    tags.update(clip.tags)
    num_frames.append(clip.num_frames)
    num_sounds.append(-(-clip.num_columns // SOUND_COLUMNS))
    num_silent += not clip.num_columns
    overhead = RECORD_OVERHEAD + len(clip.name.encode())
    sizes["frames"].append(int(clip.frame_sizes.sum()) + clip.num_frames * overhead)
    sizes["sounds"].append(num_sounds[-1] * (2 * NUM_BINS * SOUND_COLUMNS + overhead))
    sizes["clips"].append(5 * RECORD_OVERHEAD + overhead + sum(len(text.encode()) + 10 for text in clip.flags))
  with Image.open(io.BytesIO(staging.read_frames(keys[0])[0])) as image:
    side = image.width
  frames, sounds = np.cumsum([0, *num_frames]).tolist(), np.cumsum([0, *num_sounds]).tolist()
  shards: list[Shard] = []
  for name in SETS:
    planned = plan_shards(sizes[name], max_shard_bytes)
    shards += [
      Shard(
        set=name, index=index, count=len(planned), keys=tuple(keys[clips.start : clips.stop]),
        first_frame=frames[clips.start], first_sound=sounds[clips.start],
        staging=staging.folder, folder=partial, side=side, categories=tuple(categories),
      )
      for index, clips in enumerate(planned)
    ]  # fmt: skip
  counts = {
    "clips": len(names), "frames": frames[-1], "sounds": sounds[-1], "clips_without_sound": num_silent,
    "clips_by_category": {category: tags[category] for category in categories},
  }  # fmt: skip
  summary = {**summary, "categories": list(categories), "side": side, "counts": counts}
  return Plan(out, partial, tuple(shards), summary)


def plan_shards(sizes: Sequence[int], max_bytes: int) -> list[range]:
  """Divides successive clips among shards: as many as fit into each, one where a clip is larger than that.

  Args:
    sizes: bytes of each clip's records; 0 where it has none.
    max_bytes: of a shard.

  Returns:
    The clips of each shard, at least one shard; none is empty unless all sizes are 0.
  """
  begins, used = [0], 0
  for clip, size in enumerate(sizes):
    if size and used and used + size > max_bytes:
      begins.append(clip)
      used = 0
    used += size
  return [range(begin, end) for begin, end in zip(begins, [*begins[1:], len(sizes)], strict=True)]


def _check_facts(clip: ClipFacts, categories: Sequence[str], names: set[str]) -> None:
  if clip.name in names:
    raise ValueError(f"{clip.name}: two clips have this name")
  if unknown := sorted(set(clip.tags) - set(categories)):
    raise ValueError(f"{clip.name}: tag {unknown[0]!r} is not one of the categories")
  if not clip.num_frames:
    raise ValueError(f"{clip.name}: has no frames")


def write_planned(shard: Shard) -> tuple[int, int]:
  """Writes one planned shard, atomically, holding one clip in memory; returns its records and their bytes.

  Raises:
    ValueError: a frame is not a JPEG file of the planned side, or a staged clip is damaged.
  """
  examples = {"clips": _clip_examples, "frames": _frame_examples, "sounds": _sound_examples}[shard.set]
  encode = Encoder(set_features(shard.set, shard.side, shard.categories))
  path = shard_path(shard.folder / shard.set, shard.set, shard.index, shard.count)
  return write_shard(path, map(encode, examples(shard)))


def finish(plan: Plan, written: Sequence[tuple[int, int]]) -> dict[str, Any]:
  """Makes a data set of the written shards.

  Args:
    plan: whose shards are all written.
    written: what `write_planned` returned for each.

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
  plan.partial.rename(plan.out)
  return plan.summary


def _clip_examples(shard: Shard) -> Iterator[dict[str, Any]]:
  staging, first_frame, first_sound = Staging(shard.staging), shard.first_frame, shard.first_sound
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
  staging = Staging(shard.staging)
  for key in shard.keys:
    name = staging.read_facts(key).name
    for i, frame in enumerate(staging.read_frames(key)):
      with Image.open(io.BytesIO(frame)) as image:
        if image.format != "JPEG" or image.size != (shard.side, shard.side):
          expected = f"expected JPEG {(shard.side, shard.side)}"
          raise ValueError(f"{name}: a frame is {image.format} {image.size}, {expected}")
      yield {"key": f"{name}/{i:06d}", "image": frame}


def _sound_examples(shard: Shard) -> Iterator[dict[str, Any]]:
  staging = Staging(shard.staging)
  for key in shard.keys:
    name = staging.read_facts(key).name
    for i, piece in enumerate(_sound_pieces(staging.read_columns(key))):
      yield {"key": f"{name}/{i:06d}", "columns": piece}


def _sound_pieces(columns: np.ndarray) -> list[np.ndarray]:
  """Cuts (257, m) into records (257, 100), the last padded with zeros."""
  padded = np.pad(columns, ((0, 0), (0, -columns.shape[1] % SOUND_COLUMNS)))
  return [np.ascontiguousarray(padded[:, i : i + SOUND_COLUMNS]) for i in range(0, padded.shape[1], SOUND_COLUMNS)]
