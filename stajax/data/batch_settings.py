"""The settings of batches: the data, a network's inputs, what is drawn at random, and this host's share.

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
  """The frames that a network learns from, and the tables with values for each of them.

  Attributes:
    records: The clips.
    maps: Pseudo-fixations to learn, a map for every frame.
    items: (num_items,) frame ids that an epoch visits; those of `trainable_items` by default.
    labels: (total_frames, k) float32, the targets of every frame in place of its clip's tags.
    switch: (total_frames,) uint8, 0 for frames whose sound is not to be heard.
    boxes: (total_frames, 4) float32, (y0, x0, y1, x1) in [0, 1], to which frames are cropped; by default no frame is.
    partners: (num_clips,) bool, the clips that cross companions may come from; all by default.

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
    """(num_clips, c), not 0 where a clip has the tag and cross companions may come from the clip."""
    return self.records.tags if self.partners is None else self.records.tags * self.partners[:, None]


@dataclass(frozen=True)
class StoredStages:
  """The stored features of a frozen backbone, which are read in place of the frames.

  Attributes:
    features: The stored features of all frames, in K views.
    num_times: The stages to read, each with its number of frames of a fragment: t, or 1 for the middle one.
  """

  features: FeatureSet
  num_times: Mapping[str, int]


@dataclass(frozen=True)
class NetworkInputs:
  """The inputs that a network takes from a group of fragments.

  Attributes:
    num_times: t, the frames of a fragment: 1 or 3, or 0 for a network without frames.
    sound: Whether the network takes sound.
    decode_size: The smallest side of decoded frames that is large enough.
    scaled_to: The side to which the step scales the boxes of frames, so that only the pixels that this reads are
      decoded; None to decode all pixels.
    companions: Which companions follow each target; None for targets alone.
    stored: The stored features that are read in place of frames, if any.

  Raises:
    ValueError: No network has such inputs.
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
  """The random draws for the examples of a step.

  Attributes:
    seed: The seed of the run.
    global_batch: The number of examples of all hosts in a step.
    min_scale: The smallest side of the random square boxes as a fraction of the frame or its crop; 1 for all of it.
    flip: Whether half of the examples are mirrored.
    views: Boxes (num_clips, K, 4) and flips (K,) from `stajax.data.sampler.stored_views`; one of a clip's is chosen in
      place of a random box and flip.

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


def filled_up(global_batch: int, num_devices: int) -> int:
  """Returns the number of slots in a step: the smallest multiple of the devices that has room for the batch."""
  return -(-global_batch // num_devices) * num_devices


@dataclass(frozen=True)
class HostShare:
  """The contiguous part of the global batch that this process has among those that train together.

  A step has the same number of slots on every device. A batch that cannot be divided among the devices is filled up:
  the slots after its last example repeat this example, and count nowhere.

  Attributes:
    host: The number of this process.
    num_hosts: The number of all processes.
    num_threads: The number of threads that read and decode here; by default one for each usable core.
    num_devices: The number of devices of all processes together; None for one in each process.

  Raises:
    ValueError: There is no such process, or the processes have different numbers of devices.
  """

  host: int = 0
  num_hosts: int = 1
  num_threads: int | None = None
  num_devices: int | None = None

  def __post_init__(self) -> None:
    if not 0 <= self.host < self.num_hosts:
      raise ValueError(f"host must be in [0, {self.num_hosts}), got {self.host}")
    if self.num_devices is not None and self.num_devices % self.num_hosts:
      raise ValueError(f"{self.num_devices} devices are not the same number on each of {self.num_hosts} hosts")

  @property
  def threads(self) -> int:
    """The number of threads that read and decode."""
    if self.num_threads:
      return self.num_threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

  def slots_of(self, global_batch: int) -> range:
    """Returns the slots of this host in a step; examples have the slots before `global_batch`."""
    local = filled_up(global_batch, self.num_devices or self.num_hosts) // self.num_hosts
    return range(self.host * local, (self.host + 1) * local)

  def examples_of(self, global_batch: int) -> range:
    """Returns the slots whose examples this host reads: its own, or the batch's last one where it has none."""
    slots = self.slots_of(global_batch)
    first = min(slots.start, global_batch - 1)
    return range(first, max(first + 1, min(slots.stop, global_batch)))


ALONE = HostShare()
"""The share of a process that trains alone: all examples."""
