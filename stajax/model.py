"""A trained model: the folder that holds it, and its networks as modules and variables."""

import dataclasses
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

import stajax
from stajax.data.frame_sides import decode_ratio, scaled_side
from stajax.files import FileError, atomic_folder, read_bytes, write_text
from stajax.files.manifest import check_digest, digests, read_manifest, write_manifest
from stajax.maps.confidence import Confidence
from stajax.networks import (
  GRANULAR,
  SWITCH,
  expected_variables,
  make_backbone,
  make_network,
  predicting_networks,
  training_of,
)
from stajax.weights import store

if TYPE_CHECKING:  # loaded late: pydantic would take a tenth of prediction's start-up
  from stajax.config import Config

FORMAT, FORMER_FORMAT, UNSEALED_FORMAT = 4, 3, 2
"""The format; that in which an audio switch decided by other rules; and one that has the SHA-256 of networks only."""
MAX_RATE, MAX_SIDE = 1000, 8192
"""The highest rate of a grid, in frames a second, and the largest side of stored frames, in pixels."""
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
    side: The side of the frames that it was trained on as they are stored, in pixels.
    trained_on: What it was trained on, `synthetic` for the embedded clips.
    variables: The variables of its networks, by name.
    sha256: The SHA-256 of each network's weights.
    companions: Fragments of training clips for the networks with cross-clip companions, P for every category: "NETWORK"
      (c, P, h, w, c) float16; "sa_plus_cross/heard", with the audio switch at 1; "clips" (c, P) int32, the number of
      each one's clip, -1 where there are fewer than P.
    confidence: What maps as the model is configured gain over the centre prior; None where no clip was left out.
    calibration: The largest inputs of convolutions on embedded clips, by the network and the path in it, such as
      "sta/visual/conv1_1/conv"; empty where `stajax.predict.calibrate` has not found them.
    precision: The type that convolutions compute in, where it is not that of the configuration; with `int8` the
      variables are those of networks whose encoders of frames compute in 8-bit integers.
  """

  config: "Config"
  categories: tuple[str, ...]
  rate: float
  side: int
  trained_on: str
  variables: dict[str, dict[str, Any]]
  sha256: dict[str, str]
  companions: dict[str, np.ndarray]
  confidence: Confidence | None = None
  calibration: Mapping[str, float] = dataclasses.field(default_factory=dict)
  precision: str | None = None

  def side_of_frames(self, names: Sequence[str]) -> int:
    """Returns the side of the square frames that networks by these names take: as training decodes stored ones."""
    size = max(training_of(name, self.config).size for name in names)
    return scaled_side(self.side, decode_ratio(self.side, size))

  @property
  def is_int8(self) -> bool:
    """Whether frames are encoded in 8-bit integers."""
    return self.precision == "int8"


def load(folder: str | Path, names: Sequence[str] | Callable[["Config"], Sequence[str]] = predicting_networks) -> Model:
  """Reads networks from a model folder, or from the work folder that contains it.

  Args:
    folder: The folder.
    names: The names of the networks, or a function of the model's configuration that returns them.

  Raises:
    ModelError, ConfigError, WeightsError: The model cannot be used; one line that names the file.
  """
  folder = _model_folder(Path(folder))
  about, files = _read_description(folder)
  config = _read_config(folder / "config.json", files.get("config.json"))
  num_categories, names = len(about["categories"]), names(config) if callable(names) else names

  def read(file: str, shapes: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    # The networks fitted when the folder was written. Where the SHA-256 of its configuration and of the file say that
    # both are as they were, that is not found out again: it would take a fifth of the time to the first map.
    is_vouched_for = {"config.json", file} <= files.keys()
    return store.load(folder / file, None if is_vouched_for else shapes(), files.get(file))

  def shapes_of(name: str) -> Mapping[str, Any]:
    return network_shapes(name, config, num_categories)

  variables = {name: read(f"{name}.safetensors", partial(shapes_of, name)) for name in names}
  if config.has_frozen_backbone:
    visual = jax.device_put(read(VISUAL, lambda: {"params": visual_shapes(config)})["params"]["visual"])
    variables = {name: with_visual(own, visual) for name, own in variables.items()}
  companions = store.read(folder / COMPANIONS, files.get(COMPANIONS)) if set(names) & set(GRANULAR) else {}
  return Model(config=config, variables=variables, companions=companions, **about)


def _model_folder(folder: Path) -> Path:
  """Returns a model folder, also of the work folder that contains it."""
  return folder / "model" if (folder / "model" / "model.json").is_file() else folder


def _read_description(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
  """Returns the fields of `Model` that `model.json` has, and the SHA-256 of the folder's files by their names."""
  path = folder / "model.json"
  if not path.exists():
    raise ModelError(f"{folder}: not a model (expected model.json in it, or in its folder `model`)")
  try:
    about, files = read_manifest(path)
  except FileError as error:
    raise ModelError(str(error)) from None
  found, readable = about.get("format"), (FORMAT, FORMER_FORMAT) if files else (UNSEALED_FORMAT,)
  if found not in readable:
    raise ModelError(f"{path}: format {found!r}, this version reads {FORMAT}, {FORMER_FORMAT} and {UNSEALED_FORMAT}")
  try:
    categories, sha256 = tuple(map(str, about["categories"])), dict(about["sha256"])
    rate, side, trained_on = float(about["rate"]), int(about["side"]), str(about["trained_on"])
    confidence = Confidence(**about["confidence"]) if about.get("confidence") else None
    calibration = {str(name): float(x) for name, x in about.get("calibration", {}).items()}
    if not all(0 <= x < math.inf for x in calibration.values()):
      raise ValueError("calibration has a value that is negative or not finite")
    if not (0 < rate <= MAX_RATE and 0 < side <= MAX_SIDE):
      raise ValueError(f"rate {rate:g}, side {side}, expected positive numbers up to {MAX_RATE} and {MAX_SIDE}")
  except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
    raise ModelError(f"{path}: not a model description ({type(error).__name__}: {error})") from None
  if found != FORMAT and SWITCH in sha256:
    raise ModelError(f"{path}: format {found}, whose audio switch decided by other rules; train the model again")
  about = {"categories": categories, "rate": rate, "side": side, "trained_on": trained_on, "sha256": sha256}
  about |= {"confidence": confidence, "calibration": calibration}
  return about, files or {f"{name}.safetensors": digest for name, digest in sha256.items()}


def _read_config(path: Path, sha256: str | None = None) -> "Config":
  from stajax import config as configuration  # late, see above

  try:
    content = read_bytes(path)
    if sha256 is not None:
      check_digest(path, sha256, content)
    return configuration.loads(content.decode(), str(path))
  except OSError as error:
    raise ModelError(f"{path}: {error.strerror}") from None
  except FileError as error:
    raise ModelError(str(error)) from None
  except UnicodeDecodeError as error:
    raise ModelError(f"{path}: not text ({error})") from None


def save_half(source: Path, folder: Path, confidence: Path | None = None) -> int:
  """Writes a model folder to give away: its weights have half the precision, and so half the size.

  `stajax.weights.store.load` widens them again. Of files that the configuration names only the names are kept.

  Args:
    source: A model folder, or the work folder that contains it.
    folder: The folder to write.
    confidence: A model whose `confidence` is taken over; None to keep the model's own.

  Returns:
    The size of its files in bytes.

  Raises:
    ModelError, WeightsError: The model cannot be read, or a weight is too large for float16.
  """
  source = _model_folder(source)
  _, files = _read_description(source)
  about, _ = read_manifest(source / "model.json")
  if confidence is not None:
    measured = _read_description(_model_folder(confidence))[0]["confidence"]
    if measured is None:
      raise ModelError(f"{confidence}: left no clip out, so nothing is known of how far its maps can be trusted")
    about["confidence"] = dataclasses.asdict(measured)
  with atomic_folder(folder) as partial:
    for path in sorted(source.glob("*.safetensors")):
      halves = {name: _halve(path, name, x) for name, x in store.read(path, files.get(path.name)).items()}
      sha256 = store.save(partial / path.name, store.unflatten(halves))
      if path.stem in about["sha256"]:
        about["sha256"][path.stem] = sha256
    config = _without_folders(_read_config(source / "config.json", files.get("config.json")))
    _finish(partial, config, about)
  return sum(path.stat().st_size for path in folder.iterdir())


def save_calibrated(source: Path, folder: Path, calibration: Mapping[str, float]) -> None:
  """Writes a model folder with what int8 needs, see `Model.calibration`, and all else as it was.

  Args:
    source: A model folder that `load` has read, or the work folder that contains it.
    folder: The folder to write.
    calibration: The largest inputs.

  Raises:
    ModelError: The model cannot be read.
  """
  source = _model_folder(source)
  _, files = _read_description(source)
  about, _ = read_manifest(source / "model.json")
  with atomic_folder(folder) as partial:
    for path in sorted(source.glob("*.safetensors")):
      shutil.copyfile(path, partial / path.name)
    config = _read_config(source / "config.json", files.get("config.json"))
    _finish(partial, config, {**about, "calibration": dict(calibration)})


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


def load_network(
  name: str, config: "Config", num_categories: int, path: Path, sha256: str | None = None
) -> dict[str, Any]:
  """Reads the variables of a network as it was trained: without the visual backbone where that is frozen.

  Args:
    name: The network's name.
    config: The configuration of its training.
    num_categories: The number of tags.
    path: The file.
    sha256: The SHA-256 that it must have; None for any.

  Raises:
    WeightsError: The file cannot be used; one line that names it.
  """
  return store.load(path, network_shapes(name, config, num_categories), sha256)


def network_shapes(name: str, config: "Config", num_categories: int) -> Mapping[str, Any]:
  """Returns the shapes of the variables that `load_network` reads."""
  network, size = make_network(name, config, num_categories), training_of(name, config).size
  return expected_variables(network, size, config.has_frozen_backbone)


def load_visual(config: "Config", path: Path, sha256: str | None = None) -> Any:
  """Reads the parameters of the frozen visual backbone onto the device.

  Args:
    config: The configuration of the training.
    path: The file.
    sha256: The SHA-256 that it must have; None for any.

  Raises:
    WeightsError: The file cannot be used; one line that names it.
  """
  return jax.device_put(store.load(path, {"params": visual_shapes(config)}, sha256)["params"]["visual"])


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
    **about: `categories`, `rate`, `side`, `trained_on` and `sha256` of `Model`, the fields of `confidence` where there
      is one, and provenance.
  """
  with atomic_folder(folder) as partial:
    for name, path in files.items():
      shutil.copyfile(path, partial / f"{name}.safetensors")
    store.save(partial / COMPANIONS, companions)
    _finish(partial, config, {"stajax": stajax.__version__, **about})


def _finish(folder: Path, config: "Config", about: Mapping[str, Any]) -> None:
  """Writes the configuration of a model folder and, last, `model.json` with the SHA-256 of all files."""
  from stajax import config as configuration  # late, see above

  write_text(folder / "config.json", configuration.dumps(config))
  write_manifest(folder / "model.json", {**about, "format": FORMAT}, digests(folder, sorted(folder.iterdir())))
