"""What batches are made of: the data, what a network takes of them, what is drawn at random, and this host's share.

Legend: t frames of a fragment, K stored views, c categories.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stajax.companions import Granularity
from stajax.data.feature_set import FeatureSet
from stajax.data.map_set import MapSet
from stajax.data.records import Records
from stajax.data.shards import RecordError


def trainable_items(records: Records, maps: MapSet | None = None) -> np.ndarray:
  """Returns the frame ids (num_items,) int64 that an epoch visits: all grid frames, or those whose map has weight."""
  return np.arange(records.total_frames) if maps is None else np.flatnonzero(maps.weights > 0)


@dataclass(frozen=True, eq=False)
class TrainingSet:
  """The frames that a network learns from, and what is known of each of them.

  Attributes:
    records: The clips.
    maps: Pseudo-fixations to learn, a map for every frame.
    items: (num_items,) frame ids that an epoch visits; those of `trainable_items` by default.
    labels: (total_frames, k) float32, what to learn of every frame in place of its clip's tags.
    switch: (total_frames,) uint8, 0 where the sound of a frame is not to be heard.
    boxes: (total_frames, 4) float32, (y0, x0, y1, x1) in [0, 1], to which every frame is cropped; by default none is.
    partners: (num_clips,) bool, clips that cross companions may be of; all by default.

  Raises:
    ValueError: A table does not fit the records.
    RecordError: There is no frame to train on.
  """

  records: Records
  maps: MapSet | None = None
  items: np.ndarray | None = None
  labels: np.ndarray | None = None
  switch: np.ndarray | None = None
  boxes: np.ndarray | None = None
  partners: np.ndarray | None = None

  def __post_init__(self) -> None:
    path, total = self.records.path, self.records.total_frames
    if self.epoch.size == 0:
      raise RecordError(f"{path}: no frame to train on" + (f" has weight in {self.maps.path}" if self.maps else ""))
    if self.epoch.min() < 0 or self.epoch.max() >= total:
      raise ValueError(f"{path}: items must be frame ids in [0, {total})")
    num_labels = self.labels.shape[1] if self.labels is not None and self.labels.ndim == 2 else 1
    tables = (("boxes", self.boxes, (4,)), ("switch", self.switch, ()), ("labels", self.labels, (num_labels,)))
    for name, table, shape in tables:
      if table is not None and table.shape != (total, *shape):
        raise ValueError(f"{path}: {name} are {table.shape}, expected one for every frame, {(total, *shape)}")
    self._check_boxes()

  def _check_boxes(self) -> None:
    if self.boxes is None:
      return
    is_inside, is_ordered = (self.boxes >= 0) & (self.boxes <= 1), self.boxes[:, :2] < self.boxes[:, 2:]
    is_valid = is_inside.all(axis=1) & is_ordered.all(axis=1)
    if not is_valid.all():
      row = int(np.argmin(is_valid))
      box = self.boxes[row].tolist()
      raise ValueError(f"{self.records.path}: box {box} of frame {row} is not y0 < y1, x0 < x1 in [0, 1]")

  @cached_property
  def epoch(self) -> np.ndarray:
    """(num_items,) int64, the ids of the frames that an epoch visits."""
    return trainable_items(self.records, self.maps) if self.items is None else np.asarray(self.items, np.int64)

  @cached_property
  def partner_tags(self) -> np.ndarray:
    """(num_clips, c), not 0 where a clip has the tag and cross companions may be of it."""
    return self.records.tags if self.partners is None else self.records.tags * self.partners[:, None]


@dataclass(frozen=True)
class StoredStages:
  """What a frozen backbone makes of the frames, which is read in place of these.

  Attributes:
    features: The stored features of all frames, in K views.
    num_times: The stages to read, and of how many of a fragment's frames: t, or 1 for the middle one.
  """

  features: FeatureSet
  num_times: Mapping[str, int]


@dataclass(frozen=True)
class NetworkInputs:
  """What a network takes of a group of fragments.

  Attributes:
    num_times: t, the frames of a fragment: 1 or 3, or 0 for a network that sees none.
    sound: Whether it hears.
    decode_size: The smallest side of decoded frames that will do.
    scaled_to: The side to which the step scales the boxes of frames: only the pixels that this reads are decoded then.
      None for all pixels.
    companions: Which companions follow each target; None for targets alone.
    stored: What is read in place of frames, if anything.

  Raises:
    ValueError: There is no such network.
  """

  num_times: int
  sound: bool
  decode_size: int
  scaled_to: int | None = None
  companions: Granularity | None = None
  stored: StoredStages | None = None

  def __post_init__(self) -> None:
    if self.num_times < 0 or (self.num_times and self.num_times % 2 == 0):
      raise ValueError(f"num_times must be odd or 0, got {self.num_times}")
    if not self.num_times and (self.companions or not self.sound):
      raise ValueError("without frames (num_times 0) there must be sound, and no companions")


@dataclass(frozen=True, eq=False)
class Sampling:
  """What is drawn at random for each example, in steps of one size.

  Attributes:
    seed: The seed of the run.
    global_batch: The number of examples of all hosts in a step.
    min_scale: The smallest side of the random square boxes as a part of the frame, or of its crop; 1 for all of it.
    flip: Whether half of the examples are to be mirrored.
    views: Boxes (K, 4) and flips (K,) as `stajax.data.sampler.stored_views` makes them, one of which is chosen in place
      of a random box and flip.

  Raises:
    ValueError: A number is out of range.
  """

  seed: int
  global_batch: int
  min_scale: float = 1.0
  flip: bool = False
  views: tuple[np.ndarray, np.ndarray] | None = None

  def __post_init__(self) -> None:
    if not 0 < self.min_scale <= 1:
      raise ValueError(f"min_scale must be in (0, 1], got {self.min_scale}")


@dataclass(frozen=True)
class HostShare:
  """Where this process stands among those that train together: each has its contiguous part of the global batch.

  Attributes:
    host: The number of this process.
    num_hosts: The number of all processes.
    num_threads: The threads that read and decode here; as many as there are usable cores by default.
  """

  host: int = 0
  num_hosts: int = 1
  num_threads: int | None = None

  @property
  def threads(self) -> int:
    """The number of threads that read and decode."""
    if self.num_threads:
      return self.num_threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

  def examples_of(self, global_batch: int) -> int:
    """Returns how many examples of a global batch are this host's; raises ValueError where it cannot be divided."""
    if global_batch % self.num_hosts or not 0 <= self.host < self.num_hosts:
      hosts = f"{self.num_hosts} hosts (this is {self.host})"
      raise ValueError(f"a global batch of {global_batch} cannot be divided among {hosts}")
    return global_batch // self.num_hosts


ALONE = HostShare()
"""The only process, which has all examples."""
