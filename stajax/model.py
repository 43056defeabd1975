"""A trained model: the folder that holds it, and its networks as modules and variables."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

import stajax
from stajax.files import atomic_folder, write_json, write_text
from stajax.networks import (
  GRANULAR,
  expected_variables,
  make_backbone,
  make_network,
  predicting_networks,
  training_of,
)
from stajax.weights import store

if TYPE_CHECKING:  # loaded late: pydantic would take a tenth of prediction's start-up
  from stajax.config import Config

FORMAT = 2
COMPANIONS = "companions.safetensors"
VISUAL = "visual.safetensors"
"""The file of the visual backbone that all networks share, where it is frozen."""
SHIPPED = Path(__file__).with_name("shipped")
"""The folder of the model that the package comes with."""
HEARD = "/heard"
"""The end of the names of companions whose audio switch is 1."""


class ModelError(ValueError):
  """A model folder that cannot be used; one line that names the file."""


@dataclass(frozen=True)
class Model:
  """What a model folder holds.

  Attributes:
    config: The configuration of its training.
    categories: The names of the tags, in the order of the class maps.
    rate: Frames a second of its grid.
    side: The side of the square frames that it takes, in pixels.
    trained_on: What it was trained on, `synthetic` for the embedded clips.
    variables: The variables of its networks, by name.
    sha256: The SHA-256 of each network's weights.
    companions: Fragments of training clips for the networks with cross-clip companions, P for every category: "NETWORK"
      (c, P, h, w, c) float16; "sa_plus_cross/heard", with the audio switch at 1; "clips" (c, P) int32, the number of
      each one's clip, -1 where there are fewer than P.
  """

  config: "Config"
  categories: tuple[str, ...]
  rate: float
  side: int
  trained_on: str
  variables: dict[str, dict[str, Any]]
  sha256: dict[str, str]
  companions: dict[str, np.ndarray]


def load(folder: str | Path, names: Sequence[str] | Callable[["Config"], Sequence[str]] = predicting_networks) -> Model:
  """Reads networks from a model folder, or from the work folder that contains it.

  Args:
    folder: The folder.
    names: The names of the networks, or a function of the model's configuration that returns them.

  Raises:
    ModelError, ConfigError, WeightsError: The model cannot be used; one line that names the file.
  """
  folder = Path(folder)
  if (folder / "model" / "model.json").is_file():
    folder = folder / "model"
  about, config = _read_description(folder), _read_config(folder / "config.json")
  num_categories, names = len(about["categories"]), names(config) if callable(names) else names
  variables = {name: load_network(name, config, num_categories, folder / f"{name}.safetensors") for name in names}
  if config.has_frozen_backbone:
    visual = load_visual(config, folder / VISUAL)
    variables = {name: with_visual(own, visual) for name, own in variables.items()}
  companions = store.read(folder / COMPANIONS) if set(names) & set(GRANULAR) else {}
  return Model(config=config, variables=variables, companions=companions, **about)


def _read_description(folder: Path) -> dict[str, Any]:
  """Returns the fields of `Model` that `model.json` has."""
  path = folder / "model.json"
  try:
    about: Any = json.loads(path.read_text(encoding="utf-8"))
  except OSError:
    raise ModelError(f"{folder}: not a model (expected model.json in it, or in its folder `model`)") from None
  except ValueError as error:
    raise ModelError(f"{path}: not JSON ({error})") from None
  found_format = about.get("format") if isinstance(about, dict) else None
  if found_format != FORMAT:
    raise ModelError(f"{path}: format {found_format!r}, this version reads {FORMAT}")
  try:
    categories, sha256 = tuple(map(str, about["categories"])), dict(about["sha256"])
    rate, side, trained_on = float(about["rate"]), int(about["side"]), str(about["trained_on"])
    if not (0 < rate < float("inf") and side > 0):
      raise ValueError(f"rate {rate}, side {side}, expected positive numbers")
  except (KeyError, TypeError, ValueError, OverflowError) as error:
    raise ModelError(f"{path}: not a model description ({type(error).__name__}: {error})") from None
  return {"categories": categories, "rate": rate, "side": side, "trained_on": trained_on, "sha256": sha256}


def _read_config(path: Path) -> "Config":
  from stajax import config as configuration  # late, see above

  try:
    return configuration.loads(path.read_text(encoding="utf-8"), str(path))
  except OSError as error:
    raise ModelError(f"{path}: {error.strerror}") from None
  except UnicodeDecodeError as error:
    raise ModelError(f"{path}: not text ({error})") from None


def save_half(source: Path, folder: Path) -> int:
  """Writes a model folder to give away: its weights have half the precision, and so half the size.

  `stajax.weights.store.load` widens them again. Of files that the configuration names only the names are kept.

  Args:
    source: A model folder, or the work folder that contains it.
    folder: The folder to write.

  Returns:
    The size of its files in bytes.

  Raises:
    ModelError, WeightsError: The model cannot be read, or a weight is too large for float16.
  """
  from stajax import config as configuration  # late, see above

  source = source / "model" if (source / "model" / "model.json").is_file() else source
  about = json.loads((source / "model.json").read_text(encoding="utf-8")) if _read_description(source) else {}
  with atomic_folder(folder) as partial:
    for path in sorted(source.glob("*.safetensors")):
      halves = {name: _halve(path, name, x) for name, x in store.read(path).items()}
      sha256 = store.save(partial / path.name, store.unflatten(halves))
      if path.stem in about["sha256"]:
        about["sha256"][path.stem] = sha256
    write_text(partial / "config.json", configuration.dumps(_without_folders(_read_config(source / "config.json"))))
    write_json(partial / "model.json", about)
  return sum(path.stat().st_size for path in folder.iterdir())


def _without_folders(config: "Config") -> "Config":
  def name(path: str | None) -> str | None:
    return None if path is None else Path(path).name

  return config.model_copy(
    update={
      "init": {part: Path(file).name for part, file in config.init.items()},
      "data": config.data.model_copy(update={"path": name(config.data.path)}),
      "students": config.students.model_copy(update={"teacher": name(config.students.teacher)}),
    }
  )


def _halve(path: Path, name: str, array: np.ndarray) -> np.ndarray:
  if array.dtype != np.float32:
    return array
  if np.abs(array).max(initial=0) > np.finfo(np.float16).max:
    raise store.WeightsError(f"{path}: {name} has a value of {np.abs(array).max():g}, expected at most 65504")
  return array.astype(np.float16)


def load_network(name: str, config: "Config", num_categories: int, path: Path) -> dict[str, Any]:
  """Reads the variables of a network as it was trained: without the visual backbone where that is frozen.

  Args:
    name: The network's name.
    config: The configuration of its training.
    num_categories: The number of tags.
    path: The file.

  Raises:
    WeightsError: The file cannot be used; one line that names it.
  """
  network, size = make_network(name, config, num_categories), training_of(name, config).size
  return store.load(path, expected_variables(network, size, config.has_frozen_backbone))


def load_visual(config: "Config", path: Path) -> Any:
  """Reads the parameters of the frozen visual backbone onto the device.

  Raises:
    WeightsError: The file cannot be used; one line that names it.
  """
  return jax.device_put(store.load(path, {"params": visual_shapes(config)})["params"]["visual"])


def visual_shapes(config: "Config") -> dict[str, Any]:
  """Returns the shapes of {"visual": parameters}, by `conv1_1 … conv5_3`."""
  frames = jax.ShapeDtypeStruct((1, config.s_coarse.size, config.s_coarse.size, 3), jnp.float32)
  return {"visual": jax.eval_shape(make_backbone(config).init, jax.random.key(0), frames)["params"]}


def with_visual(variables: Mapping[str, Any], visual: Any) -> dict[str, Any]:
  """Returns a network's variables with the frozen backbone among them; a network that sees nothing stays as it is."""
  if "neck" not in variables["params"]:
    return dict(variables)
  return {**variables, "params": {**variables["params"], "visual": visual}}


def save(
  folder: Path, files: Mapping[str, Path], companions: Mapping[str, np.ndarray], config: "Config", **about: Any
) -> None:
  """Writes a model folder at once: it is complete or absent.

  Args:
    folder: The folder.
    files: The file of each network's weights.
    companions: The companions, as in `Model`.
    config: The configuration of the training.
    **about: `categories`, `rate`, `side`, `trained_on` and `sha256` of `Model`, and provenance.
  """
  from stajax import config as configuration  # late, see above

  with atomic_folder(folder) as partial:
    for name, path in files.items():
      shutil.copyfile(path, partial / f"{name}.safetensors")
    store.save(partial / COMPANIONS, companions)
    write_text(partial / "config.json", configuration.dumps(config))
    write_json(partial / "model.json", {"format": FORMAT, "stajax": stajax.__version__, **about})
