"""What an off-the-shelf tagger hears in the clips of a data set, beside its records, in the folder `class_scores`.

  classes.txt     the tagger's classes, one a line
  scores.npy      (frames, classes) float16 in [0, 1], in the order of the frame ids; 0 where a clip has no sound
  summary.json    the tagger and the clips

`scores_of` makes them of the media that the records were made of. Clip after clip is staged, so an interrupted run goes
on; needs no more memory for more clips.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stajax.data.records import Records
from stajax.data.shards import RecordError
from stajax.files import atomic_folder, write_json, write_text
from stajax.media.limits import Limits
from stajax.prepare.clip import MediaSettings, segment_frames
from stajax.prepare.listing import Item, Listing, shown
from stajax.prepare.progress import work
from stajax.prepare.staging import Staging
from stajax.prepare.yamnet import Part, Yamnet, hear

FOLDER = "class_scores"
PART = "train"  # the only one whose sound is labelled


def scores_of(
  listing: Listing, out: Path, tagger: Path, settings: MediaSettings, limits: Limits, processes: int
) -> dict[str, Any]:
  """Has YAMNet hear the part `train` of a prepared listing; what is finished is left as it is.

  Args:
    listing, out, settings, limits: those that `stajax.prepare.media_records.prepare` has written the records with.
    tagger: the TFLite file.
    processes: that decode.

  Returns:
    The content of the summary.

  Raises:
    YamnetError: see `stajax.prepare.yamnet.Yamnet`.
    ValueError: there is no such part, its scores are another tagger's, or a file cannot be heard any more.
  """
  if PART not in listing.parts:
    raise ValueError(f"{listing.root}: has no part `{PART}`, which is the one that a tagger is for")
  yamnet, records = Yamnet(tagger), Records.open(out / PART)
  path = records.path / FOLDER
  if path.exists():
    found = ClassScores.open(records.path)
    if found.sha256 != yamnet.sha256:
      raise ValueError(f"{path}: has the scores of another file than {tagger}; delete it to have them made again")
    return found.summary
  staging = Staging(records.path.with_name(f".{PART}.{FOLDER}"))
  tasks = list(_tasks(listing, records, yamnet.sha256, settings))
  waiting = [task for task in tasks if not all(staging.has(part.key) for part in task[1])]
  arguments = [(item, parts, tagger, staging.folder, settings, limits) for item, parts in waiting]
  failures = []
  for number, outcome in work("what is heard", len(tasks), hear, arguments, processes, limits) if waiting else ():
    reason = outcome if isinstance(outcome, str) else outcome.reason
    if reason:
      failures.append(f"{shown(waiting[number][0].path, listing.root)}: {reason}")
  if failures:
    raise ValueError(f"{path}: {len(failures)} of {len(tasks)} files cannot be heard (first: {min(failures)})")
  summary = {
    "tagger": "yamnet",
    "sha256": yamnet.sha256,
    "clips": dict(zip(records.names, records.num_frames.tolist(), strict=True)),
  }
  with atomic_folder(path) as partial:
    shape = (records.total_frames, len(yamnet.classes))
    scores = np.lib.format.open_memmap(partial / "scores.npy", "w+", np.float16, shape)
    for clip, heard in enumerate(records.has_sound.tolist()):
      if heard:
        first = int(records.first_frame[clip])
        values = staging.read_arrays(_key(clip, yamnet.sha256))["scores"]
        scores[first : first + int(records.num_frames[clip])] = values
    scores.flush()
    write_text(partial / "classes.txt", "\n".join(yamnet.classes) + "\n")
    write_json(partial / "summary.json", summary)
  staging.remove()
  return summary


def _tasks(
  listing: Listing, records: Records, sha256: str, settings: MediaSettings
) -> Iterator[tuple[Item, tuple[Part, ...]]]:
  """Every item that became clips with sound, and these."""
  clips: dict[str, list[int]] = {}
  for clip, name in enumerate(records.names):
    clips.setdefault(name.partition("#")[0], []).append(clip)  # segments of an item are in order
  for item in listing.items:
    if item.part != PART or item.name not in clips:
      continue
    own = clips[item.name]
    parts = tuple(
      Part(
        _key(clip, sha256),
        number * segment_frames(settings),
        int(records.num_frames[clip]),
        int(records.num_columns[clip]),
        clip == own[-1],
      )
      for number, clip in enumerate(own)
      if records.has_sound[clip]
    )
    if parts:
      yield item, parts


def _key(clip: int, sha256: str) -> str:
  return f"{sha256[:16]}-{clip:08d}"


@dataclass(frozen=True)
class ClassScores:
  """The scores beside a data set's records.

  Attributes:
    path: their folder.
    classes: names of the tagger's classes.
    sha256: of the tagger.
    summary: all that the folder says of itself.
  """

  path: Path
  classes: tuple[str, ...]
  sha256: str
  summary: dict[str, Any]
  _scores: np.ndarray
  _begins: dict[str, int]

  @staticmethod
  def open(records: Path) -> ClassScores:
    """Opens the scores beside the records in a folder; they stay on disk.

    Raises:
      RecordError: missing or damaged.
    """
    path = records / FOLDER
    if not path.is_dir():
      hint = "the `stajax prepare` that made these records, once more with --tagger FILE, writes them"
      raise RecordError(f"{path}: not there; {hint}")
    try:
      summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
      classes = tuple((path / "classes.txt").read_text(encoding="utf-8").splitlines())
      scores = np.load(path / "scores.npy", mmap_mode="r", allow_pickle=False)
      sha256, lengths = str(summary["sha256"]), [int(length) for length in summary["clips"].values()]
      if scores.shape != (sum(lengths), len(classes)) or scores.dtype != np.float16:
        found = f"scores {scores.dtype} {scores.shape}"
        raise ValueError(f"{found}, expected float16 ({sum(lengths)}, {len(classes)})")
    except (OSError, ValueError, EOFError, OverflowError, KeyError, TypeError, AttributeError) as error:
      raise RecordError(f"{path}: not the scores of a tagger ({error})") from error
    begins = dict(zip(summary["clips"], (np.cumsum(lengths) - lengths).tolist(), strict=True))
    return ClassScores(path, classes, sha256, summary, scores, begins)

  def of(self, name: str, num_frames: int) -> np.ndarray:
    """The scores (n, classes) float32 of a clip of n frames.

    Raises:
      RecordError: they were made for other records.
    """
    found = self.summary["clips"].get(name)
    if found != num_frames:
      there = "no such clip" if found is None else f"{found} frames of it"
      raise RecordError(f"{self.path}: has {there}: {name} with {num_frames} frames; scores of other records")
    begin = self._begins[name]
    return np.asarray(self._scores[begin : begin + num_frames], np.float32)
