"""What a finished run stands for in the paper's tables."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stajax import model as models
from stajax.model import Model

Role = Literal["STANet", "STANet+", "STANet+♭", "re-trained"]


@dataclass(frozen=True)
class ModelRun:
  """A run.

  Attributes:
    path: Its work folder, or its model folder.
    role: What it is in the paper: STANet (one student, which learned from SCAM), STANet+ (three students, from SCAM+),
      STANet+♭ (STANet+ trained on VGGSound), or re-trained: on tagged clips of eye-tracking sets (Table 4).
    model: Its model, without any network.
  """

  path: Path
  role: Role
  model: Model

  @property
  def name(self) -> str:
    """A name for people and folders."""
    return self.path.resolve().name

  @property
  def title(self) -> str:
    """The title of its row."""
    return f"{self.role} ({self.name}, trained on {self.model.trained_on})"

  @property
  def is_workdir(self) -> bool:
    """Whether it is a work folder, so that more can be trained in it."""
    return (self.path / "stages").is_dir()


def open_run(path: Path) -> ModelRun:
  """Opens a run.

  Raises:
    ModelError, ConfigError, WeightsError: It has no model; one line that names the file.
  """
  model = models.load(path, ())
  return ModelRun(path, role_of(model), model)


def role_of(model: Model) -> Role:
  """Returns what a model is in the paper."""
  if model.trained_on == "stavis":
    return "re-trained"
  if model.config.is_stanet:
    return "STANet"
  return "STANet+♭" if model.trained_on == "vggsound" else "STANet+"
