"""Who names the tag: how often the top category of each network is a tag of the clip, with and without rivals."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from stajax.report.names import STAGES
from stajax.report.senses import RIVALS, sets_of
from stajax.scoring.results import Evaluation

_RULE = (
  "The share of all frames in which the category with the highest confidence is a tag of the clip; clips without a tag "
  "are left out. A guess among the {} categories is right in {:.0%}."
)
_RIVALS_RULE = (
  "Where silent rivals are seen, a clip has k candidates, and a network that only sees can be right in at most 1/k of "
  "such clips."
)
_TRUE_TAG_RULE = (
  "Fine crops lie where the true tag was found, and cross-clip companions are clips of the true tag: networks that see "
  "either are helped, so their share can be higher. The audio tagger counts as wrong where there is no sound."
)


@dataclass(frozen=True)
class ClipAnswers:
  """What networks say about the n frames of a clip that has tags.

  Attributes:
    is_right: Whether the top category of each network is a tag of the clip: {network: (n,) bool}.
    is_heard: Whether the audio switch is on, (n,) bool.
  """

  is_right: Mapping[str, np.ndarray]
  is_heard: np.ndarray


class SetAccuracy(TypedDict):
  """The accuracy in one set of clips.

  Attributes:
    clips: The number of clips.
    frames: The number of their frames.
    right: The share of frames whose top category is a tag of the clip, by network.
    switch_on: The share of frames in which the audio switch is on.
  """

  clips: int
  frames: int
  right: dict[str, float]
  switch_on: float


class TagAccuracy(TypedDict):
  """What is reported about the accuracy of the tag.

  Attributes:
    rule: What the shares are, and what can be expected of them.
    sets: The accuracy by set.
  """

  rule: str
  sets: dict[str, SetAccuracy]


@dataclass(frozen=True)
class AccuracyTable:
  """The accuracy as a table.

  Attributes:
    columns: For each set its name, its heading and its number of clips.
    rows: For each network, and at last for the audio switch, the title and the cells.
  """

  columns: list[tuple[str, str, int]]
  rows: list[tuple[str, list[str]]]


def names_tag(confidences: np.ndarray, tags: tuple[int, ...]) -> np.ndarray:
  """Returns whether the category with the highest of the confidences (n, c) is one of the tags, (n,) bool."""
  return np.isin(confidences.argmax(axis=1), tags)


def measure_accuracy(evaluation: Evaluation, answers: Mapping[str, ClipAnswers], num_categories: int) -> TagAccuracy:
  """Returns the accuracy in every set whose senses are compared, too.

  Args:
    evaluation: The scored videos and their groups.
    answers: What networks say about each clip that has tags, by its name.
    num_categories: The number of categories.
  """
  sets: dict[str, SetAccuracy] = {}
  for name, videos in sets_of(evaluation).items():
    found = [answers[video.name] for video in videos if video.name in answers]
    if found:
      sets[name] = _pool(found)
  rule = [_RULE.format(num_categories, 1 / num_categories)]
  rule += [_RIVALS_RULE] if any(name.endswith(f"/{RIVALS}") for name in sets) else []
  return {"rule": " ".join([*rule, _TRUE_TAG_RULE]), "sets": sets}


def _pool(clips: list[ClipAnswers]) -> SetAccuracy:
  is_heard = np.concatenate([clip.is_heard for clip in clips])
  return {
    "clips": len(clips),
    "frames": len(is_heard),
    "right": {
      name: float(np.concatenate([clip.is_right[name] for clip in clips]).mean()) for name in clips[0].is_right
    },
    "switch_on": float(is_heard.mean()),
  }


def accuracy_table(accuracy: TagAccuracy) -> AccuracyTable:
  """Returns the accuracy as a table with a row for each network and a column for each set."""
  sets = accuracy["sets"]
  is_one_database = len({name.partition("/")[0] for name in sets}) == 1
  columns = [(name, _heading(name, is_one_database), of_set["clips"]) for name, of_set in sets.items()]
  networks = dict.fromkeys(network for of_set in sets.values() for network in of_set["right"])
  rows = [
    (STAGES.get(network, network), [f"{of_set['right'][network]:.0%}" for of_set in sets.values()])
    for network in networks
  ]
  on = [f"{of_set['switch_on']:.0%}" for of_set in sets.values()]
  return AccuracyTable(columns, [*rows, ("Frames in which the audio switch is on", on)])


def _heading(name: str, is_one_database: bool) -> str:
  database, *groups = name.split("/")
  kind = ", ".join(groups).replace("_", " ")
  if is_one_database:
    return kind or "all clips"
  return f"{database}: {kind}" if kind else database
