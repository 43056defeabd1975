"""What each network learns from: frames with what is known about them, and batches of these frames."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np

from stajax import networks
from stajax.config import Config
from stajax.data import batches
from stajax.data.batch_settings import HostShare, NetworkInputs, Sampling, StoredStages, TrainingSet
from stajax.nets.base import Network
from stajax.train import balance
from stajax.train.run import Run
from stajax.train.step import stored_as_is
from stajax.train.training_data import UNLABELLED


def find_training_set(name: str, run: Run, always_heard: bool = False, maps: Path | None = None) -> TrainingSet:
  """Returns the frames that a network learns from, validation clips included.

  Args:
    name: The name of the network.
    run: The run, whose stages that the network needs are finished.
    always_heard: Whether the audio switch is on wherever there is sound.
    maps: The map set that a student learns from; None for the usual pseudo-fixations.
  """
  spec, data = networks.NETWORKS[name], run.data
  records = data.records
  has_sound = records.has_sound[records.clip_of_frame]
  if spec.role == "tagger" and run.config.hearing.teaches:
    heard = data.table("heard_tags").astype(np.float32)
    return TrainingSet(records, items=np.flatnonzero(has_sound), labels=heard)
  if spec.role == "tagger":
    is_in_other_fold = (data.folds != spec.fold)[records.clip_of_frame]
    return TrainingSet(records, items=np.flatnonzero(has_sound & is_in_other_fold))
  if spec.role == "switch":
    labels = data.table("tag_heard")
    items, labels = np.flatnonzero(has_sound & (labels != UNLABELLED)), labels[:, None]
    if knows_heard_tags(name, run.config):
      labels = np.concatenate([records.tags[records.clip_of_frame], data.table("heard_tags")], axis=1)
    return TrainingSet(records, items=items, labels=labels.astype(np.float32))
  # A distilled student has no audio switch, so it learns from all sounds; those that are foreign point at nothing.
  heard = data.switch[:, None].astype(np.float32) if knows_heard_tags(name, run.config) else None
  return TrainingSet(
    records,
    maps=data.pseudo_fixations(maps) if spec.learns_fixations else None,
    labels=heard,
    switch=data.switch if spec.is_switched and not (always_heard or run.config.is_distilled) else None,
    boxes=data.table("boxes") if networks.sees_crops(name, run.config) else None,
  )


def knows_heard_tags(name: str, config: Config) -> bool:
  """Returns whether a network's batches say what is heard: which tags (the switch), or whether one is (students)."""
  spec = networks.NETWORKS[name]
  return config.hearing.teaches and (spec.learns == "tag_heard" or (spec.learns_fixations and config.is_distilled))


def takes_features(name: str, config: Config) -> bool:
  """Returns whether a network takes stored features of a frozen backbone in place of frames."""
  return config.has_frozen_backbone and networks.NETWORKS[name].sees


class NetworkBatches:
  """The batches that a network is trained and evaluated with.

  Attributes:
    num_validation_frames: The number of frames of validation clips.
    decode: Returns the features of stages from what the batches have of them.
  """

  def __init__(
    self, name: str, run: Run, network: Network, seed: int, always_heard: bool = False, maps: Path | None = None
  ) -> None:
    """
    Args:
      name: The name of the network.
      run: The run, whose stages that the network needs are finished.
      network: The module.
      seed: The seed that orders the frames and draws companions and augmentations.
      always_heard: Whether the audio switch is on wherever there is sound.
      maps: The map set that a student learns from; None for the usual pseudo-fixations.
    """
    training, data = networks.training_of(name, run.config), run.data
    self._set = find_training_set(name, run, always_heard, maps)
    self._is_balanced = run.config.data.balanced and not networks.NETWORKS[name].learns_fixations
    self._is_validation_clip = data.is_validation
    self._is_validation = data.is_validation[data.records.clip_of_frame[self._set.epoch]]
    self.num_validation_frames = int(self._is_validation.sum())
    is_cropped, stored, self.decode = self._set.boxes is not None, None, stored_as_is
    if takes_features(name, run.config):
      features = data.features(training.size, is_cropped)
      stored, self.decode = StoredStages(features, networks.stage_times(network)), features.decode
    self._inputs = NetworkInputs(
      num_times=network.num_times,
      sound=network.hears,
      # A crop is enlarged, so it is cut from all the pixels that are stored.
      decode_size=data.records.side if is_cropped else training.size,
      scaled_to=training.size,
      companions=networks.NETWORKS[name].companions,
      stored=stored,
    )
    self._share = HostShare(jax.process_index(), jax.process_count(), num_devices=run.mesh.size)
    views = None if stored is None else data.views
    self._sampling = Sampling(seed, training.batch, training.min_scale, training.flip, views)

  def training(self, start: int, stop: int) -> Iterator[Mapping[str, np.ndarray]]:
    """Yields the batches of the steps [start, stop); neither targets nor companions are from validation clips."""
    items = self._set.epoch[~self._is_validation]
    if self._is_balanced:
      items = balance.balanced(items, self._set.records)
    learned = dataclasses.replace(self._set, items=items, partners=~self._is_validation_clip)
    return self._make(learned, range(start, stop))

  def validation(self) -> Iterator[Mapping[str, np.ndarray]]:
    """Yields batches of all frames of the validation clips; the last batch may repeat some frames."""
    steps = -(-self.num_validation_frames // self._sampling.global_batch)
    return self._make(dataclasses.replace(self._set, items=self._set.epoch[self._is_validation]), range(steps))

  def _make(self, frames: TrainingSet, steps: range) -> Iterator[Mapping[str, np.ndarray]]:
    made = batches.make_batches(frames, self._inputs, self._sampling, steps, self._share)
    unused = self._unused_augmentations()
    return ({key: x for key, x in batch.items() if key not in unused} for batch in made)

  def _unused_augmentations(self) -> set[str]:
    """Returns which of `box` and `flip` the training step need not apply.

    Cropping whole frames to themselves would cost a tenth of a small network's step.
    """
    sampling = self._sampling
    if sampling.views is None:
      has_box, has_flip = sampling.min_scale < 1 or self._set.boxes is not None, sampling.flip
    else:  # The features are augmented already, but the maps are not. The first view is the whole frame.
      has_box = has_flip = self._set.maps is not None and len(sampling.views[1]) > 1
    return {key for key, is_used in (("box", has_box), ("flip", has_flip)) if not is_used}
