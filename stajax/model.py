"""A trained model: the folder that holds it, and its networks as modules and variables."""

import functools
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import stajax
from stajax import config as configuration
from stajax.companions import Granularity
from stajax.config import Config
from stajax.files import atomic_folder, write_json, write_text
from stajax.nets.classifier import Classifier
from stajax.nets.shared_students import NODES, Students
from stajax.nets.student import Student
from stajax.nets.tagger import Tagger
from stajax.nets.visual import VGG16, stage_shapes
from stajax.weights import store

NUM_FOLDS = 3
COARSE = ("s_coarse", "st_coarse", "sa_coarse")
FINE = ("s", "st", "sa")
PLUS = (
  *(f"{branch}_plus_{granularity}" for branch in ("s", "st") for granularity in ("short", "long", "cross")),
  *(f"sa_plus_{granularity}" for granularity in ("long", "cross")),  # its second of sound is short-term already
)
TAGGERS = tuple(f"tagger_{fold}" for fold in range(NUM_FOLDS))
SWITCH = "switch"
STUDENTS = tuple(NODES)
JOINT = "students"
"""All three as one network, where they share their backbones."""
SOURCES = (*COARSE, *FINE, *PLUS)
"""All classifiers of a clip's tag that see."""
KEPT = (*SOURCES, SWITCH, *STUDENTS)
"""What a model folder has the weights of."""
FORMAT = 2
COMPANIONS = "companions.safetensors"
VISUAL = "visual.safetensors"
"""The visual backbone of all networks, where it is frozen."""
STA_STAGES = ("f3", "f4", "f5")
"""What STA reads of the backbone."""
HEARD = "/heard"
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


def make_network(name: str, config: Config, num_categories: int, frl: bool | None = None) -> nn.Module:
  """The module of a network by its name, such as `st_coarse`, `sa_plus_cross`, `tagger_0`, `sta_plus_long`, `students`.

  Args:
    frl: whether there are fixation refine layers, which have no parameters: in the C-GCN of a plus network, by default,
      or on the spatial map of S, where by default there is none.
  """
  settings = config.network
  sound = {
    "audio_width": settings.audio_width,
    "audio_norm": settings.audio_norm,
    "audio_pooling": settings.audio_pooling,
    "dtype": _dtype(settings.dtype),
    "frozen": training_of(name, config).frozen,
  }
  if name in TAGGERS:
    return Tagger(num_categories, **sound)
  common = {
    "num_categories": num_categories,
    "width": settings.width,
    "norm": settings.norm,
    "head_norm": settings.head_norm or settings.norm,
    "depths": settings.depths,
    "neck_depth": settings.neck_depth,
    "neck_width": settings.neck_width,
    "frl": frl is not False,
    "steps": settings.reasoning_steps,
    "block": settings.attention_block,
    **sound,
  }
  if name == JOINT:
    return Students(**common)
  plus = granularity_of(name) is not None
  if name in STUDENTS:
    return Student(plus=plus, **common)
  if name == SWITCH:
    return Classifier("sa", num_outputs=1, **common)
  return Classifier(name.split("_")[0], plus=plus, refine_spatial=frl is True and not plus, **common)


def make_backbone(config: Config) -> VGG16:
  """The visual backbone of all networks."""
  settings = config.network
  return VGG16(settings.width, settings.depths, settings.norm, _dtype(settings.dtype))


def granularity_of(name: str) -> Granularity | None:
  """Which companions a network's groups have; None for one fragment alone."""
  if name == JOINT:
    return "short_long"
  last = name.rpartition("_")[2]
  return last if last in ("short", "long", "cross") else None


def field_of(name: str) -> str:
  """The configuration's field that says how a network is trained, where it is trained for itself."""
  return "sta" if name == JOINT else re.sub(r"_(short|long|cross|\d)$", "", name)


def training_of(name: str, config: Config) -> configuration.Training:
  """The part of the configuration that says how a network is trained."""
  return config.sta if is_joint(config) and name in STUDENTS else getattr(config, field_of(name))


def learns_fixations(name: str) -> bool:
  """Whether a network learns pseudo-fixations; all others learn categories."""
  return name in (*STUDENTS, JOINT)


def see_crops(config: Config) -> tuple[str, ...]:
  """Names of the networks that see the fine crops; all others see whole frames."""
  return (*FINE, *PLUS) if config.plus_crops else FINE


def is_joint(config: Config) -> bool:
  """Whether the three students share backbones and neck and are trained as one network."""
  return config.students.backbone == "shared"


def is_frozen(config: Config) -> bool:
  """Whether all networks share one visual backbone that is not trained."""
  return config.network.backbone == "frozen"


def shared_stages(name: str, config: Config) -> tuple[str, ...]:
  """The stages of a network's backbone that others read too, so that a frame is encoded once for all; () for none."""
  if is_frozen(config):
    return stages_at(training_of(name, config).size, name in see_crops(config), config)

  def has_kept(training: configuration.Training) -> bool:
    return bool(training.start) and "visual" in training.frozen

  others = [training_of(other, config) for other in (*SOURCES, SWITCH)]
  shared = has_kept(training_of(name, config)) or any(has_kept(other) and name in other.start for other in others)
  return ("f5",) if shared and name in (*SOURCES, SWITCH) else ()


def stages_at(size: int, cropped: bool, config: Config) -> tuple[str, ...]:
  """The stages of a frozen backbone that networks read which see frames, or crops, at `size` pixels."""
  crops = see_crops(config)
  names = [name for name in KEPT if training_of(name, config).size == size and (name in crops) == cropped]
  return STA_STAGES if "sta" in names else ("f5",)


def example_inputs(network: nn.Module, size: int, batch: int = 1, stored: bool = False) -> dict[str, Any]:
  """Shapes of a network's inputs, by the names of its arguments; `stored`: of stages in place of frames."""
  n, inputs = network.num_nodes, {}
  if network.num_times and stored:
    shapes, times = stage_shapes(size, network.width), stage_times(network)
    inputs["stages"] = {
      name: jax.ShapeDtypeStruct((batch, n, t, *shapes[name]), jnp.float32) for name, t in times.items()
    }
  elif network.num_times:
    inputs["frames"] = jax.ShapeDtypeStruct((batch, n, network.num_times, size, size, 3), jnp.float32)
  if network.hears:
    inputs["sound"] = jax.ShapeDtypeStruct((batch, n, *_SOUND_SHAPE), jnp.float32)
  if network.num_times and network.hears:
    inputs["switch"] = jax.ShapeDtypeStruct((batch, n), jnp.float32)
  return inputs


def stage_times(network: nn.Module) -> dict[str, int]:
  """Of how many of a fragment's frames a network reads each stage: only motion needs more than the middle one."""
  return {name: network.num_times if name == "f5" else 1 for name in network.needed}


@functools.cache
def expected_variables(network: nn.Module, size: int, stored: bool = False) -> Any:
  """Shapes of a network's variables; `stored`: without the visual backbone."""
  return jax.eval_shape(lambda inputs: _init(network, inputs, stored, size), example_inputs(network, size, 1, stored))


def initialise(network: nn.Module, size: int, key: jax.Array, stored: bool = False) -> dict[str, Any]:
  """Random variables of a network; `stored`: without the visual backbone."""
  # Compiles the draw of each shape once in a process, where one program for all of a network takes half a minute.
  inputs, fixed = example_inputs(network, size, 1, stored), _fixed(network, stored, size)
  return dict(network.lazy_init(key, **inputs, **fixed))


def _fixed(network: nn.Module, stored: bool, size: int) -> dict[str, Any]:
  """What a student must be told beside its inputs where it does not see the frames."""
  return {"size": (size, size)} if stored and isinstance(network, Student) else {}


def _init(network: nn.Module, inputs: dict[str, Any], stored: bool, size: int) -> Any:
  return network.init(jax.random.key(0), **inputs, **_fixed(network, stored, size))


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
  if is_frozen(config):
    visual = load_visual(config, folder / VISUAL)
    variables = {name: with_visual(found, visual) for name, found in variables.items()}
  companions = store.read(folder / COMPANIONS) if set(names) & set(PLUS) else {}
  return Model(config, categories, rate, side, trained_on, variables, sha256, companions)


def load_network(name: str, config: Config, num_categories: int, path: Path) -> dict[str, Any]:
  """Variables of a network as it was trained: without the visual backbone where that is frozen.

  Raises:
    WeightsError: one line that names the file.
  """
  network, size = make_network(name, config, num_categories), training_of(name, config).size
  return store.load(path, expected_variables(network, size, is_frozen(config)))


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


def _dtype(name: str) -> Any:
  if name == "auto":
    return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
  return jnp.dtype(name)
