"""The stage `tag_heard`: the labels that the audio switch learns, which are its values in training frames."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from stajax.files import write_text
from stajax.networks import TAGGERS
from stajax.train import external_taggers
from stajax.train.run import Run, TrainedNetworks
from stajax.train.stages.clip_by_clip import make_table
from stajax.train.training_data import UNLABELLED, clip_tags


def label_sounds(run: Run) -> dict[str, Any]:
  """Makes the switch's labels: whether a tagger hears the clip's tag, for every frame. Returns what `done.json` says.

  Taggers that are trained here label only clips from which they have not learned. An off-the-shelf tagger leaves
  clips unlabelled if they have a tag for which it has no class.
  """
  if run.config.hearing.kind == "trained":

    def confidences(clip: int, trained: TrainedNetworks) -> np.ndarray:
      tagger = trained.tagger(TAGGERS[run.data.folds[clip]])
      return tagger(run.data.clip(clip))

    provenance = {"sha256": run.workdir.sha256_of(*TAGGERS)}
    can_label = np.ones(run.data.records.num_clips, bool)
    labels = _label(run, confidences, can_label, provenance)
    return _count(labels)
  tagger = external_taggers.open_external_tagger(run)
  if jax.process_index() == 0:
    write_text(external_taggers.used_table(run), tagger.table_text)  # from now on another table is refused

  def heard(clip: int, trained: TrainedNetworks) -> np.ndarray:
    return tagger.confidences(tagger.scores(clip, trained.device))

  labels = _label(run, heard, tagger.can_label, tagger.provenance)
  if run.config.hearing.teaches:
    records = run.data.records

    def tags(clip: int, trained: TrainedNetworks) -> np.ndarray:
      if not records.has_sound[clip]:
        return np.zeros((int(records.num_frames[clip]), len(records.categories)), np.uint8)
      return heard_tags(tagger, tagger.scores(clip, trained.device), records.tags[clip], run.config.heard_share)

    make_table(run, "heard_tags", tags, "tags", tagger.provenance)
  return {**external_taggers.summarise(tagger, run, labels), **_count(labels)}


def _count(labels: np.ndarray) -> dict[str, int]:
  counts = {"frames": labels.size, "tag_heard": np.sum(labels == 1), "unlabelled": np.sum(labels == UNLABELLED)}
  return {name: int(count) for name, count in counts.items()}


def _label(
  run: Run,
  confidences: Callable[[int, TrainedNetworks], np.ndarray],
  can_label: np.ndarray,
  provenance: dict[str, Any],
) -> np.ndarray:
  """Returns the labels (frames,) uint8: 1 where a tag is heard, 0 where none is, or `UNLABELLED`."""
  records = run.data.records

  def label(clip: int, trained: TrainedNetworks) -> np.ndarray:
    labels = np.zeros(int(records.num_frames[clip]), np.uint8)
    if records.has_sound[clip]:
      labels[:] = UNLABELLED
      if can_label[clip]:
        labels[:] = is_tag_heard(confidences(clip, trained), clip_tags(records, clip), run.config.heard_share)
    return labels

  return make_table(run, "tag_heard", label, "what is heard", provenance)


def heard_tags(
  tagger: external_taggers.ExternalTagger, scores: np.ndarray, own: np.ndarray, share: float
) -> np.ndarray:
  """Returns which of all tags are heard in a clip's frames, (n, c) uint8.

  A tag of the clip is heard in any of its classes. Any other tag is heard only in the classes that no tag shares with
  it: a bark is the sound of an animal, but it must not teach how cows and birds sound.

  Args:
    tagger: The tagger.
    scores: Its scores (n, classes) in the clip's frames.
    own: Not 0 where the clip has a tag, (c,).
    share: The part of the highest confidence that is enough.
  """
  found = tagger.confidences(scores)
  of_tag = np.where(own > 0, found[:, :-1], tagger.distinct_confidences(scores))
  return ((of_tag > 0) & (of_tag >= share * found.max(axis=1, keepdims=True))).astype(np.uint8)


def is_tag_heard(confidences: np.ndarray, tags: Sequence[int], share: float) -> np.ndarray:
  """Returns whether a tag is heard, (n,) bool: whether it has at least `share` of the highest confidence.

  Args:
    confidences: The confidences (n, k) in every tag, and in whatever else tags are compared with.
    tags: The clip's tags; there may be none.
    share: The part of the highest confidence that is enough.
  """
  of_tags = confidences[:, list(tags)].max(axis=1, initial=0.0)
  return (of_tags > 0) & (of_tags >= share * confidences.max(axis=1))
