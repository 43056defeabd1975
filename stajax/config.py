"""The typed, frozen configuration; a configuration file is a Python file that assigns `config = Config(...)`.

Modules never take these objects, only plain arguments: this is for the commands and the stage graph.
"""

import dataclasses
import difflib
import json
import runpy
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import pydantic
import tyro
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from stajax import cli


class ConfigError(ValueError):
  """A configuration that cannot be used; one line that names the file or field and what was expected."""


class _Frozen(pydantic.BaseModel):
  model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Synthetic(_Frozen):
  """The embedded clips."""

  clips: PositiveInt = 400
  """Clips of the training part."""
  held_out: PositiveInt = 60
  """Clips of the held-out part, which have viewers."""
  size: PositiveInt = 128
  """Side of a rendered frame in pixels."""
  seconds: PositiveFloat = 3.0
  seed: NonNegativeInt = 0


class Data(_Frozen):
  """What is learned from."""

  source: Literal["synthetic", "records"] = "records"
  """`synthetic` renders clips into the work folder; `records` reads a prepared folder."""
  path: str | None = None
  """The prepared folder of `records`."""
  rate: PositiveFloat = 8.0
  """Frames a second of the grid."""
  damaged: Literal["fatal", "skip"] = "fatal"
  """A shard that cannot be read: `fatal` stops when it is read; `skip` reads all at the start and leaves clips out."""
  left_out: float = Field(default=0.0, ge=0, lt=1)
  """Part of every tag's clips that no network learns from, to choose settings by: `done.json` of each stage says how
  its network does on them. Then learn from all clips with what was chosen."""
  synthetic: Synthetic = Synthetic()


class Network(_Frozen):
  """Sizes common to all networks; the defaults are the paper's."""

  backbone: Literal["trained", "frozen"] = "trained"
  """`frozen`: all networks share the visual backbone of `init`, whose features of every frame are computed once and
  stored (`features`), so that a machine without an accelerator can train what comes after it."""
  width: PositiveFloat = 1.0
  """Multiplies the channels of VGG-16 and the neck."""
  norm: Literal["none", "group", "batch"] = "none"
  """`none` fits the ImageNet weights; from scratch a network needs one of the others."""
  head_norm: Literal["none", "group", "batch"] | None = None
  """Of the convolutions after the backbone, in neck and decoder; by default as `norm`. Pretrained features are of any
  scale, to which new convolutions get used faster with one."""
  depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (2, 2, 3, 3, 3)
  """Convolutions in each of VGG-16's stages; fewer for small frames, of which a cell would see everything."""
  neck_depth: NonNegativeInt = 3
  """3×3 convolutions of the neck."""
  neck_width: PositiveFloat = 1.0
  """Multiplies the channels of the neck once more."""
  audio_width: PositiveFloat = 1.0
  audio_norm: Literal["group", "batch"] = "batch"
  audio_pooling: Literal["average", "netvlad"] = "netvlad"
  reasoning_steps: PositiveInt = 3
  """m, steps of the C-GCN."""
  attention_block: PositiveInt = 256
  """Positions whose attention the C-GCN computes at a time: its memory grows with this times h·w."""
  dtype: Literal["auto", "float32", "bfloat16"] = "auto"
  """Of convolutions; `auto` is bfloat16 on accelerators and float32 on CPU."""


class Features(_Frozen):
  """What is stored of a frozen backbone."""

  views: PositiveInt = 2
  """Augmentations of every frame, in place of each network's own: whole, mirrored, and then crops."""
  min_scale: float = Field(default=0.7, gt=0, le=1)
  """Smallest side of such a crop."""
  dtype: Literal["float32", "bfloat16"] = "bfloat16"
  """bfloat16 takes half the space; it rounds features by up to 0.4%."""


class Optimizer(_Frozen):
  """How a network's parameters are moved."""

  name: Literal["sgd", "adam"] = "sgd"
  """`sgd` has Nesterov momentum; `adam` decays weights apart from the gradient."""
  learning_rate: PositiveFloat = 1e-3
  momentum: NonNegativeFloat = 0.9
  weight_decay: NonNegativeFloat = 1e-4
  multipliers: tuple[float, float, float, float] = (1.0, 2.0, 10.0, 20.0)
  """Of the learning rate: backbone weights, backbone biases, new weights, new biases."""
  warmup: NonNegativeInt = 0
  """Steps over which the learning rate grows from 0."""
  schedule: Literal["constant", "cosine"] = "constant"


class Training(_Frozen):
  """One network's training."""

  steps: PositiveInt = 30_000
  batch: PositiveInt = 20
  size: PositiveInt = 256
  """Side of the network's input in pixels."""
  min_scale: float = Field(default=1.0, gt=0, le=1)
  """Smallest side of a random crop; 1 shows whole frames."""
  flip: bool = True
  optimizer: Optimizer = Optimizer()
  start: tuple[str, ...] = ()
  """Finished networks that this one starts from, where names and shapes are the same; the first that has one counts."""
  frozen: tuple[str, ...] = ()
  """Top-level parts that are not trained, such as `visual`."""


class Maps(_Frozen):
  """From class maps to pseudo-fixations (DESIGN: from class maps to pseudo-fixations)."""

  reach: NonNegativeInt = 2
  """Coarse maps and pseudo-fixations are means over this many frames to either side."""
  box_threshold: NonNegativeFloat = 2.0
  """Fine crops hold the pixels over this many times the coarse map's mean."""
  threshold: NonNegativeFloat = 3.0
  """Pseudo-fixations under this many times a map's mean become 0."""
  size: PositiveInt = 128
  """Side of the stored maps."""
  blur: NonNegativeFloat = 0.0
  """Standard deviation of a Gaussian that smooths what the students predict, as a part of the frame's width and height;
  0 for none. Students that learned from few clips are surer of single spots than they should be."""
  time_blur: NonNegativeFloat = 0.0
  """Standard deviation, in seconds, of a Gaussian in time that smooths the final maps; 0 for none. People's gaze is
  steadier than what is predicted of each frame by itself."""
  centre: bool = False
  """Whether a Gaussian at the centre, 0.2 of the frame wide and high, multiplies what the students predict. It is not
  learned: it says that people look at the middle more often, which no tag tells."""


class Hearing(_Frozen):
  """Which tagger says where the sound is of a clip's tag: the labels that the audio switch learns from."""

  kind: Literal["trained", "vggsound", "yamnet"] = "trained"
  """`trained`: taggers that are trained here, each without a third of the clips. `vggsound`: VGGSound's own network, of
  309 classes. `yamnet`: YAMNet, of AudioSet's 521 classes; `stajax prepare … --tagger FILE` stores what it hears."""
  weights: str | None = None
  """Of `vggsound`: its checkpoint, as published or as `stajax weights convert` wrote it."""
  classes: str | None = None
  """Of `vggsound`: its stat.csv, which lists the classes; not needed where they are the data's own categories."""
  mapping: str | None = None
  """A table of tags and the tagger's classes; by default `tags.csv` in the work folder, which is made by name."""


class Students(_Frozen):
  """How the three students are trained."""

  backbone: Literal["separate", "shared"] = "separate"
  """`separate`: each for itself. `shared`: together, as one network with one visual backbone and neck and one audio
  backbone, so that a final map costs one pass of a frame through VGG-16, not three. The field `sta` says how,
  `sta_plus` is not used. The loss is the sum of the three networks', on groups of the target and both kinds of
  companions: 15 frames an example, each of them encoded once, where STA and the two STA+ have 3, 9 and 9. What they
  share has a gradient that is a sum of three, so with `sgd` it moves up to three times as far in a step as that of one
  network at the same rate."""


def _fine(**changes: Any) -> Training:
  return Training(size=356, batch=3, steps=150_000, **changes)


def _plus(branch: str) -> Training:
  return Training(batch=16, start=(branch,))


def _student(**changes: Any) -> Training:
  return _fine(optimizer=Optimizer(learning_rate=5e-5), **changes)


Part = Literal["visual", "sound"]
"""A backbone that several networks have: VGG-16 of all that see, ResNet-18 of all that hear."""


class Config(_Frozen):
  """One experiment; fields that are a Training are named as their networks (DESIGN: words)."""

  name: str
  seed: NonNegativeInt = 0
  data: Data = Data()
  network: Network = Network()
  features: Features = Features()
  init: Annotated[dict[Part, str], tyro.conf.Fixed] = {}
  """Files of trained weights that parts of the networks begin with: what `stajax weights convert` wrote or can read."""
  s_coarse: Training = Training()
  st_coarse: Training = Training()
  hearing: Hearing = Hearing()
  tagger: Training = Training()
  """Hears only; three of them, each trained without a third of the clips."""
  switch: Training = Training()
  heard_share: Annotated[float, Field(gt=0, le=1)] = 1.0
  """The switch's label is 1 where the tagger's confidence in the clip's tag is at least this part of its highest. 1 is
  the paper's: the tag must be the top one. Less is for tags that sound alike, of which the tagger can but guess one."""
  sa_coarse: Training = Training()
  s: Training = _fine(start=("s_coarse",))
  st: Training = _fine(start=("st_coarse",))
  sa: Training = _fine(start=("sa_coarse",))
  s_plus: Training = _plus("s_coarse")
  """For each of short, long and cross companions; so are the next two (no short for sound)."""
  st_plus: Training = _plus("st_coarse")
  sa_plus: Training = _plus("sa_coarse")
  plus_crops: bool = False
  """Whether these see the fine crops, as the fine stage does, instead of whole frames."""
  students: Students = Students()
  sta: Training = _student()
  """With `students.backbone` shared, for all three students at once."""
  sta_plus: Training = _student(start=("sta",))
  """For each of short and long companions."""
  maps: Maps = Maps()
  checkpoint_every: PositiveInt = 1000
  """Steps between checkpoints."""
  log_every: PositiveInt = 20
  """Steps between lines of the log."""
  inference_batch: PositiveInt = 32
  """Frames that dense inference encodes at a time."""
  score_stride: PositiveInt = 1
  """The report scores every so many frames of the held-out part."""

  @property
  def has_frozen_backbone(self) -> bool:
    """Whether all networks share one visual backbone that is not trained."""
    return self.network.backbone == "frozen"

  @property
  def shares_students(self) -> bool:
    """Whether the three students share backbones and neck and are trained as one network."""
    return self.students.backbone == "shared"


def load(path: str | Path) -> Config:
  """Reads a configuration file.

  Raises:
    ConfigError: no such Python file, no `config` in it, or an unknown or ill-typed field.
  """
  path = Path(path)
  if path.suffix != ".py" or not path.is_file():
    raise ConfigError(f"{path}: no such configuration file; expected a Python file that assigns `config = Config(…)`")
  try:
    config = runpy.run_path(str(path)).get("config")
  except pydantic.ValidationError as error:
    raise ConfigError(f"{path}: {explain(error)}") from None
  except Exception as error:
    raise ConfigError(f"{path}: {type(error).__name__}: {error}") from None
  if not isinstance(config, Config):
    raise ConfigError(f"{path}: found {type(config).__name__} as `config`, expected a stajax.config.Config")
  return config


@dataclasses.dataclass(frozen=True)
class ConfigArguments:
  """The options of a command that takes a configuration; other options are fields of a subclass."""

  config: Path
  """A configuration: a Python file that assigns `config = Config(…)`."""


Arguments = TypeVar("Arguments", bound=ConfigArguments)


def parse(
  program: str, target: type[Arguments], argv: Sequence[str] | None, description: str | None = None
) -> tuple[Arguments, Config]:
  """Reads the arguments of a command, and the configuration that its option `--config` names, with overrides.

  Args:
    program: The command's name, such as `stajax train`.
    target: The command's own options; all others are overrides of the configuration's fields.
    argv: The arguments; None: those of the process.
    description: What `--help` says first; with `--config FILE` it lists the configuration's fields instead.

  Raises:
    ConfigError: The configuration cannot be used, or an override is out of range.
    SystemExit: See `stajax.cli.parse`.
  """
  argv = list(sys.argv[1:] if argv is None else argv)
  has_file = any(argument.partition("=")[0] == "--config" for argument in argv)
  arguments, overrides = cli.parse_known(program, target, argv, description=description, add_help=not has_file)
  names = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(target)]
  return arguments, override(load(arguments.config), overrides, program, names)


def override(
  config: Config, arguments: Sequence[str], program: str = "stajax train", known: Iterable[str] = ()
) -> Config:
  """Applies command-line overrides such as `--sta.steps 100`; a wrong one ends the program with the nearest name.

  `--init NAME=FILE` adds to the field `init`.

  Args:
    config: The configuration to change.
    arguments: The overrides.
    program: The command's name in errors.
    known: Options of the command that are read already, as hints for misspelled ones.

  Raises:
    ConfigError: A value is out of range.
    SystemExit: See `stajax.cli.parse`.
  """
  files, arguments = cli.parse_known(program, _Init, arguments, add_help=False)
  try:
    if files.init:
      config = Config.model_validate({**dict(config), "init": config.init | dict(map(_parse_init, files.init))})
    if not arguments:
      return config
    usage = f"{program} --config FILE"
    return cli.parse(program, Config, arguments, ("--init", *known), usage, default=config)
  except pydantic.ValidationError as error:
    raise ConfigError(explain(error)) from None


@dataclasses.dataclass(frozen=True)
class _Init:
  """The overrides that only name files."""

  init: tyro.conf.UseAppendAction[tuple[str, ...]] = ()


def _parse_init(text: str) -> tuple[str, str]:
  part, _, file = text.partition("=")
  if part not in get_args(Part) or not file:
    raise ConfigError(f"--init {text}: expected NAME=FILE with one of the names {', '.join(get_args(Part))}")
  return part, file


def dumps(config: Config) -> str:
  """The configuration as JSON, for `loads`."""
  return config.model_dump_json(indent=2) + "\n"


def loads(text: str, name: str) -> Config:
  """Reads what `dumps` wrote; nothing in it is executed.

  Raises:
    ConfigError: the text, called `name` in the message, is not a configuration.
  """
  try:
    return Config.model_validate_json(text)
  except pydantic.ValidationError as error:
    raise ConfigError(f"{name}: {explain(error)}") from None


def differences(old: Config, new: Config) -> list[str]:
  """The fields in which two configurations differ, as `field: old → new`."""

  def flatten(value: object, prefix: str) -> dict[str, str]:
    if isinstance(value, dict):
      return {k: v for key, inner in value.items() for k, v in flatten(inner, f"{prefix}.{key}").items()}
    return {prefix.removeprefix("."): json.dumps(value)}

  before, after = (flatten(json.loads(dumps(config)), "") for config in (old, new))
  return [f"{key}: {before.get(key)} → {after.get(key)}" for key in before | after if before.get(key) != after.get(key)]


def explain(error: pydantic.ValidationError) -> str:
  """One line for the first fault: the field, what was found, what was expected, and the nearest known field."""
  fault = error.errors()[0]
  field = ".".join(str(part) for part in fault["loc"])
  if fault["type"] != "extra_forbidden":
    # Of what is missing or not JSON, the input is everything around it.
    found = "" if fault["type"] in ("missing", "json_invalid") else f"found {fault['input']!r}, expected: "
    return f"{field}: {found}{fault['msg']}" if field else f"{found}{fault['msg']}"
  known = _fields(error.title, fault["loc"][:-1])
  nearest = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1, cutoff=0.0)
  hint = f"did you mean `{nearest[0]}`?" if nearest else ""
  return f"unknown field `{field}`; {hint} Known: {', '.join(known)}"


def _fields(model_name: str, location: Sequence[object]) -> list[str]:
  """Returns the field names of the model that was being validated, at a location inside it."""
  model: Any = next(m for m in _Frozen.__subclasses__() if m.__name__ == model_name)
  for part in location:
    model = model.model_fields[str(part)].annotation
  return list(model.model_fields)
