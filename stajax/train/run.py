"""What the stages of one training share: the configuration, the work folder, the data and the trained networks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stajax import model as models
from stajax import networks
from stajax.config import Config
from stajax.inference.class_maps import Sources, make_dense, stored_pool
from stajax.inference.clip import Clip
from stajax.inference.dense import DenseNetwork, make_tagger
from stajax.train import step
from stajax.train.training_data import TrainingData
from stajax.train.workdir import WEIGHTS, Workdir
from stajax.weights import store


class TrainedNetworks:
  """The finished networks of a work folder, each compiled once for all stages."""

  def __init__(self, config: Config, workdir: Workdir, data: TrainingData) -> None:
    self._config, self._workdir, self._data = config, workdir, data
    self._dense: dict[tuple[str, bool | None], DenseNetwork] = {}
    self._taggers: dict[str, Callable[[Clip], np.ndarray]] = {}

  def variables(self, name: str, folder: Path | None = None) -> dict[str, Any]:
    """Reads the variables of a network.

    Args:
      name: The name of the network.
      folder: The folder of its weights; None for that of its stage.
    """
    path = (folder or self._workdir.stage(name)) / WEIGHTS
    found = models.load_network(name, self._config, self._num_categories, path)
    return models.with_visual(found, self._data.backbone) if self._config.has_frozen_backbone else found

  def dense(self, name: str, refine: bool | None = None) -> DenseNetwork:
    """Returns a network, compiled for whole clips; `refine` is that of `stajax.networks.make_network`."""
    if (name, refine) not in self._dense:
      batch = self._config.inference_batch
      variables = self.variables(name)
      self._dense[name, refine] = make_dense(name, variables, self._config, self._num_categories, batch, refine)
    return self._dense[name, refine]

  def tagger(self, name: str) -> Callable[[Clip], np.ndarray]:
    """Returns a tagger: a function of a clip that gives the confidences (n, c) in the sound of each of its samples."""
    if name not in self._taggers:
      network = networks.make_network(name, self._config, self._num_categories)
      self._taggers[name] = make_tagger(network, self.variables(name), self._config.inference_batch)
    return self._taggers[name]

  def sources(self) -> Sources:
    """Returns the classifiers whose class maps become pseudo-fixations."""
    config = self._config
    crops = networks.on_crops(config)
    # The companions are read only when a network asks for them, because they are made by its stage.
    return Sources(self.dense, lambda *of: stored_pool(self.companions, *of), config.maps, config.seed, crops)

  @cached_property
  def companions(self) -> dict[str, np.ndarray]:
    """The fragments of training clips for networks with cross-clip companions; see `stajax.model.Model`."""
    return store.read(self._workdir.companions)

  @property
  def _num_categories(self) -> int:
    return len(self._data.records.categories)


@dataclass(frozen=True)
class Run:
  """What the stages of one training share.

  Attributes:
    config: The configuration.
    workdir: The work folder.
    data: The clips that networks learn from.
    trained: The networks that are trained already.
    mesh: The devices that networks are trained on.
  """

  config: Config
  workdir: Workdir
  data: TrainingData
  trained: TrainedNetworks
  mesh: jax.sharding.Mesh


def open_run(config: Config, folder: Path) -> Run:
  """Returns the run of a configuration in a work folder; files are opened when they are needed."""
  workdir = Workdir(folder)
  data = TrainingData(config, workdir)
  return Run(config, workdir, data, TrainedNetworks(config, workdir, data), step.make_mesh())
