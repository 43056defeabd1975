"""What each network learns from: the frames, what is known about them beside pictures, sound and tags, and batches."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from stajax import networks
from stajax.config import Config
from stajax.data import batches as pipeline
from stajax.data.batch_settings import HostShare, NetworkInputs, Sampling, StoredStages, TrainingSet, trainable_items
from stajax.data.feature_set import FeatureSet
from stajax.data.map_set import MapSet
from stajax.train.run import Run
from stajax.train.training_data import UNLABELLED, TrainingData


@dataclass(frozen=True)
class Inputs:
  """The frames that a network learns from, and what is known about all frames.

  Attributes:
    frames: The numbers (m,) of the frames to learn from, among all frames.
    labels: What to learn in place of the clips' tags, (frames, k) float32.
    switch: Whether sound is heard, (frames,) uint8; None where there is sound.
    boxes: The crops, (frames, 4) float32; None for whole frames.
    maps: The pseudo-fixations to learn.
    features: The features that a frozen backbone gives, which are read in place of frames.
  """

  frames: np.ndarray
  labels: np.ndarray | None = None
  switch: np.ndarray | None = None
  boxes: np.ndarray | None = None
  maps: MapSet | None = None
  features: FeatureSet | None = None


def find_inputs(name: str, run: Run, always_heard: bool = False) -> Inputs:
  """Returns what a network learns from.

  Args:
    name: The name of the network.
    run: The run, in which the stages are finished that the network needs.
    always_heard: Whether the audio switch is on wherever there is sound.
  """
  spec, data = networks.NETWORKS[name], run.data
  if spec.role == "tagger":
    return Inputs(np.flatnonzero(_has_sound(data) & (data.folds != spec.fold)[data.records.clip_of_frame]))
  is_cropped = networks.sees_crops(name, run.config)
  features = None
  if takes_features(name, run.config):
    features = data.features(networks.training_of(name, run.config).size, is_cropped)
  if spec.role == "switch":
    labels = data.table("tag_heard")
    frames = np.flatnonzero(_has_sound(data) & (labels != UNLABELLED))
    return Inputs(frames, labels=labels.astype(np.float32)[:, None], features=features)
  maps = data.pseudo_fixations() if spec.learns_fixations else None
  return Inputs(
    frames=trainable_items(data.records, maps),
    switch=data.table("switch") if spec.is_switched and not always_heard else None,
    boxes=data.table("boxes") if is_cropped else None,
    maps=maps,
    features=features,
  )


def takes_features(name: str, config: Config) -> bool:
  """Returns whether a network takes stored features of a frozen backbone in place of frames."""
  return config.has_frozen_backbone and networks.NETWORKS[name].sees


def _has_sound(data: TrainingData) -> np.ndarray:
  """Returns whether each frame's clip has sound, (frames,) bool."""
  return data.records.has_sound[data.records.clip_of_frame]


@dataclass(frozen=True)
class Batches:
  """The batches that a network is trained and evaluated with.

  Attributes:
    run: The run.
    name: The name of the network.
    network: The module.
    inputs: What it learns from.
    seed: The seed that orders the frames and draws companions and augmentations.
  """

  run: Run
  name: str
  network: Any
  inputs: Inputs
  seed: int

  @property
  def num_validation_frames(self) -> int:
    """The number of frames of validation clips."""
    return int(self._is_validation.sum())

  @property
  def num_validation_steps(self) -> int:
    """The steps that visit all of these frames; the last one may visit some of them once more."""
    return -(-self.num_validation_frames // networks.training_of(self.name, self.run.config).batch)

  def training(self, start: int, stop: int) -> Iterator[Mapping[str, np.ndarray]]:
    """Yields the batches of the steps [start, stop), of which neither targets nor companions are validation clips."""
    return self._draw(self.inputs.frames[~self._is_validation], start, stop, ~self.run.data.is_validation)

  def validation(self) -> Iterator[Mapping[str, np.ndarray]]:
    """Yields batches of all frames of the validation clips."""
    return self._draw(self.inputs.frames[self._is_validation], 0, self.num_validation_steps, None)

  @property
  def _is_validation(self) -> np.ndarray:
    return self.run.data.is_validation[self.run.data.records.clip_of_frame[self.inputs.frames]]

  def _draw(
    self, frames: np.ndarray, start: int, stop: int, partners: np.ndarray | None
  ) -> Iterator[Mapping[str, np.ndarray]]:
    training, records, inputs = networks.training_of(self.name, self.run.config), self.run.data.records, self.inputs
    stored = None
    if inputs.features is not None:
      stored = StoredStages(inputs.features, networks.stage_times(self.network))
    drawn = pipeline.make_batches(
      TrainingSet(records, inputs.maps, frames, inputs.labels, inputs.switch, inputs.boxes, partners),
      NetworkInputs(
        num_times=self.network.num_times,
        sound=self.network.hears,
        # A crop is enlarged, so it is cut from all the pixels that are stored.
        decode_size=training.size if inputs.boxes is None else records.side,
        scaled_to=training.size,
        companions=networks.NETWORKS[self.name].companions,
        stored=stored,
      ),
      Sampling(
        self.seed, training.batch, training.min_scale, training.flip, None if stored is None else self.run.data.views
      ),
      range(start, stop),
      HostShare(jax.process_index(), jax.process_count()),
    )
    dropped = self._unused_augmentations()
    return ({key: x for key, x in batch.items() if key not in dropped} for batch in drawn)

  def _unused_augmentations(self) -> set[str]:
    """Returns which of `box` and `flip` the training step need not apply.

    Cropping whole frames to themselves would cost a tenth of a small network's step.
    """
    training, inputs = networks.training_of(self.name, self.run.config), self.inputs
    if inputs.features is not None:  # which are augmented already; the maps are not
      is_used = {
        "box": inputs.maps is not None and self.run.config.features.views > 2,
        "flip": inputs.maps is not None,
      }
    else:
      is_used = {"box": training.min_scale < 1 or inputs.boxes is not None, "flip": training.flip}
    return {key for key, used in is_used.items() if not used}
