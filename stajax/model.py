"""A trained model: the folder that holds it, and its networks as modules and variables."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import stajax
from stajax import config as configuration
from stajax.config import Config
from stajax.files import atomic_folder, write_json, write_text
from stajax.networks import (
  GRANULAR,
  STUDENTS,
  SWITCH,
  expected_variables,
  make_backbone,
  make_network,
  training_of,
)
from stajax.weights import store

FORMAT = 2
COMPANIONS = "companions.safetensors"
VISUAL = "visual.safetensors"
"""The visual backbone of all networks, where it is frozen."""
HEARD = "/heard"


class ModelError(ValueError):
  """A model folder that cannot be used; one line that names the file."""


@dataclass(frozen=True)
class Model:
  """What a model folder holds.

  Attributes:
    config: of its training.
    categories: names of the tags, in the order of the class maps.
    rate: frames a second of its grid.
    side: of the square frames that it takes, pixels.
    trained_on: `synthetic` for the embedded clips.
    variables: of its networks, by name.
    sha256: of each network's weights.
    companions: fragments of training clips for the networks with cross-clip companions, P for every category:
      "NETWORK" (c, P, h, w, c) float16; "sa_plus_cross/heard", with the audio switch at 1; "clips" (c, P) int32,
      of which clip each is, -1 where there are fewer than P.
  """

  config: Config
  categories: tuple[str, ...]
  rate: float
  side: int
  trained_on: str
  variables: dict[str, dict[str, Any]]
  sha256: dict[str, str]
  companions: dict[str, np.ndarray]


def load(folder: str | Path, names: Sequence[str] = (SWITCH, *STUDENTS)) -> Model:
  """Reads networks of a model folder, or of the work folder that contains it.

  Raises:
    ModelError, ConfigError, WeightsError: one line that names the file.
  """
  folder = Path(folder)
  if (folder / "model" / "model.json").is_file():
    folder = folder / "model"
  path = folder / "model.json"
  try:
    about = json.loads(path.read_text(encoding="utf-8"))
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
  config_path = folder / "config.json"
  try:
    config = configuration.loads(config_path.read_text(encoding="utf-8"), str(config_path))
  except OSError as error:
    raise ModelError(f"{config_path}: {error.strerror}") from None
  except UnicodeDecodeError as error:
    raise ModelError(f"{config_path}: not text ({error})") from None
  variables = {name: load_network(name, config, len(categories), folder / f"{name}.safetensors") for name in names}
  if config.has_frozen_backbone:
    visual = load_visual(config, folder / VISUAL)
    variables = {name: with_visual(found, visual) for name, found in variables.items()}
  companions = store.read(folder / COMPANIONS) if set(names) & set(GRANULAR) else {}
  return Model(config, categories, rate, side, trained_on, variables, sha256, companions)


def load_network(name: str, config: Config, num_categories: int, path: Path) -> dict[str, Any]:
  """Variables of a network as it was trained: without the visual backbone where that is frozen.

  Raises:
    WeightsError: one line that names the file.
  """
  network, size = make_network(name, config, num_categories), training_of(name, config).size
  return store.load(path, expected_variables(network, size, config.has_frozen_backbone))


def load_visual(config: Config, path: Path) -> Any:
  """Parameters of the frozen visual backbone, on the device.

  Raises:
    WeightsError: one line that names the file.
  """
  return jax.device_put(store.load(path, {"params": visual_shapes(config)})["params"]["visual"])


def visual_shapes(config: Config) -> dict[str, Any]:
  """Shapes of {"visual": parameters}, by `conv1_1 … conv5_3`."""
  frames = jax.ShapeDtypeStruct((1, config.s_coarse.size, config.s_coarse.size, 3), jnp.float32)
  return {"visual": jax.eval_shape(make_backbone(config).init, jax.random.key(0), frames)["params"]}


def with_visual(variables: Mapping[str, Any], visual: Any) -> dict[str, Any]:
  """A network's variables and the frozen backbone; audio-only ones as they are."""
  if "neck" not in variables["params"]:
    return dict(variables)
  return {**variables, "params": {**variables["params"], "visual": visual}}


def save(
  folder: Path, files: Mapping[str, Path], companions: Mapping[str, np.ndarray], config: Config, **about: Any
) -> None:
  """Makes a model folder at once: it is complete or absent.

  Args:
    files: weights of each network.
    companions: of `Model`.
    about: `categories`, `rate`, `side`, `trained_on`, `sha256` of `Model`, and provenance.
  """
  with atomic_folder(folder) as partial:
    for name, path in files.items():
      shutil.copyfile(path, partial / f"{name}.safetensors")
    store.save(partial / COMPANIONS, companions)
    write_text(partial / "config.json", configuration.dumps(config))
    write_json(partial / "model.json", {"format": FORMAT, "stajax": stajax.__version__, **about})
