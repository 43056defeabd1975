"""The examples of the report: frames of held-out clips, of training clips and of scored videos, with their maps."""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stajax import networks
from stajax.data.records import Records
from stajax.eyetracking import StavisVideo
from stajax.inference.class_maps import ClipSources
from stajax.inference.predictor import Predictor, to_uint8
from stajax.media.spectrogram import window_columns
from stajax.report.names import PSEUDO_FIXATION
from stajax.report.page import Example
from stajax.report.tables import ABLATION_METHODS
from stajax.scoring.results import Evaluation
from stajax.scoring.videos import MethodMaps
from stajax.senses import OWN, Senses, split_method
from stajax.train.run import Run
from stajax.train.training_data import clip_tags

_EXAMPLES = 10
ABLATED = (Senses(sound="other"), Senses(sound="none"), Senses(motion="none"), Senses(companions="none"))
"""What the report takes from the students on held-out clips."""
_COMPARED = ("scam", "final", *(f"final{senses.suffix}" for senses in ABLATED[:2]))
_PREDICTED = (*networks.STUDENTS, "final")
_COMPARED_IN_TRAINING = ("scam", "scam_plus", PSEUDO_FIXATION, "final")
"""The methods that stand side by side in the gallery."""


@dataclass(frozen=True)
class Scored:
  """What the report has on videos with viewers.

  Attributes:
    evaluation: The scores.
    examples: Some of their frames.
    fold_lists: The test lists that were used.
    skipped: The (database, video, reason) of the videos that could not be read.
    notes: Lines for people.
    about: Further content of `evaluation.json`.
  """

  evaluation: Evaluation
  examples: Sequence[Example]
  fold_lists: Sequence[Path] = ()
  skipped: Sequence[tuple[str, str, str]] = ()
  notes: Sequence[str] = ()
  about: Mapping[str, Any] = field(default_factory=dict)


class Gallery:
  """Keeps the middle frame of the first clips of every tag, with its maps.

  Args:
    records: The held-out clips.
    videos: Their videos with viewers.
    preferred: The names of clips that come before all others.
    describe: A function of a clip's name that returns a line about it.
  """

  def __init__(
    self,
    records: Records,
    videos: Sequence[StavisVideo],
    preferred: Collection[str] = (),
    describe: Callable[[str], str] = lambda name: "",
  ) -> None:
    self._records, self._describe = records, describe
    named = {video.name for video in videos}
    shown = [clip for clip, name in enumerate(records.names) if name in named]
    first = [clip for clip in shown if records.names[clip] in preferred]
    then = [clip for clip in shown if records.names[clip] not in preferred]
    chosen = [*_alternate_tags(records, first), *_alternate_tags(records, then)][:_EXAMPLES]
    self._chosen = [records.names[clip] for clip in chosen]
    self._examples: dict[str, Example] = {}

  def add(self, video: StavisVideo, maps: dict[str, np.ndarray]) -> None:
    """Keeps the middle frame of a clip, if the clip is one of those that are shown."""
    if video.name not in self._chosen:
      return
    records, clip = self._records, self._records.names.index(video.name)
    frame = video.num_frames // 2
    flags = f" ({', '.join(records.flags[clip])})" if records.flags[clip] else ""
    self._examples[video.name] = Example(
      title=f"{video.name}, frame {frame + 1}: {tag_names(records, clip)}{flags}",
      frame=records.clip_frames(clip)[frame],
      maps={name: x[frame] for name, x in maps.items() if _is_drawn(name)},
      viewers=video.density(frame),
      fixations=video.fixations(frame),
      sound=_second_of_sound(records, clip, frame),
      note=self._describe(video.name),
      compared=_COMPARED,
    )

  def examples(self) -> list[Example]:
    """Returns the frames in the order in which they are shown."""
    return [self._examples[name] for name in self._chosen if name in self._examples]


class TreeGallery:
  """Keeps the middle of the scored frames of some videos, with its maps; the databases take turns.

  Args:
    chosen: The videos that are shown, and the frames of each that will be scored.
  """

  def __init__(self, chosen: Sequence[tuple[StavisVideo, Sequence[int]]]) -> None:
    by_database: dict[str, list[tuple[StavisVideo, int]]] = {}
    for video, frames in chosen:
      if frames:
        by_database.setdefault(video.database, []).append((video, frames[len(frames) // 2]))
    rounds = itertools.chain.from_iterable(itertools.zip_longest(*by_database.values()))
    first = [found for found in rounds if found is not None][:_EXAMPLES]
    self._frames = {(video.database, video.name): frame for video, frame in first}
    self._examples: dict[tuple[str, str], Example] = {}

  def watch(self, method_maps: MethodMaps) -> MethodMaps:
    """Returns a function that gives the same maps, and keeps the examples among them."""

    def maps(video: StavisVideo, frames: Sequence[int]) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
      key = video.database, video.name
      frame = self._frames.get(key)
      for chunk, found in method_maps(video, frames):
        if frame in chunk:
          at = chunk.index(frame)
          self._examples[key] = _example_of_video(video, frame, {name: x[at] for name, x in found.items()})
        yield chunk, found

    return maps

  def examples(self) -> list[Example]:
    """Returns the frames in the order in which they are shown."""
    return [self._examples[key] for key in self._frames if key in self._examples]


def _example_of_video(video: StavisVideo, frame: int, maps: Mapping[str, np.ndarray]) -> Example:
  with Image.open(video.frame_paths[frame]) as image:  # it has been read for the maps, so it can be read
    picture = np.asarray(image.convert("RGB"))
  drawn = {name: x for name, x in maps.items() if name in _PREDICTED}
  title = f"{video.database}/{video.name}, frame {frame + 1}"
  return Example(title, picture, drawn, viewers=video.density(frame), fixations=video.fixations(frame))


def training_examples(run: Run, predictor: Predictor) -> list[Example]:
  """Returns the middle frames of some training clips: what their tag gives, and what the students make of them.

  Tags take turns. Where clips are left out of learning, half of the examples are of these.

  Args:
    run: A run whose networks are trained.
    predictor: Its students.
  """
  records, is_left_out = run.data.records, run.data.is_validation
  has_tags = records.tags.any(axis=1)
  left_out = _alternate_tags(records, np.flatnonzero(has_tags & is_left_out).tolist())[: _EXAMPLES // 2]
  learned = _alternate_tags(records, np.flatnonzero(has_tags & ~is_left_out).tolist())[: _EXAMPLES - len(left_out)]
  return [_training_example(run, predictor, clip) for clip in (*learned, *left_out)]


def _training_example(run: Run, predictor: Predictor, index: int) -> Example:
  records, clip = run.data.records, run.data.clip(index)
  tags, frame = clip_tags(records, index), int(records.num_frames[index]) // 2
  sources = ClipSources(run.trained.sources(), clip, tags, index)
  maps = {f"cam_{name}": sources.cam(name) for name in networks.COARSE}
  maps["scam_coarse"], _ = sources.selected(networks.COARSE)
  maps |= {f"cam_{name}": sources.cam(name) for name in networks.FINE}
  maps["scam"], _ = sources.selected(networks.FINE)
  if granular := networks.granular_of(run.config):
    maps["scam_plus"], _ = sources.selected((*networks.FINE, *granular))
  maps |= {name: x for name, x in predictor.clip_maps(clip).items() if name in _PREDICTED}
  drawn = {name: to_uint8(x[frame : frame + 1])[0] for name, x in maps.items()}
  targets, weights = run.data.pseudo_fixations().clip_maps(records, index)
  drawn[PSEUDO_FIXATION] = targets[frame]
  says = "; ".join(_what_they_say(records, sources, names, frame) for names in (networks.COARSE, networks.FINE))
  note = f"Categories with the highest confidence, coarse and fine: {says}."
  if not weights[frame]:
    note += " No source finds the tag in this frame, so no student learns from it."
  left_out = " (left out of learning)" if run.data.is_validation[index] else ""
  return Example(
    title=f"{records.names[index]}, frame {frame + 1}: {tag_names(records, index)}{left_out}",
    frame=records.clip_frames(index)[frame],
    maps=drawn,
    sound=_second_of_sound(records, index, frame),
    note=note,
    compared=_COMPARED_IN_TRAINING,
  )


def _what_they_say(records: Records, sources: ClipSources, names: Sequence[str], frame: int) -> str:
  """Returns the top category of each network for a frame, such as "S dog, ST dog, SA drum"."""
  top = {networks.NETWORKS[name].branch: int(np.argmax(sources.source(name)[1][frame])) for name in names}
  return ", ".join(f"{branch.upper()} {records.categories[category]}" for branch, category in top.items())


def _alternate_tags(records: Records, clips: Sequence[int]) -> list[int]:
  """Returns the first clips of all tags, then the second ones, and so on."""
  clips_of_tag: dict[tuple[int, ...], list[int]] = {}
  for clip in clips:
    clips_of_tag.setdefault(clip_tags(records, clip)[:1], []).append(clip)
  rounds = itertools.zip_longest(*clips_of_tag.values())
  return [clip for of_round in rounds for clip in of_round if clip is not None]


def _is_drawn(method: str) -> bool:
  """Returns whether the gallery has a method: neither rows of Table 1 nor, beside those compared, ablated senses."""
  return method in _COMPARED or (method not in ABLATION_METHODS and split_method(method)[1] == OWN)


def tag_names(records: Records, clip: int) -> str:
  """Returns the tags of a clip as a text."""
  return ", ".join(records.categories[tag] for tag in clip_tags(records, clip)) or "no tag"


def _second_of_sound(records: Records, clip: int, frame: int) -> np.ndarray | None:
  """Returns the log-spectrogram of the second around a frame, (257, 98); None where the clip has no sound."""
  columns = records.clip_columns(clip)
  if not columns.shape[1]:
    return None
  return columns[:, window_columns(frame / float(records.rate[clip]), columns.shape[1])]
