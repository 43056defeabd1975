"""The work folder of one training: where everything in it lies, and what its finished stages reported.

config.json            the resolved configuration
init/                  the parts that networks begin with, where these are not random
data/                  rendered clips, where the source is `synthetic`
stages/NAME/           begun.json, done.json; of a network weights.safetensors, checkpoints/, log.jsonl, tensorboard/
tables/                values of every grid frame: what a tagger hears, the audio switch, the fine crop
tags.csv               which classes of an off-the-shelf tagger are the tags; it can be edited
features/SIZE[_crops]/ a frozen visual backbone's features of the training frames
maps/scam_plus/        pseudo-fixations as records
model/                 the trained model, for `stajax predict`
report/                index.html, scores.json, …
"""

import contextlib
from pathlib import Path
from typing import Any

from stajax import model
from stajax.files import FileError
from stajax.files.lock import exclusive
from stajax.files.manifest import read_manifest
from stajax.weights import store

WEIGHTS = "weights.safetensors"
"""The file with a network's weights, in the folder of the network."""


class WorkdirError(ValueError):
  """A work folder that cannot be used; one line."""


class Workdir:
  """The paths of a work folder, and the `done.json` of its stages.

  Attributes:
    path: The folder.
    config: The resolved configuration.
    data: The rendered clips.
    tag_table: The table of tags and classes of an off-the-shelf tagger, which users may edit.
    pseudo_fixations: The map set that students learn from.
    companions: The fragments of training clips for networks with cross-clip companions.
    model: The model folder.
    report: The folder of the report.
  """

  def __init__(self, path: Path) -> None:
    self.path = path
    self.config = path / "config.json"
    self.data = path / "data"
    self.tag_table = path / "tags.csv"
    self.pseudo_fixations = path / "maps" / "scam_plus"
    self.companions = self.stage("scam_plus") / model.COMPANIONS
    self.model = path / "model"
    self.report = path / "report"

  def lock(self) -> contextlib.AbstractContextManager[None]:
    """Keeps other trainings out of the folder while a block runs; see `stajax.files.lock.exclusive`."""
    return exclusive(self.path / ".train.lock")

  def initial_part(self, part: str) -> Path:
    """Returns the path of the initial weights of a part of the networks."""
    return self.path / "init" / f"{part}.safetensors"

  def stage(self, name: str) -> Path:
    """Returns the folder of a stage."""
    return self.path / "stages" / name

  def weights(self, network: str) -> Path:
    """Returns the path of a trained network's weights."""
    return self.stage(network) / WEIGHTS

  def table(self, name: str) -> Path:
    """Returns the path of a table of values of every grid frame."""
    return self.path / "tables" / name

  def features(self, size: int, cropped: bool) -> Path:
    """Returns the folder of a frozen backbone's features, of whole frames or of crops at `size` pixels."""
    return self.path / "features" / f"{size}{'_crops' if cropped else ''}"

  def variant(self, name: str) -> Path:
    """Returns the folder of a variant of the ablation, whose networks are trained differently."""
    return self.path / "ablation" / name

  def done(self, stage: str) -> dict[str, Any] | None:
    """Returns the `done.json` of a stage, or None if the stage is not finished.

    Raises:
      WorkdirError: The file is damaged.
    """
    return None if (manifest := self._manifest(stage)) is None else manifest[0]

  def files(self, stage: str) -> dict[str, str]:
    """Returns the SHA-256 of the files of a finished stage, by their names in the work folder.

    Raises:
      WorkdirError: The stage is not finished, or its `done.json` is damaged.
    """
    self.outcome(stage)
    manifest = self._manifest(stage)
    return {} if manifest is None else manifest[1]

  def _manifest(self, stage: str) -> tuple[dict[str, Any], dict[str, str]] | None:
    path = self.stage(stage) / "done.json"
    if not path.exists():
      return None
    try:
      return read_manifest(path)
    except FileError as error:
      raise WorkdirError(f"{error}; `--redo {stage}` does this stage again") from None

  def outcome(self, stage: str) -> dict[str, Any]:
    """Returns the `done.json` of a finished stage.

    Raises:
      WorkdirError: The stage is not finished.
    """
    done = self.done(stage)
    if done is None:
      raise WorkdirError(f"{self.path}: stage {stage} is not done")
    return done

  def read_weights(self, network: str) -> dict[str, Any]:
    """Reads the arrays of a trained network by name.

    Raises:
      WorkdirError: The network is not trained.
      WeightsError: The file is not the one that was written.
    """
    return store.read(self.weights(network), self.outcome(network).get("sha256"))

  def sha256_of(self, *networks: str) -> dict[str, str]:
    """Returns the SHA-256 of the weights of trained networks, by name."""
    return {name: self.outcome(name)["sha256"] for name in networks}
