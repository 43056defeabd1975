"""The typed, frozen configuration of an experiment. Its file is a Python file that assigns `config = Config(...)`.

The commands, the stages and `stajax.networks` take these objects; all modules below them take plain arguments.
"""

import json
import re
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pydantic
from pydantic import Field, NonNegativeFloat

from stajax import hints

# Bounds far beyond what anybody trains, so that a slip such as 1e12 is said. Sides are pixels, factors of channels.
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(gt=0, le=10**9)]
Batch = Annotated[int, Field(gt=0, le=2**16)]
Side = Annotated[int, Field(ge=8, le=4096)]
Depth = Annotated[int, Field(gt=0, le=64)]
Factor = Annotated[float, Field(gt=0, le=8)]


class ConfigError(ValueError):
  """Says on one line why a configuration cannot be used: the file or field, and what was expected."""


class _Frozen(pydantic.BaseModel):
  model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Synthetic(_Frozen):
  """The embedded clips."""

  clips: Count = 400
  """How many clips the training part has."""
  held_out: Count = 60
  """How many clips the held-out part has, which come with viewers."""
  size: Annotated[int, Field(ge=16, le=4096)] = 128
  """The side of a rendered frame in pixels."""
  seconds: Annotated[float, Field(gt=0, le=3600)] = 3.0
  """The length of a clip."""
  seed: Seed = 0


class Data(_Frozen):
  """What the networks learn from."""

  source: Literal["synthetic", "records"] = "records"
  """`synthetic` renders clips into the work folder; `records` reads a prepared folder."""
  path: str | None = None
  """The prepared folder, for `records`."""
  rate: Annotated[float, Field(gt=0, le=1000)] = 8.0
  """The rate of the frame grid, in frames a second."""
  expected_categories: Annotated[int, Field(ge=1, le=100_000)] = 28
  """How many categories `stajax plan` counts with while the prepared data is not at hand; 28 are AVE's."""
  damaged: Literal["fatal", "skip"] = "fatal"
  """If a shard cannot be read, `fatal` stops training; `skip` reads all at the start and leaves out such clips."""
  balanced: bool = False
  """Whether networks that learn tags draw every tag as often as any other, however many clips it has. A clip with
  several tags counts for the rarest. Students learn from all frames evenly."""
  left_out: float = Field(default=0.0, ge=0, lt=1)
  """The share of every tag's clips that no network learns from, so that settings can be chosen by them: `done.json` of
  each stage says how its network does on them. Once they are chosen, 0 learns from all clips."""
  synthetic: Synthetic = Synthetic()


class Network(_Frozen):
  """Sizes common to all networks; the defaults are the paper's."""

  backbone: Literal["trained", "frozen"] = "trained"
  """`trained`: every network trains a visual backbone of its own. `frozen`: all share the visual backbone of `init`,
  whose features of every frame are computed once and stored (`features`), so that a CPU can train the rest."""
  encoder: Literal["vgg16", "efficientnet_lite0"] = "vgg16"
  """The visual backbone. `efficientnet_lite0` is small and fast, in its published form only, for `frozen`."""
  width: Factor = 1.0
  """A factor of the channels of VGG-16 and the neck."""
  norm: Literal["none", "group", "batch"] = "none"
  """`none` fits the ImageNet weights; a visual network that is trained from scratch needs one of the other two."""
  head_norm: Literal["none", "group", "batch"] | None = None
  """The normalisation of the convolutions after the backbone, in neck and decoder; by default that of `norm`.
  Pretrained features may have any scale; with a normalisation, new convolutions adapt to it faster."""
  depths: tuple[Depth, Depth, Depth, Depth, Depth] = (2, 2, 3, 3, 3)
  """The number of convolutions in each of VGG-16's stages. Small frames need fewer: with all of them, each cell would
  see the whole frame."""
  neck_depth: Annotated[int, Field(ge=0, le=64)] = 3
  """The number of 3×3 convolutions in the neck."""
  neck_width: Factor = 1.0
  """A further factor of the channels of the neck."""
  audio_encoder: Literal["resnet18", "yamnet"] = "resnet18"
  """The audio backbone. `yamnet` has heard AudioSet: it needs `init`, and the next three fields do not concern it."""
  audio_width: Factor = 1.0
  """A factor of the channels of ResNet-18."""
  audio_norm: Literal["group", "batch"] = "batch"
  audio_pooling: Literal["average", "netvlad"] = "netvlad"
  reasoning_steps: Depth = 3
  """The number of steps of the C-GCN, m in the paper."""
  discard_threshold: float = Field(default=0.8, ge=0, le=1)
  """T_d of the fixation refine layer (Eq. 9): responses below this part of the largest one are redundant."""
  refinement_rate: float = Field(default=0.6, ge=0, le=1)
  """T_r of the fixation refine layer (Eq. 10): how much of what is redundant is kept."""
  fine_read_out: bool = False
  """Whether STA+ starts from all of STA and keeps its decoder, which reads finer features, in place of Eq. 15."""
  begin_with_sound: bool = False
  """Whether a student's 1×1 convolution begins as the difference of the gated copies of Eq. 11: what sound adds."""
  attention_block: Batch = 256
  """The positions whose attention the C-GCN computes at a time: its memory grows with this times h·w."""
  dtype: Literal["auto", "float32", "bfloat16"] = "auto"
  """The type in which convolutions compute; `auto` is bfloat16 on accelerators and float32 on CPU."""


class Features(_Frozen):
  """The features of a frozen backbone, as they are stored."""

  views: Annotated[int, Field(ge=1, le=1000)] = 2
  """The number of augmentations of every frame, in place of those of each network: the whole frame, and then crops,
  which are others for each clip, every second of which, from the first on, is mirrored."""
  min_scale: float = Field(default=0.7, gt=0, le=1)
  """The smallest side of such a crop, as a part of the frame's; 1 for whole frames."""
  max_scale: float = Field(default=1.0, ge=1, le=2)
  """The largest side. More than 1 shows the frame smaller, mirrored beyond its border."""
  dtype: Literal["float32", "bfloat16", "packed"] = "bfloat16"
  """`bfloat16` rounds stored features by up to 0.4%. `packed` takes a tenth of its space and keeps 99% of their
  variance: the roots of what is not 0, in 16 levels, compressed."""


class Optimizer(_Frozen):
  """How a network's parameters are updated."""

  name: Literal["sgd", "adam"] = "sgd"
  """`sgd` has Nesterov momentum; `adam` decays weights independently of the gradient."""
  learning_rate: Annotated[float, Field(gt=0)] = 1e-3
  momentum: NonNegativeFloat = 0.9
  weight_decay: NonNegativeFloat = 1e-4
  multipliers: tuple[float, float, float, float] = (1.0, 2.0, 10.0, 20.0)
  """Factors of the learning rate for backbone weights, backbone biases, new weights and new biases."""
  warmup: Annotated[int, Field(ge=0, le=10**9)] = 0
  """The number of steps over which the learning rate grows from 0."""
  schedule: Literal["constant", "cosine"] = "constant"


class Training(_Frozen):
  """How a network is trained."""

  steps: Count = 30_000
  batch: Batch = 20
  size: Side = 256
  """The side of the network's input in pixels."""
  min_scale: float = Field(default=1.0, gt=0, le=1)
  """The smallest side of a random crop, as a part of the frame's; 1 for whole frames."""
  flip: bool = True
  """Whether half of the examples are mirrored."""
  mixed: float = Field(default=0.0, ge=0, le=1)
  """The share of the examples that are made of two. A network that sees gets halves of two pictures, with the sound of
  one: where it hears that, only the tags and the pseudo-fixations of that half count, else those of both. The audio
  switch, where a published tagger teaches, gets a picture with the sound of another clip."""
  optimizer: Optimizer = Optimizer()
  start: tuple[str, ...] = ()
  """Finished networks that this one starts from: the first that has a parameter of the same name and shape gives it."""
  frozen: tuple[str, ...] = ()
  """Top-level parts that are not trained, such as `visual`."""


class Maps(_Frozen):
  """How class maps become pseudo-fixations, and how the students' maps become final ones."""

  reach: Annotated[int, Field(ge=0, le=10_000)] = 2
  """Coarse maps and pseudo-fixations are means over this many frames on either side."""
  box_threshold: NonNegativeFloat = 2.0
  """A fine crop contains the pixels above this many times the coarse map's mean."""
  threshold: NonNegativeFloat = 3.0
  """Values of a pseudo-fixation below this many times its mean become 0."""
  size: Side = 356
  """The side of pseudo-fixations and of all maps that are made from tags. The protocol blurs a map at its own size, so
  maps that are scored should have the students' size, as by default. Smaller ones take less room."""
  blur: Annotated[float, Field(ge=0, le=1)] = 0.0
  """The standard deviation of a Gaussian that smooths the students' maps, as a part of the frame's width and height; 0
  for none. Students that learned from few clips are too sure of single spots."""
  time_blur: Annotated[float, Field(ge=0, le=60)] = 0.0
  """The standard deviation, in seconds, of a Gaussian in time that smooths the final maps; 0 for none."""
  centre: bool = False
  """Whether a Gaussian at the centre, 0.2 of the frame wide and high, multiplies the students' maps. It is not learned:
  it stands for people's tendency to look at the middle, which no tag reveals."""


class Hearing(_Frozen):
  """The tagger that says where a clip's sound matches its tag; the audio switch learns this."""

  kind: Literal["trained", "vggsound", "yamnet"] = "trained"
  """`trained`: three taggers that are trained here, each leaving out a different third of the clips. `vggsound`:
  VGGSound's own network, which knows 309 classes. `yamnet`: YAMNet, which knows AudioSet's 521 classes; `stajax prepare
  … --tagger FILE` stores what it hears."""
  weights: str | None = None
  """The checkpoint of `vggsound`, as it is published or as `stajax weights convert` wrote it."""
  classes: str | None = None
  """The file stat.csv of `vggsound`, which lists its classes; it is not needed where they are the data's categories."""
  teaches: bool = False
  """Whether a published tagger also teaches a network that only hears, `tagger_0`, which tags it hears in each second,
  so that other networks can start from it: their map of the sound then stands for tags from the beginning."""
  mapping: str | None = None
  """A table of tags and the tagger's classes; by default `tags.csv` in the work folder, which joins equal names."""


class Students(_Frozen):
  """Which students are trained, and how."""

  learn_from: Literal["scam", "scam_plus", "teacher"] = "scam_plus"
  """`scam_plus`: STANet+, whose three students learn from SCAM+. `scam`: STANet, the conference version, whose one
  student STA learns from SCAM, of the three fine sources alone; no networks with companions are trained. `teacher`:
  one small STA learns what a finished model predicts; no classifier is trained but those that `sta` starts from."""
  teacher: str | None = None
  """The model that is learned from with `teacher`: a model folder, or the work folder of its training."""
  backbone: Literal["separate", "shared"] = "separate"
  """`separate`: each student is trained by itself. `shared`: all are trained together, as one network with one visual
  backbone and neck and one audio backbone, so that a final map costs one pass of a frame through VGG-16 instead of
  three. The field `sta` says how; `sta_plus` is not used. The loss is the sum of the three students' losses, on groups
  of the target and both kinds of companions: 15 frames an example, each of which is encoded once, where STA and the two
  STA+ have 3, 9 and 9. The gradient of the shared parts is a sum of three, so with `sgd` they move up to three times as
  far in a step as those of one network at the same rate."""


def _fine(**changes: Any) -> Training:
  return Training(size=356, batch=3, steps=150_000, **changes)


def _plus(branch: str) -> Training:
  return Training(batch=16, start=(branch,))


def _student(**changes: Any) -> Training:
  return _fine(optimizer=Optimizer(learning_rate=5e-5), **changes)


Part = Literal["visual", "sound"]
"""A backbone that several networks have: the visual one in all that see, the audio one in all that hear."""
RANDOM = "random"
"""Stands for a file in `init`: the part begins with random numbers, and the user insists on it."""


class Config(_Frozen):
  """An experiment. A field that is a `Training` has the name of its network."""

  name: str
  seed: Seed = 0
  data: Data = Data()
  network: Network = Network()
  features: Features = Features()
  init: dict[Part, str] = {}
  """Files of trained weights that parts of the networks start from; `stajax weights convert` wrote or can read them.
  `random` in place of a file insists on random numbers."""
  s_coarse: Training = Training()
  st_coarse: Training = Training()
  hearing: Hearing = Hearing()
  tagger: Training = Training()
  """For each of three taggers, which only hear; each leaves out a different third of the clips. Where
  `hearing.teaches`, for one that learns from all clips."""
  switch: Training = Training()
  heard_share: Annotated[float, Field(gt=0, le=1)] = 1.0
  """The switch's label is 1 where the tagger's confidence in the clip's tag is at least this part of its highest
  confidence. 1 is the paper's: the tag must be the top one. A smaller value suits tags that sound alike, among
  which the tagger can only guess."""
  sa_coarse: Training = Training()
  s: Training = _fine(start=("s_coarse",))
  st: Training = _fine(start=("st_coarse",))
  sa: Training = _fine(start=("sa_coarse",))
  s_plus: Training = _plus("s_coarse")
  """For each of short, long and cross companions, like the next two fields (SA+ has no short ones)."""
  st_plus: Training = _plus("st_coarse")
  sa_plus: Training = _plus("sa_coarse")
  plus_crops: bool = False
  """Whether these three see the fine crops, as the fine networks do, instead of whole frames."""
  students: Students = Students()
  sta: Training = _student()
  """For the student STA; where `students.backbone` is shared, for all three students together."""
  sta_plus: Training = _student(start=("sta",))
  """For each of short and long companions."""
  maps: Maps = Maps()
  checkpoint_every: Count = 1000
  """The number of steps between checkpoints."""
  log_every: Count = 20
  """The number of steps between lines of the log."""
  inference_batch: Batch = 32
  """The number of frames that dense inference encodes at a time."""
  score_stride: Count = 1
  """The report scores every n-th frame of videos with viewers."""
  score_data: tuple[str, ...] = ()
  """Eye-tracking sets that the report scores the model on, each as stavis:ROOT, a tree in the STAViS layout. No network
  learns from them. This field and `score_stride` may change in a finished run: its report is then written again."""

  @property
  def has_frozen_backbone(self) -> bool:
    """Whether all networks share one visual backbone that is not trained."""
    return self.network.backbone == "frozen"

  @property
  def shares_students(self) -> bool:
    """Whether the three students share backbones and neck and are trained as one network."""
    return self.students.backbone == "shared"

  @property
  def is_stanet(self) -> bool:
    """Whether this is STANet, whose one student learns from SCAM, instead of STANet+."""
    return self.students.learn_from == "scam"

  @property
  def is_distilled(self) -> bool:
    """Whether the only student learns what a finished model predicts, instead of pseudo-fixations from tags."""
    return self.students.learn_from == "teacher"

  @property
  def init_files(self) -> dict[Part, str]:
    """The files of `init`, without the parts that begin with random numbers."""
    return {part: file for part, file in self.init.items() if file != RANDOM}


def load(path: str | Path) -> Config:
  """Reads a configuration file.

  Raises:
    ConfigError: There is no such Python file, or no `config` in it, or a field is unknown or has a wrong type.
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


def with_files(config: Config, files: Sequence[str]) -> Config:
  """Returns the configuration with files `NAME=FILE` added to its field `init`.

  Raises:
    ConfigError: An entry has another form or name.
  """
  init = dict(config.init)
  for text in files:
    part, _, file = text.partition("=")
    if part not in ("visual", "sound") or not file:
      raise ConfigError(f"--init {text}: expected NAME=FILE with one of the names {', '.join(get_args(Part))}")
    init[part] = file
  return config.model_copy(update={"init": init})


def dumps(config: Config) -> str:
  """Returns the configuration as JSON, for `loads`."""
  return config.model_dump_json(indent=2) + "\n"


def loads(text: str, name: str) -> Config:
  """Reads what `dumps` wrote; nothing in it is executed.

  Raises:
    ConfigError: The text, called `name` in the message, is not a configuration.
  """
  try:
    return Config.model_validate_json(text)
  except pydantic.ValidationError as error:
    raise ConfigError(f"{name}: {explain(error)}") from None


def differences(old: Config, new: Config) -> list[str]:
  """Returns the fields in which two configurations differ, as `field: old → new`."""

  def flatten(value: object, prefix: str) -> dict[str, str]:
    if isinstance(value, dict):
      return {k: v for key, inner in value.items() for k, v in flatten(inner, f"{prefix}.{key}").items()}
    return {prefix.removeprefix("."): json.dumps(value)}

  before, after = (flatten(json.loads(dumps(config)), "") for config in (old, new))
  return [f"{key}: {before.get(key)} → {after.get(key)}" for key in before | after if before.get(key) != after.get(key)]


def explain(error: pydantic.ValidationError) -> str:
  """Returns a line for the first fault: the field, what was found, what was expected, and the nearest known field."""
  fault = error.errors()[0]
  field = ".".join(str(part) for part in fault["loc"])
  if fault["type"] != "extra_forbidden":
    # If something is missing or not JSON, the input is everything around it.
    found = "" if fault["type"] in ("missing", "json_invalid") else f"found {fault['input']!r}, expected: "
    like = hints.nearest(str(fault["input"]), re.findall("'(.*?)'", fault["msg"]))  # of the choices, if there are any
    return f"{field}: {found}{fault['msg']}{like}".removeprefix(": ")
  return hints.unknown("field", field, _fields(error.title, fault["loc"][:-1]), cutoff=0.0)


def _fields(model_name: str, location: Sequence[object]) -> list[str]:
  """Returns the field names of the model that was being validated, at a location inside it."""
  model: Any = next(m for m in _Frozen.__subclasses__() if m.__name__ == model_name)
  for part in location:
    model = model.model_fields[str(part)].annotation
  return list(model.model_fields)
