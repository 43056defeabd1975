"""Renders synthetic clips into records; the held-out ones also into a tree in the STAViS layout, with viewers.

Every clip depends on (seed, index, part, settings) alone, so processes share the work in any order, and a run that was
interrupted goes on with the clips that are missing.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stajax import __version__
from stajax.data.jpeg import encode_jpeg
from stajax.data.staging import staging_key
from stajax.files import partial_path
from stajax.media.spectrogram import log_spectrogram, statistics
from stajax.prepare.clip_staging import ClipStaging, PreparedClip
from stajax.prepare.progress import finished, staging_of, work
from stajax.prepare.synthetic import CATEGORIES, Part, Settings, SyntheticClip, make_clip, view
from stajax.prepare.tree_files import write_fold_lists, write_groups, write_video

DATABASE = "synthetic"
PROVENANCE = "synthetic"


def prepare_synthetic(
  out: Path, *, seed: int, num_clips: int, settings: Settings, part: Part = "train", processes: int = 1
) -> dict[str, Any]:
  """Writes clips as records; does nothing where `out` has them already.

  Args:
    out: the data set's folder, complete or absent afterwards.
    seed: of all clips.
    num_clips: those with index 0 to num_clips - 1.
    settings: how they are rendered.
    part: "train" or "heldout".
    processes: that render; 1 renders in this one.

  Returns:
    The content of `out/summary.json`.

  Raises:
    ValueError: `out` was made with other settings, or is something else.
  """
  return _prepare(out, None, _Job(seed, num_clips, part, settings), processes)


def prepare_heldout(
  out: Path, tree: Path, *, seed: int, num_clips: int, settings: Settings, processes: int = 1
) -> dict[str, Any]:
  """Writes held-out clips as records, and the same frames with sound and viewers as a tree in the STAViS layout.

  Args:
    out: the data set's folder.
    tree: the tree's folder; `clips.csv` in it has the known answers (video, tag, flags), `groups.json` who is flagged.
    seed, num_clips, settings, processes: as for `prepare_synthetic`, which also has the result and the exceptions.
  """
  return _prepare(out, tree, _Job(seed, num_clips, "heldout", settings), processes)


@dataclass(frozen=True)
class _Job:
  seed: int
  num_clips: int
  part: Part
  settings: Settings

  def facts(self) -> dict[str, Any]:
    return {"seed": self.seed, "num_clips": self.num_clips, "part": self.part, **asdict(self.settings)}

  def key(self, index: int) -> str:
    # The version is part of it: another one may render otherwise, and clips of two versions must not mix.
    return staging_key(f"synthetic/{self.part}/{self.seed}/{index}", {**asdict(self.settings), "version": __version__})


def _prepare(out: Path, tree: Path | None, job: _Job, processes: int) -> dict[str, Any]:
  if job.num_clips < 1:
    raise ValueError(f"{out}: the number of clips is {job.num_clips}, expected at least 1")
  summary = finished(out, job.facts())
  has_tree = tree is None or finished(tree, job.facts()) is not None
  staging = staging_of(out)
  if summary is not None and has_tree:
    staging.remove()
    return summary
  new_tree = None
  if not has_tree:
    # Named after the job, so that leftovers of another one are not taken for this one's videos.
    new_tree = partial_path(tree, staging_key("tree", {**job.facts(), "version": __version__}))
  missing = [i for i in range(job.num_clips) if not (staging.has(job.key(i)) and _has_video(new_tree, job, i))]
  tasks = [(job, index, staging.folder, new_tree) for index in missing]
  for _ in work(f"{job.part} clips", job.num_clips, _render, tasks, processes):
    pass
  names = {index: _clip_name(job, index) for index in range(job.num_clips)}
  if new_tree is not None:
    _finish_tree(new_tree, job, (staging.read(job.key(index)) for index in names))
    os.replace(new_tree, tree)
  if summary is None:
    from stajax.prepare.assembly import assemble  # TensorFlow takes seconds to load

    about = {
      "source": "synthetic", "provenance": PROVENANCE, "version": __version__, "settings": job.facts(), "skipped": []
    }  # fmt: skip
    keys = [job.key(i) for i in sorted(names, key=names.__getitem__)]
    summary = assemble(staging, keys, out, CATEGORIES, about)
  staging.remove()
  return summary


def _clip_name(job: _Job, index: int) -> str:
  return f"{job.part}_{index:05d}"


def _has_video(tree: Path | None, job: _Job, index: int) -> bool:
  return tree is None or all((tree / part / DATABASE / _clip_name(job, index)).is_dir() for part in _TREE_PARTS)


_TREE_PARTS = ("video_frames", "annotations", "video_audio")


def _render(job: _Job, index: int, staging: Path, tree: Path | None) -> None:
  clip = make_clip(job.seed, index, job.part, job.settings)
  if tree is not None:
    viewing = view(job.seed, index, job.part, job.settings)
    tree.mkdir(parents=True, exist_ok=True)
    write_video(tree, DATABASE, clip.name, clip.frames, clip.samples, zip(viewing.fixations, viewing.density))
  ClipStaging(staging).write(job.key(index), prepared_clip(clip))  # last: what is staged is finished


def prepared_clip(clip: SyntheticClip) -> PreparedClip:
  """What the records keep of a synthetic clip."""
  columns = log_spectrogram(clip.samples)
  mean, deviation, _ = statistics([columns])
  num_frames, height, width, _ = clip.frames.shape
  return PreparedClip(
    name=clip.name,
    tags=(clip.tag,),
    flags=clip.flags,
    rate=clip.rate,
    width=width,
    height=height,
    duration=num_frames / clip.rate,
    frames=[encode_jpeg(frame) for frame in clip.frames],
    columns=columns.astype(np.float16),
    sound_mean=mean,
    sound_std=deviation,
  )


def _finish_tree(tree: Path, job: _Job, clips: Iterable[PreparedClip]) -> None:
  """Writes the lists, the known answers and the summary of a tree whose videos are all there."""
  listed, answers, groups = [], [("video", "tag", "flags")], {}
  for clip in clips:
    listed.append((clip.name, len(clip.frames), clip.rate))
    answers.append((clip.name, " ".join(clip.tags), " ".join(clip.flags)))
    for flag in clip.flags:
      groups.setdefault(f"{DATABASE}/{flag}", []).append(clip.name)
  write_fold_lists(tree, DATABASE, listed)
  write_groups(tree, groups)
  with (tree / "clips.csv").open("w", newline="", encoding="utf-8") as file:
    csv.writer(file).writerows(answers)
  summary = {"source": "synthetic", "provenance": PROVENANCE, "version": __version__, "settings": job.facts()}
  (tree / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
