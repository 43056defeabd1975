"""Renders synthetic clips into records, and optionally into a tree in the STAViS layout, with viewers.

Every clip depends on (seed, index, part, settings) alone. Therefore processes share the work in any order, and a run
that was interrupted continues with the missing clips.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stajax import __version__
from stajax.data.jpeg import encode_jpeg
from stajax.data.staging import staging_key
from stajax.files import make_folder, partial_path, put_in_place, write_json, write_text
from stajax.files.names import csv_text
from stajax.media.spectrogram import log_spectrogram, statistics
from stajax.prepare.clip_staging import ClipStaging, PreparedClip
from stajax.prepare.progress import open_staging, read_finished, work
from stajax.prepare.synthetic import CATEGORIES, Part, Settings, SyntheticClip, draw_viewing, make_clip
from stajax.prepare.tree_files import ANNOTATIONS, FRAMES, SOUND, write_fold_lists, write_groups, write_video

NAME = "synthetic"  # the name of the source and of the tree's database
GENERATOR = 2  # the version of what is drawn, so that clips of two versions never mix; 2 has rivals


@dataclass(frozen=True)
class ClipRange:
  """The synthetic clips with the indices 0 to num_clips - 1.

  Attributes:
    seed: The seed of all clips.
    num_clips: The number of clips.
    part: The part that they belong to; only clips of `heldout` have viewers.
    settings: How they are rendered.
  """

  seed: int
  num_clips: int
  part: Part
  settings: Settings

  def facts(self) -> dict[str, Any]:
    """Returns what the clips depend on, as JSON values."""
    return {
      "seed": self.seed,
      "num_clips": self.num_clips,
      "part": self.part,
      "generator": GENERATOR,
      **asdict(self.settings),
    }

  def name(self, index: int) -> str:
    """Returns the name of a clip."""
    return f"{self.part}_{index:05d}"

  def key(self, index: int) -> str:
    """Returns the staging key of a clip, which has the versions too."""
    versions = {"generator": GENERATOR, "version": __version__}
    return staging_key(f"synthetic/{self.part}/{self.seed}/{index}", {**asdict(self.settings), **versions})


def prepare_synthetic(out: Path, clips: ClipRange, processes: int = 1, tree: Path | None = None) -> dict[str, Any]:
  """Writes clips as records, and optionally their frames, sound and viewers as a tree in the STAViS layout.

  What is finished already stays as it is. In the tree, `clips.csv` has the known answers (video, tag, flags), and
  `groups.json` the videos with each flag.

  Args:
    out: The data set's folder, complete or absent afterwards.
    clips: The clips.
    processes: The number of processes that render; 1 renders in this one.
    tree: The tree's folder; None for records alone, as for the part `train`, which has no viewers.

  Returns:
    The content of `out/summary.json`.

  Raises:
    ValueError: `out` or `tree` was made with other settings, or is something else.
  """
  if clips.num_clips < 1:
    raise ValueError(f"{out}: the number of clips is {clips.num_clips}, expected at least 1")
  summary = read_finished(out, clips.facts())
  new_tree = None
  if tree is not None and read_finished(tree, clips.facts()) is None:
    # The name depends on the clips, so that videos left by a run with other settings are not taken for these.
    new_tree = partial_path(tree, staging_key("tree", {**clips.facts(), "version": __version__}))
  staging = open_staging(out)
  if summary is None or new_tree is not None:
    _render_missing(clips, staging, new_tree, processes)
  if tree is not None and new_tree is not None:
    _finish_tree(new_tree, clips, (staging.read(clips.key(index)) for index in range(clips.num_clips)))
    put_in_place(new_tree, tree)
  if summary is None:
    summary = _assemble(out, clips, staging)
  staging.remove()
  return summary


def _render_missing(clips: ClipRange, staging: ClipStaging, tree: Path | None, processes: int) -> None:
  missing = [i for i in range(clips.num_clips) if not (staging.has(clips.key(i)) and _has_video(tree, clips.name(i)))]
  tasks = [(clips, index, staging.folder, tree) for index in missing]
  for _ in work(f"{clips.part} clips", clips.num_clips, _render, tasks, processes):
    pass


def _has_video(tree: Path | None, name: str) -> bool:
  return tree is None or all((tree / part / NAME / name).is_dir() for part in (FRAMES, ANNOTATIONS, SOUND))


def _render(clips: ClipRange, index: int, staging: Path, tree: Path | None) -> None:
  clip = make_clip(clips.seed, index, clips.part, clips.settings)
  if tree is not None:
    viewing = draw_viewing(clips.seed, index, clips.part, clips.settings)
    make_folder(tree)
    write_video(tree, NAME, clip.name, clip.frames, clip.samples, zip(viewing.fixations, viewing.density))
  ClipStaging(staging).write(clips.key(index), _prepared(clip))  # last, because a staged clip counts as finished


def _prepared(clip: SyntheticClip) -> PreparedClip:
  """Turns a synthetic clip into what the records keep."""
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


def _about(clips: ClipRange) -> dict[str, Any]:
  return {"source": NAME, "provenance": NAME, "version": __version__, "settings": clips.facts()}


def _assemble(out: Path, clips: ClipRange, staging: ClipStaging) -> dict[str, Any]:
  from stajax.prepare.assembly import assemble  # TensorFlow Datasets takes seconds to load

  keys = [clips.key(index) for index in sorted(range(clips.num_clips), key=clips.name)]
  return assemble(staging, keys, out, CATEGORIES, {**_about(clips), "skipped": []})


def _finish_tree(tree: Path, clips: ClipRange, prepared: Iterable[PreparedClip]) -> None:
  """Writes the fold list, the known answers and the summary of a tree whose videos are all written."""
  listed, answers, groups = [], [("video", "tag", "flags")], {}
  for clip in prepared:
    listed.append((clip.name, len(clip.frames), clip.rate))
    answers.append((clip.name, " ".join(clip.tags), " ".join(clip.flags)))
    for flag in clip.flags:
      groups.setdefault(f"{NAME}/{flag}", []).append(clip.name)
  write_fold_lists(tree, NAME, listed)
  write_groups(tree, groups)
  write_text(tree / "clips.csv", csv_text(answers))
  write_json(tree / "summary.json", _about(clips))
