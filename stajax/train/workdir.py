"""A work folder: what the stages of one training share.

config.json            the resolved configuration
init/                  what parts of the networks begin with, where that is not random
data/                  rendered clips, where the source is `synthetic`
stages/NAME/           done.json; of a network weights.safetensors, checkpoints/, log.jsonl, tensorboard/
tables/                of every grid frame: whether the tagger heard the tag, the audio switch, the fine crop
tags.csv               which classes of an off-the-shelf tagger the tags are; can be edited
features/SIZE[_crops]/ what a frozen visual backbone makes of the training frames
maps/scam_plus/        pseudo-fixations as records
model/                 what `stajax.predict` takes
report/                index.html, scores.json, …
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from stajax import model as models
from stajax import networks
from stajax.config import Config
from stajax.data.damage import describe_damage
from stajax.data.feature_set import FeatureSet
from stajax.data.frame_table import FrameTableWriter, read_frame_table
from stajax.data.map_set import MapWriter
from stajax.data.records import Records
from stajax.data.sampler import stored_views
from stajax.inference.class_maps import Networks, Pool, make_dense, stored_pool
from stajax.inference.clip import Clip, clip_samples
from stajax.inference.dense import DenseNetwork, make_tagger
from stajax.train import initial_weights, step, stored_features
from stajax.weights import store

NOT_JUDGED = 2
"""In the table of whether the tag is heard: a tag of the clip is none that the tagger knows."""


@dataclass
class Run:
  """What stages share: the configuration, the work folder and what they opened in it."""

  config: Config
  workdir: Path
  mesh: jax.sharding.Mesh = field(default_factory=step.make_mesh)
  _dense: dict[tuple[str, bool | None], DenseNetwork] = field(default_factory=dict)
  _taggers: dict[str, Callable[[Clip], np.ndarray]] = field(default_factory=dict)
  _tables: dict[str, np.ndarray] = field(default_factory=dict)
  _features: dict[tuple[int, bool], FeatureSet] = field(default_factory=dict)

  def folder(self, stage: str) -> Path:
    return self.workdir / "stages" / stage

  def table(self, name: str) -> Path:
    return self.workdir / "tables" / name

  def done(self, stage: str) -> dict[str, Any] | None:
    """What a finished stage said; None if it is not finished."""
    path = self.folder(stage) / "done.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

  @property
  def data(self) -> Path:
    """The prepared folder: `train`, and `heldout` with `heldout_tree` where there are viewers."""
    return self.workdir / "data" if self.config.data.source == "synthetic" else Path(self.config.data.path or "")

  @cached_property
  def records(self) -> Records:
    records = Records.open(self.data / "train", self.config.data.damaged)
    if records.damaged:
      print(describe_damage(records), file=sys.stderr)
    return records

  def frame_values(self, name: str) -> np.ndarray:
    """A finished table of the training frames."""
    if name not in self._tables:
      self._tables[name] = read_frame_table(self.table(name), self.records)
    return self._tables[name]

  def variables(self, name: str, folder: Path | None = None) -> dict[str, Any]:
    """Of a finished network; `folder`: of one that was trained otherwise than usual."""
    path = (folder or self.folder(name)) / "weights.safetensors"
    found = models.load_network(name, self.config, len(self.records.categories), path)
    return models.with_visual(found, self.visual) if self.config.has_frozen_backbone else found

  @cached_property
  def visual(self) -> Any:
    """Parameters of the frozen visual backbone, on the device."""
    return models.load_visual(self.config, initial_weights.path(self.workdir, "visual"))

  @cached_property
  def views(self) -> stored_features.Views:
    """The augmentations that are stored of a frozen backbone's features."""
    settings = self.config.features
    return stored_views(settings.views, settings.min_scale, self.config.seed)

  def features(self, size: int, cropped: bool) -> FeatureSet:
    """A frozen backbone's features of all training frames, or of their fine crops; computed where they are missing."""
    if (size, cropped) not in self._features:
      config, crops = self.config, self.frame_values("boxes") if cropped else None
      self._features[size, cropped] = stored_features.store(
        self.workdir / "features" / f"{size}{'_crops' if cropped else ''}",
        self.records,
        networks.make_backbone(config),
        self.visual,
        size,
        networks.stages_at(size, cropped, config),
        self.views,
        config.features.dtype,
        config.inference_batch,
        crops,
      )
    return self._features[size, cropped]

  def dense(self, name: str, frl: bool | None = None) -> DenseNetwork:
    """A finished network, compiled once for all stages; `frl` is of `stajax.networks.make_network`."""
    if (name, frl) not in self._dense:
      variables = self.variables(name)
      count, batch = len(self.records.categories), self.config.inference_batch
      self._dense[name, frl] = make_dense(name, variables, self.config, count, batch, frl)
    return self._dense[name, frl]

  def tagger(self, name: str) -> Callable[[Clip], np.ndarray]:
    """A finished tagger: the confidences (n, c) in the sound of each of a clip's samples."""
    if name not in self._taggers:
      network = networks.make_network(name, self.config, len(self.records.categories))
      self._taggers[name] = make_tagger(network, self.variables(name), self.config.inference_batch)
    return self._taggers[name]

  @property
  def networks(self) -> Networks:
    """The sources, for `stajax.inference.class_maps`."""
    return Networks(self.dense, self.pool, self.config.maps, self.config.seed, networks.on_crops(self.config))

  @cached_property
  def companions(self) -> dict[str, np.ndarray]:
    """Of `stajax.model.Model`."""
    return store.read(self.folder("scam_plus") / models.COMPANIONS)

  def pool(self, name: str, tags: Sequence[int], always_heard: bool) -> Pool:
    return stored_pool(self.companions, name, tags, always_heard)

  def clip(self, records: Records, clip: int) -> Clip:
    """All samples of one clip of training or held-out records; with all stored pixels once fine crops are known."""
    whole = max(
      networks.training_of(name, self.config).size
      for name in networks.MODEL_NETWORKS
      if not networks.sees_crops(name, self.config)
    )
    return Clip(clip_samples(records, clip, whole if self.done("scam_coarse") is None else records.side))

  def training_clip(self, clip: int) -> Clip:
    """A training clip with its audio switch and its fine crops, once they are known."""
    made, first = self.clip(self.records, clip), int(self.records.first_frame[clip])
    frames = slice(first, first + len(made))
    if self.done("switch_values") is not None:
      made = made.with_switch(self.frame_values("switch")[frames])
    if self.done("scam_coarse") is not None:
      made = replace(made, boxes=self.frame_values("boxes")[frames])
    if self.config.has_frozen_backbone:
      # The first of the stored views is the frame as it is.
      made = replace(made, stored=lambda size, cropped, stage: self.features(size, cropped).clip(clip, stage)[0])
    return made

  def each_clip(self, writer: MapWriter | FrameTableWriter, description: str) -> Iterator[int]:
    """This host's training clips that `writer` does not have yet; all hosts meet at the end."""
    mine = range(jax.process_index(), self.records.num_clips, jax.process_count())
    for clip in tqdm(mine, desc=description, unit="clip", dynamic_ncols=True):
      if not writer.has(clip):
        yield clip
    multihost_utils.sync_global_devices(description)


def clip_tags(records: Records, clip: int) -> tuple[int, ...]:
  """Category indices of a clip's tags."""
  return tuple(np.flatnonzero(records.tags[clip]).tolist())
