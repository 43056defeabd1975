"""The clips that networks learn from, and what finished stages have found out about their frames."""

import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stajax import model as models
from stajax import networks
from stajax.config import Config
from stajax.data.damage import describe_damage, open_intact
from stajax.data.feature_set import FeatureSet
from stajax.data.frame_table import read_frame_table
from stajax.data.map_set import MapSet
from stajax.data.records import Records
from stajax.data.sampler import stored_views
from stajax.data.shards import RecordError
from stajax.inference.clip import Clip, clip_samples
from stajax.train import stored_features, validation
from stajax.train.workdir import Workdir

UNLABELLED = 2
"""In the table `tag_heard`: the tagger does not know a tag of the clip, so it cannot tell whether the tag is heard."""


class TrainingData:
  """The training clips of a configuration; whatever is read or computed is cached."""

  def __init__(self, config: Config, workdir: Workdir) -> None:
    self._config, self._workdir = config, workdir
    self._tables: dict[str, np.ndarray] = {}
    self._features: dict[tuple[int, bool], FeatureSet] = {}

  @property
  def folder(self) -> Path:
    """The prepared folder, which has `train` and, if there are viewers, also `heldout` and `heldout_tree`."""
    is_synthetic = self._config.data.source == "synthetic"
    return self._workdir.data if is_synthetic else Path(self._config.data.path or "")

  @cached_property
  def records(self) -> Records:
    """The records of the training clips. The first use prints which clips are damaged."""
    path = self.folder / "train"
    if self.folder.is_dir() and not path.exists():
      parts = sorted(summary.parent.name for summary in self.folder.glob("*/summary.json"))
      found = f"found only {', '.join(parts)}" if parts else "found no prepared clips"
      raise RecordError(f"{path}: no clips to learn from; {found}, expected what `stajax prepare` writes for training")
    records = open_intact(path) if self._config.data.damaged == "skip" else Records.open(path)
    if records.damaged:
      print(describe_damage(records), file=sys.stderr)
    return records

  @cached_property
  def folds(self) -> np.ndarray:
    """The fold (C,) of every clip; see `assign_folds`."""
    return assign_folds(self.records.num_clips, self._config.seed)

  @cached_property
  def is_validation(self) -> np.ndarray:
    """Whether no network learns from a clip, (C,) bool; see `stajax.train.validation`."""
    return validation.choose_clips(self.records.tags, self._config.data.left_out, self._config.seed)

  def table(self, name: str) -> np.ndarray:
    """Returns a finished table of the training frames, (total_frames, …)."""
    if name not in self._tables:
      self._tables[name] = read_frame_table(self._workdir.table(name), self.records)
    return self._tables[name]

  @property
  def switch(self) -> np.ndarray:
    """The audio switch φ of the training frames, (total_frames,) bool.

    It is on where a tagger heard the tag, or could not say. No tagger has learned from the clips that it labels, so
    what it heard counts, and not what the network `switch` has learned from that. The network is for videos.
    """
    return self.table("tag_heard") > 0

  def pseudo_fixations(self, path: Path | None = None) -> MapSet:
    """Opens the pseudo-fixations of the training frames, or another map set of them."""
    return MapSet.open(path or self._workdir.pseudo_fixations, self.records)

  @cached_property
  def backbone(self) -> Any:
    """The parameters of the frozen visual backbone, on the device."""
    return models.load_visual(self._config, self._workdir.initial_part("visual"))

  @cached_property
  def views(self) -> stored_features.Views:
    """The augmentations of every frame whose features are stored."""
    settings = self._config.features
    scales = settings.min_scale, settings.max_scale
    return stored_views(settings.views, *scales, self._config.seed, self.records.num_clips)

  def features(self, size: int, cropped: bool) -> FeatureSet:
    """Returns a frozen backbone's features of all frames, or of their fine crops; computes those that are missing."""
    if (size, cropped) not in self._features:
      config = self._config
      encoder = stored_features.Encoder(
        backbone=networks.make_backbone(config),
        params=self.backbone,
        size=size,
        stages=networks.stages_at(size, cropped, config),
        dtype=config.features.dtype,
        batch=config.inference_batch,
      )
      boxes = self.table("boxes") if cropped else None
      path = self._workdir.features(size, cropped)
      self._features[size, cropped] = stored_features.store(path, self.records, encoder, self.views, boxes)
    return self._features[size, cropped]

  def clip(self, index: int) -> Clip:
    """Returns a training clip with its audio switch and its fine crops, once they are known."""
    config, has_boxes = self._config, self._workdir.done("scam_coarse") is not None
    # Crops are cut from frames of the full stored size.
    side = self.records.side if has_boxes else largest_whole_frame(config)
    clip, frames = Clip(clip_samples(self.records, index, side)), frames_of(self.records, index)
    if self._workdir.done("tag_heard") is not None:
      clip = clip.with_switch(self.switch[frames])
    if has_boxes:
      clip = replace(clip, boxes=self.table("boxes")[frames])
    if config.has_frozen_backbone:
      # The first of the stored views is the frame as it is.
      clip = replace(clip, stored=lambda size, cropped, stage: self.features(size, cropped).frames(index, stage))
    return clip


def assign_folds(num_clips: int, seed: int) -> np.ndarray:
  """Returns the fold (num_clips,) of every clip: a tagger labels the fold from which it has not learned."""
  return np.random.default_rng(seed).permutation(num_clips) % networks.NUM_FOLDS


def clip_tags(records: Records, clip: int) -> tuple[int, ...]:
  """Returns the category indices of a clip's tags."""
  return tuple(np.flatnonzero(records.tags[clip]).tolist())


def frames_of(records: Records, clip: int) -> slice:
  """Returns the slice that a clip's frames are among all frames."""
  first = int(records.first_frame[clip])
  return slice(first, first + int(records.num_frames[clip]))


def largest_whole_frame(config: Config) -> int:
  """Returns the largest size, in pixels, at which a network of the model sees whole frames."""
  return max(
    networks.training_of(name, config).size
    for name in networks.model_networks(config)
    if not networks.sees_crops(name, config)
  )
