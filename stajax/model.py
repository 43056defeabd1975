"""A trained model: the folder that holds it, and its networks as modules and variables."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import stajax
from stajax import config as configuration
from stajax.config import Config
from stajax.nets import weights
from stajax.nets.classifier import Classifier
from stajax.nets.student import Student

CLASSIFIERS = ("s", "st", "sa")
STUDENTS = ("sta",)
FORMAT = 1
_SOUND_SHAPE = (257, 98)


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
  """

  config: Config
  categories: tuple[str, ...]
  rate: float
  side: int
  trained_on: str
  variables: dict[str, dict[str, Any]]
  sha256: dict[str, str]


def make_network(name: str, config: Config, num_categories: int) -> nn.Module:
  """The module of the network `s`, `st`, `sa` or `sta`."""
  settings = {
    "num_categories": num_categories,
    "width": config.network.width,
    "norm": config.network.norm,
    "depths": config.network.depths,
    "neck_depth": config.network.neck_depth,
    "audio_width": config.network.audio_width,
    "audio_norm": config.network.audio_norm,
    "audio_pooling": config.network.audio_pooling,
    "dtype": _dtype(config.network.dtype),
    "frozen": training_of(name, config).frozen,
  }
  return Student(**settings) if name in STUDENTS else Classifier(name, **settings)


def training_of(name: str, config: Config) -> configuration.Training:
  """The part of the configuration that says how a network is trained."""
  return getattr(config, name)


def example_inputs(network: nn.Module, size: int, batch: int = 1) -> tuple[jax.ShapeDtypeStruct, ...]:
  """Shapes of a network's inputs for one group."""
  frames = jax.ShapeDtypeStruct((batch, 1, network.num_times, size, size, 3), jnp.float32)
  if not network.hears:
    return (frames,)
  sound = jax.ShapeDtypeStruct((batch, 1, *_SOUND_SHAPE), jnp.float32)
  return frames, sound, jax.ShapeDtypeStruct((batch, 1), jnp.float32)


def initialise(network: nn.Module, size: int, key: jax.Array) -> dict[str, Any]:
  """Random variables of a network."""
  inputs = [jnp.zeros(x.shape, x.dtype) for x in example_inputs(network, size)]
  return dict(jax.jit(network.init)(key, *inputs))


def load(folder: str | Path, names: Sequence[str] = STUDENTS) -> Model:
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
  variables = {}
  for name in names:
    network, size = make_network(name, config, len(categories)), training_of(name, config).size
    expected = jax.eval_shape(network.init, jax.random.key(0), *example_inputs(network, size))
    variables[name] = weights.load(folder / f"{name}.safetensors", expected)
  return Model(config, categories, rate, side, trained_on, variables, sha256)


def save(folder: Path, files: Mapping[str, Path], config: Config, **about: Any) -> None:
  """Makes a model folder at once: it is complete or absent.

  Args:
    files: weights of each network.
    about: `categories`, `rate`, `side`, `trained_on`, `sha256` of `Model`, and provenance.
  """
  partial = folder.with_name(f".{folder.name}.partial")
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)
  for name, path in files.items():
    shutil.copyfile(path, partial / f"{name}.safetensors")
  (partial / "config.json").write_text(configuration.dumps(config), encoding="utf-8")
  description = {"format": FORMAT, "stajax": stajax.__version__, **about}
  text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
  (partial / "model.json").write_text(text, encoding="utf-8")
  shutil.rmtree(folder, ignore_errors=True)
  os.replace(partial, folder)


def _dtype(name: str) -> Any:
  if name == "auto":
    return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
  return jnp.dtype(name)
