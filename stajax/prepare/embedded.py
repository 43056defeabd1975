"""Renders synthetic clips into records; the held-out ones also into a tree in the STAViS layout, with viewers.

Every clip depends on (seed, index, part, settings) alone. Therefore processes share the work in any order, and a run
that was interrupted goes on with the clips that are missing.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stajax import __version__
from stajax.data.jpeg import encode_jpeg
from stajax.data.staging import staging_key
from stajax.files import partial_path, write_json
from stajax.media.spectrogram import log_spectrogram, statistics
from stajax.prepare.clip_staging import ClipStaging, PreparedClip
from stajax.prepare.progress import open_staging, read_finished, work
from stajax.prepare.synthetic import CATEGORIES, Part, Settings, SyntheticClip, draw_viewing, make_clip
from stajax.prepare.tree_files import ANNOTATIONS, FRAMES, SOUND, write_fold_lists, write_groups, write_video

NAME = "synthetic"  # of the source, and of the tree's database


def prepare_synthetic(
  out: Path, *, seed: int, num_clips: int, settings: Settings, processes: int = 1
) -> dict[str, Any]:
  """Writes training clips as records; does nothing where `out` has them already.

  Args:
    out: The data set's folder, complete or absent afterwards.
    seed: The seed of all clips.
    num_clips: The number of clips; they have the indices 0 to num_clips - 1.
    settings: How they are rendered.
    processes: The number of processes that render; 1 renders in this one.

  Returns:
    The content of `out/summary.json`.

  Raises:
    ValueError: `out` was made with other settings, or is something else.
  """
  return _prepare(out, None, _Job(seed, num_clips, "train", settings), processes)


def prepare_heldout(
  out: Path, tree: Path, *, seed: int, num_clips: int, settings: Settings, processes: int = 1
) -> dict[str, Any]:
  """Writes held-out clips as records, and the same frames with sound and viewers as a tree in the STAViS layout.

  In the tree, `clips.csv` has the known answers (video, tag, flags), and `groups.json` the videos with each flag.

  Args:
    out: The data set's folder.
    tree: The tree's folder.
    seed: The seed of all clips.
    num_clips: The number of clips.
    settings: How they are rendered.
    processes: The number of processes that render.

  Returns:
    The content of `out/summary.json`.

  Raises:
    ValueError: `out` or `tree` was made with other settings, or is something else.
  """
  return _prepare(out, tree, _Job(seed, num_clips, "heldout", settings), processes)


@dataclass(frozen=True)
class _Job:
  """All clips of one part."""

  seed: int
  num_clips: int
  part: Part
  settings: Settings

  def facts(self) -> dict[str, Any]:
    return {"seed": self.seed, "num_clips": self.num_clips, "part": self.part, **asdict(self.settings)}

  def name(self, index: int) -> str:
    return f"{self.part}_{index:05d}"

  def key(self, index: int) -> str:
    # The version is part of it: another one may render otherwise, and clips of two versions must not mix.
    return staging_key(f"synthetic/{self.part}/{self.seed}/{index}", {**asdict(self.settings), "version": __version__})


def _prepare(out: Path, tree: Path | None, job: _Job, processes: int) -> dict[str, Any]:
  if job.num_clips < 1:
    raise ValueError(f"{out}: the number of clips is {job.num_clips}, expected at least 1")
  summary = read_finished(out, job.facts())
  new_tree = None
  if tree is not None and read_finished(tree, job.facts()) is None:
    # Named after the job, so that leftovers of another one are not taken for this one's videos.
    new_tree = partial_path(tree, staging_key("tree", {**job.facts(), "version": __version__}))
  staging = open_staging(out)
  if summary is None or new_tree is not None:
    _render_missing(job, staging, new_tree, processes)
  if tree is not None and new_tree is not None:
    _finish_tree(new_tree, job, (staging.read(job.key(index)) for index in range(job.num_clips)))
    os.replace(new_tree, tree)
  if summary is None:
    summary = _assemble(out, job, staging)
  staging.remove()
  return summary


def _render_missing(job: _Job, staging: ClipStaging, tree: Path | None, processes: int) -> None:
  missing = [i for i in range(job.num_clips) if not (staging.has(job.key(i)) and _has_video(tree, job.name(i)))]
  tasks = [(job, index, staging.folder, tree) for index in missing]
  for _ in work(f"{job.part} clips", job.num_clips, _render, tasks, processes):
    pass


def _has_video(tree: Path | None, name: str) -> bool:
  return tree is None or all((tree / part / NAME / name).is_dir() for part in (FRAMES, ANNOTATIONS, SOUND))


def _render(job: _Job, index: int, staging: Path, tree: Path | None) -> None:
  clip = make_clip(job.seed, index, job.part, job.settings)
  if tree is not None:
    viewing = draw_viewing(job.seed, index, job.part, job.settings)
    tree.mkdir(parents=True, exist_ok=True)
    write_video(tree, NAME, clip.name, clip.frames, clip.samples, zip(viewing.fixations, viewing.density))
  ClipStaging(staging).write(job.key(index), _prepared(clip))  # last: what is staged is finished


def _prepared(clip: SyntheticClip) -> PreparedClip:
  """Returns what the records keep of a synthetic clip."""
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
    sound_mean=mean,
    sound_std=deviation,
    frames=[encode_jpeg(frame) for frame in clip.frames],
    columns=columns.astype(np.float16),
  )


def _about(job: _Job) -> dict[str, Any]:
  return {"source": NAME, "provenance": NAME, "version": __version__, "settings": job.facts()}


def _assemble(out: Path, job: _Job, staging: ClipStaging) -> dict[str, Any]:
  from stajax.prepare.assembly import assemble  # TensorFlow Datasets takes seconds to load

  keys = [job.key(index) for index in sorted(range(job.num_clips), key=job.name)]
  return assemble(staging, keys, out, CATEGORIES, {**_about(job), "skipped": []})


def _finish_tree(tree: Path, job: _Job, clips: Iterable[PreparedClip]) -> None:
  """Writes the lists, the known answers and the summary of a tree whose videos are all there."""
  listed, answers, groups = [], [("video", "tag", "flags")], {}
  for clip in clips:
    listed.append((clip.name, len(clip.frames), clip.rate))
    answers.append((clip.name, " ".join(clip.tags), " ".join(clip.flags)))
    for flag in clip.flags:
      groups.setdefault(f"{NAME}/{flag}", []).append(clip.name)
  write_fold_lists(tree, NAME, listed)
  write_groups(tree, groups)
  with (tree / "clips.csv").open("w", newline="", encoding="utf-8") as file:
    csv.writer(file).writerows(answers)
  write_json(tree / "summary.json", _about(job))
