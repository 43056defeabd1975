"""Off-the-shelf taggers in place of taggers that are trained here (§3.3 of the paper).

Such a tagger gives confidences in its own classes. A table (`stajax.train.tag_table`) says which of these classes
correspond to the tags of the clips.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from stajax import networks
from stajax.config import ConfigError
from stajax.data.class_scores import ClassScores
from stajax.files.manifest import sha256_of_bytes
from stajax.inference.clip import Clip
from stajax.inference.dense import make_tagger
from stajax.inference.local_devices import Device
from stajax.nets.base import NetworkSizes
from stajax.nets.tagger import Tagger
from stajax.prepare.layouts.vggsound import NUM_CATEGORIES, read_classes
from stajax.prepare.listing import ListingError
from stajax.train.run import Run
from stajax.train.tag_table import guess_rows, read_table, write_table
from stajax.train.training_data import UNLABELLED
from stajax.weights import convert, store

_AVERAGE = 512  # features of VGGSound's network with average pooling; NetVLAD has 16 times as many


@dataclass(frozen=True)
class ExternalTagger:
  """An off-the-shelf tagger with its table.

  Attributes:
    scores: A function of a training clip's index, and of the device that computes, that returns the scores
      (n, classes) in [0, 1].
    members: c + 1 arrays of class indices: those of every tag, and those that are no tag.
    combine: How the scores of a tag's classes are combined; see `confidences_in_tags`.
    has_class: Whether the tagger has a class for each tag, (c,) bool.
    can_label: Whether the tagger has a class for every tag of a clip, (C,) bool.
    provenance: What the labels depend on, as JSON values.
    table_text: The text of the table.
    advice: One line on the tags that have no class; empty if all have one.
  """

  scores: Callable[[int, Device], np.ndarray]
  members: Sequence[np.ndarray]
  combine: np.ufunc
  has_class: np.ndarray
  can_label: np.ndarray
  provenance: dict[str, Any]
  table_text: str
  advice: str

  def confidences(self, scores: np.ndarray) -> np.ndarray:
    """Returns the confidences (n, c + 1) float32 in every tag and in the classes that are no tag."""
    return confidences_in_tags(scores, self.members, self.combine)

  def distinct_confidences(self, scores: np.ndarray) -> np.ndarray:
    """Returns the confidences (n, c) float32 in every tag by the classes that no other tag has; 0 if it has none."""
    return confidences_in_tags(scores, self.distinct_members, self.combine)

  @property
  def distinct_members(self) -> list[np.ndarray]:
    """The classes of every tag that no other tag has, c arrays of indices."""
    num_tags = np.bincount(np.concatenate(self.members[:-1]))
    return [member[num_tags[member] == 1] for member in self.members[:-1]]


@dataclass(frozen=True)
class _Scores:
  """The scores of a tagger in its own classes.

  Attributes:
    of_clip: A function of a training clip's index, and of the device that computes, that returns the scores
      (n, classes) in [0, 1].
    classes: The names of the classes.
    classes_at: Where users find these names.
    combine: How the scores of a tag's classes are combined; see `confidences_in_tags`.
    provenance: The tagger's name and the SHA-256 of its file.
  """

  of_clip: Callable[[int, Device], np.ndarray]
  classes: Sequence[str]
  classes_at: Path | str
  combine: np.ufunc
  provenance: dict[str, Any]


def open_external_tagger(run: Run) -> ExternalTagger:
  """Opens the off-the-shelf tagger of a configuration; writes its table into the work folder if there is none.

  Raises:
    ConfigError: The table cannot be used, does not fit the tagger or the tags, or covers no clip.
    RecordError, WeightsError: The stored scores, or the tagger's weights, cannot be used.
  """
  hearing, records = run.config.hearing, run.data.records
  scores = _open_yamnet_scores(run) if hearing.kind == "yamnet" else _open_vggsound(run)
  path = table_path(run)
  if not hearing.mapping:
    if jax.process_index() == 0 and not path.exists():
      write_table(path, guess_rows(records.categories, scores.classes))
    multihost_utils.sync_global_devices("table of tags")
  members, text, spare = read_table(path, records.categories, scores.classes)
  has_class = np.array([len(member) > 0 for member in members[:-1]])
  can_label = ~np.any(records.tags[:, ~has_class] > 0, axis=1)
  advice = _advice(path, scores.classes_at, records.categories, has_class, can_label, spare)
  if not (can_label & records.has_sound & (records.tags > 0).any(axis=1)).any():
    raise ConfigError(advice or f"{records.path}: no clip has a tag and sound")
  return ExternalTagger(
    scores=scores.of_clip,
    members=members,
    combine=scores.combine,
    has_class=has_class,
    can_label=can_label,
    provenance={**scores.provenance, "table": sha256_of_bytes(text.encode())},
    table_text=text,
    advice=advice,
  )


def table_path(run: Run) -> Path:
  """Returns the path of the table of tags and classes."""
  given = run.config.hearing.mapping
  return Path(given) if given else run.workdir.tag_table


def used_table(run: Run) -> Path:
  """Returns the path of the copy of the table that the switch's labels were begun with."""
  return run.workdir.stage("tag_heard") / run.workdir.tag_table.name


def check(run: Run) -> None:
  """Checks the tagger and its table before hours of training, and prints which tags are not covered.

  Raises:
    ConfigError: See `open_external_tagger`; or the table has changed since the switch's labels were begun with it.
    RecordError, WeightsError: See `open_external_tagger`.
  """
  tagger, used = open_external_tagger(run), used_table(run)
  if used.is_file() and used.read_text(encoding="utf-8") != tagger.table_text:
    raise ConfigError(
      f"{table_path(run)}: has changed since the switch's labels were made with {used}; use another --workdir"
    )
  notes = [tagger.advice, _sharing(tagger, run) if run.config.hearing.teaches else ""]
  if jax.process_index() == 0 and run.workdir.done("tag_heard") is None:
    print("".join(f"{note}\n" for note in notes if note), end="", file=sys.stderr)


def _sharing(tagger: ExternalTagger, run: Run) -> str:
  """Returns one line on the tags that have no class of their own; empty if all have one."""
  members = zip(run.data.records.categories, tagger.members[:-1], tagger.distinct_members, strict=True)
  names = ", ".join(tag for tag, member, own in members if len(member) and not len(own))
  found = "tags that share all their classes with other tags, and so are heard only in clips that have them"
  return f"{table_path(run)}: {found}: {names}" if names else ""


def summarise(tagger: ExternalTagger, run: Run, labels: np.ndarray) -> dict[str, Any]:
  """Summarises the labels (frames,) for `done.json`: counts over all frames and by tag, and one line for people."""
  records = run.data.records
  labelled = records.has_sound[records.clip_of_frame] & (labels != UNLABELLED)
  tagged = records.tags[records.clip_of_frame] > 0
  missing = [tag for tag, known in zip(records.categories, tagger.has_class, strict=True) if not known]
  counts = {
    tag: [int(np.sum(labels[labelled & tagged[:, i]] == 1)), int(np.sum(labelled & tagged[:, i]))]
    for i, tag in enumerate(records.categories)
    if tagger.has_class[i]
  }
  heard = int(np.sum(labels == 1))
  says = f"{tagger.provenance['tagger']}: its tag is heard in {heard} of {int(labelled.sum())} frames with sound"
  return {
    "judged": int(labelled.sum()),
    "by_tag": counts,
    "not_covered": missing,
    "says": f"{says}; tags not covered: {', '.join(missing) or 'none'}",
  }


def confidences_in_tags(scores: np.ndarray, members: Sequence[np.ndarray], combine: np.ufunc) -> np.ndarray:
  """Turns the scores of a tagger's classes into confidences in tags.

  Args:
    scores: The scores (n, classes) in [0, 1].
    members: c + 1 arrays of class indices: those of every tag, and those that are no tag.
    combine: `np.add` where classes exclude each other (softmax): the sum is the probability that it is any of them.
      `np.maximum` where they do not (YAMNet's sigmoids): a bark is Dog, Bark and Bow-wow at once, and a sum would count
      it three times, so that tags with many rows would win.

  Returns:
    The confidences (n, c + 1) float32; 0 for a tag that has no class.
  """
  columns = [combine.reduce(scores[:, member], axis=1) if len(member) else np.zeros(len(scores)) for member in members]
  return np.stack(columns, axis=1).astype(np.float32)


def _advice(
  path: Path,
  classes_at: Path | str,
  tags: Sequence[str],
  has_class: np.ndarray,
  can_label: np.ndarray,
  spare: Sequence[str],
) -> str:
  if has_class.all():
    return ""
  names = ", ".join(tag for tag, known in zip(tags, has_class, strict=True) if not known)
  clips = f"{int(np.sum(~can_label))} of {len(can_label)} clips have one"
  effect = "they teach the audio switch nothing, and are heard wherever they have sound"
  advice = f"Add rows tag,class to it; for the classes see {classes_at}"
  # A tag that is not spelt as the clips' would be among these.
  unused = f". Its tags that no clip has: {', '.join(spare)}" if spare else ""
  return f"{path}: tags not covered: {names} ({clips}; {effect}). {advice}{unused}"


def _open_yamnet_scores(run: Run) -> _Scores:
  """Opens the scores that `stajax prepare … --tagger` stored beside the records."""
  records = run.data.records
  found = ClassScores.open(records.path)
  return _Scores(
    of_clip=lambda clip, device: found.clip_scores(records.names[clip], int(records.num_frames[clip])),
    classes=found.classes,
    classes_at=found.path / "classes.txt",
    combine=np.maximum,
    provenance={"tagger": "yamnet", "sha256": found.sha256},
  )


def _open_vggsound(run: Run) -> _Scores:
  """Reads VGGSound's network with its own head, which gives the probabilities of 309 classes."""
  hearing = run.config.hearing
  classes = _vggsound_classes(run)
  path = Path(str(hearing.weights))
  found = convert.read(path)
  head = found.arrays.get("params/classify/kernel")
  # Both released checkpoints can be used; the number of features tells which one it is.
  pooling = "average" if head is not None and len(head) == _AVERAGE else "netvlad"
  network = Tagger(num_categories=NUM_CATEGORIES, sizes=NetworkSizes(audio_pooling=pooling))
  expected = store.flatten(networks.expected_variables(network, 0))  # pyright: ignore[reportArgumentType] # it is frozen
  store.check_fit(path, found.arrays, expected, "VGGSound's network with its classifier")

  @functools.cache
  def tagger(device: Device) -> Callable[[Clip], np.ndarray]:
    variables = store.unflatten(found.arrays)
    return make_tagger(network, variables, run.config.inference_batch, jax.nn.softmax, device)

  return _Scores(
    of_clip=lambda clip, device: tagger(device)(run.data.clip(clip)),
    classes=classes,
    classes_at=hearing.classes or "the data's categories",
    combine=np.add,
    provenance={"tagger": "vggsound", "sha256": found.sha256},
  )


def _vggsound_classes(run: Run) -> tuple[str, ...]:
  """Returns the classes in the order of the head's outputs, which is sorted."""
  path, records = run.config.hearing.classes, run.data.records
  try:
    classes = records.categories if path is None else tuple(read_classes(Path(path)))
  except ListingError as error:
    raise ConfigError(str(error)) from None
  if len(classes) != NUM_CATEGORIES or list(classes) != sorted(classes):
    found = f"{path or records.path}: {len(classes)} categories"
    raise ConfigError(f"{found}, expected VGGSound's {NUM_CATEGORIES}: set hearing.classes to its stat.csv")
  return classes
