"""Scores the sound of prepared clips with YAMNet; `stajax.data.class_scores` reads the scores.

The scores are made from the same media as the records. They are staged clip by clip, so that an interrupted run can
continue, and more clips need no more memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stajax.data.class_scores import FOLDER, ClassScores
from stajax.data.records import Records
from stajax.data.staging import Staging
from stajax.files import atomic_folder, write_json, write_text
from stajax.media.limits import Limits
from stajax.prepare.clip import MediaSettings, count_segment_frames
from stajax.prepare.listing import Item, Listing, display_path
from stajax.prepare.progress import work
from stajax.prepare.yamnet import ScoredClip, Yamnet, stage_scores

PART = "train"  # the only part whose sound is labelled

Task = tuple[Item, tuple[ScoredClip, ...]]
"""An item, and the clips with sound that it became."""


def tag_sound(
  listing: Listing, out: Path, tagger: Path, settings: MediaSettings, limits: Limits, processes: int
) -> dict[str, Any]:
  """Writes YAMNet's scores beside the records of the part `train`; finished scores are left as they are.

  Args:
    listing: The source that `stajax.prepare.media_records.prepare` wrote the records of.
    out: The folder with the records of all parts.
    tagger: YAMNet's TFLite file.
    settings: The settings that the records were written with.
    limits: The limits for a file.
    processes: The number of processes that decode.

  Returns:
    The content of the summary.

  Raises:
    YamnetError: The file is not YAMNet's, see `stajax.prepare.yamnet.Yamnet`.
    ValueError: There is no such part, it has the scores of another tagger, or a sound can no longer be read.
  """
  if PART not in listing.parts:
    raise ValueError(f"{listing.root}: has no part `{PART}`, whose sound the tagger would score")
  yamnet, records = Yamnet(tagger), Records.open(out / PART)
  path = records.path / FOLDER
  if path.exists():
    found = ClassScores.open(records.path)
    if found.sha256 != yamnet.sha256:
      raise ValueError(f"{path}: has the scores of another file than {tagger}; delete it to have them made again")
    return found.summary
  staging = Staging(records.path.with_name(f".{PART}.{FOLDER}"))
  tasks = list(_tasks(listing, records, yamnet.sha256, settings))
  missing = [task for task in tasks if not all(staging.has(clip.key) for clip in task[1])]
  arguments = [(item, clips, tagger, staging.folder, settings, limits) for item, clips in missing]
  failures = []
  for number, outcome in work("scores of sound", len(tasks), stage_scores, arguments, processes, limits):
    if reason := outcome if isinstance(outcome, str) else outcome.reason:
      failures.append(f"{display_path(missing[number][0].path, listing.root)}: {reason}")
  if failures:
    raise ValueError(f"{path}: {len(failures)} of {len(tasks)} files cannot be heard (first: {min(failures)})")
  summary = _write_scores(path, records, staging, yamnet.sha256, yamnet.classes)
  staging.remove()
  return summary


def _tasks(listing: Listing, records: Records, sha256: str, settings: MediaSettings) -> Iterator[Task]:
  """Yields every item that became clips with sound, with these clips."""
  clips: dict[str, list[int]] = {}
  for clip, name in enumerate(records.names):
    clips.setdefault(name.partition("#")[0], []).append(clip)  # the segments of an item are in order
  for item in listing.items:
    if item.part != PART or item.name not in clips:
      continue
    own = clips[item.name]
    scored = tuple(
      ScoredClip(
        key=_key(clip, sha256),
        start=number * count_segment_frames(settings),
        num_frames=int(records.num_frames[clip]),
        num_columns=int(records.num_columns[clip]),
        is_last=clip == own[-1],
      )
      for number, clip in enumerate(own)
      if records.has_sound[clip]
    )
    if scored:
      yield item, scored


def _write_scores(
  path: Path, records: Records, staging: Staging, sha256: str, classes: Sequence[str]
) -> dict[str, Any]:
  """Writes the folder of scores atomically from the staged scores of all clips; returns its summary."""
  summary = {
    "tagger": "yamnet",
    "sha256": sha256,
    "clips": dict(zip(records.names, records.num_frames.tolist(), strict=True)),
  }
  with atomic_folder(path) as partial:
    shape = (records.total_frames, len(classes))
    scores = np.lib.format.open_memmap(partial / "scores.npy", "w+", np.float16, shape)
    for clip in np.flatnonzero(records.has_sound).tolist():
      first = int(records.first_frame[clip])
      scores[first : first + int(records.num_frames[clip])] = staging.read_arrays(_key(clip, sha256))["scores"]
    scores.flush()
    write_text(partial / "classes.txt", "\n".join(classes) + "\n")
    write_json(partial / "summary.json", summary)
  return summary


def _key(clip: int, sha256: str) -> str:
  return f"{sha256[:16]}-{clip:08d}"
