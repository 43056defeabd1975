"""What the stages of one training share: the configuration, the work folder, the data and the trained networks."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
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
from stajax.inference.local_devices import Device
from stajax.train import step
from stajax.train.training_data import TrainingData
from stajax.train.workdir import WEIGHTS, Workdir
from stajax.weights import store


class TrainedNetworks:
  """The finished networks of a work folder on a device, each compiled once for all stages.

  Attributes:
    device: The device; None for JAX's default one.
  """

  def __init__(self, config: Config, workdir: Workdir, data: TrainingData, device: Device = None) -> None:
    self._config, self._workdir, self._data, self.device = config, workdir, data, device
    self._on: dict[Device, TrainedNetworks] = {}
    self._companions: list[dict[str, np.ndarray]] = []
    self._dense: dict[tuple[str, bool | None], DenseNetwork] = {}
    self._taggers: dict[str, Callable[[Clip], np.ndarray]] = {}

  def on(self, device: Device) -> "TrainedNetworks":
    """Returns the same networks on another device of this process; None for JAX's default one."""
    if device is None:
      return self
    if device not in self._on:
      other = copy.copy(self)  # it shares the companions, which are on the host
      other.device, other._dense, other._taggers = device, {}, {}
      self._on[device] = other
    return self._on[device]

  def variables(self, name: str, folder: Path | None = None) -> dict[str, Any]:
    """Reads the variables of a network.

    Args:
      name: The name of the network.
      folder: The folder of its weights; None for that of its stage.
    """
    path = (folder or self._workdir.stage(name)) / WEIGHTS
    sha256 = self._workdir.outcome(name).get("sha256") if folder is None else None
    found = models.load_network(name, self._config, self._num_categories, path, sha256)
    return models.with_visual(found, self._data.backbone) if self._config.has_frozen_backbone else found

  def dense(self, name: str, refine: bool | None = None) -> DenseNetwork:
    """Returns a network, compiled for whole clips; `refine` is that of `stajax.networks.make_network`."""
    if (name, refine) not in self._dense:
      batch = self._config.inference_batch
      variables = self.variables(name)
      self._dense[name, refine] = make_dense(
        name, variables, self._config, self._num_categories, batch, refine, self.device
      )
    return self._dense[name, refine]

  def tagger(self, name: str) -> Callable[[Clip], np.ndarray]:
    """Returns a tagger: a function of a clip that gives the confidences (n, c) in the sound of each of its samples."""
    if name not in self._taggers:
      network = networks.make_network(name, self._config, self._num_categories)
      batch = self._config.inference_batch
      self._taggers[name] = make_tagger(network, self.variables(name), batch, device=self.device)
    return self._taggers[name]

  def sources(self) -> Sources:
    """Returns the classifiers whose class maps become pseudo-fixations."""
    config = self._config
    crops = networks.on_crops(config)
    # The companions are read only when a network asks for them, because they are made by its stage.
    return Sources(self.dense, lambda *of: stored_pool(self.companions, *of), config.maps, config.seed, crops)

  @property
  def companions(self) -> dict[str, np.ndarray]:
    """The fragments of training clips for networks with cross-clip companions; see `stajax.model.Model`."""
    if not self._companions:
      self._companions.append(store.read(self._workdir.companions))
    return self._companions[0]

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
