"""The networks of the method: one row for each, and the modules and variables that a row and a configuration make.

A row says everything that differs between networks, so no other module takes a network's name apart. A new network is a
new row in `_ROWS` and, if none of the modules in `stajax.nets` computes it, a module.
"""

# pyright: reportUnknownMemberType=false
# JAX annotates its functions in part.

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp

from stajax.companions import Granularity
from stajax.media.spectrogram import NUM_BINS, WINDOW_COLUMNS
from stajax.nets.base import Backbone, Network, NetworkSizes
from stajax.nets.classifier import Classifier, Source
from stajax.nets.shared_students import Students
from stajax.nets.student import Student
from stajax.nets.tagger import Tagger

if TYPE_CHECKING:  # as in stajax.model
  from stajax.config import Config, Training

Role = Literal["coarse", "tagger", "switch", "fine", "granular", "student", "all students"]
Branch = Literal["s", "st", "sa", "sound", "sta"]

NUM_FOLDS = 3
"""The number of parts of the training clips; the tagger of a part does not learn from it."""


@dataclass(frozen=True)
class NetworkSpec:
  """One network of the method (paper, Fig. 7).

  Attributes:
    name: The network's name, which is also that of its stage and of its weights file.
    role: What the network is for: a source of coarse, fine or granular class maps, a tagger that labels the audio
      switch, the audio switch itself, a student, or all students as one network.
    branch: What the network sees and hears: `s` a frame, `st` three frames, `sa` a frame and its sound, `sound` only
      the sound, `sta` three frames and their sound.
    module: Builds the network's module from the fields of `stajax.nets.base.AudioVisualModule`.
    config_field: The field of the configuration that says how the network is trained.
    companions: Which companions the target of a group has; None where the network sees one fragment alone.
    learns: What the network learns: the clip's tags, whether a tagger hears the tag, or pseudo-fixations.
    crops: Whether the network sees the fine crops instead of whole frames; `configured` leaves that to `plus_crops`.
    refine: Whether the network has a fixation refine layer: never, usually, or only where the ablation asks for it.
    fold: The part of the training clips that a tagger does not learn from.
  """

  name: str
  role: Role
  branch: Branch
  module: Callable[..., Network]
  config_field: str
  companions: Granularity | None = None
  learns: Literal["tags", "tag_heard", "fixations"] = "tags"
  crops: Literal["never", "always", "configured"] = "never"
  refine: Literal["never", "usually", "on request"] = "never"
  fold: int | None = None

  @property
  def sees(self) -> bool:
    """Whether frames are among the network's inputs."""
    return self.branch != "sound"

  @property
  def hears(self) -> bool:
    """Whether sound is among the network's inputs."""
    return self.branch in ("sa", "sound", "sta")

  @property
  def is_switched(self) -> bool:
    """Whether the audio switch decides if the network hears the sound."""
    return self.sees and self.hears and self.role != "switch"

  @property
  def learns_fixations(self) -> bool:
    """Whether the network learns pseudo-fixations; all others learn categories."""
    return self.learns == "fixations"


def _coarse(branch: Source) -> NetworkSpec:
  name, module = f"{branch}_coarse", partial(Classifier, branch)
  return NetworkSpec(name, "coarse", branch, module, name, refine="on request" if branch == "s" else "never")


def _tagger(fold: int) -> NetworkSpec:
  # SA and the switch start from it, and so take over a sound map whose channels stand for categories.
  return NetworkSpec(f"tagger_{fold}", "tagger", "sound", partial(Tagger, has_map=True), "tagger", fold=fold)


def _fine(branch: Source) -> NetworkSpec:
  return NetworkSpec(branch, "fine", branch, partial(Classifier, branch), branch, crops="always")


def _granular(branch: Source, companions: Granularity) -> NetworkSpec:
  field, module = f"{branch}_plus", partial(Classifier, branch, plus=True)
  name = f"{field}_{companions}"
  return NetworkSpec(name, "granular", branch, module, field, companions, crops="configured", refine="usually")


def _student_plus(companions: Granularity) -> NetworkSpec:
  name, module = f"sta_plus_{companions}", partial(Student, plus=True)
  return NetworkSpec(name, "student", "sta", module, "sta_plus", companions, "fixations", refine="usually")


_ROWS = (
  _coarse("s"),
  _coarse("st"),
  _coarse("sa"),
  *(_tagger(fold) for fold in range(NUM_FOLDS)),
  NetworkSpec("switch", "switch", "sa", partial(Classifier, "sa", num_outputs=1), "switch", learns="tag_heard"),
  _fine("s"),
  _fine("st"),
  _fine("sa"),
  _granular("s", "short"),
  _granular("s", "long"),
  _granular("s", "cross"),
  _granular("st", "short"),
  _granular("st", "long"),
  _granular("st", "cross"),
  # SA+ has no short-term companions: its second of sound covers them already.
  _granular("sa", "long"),
  _granular("sa", "cross"),
  NetworkSpec("sta", "student", "sta", Student, "sta", learns="fixations"),
  _student_plus("short"),
  _student_plus("long"),
  NetworkSpec("students", "all students", "sta", Students, "sta", "short_long", "fixations"),
)

NETWORKS = {spec.name: spec for spec in _ROWS}
"""All networks by name. A network's place gives its random numbers, so new ones come last."""


def names_of(*roles: Role) -> tuple[str, ...]:
  """Returns the names of the networks that have one of the roles, in the order of the roles."""
  return tuple(spec.name for role in roles for spec in _ROWS if spec.role == role)


COARSE = names_of("coarse")
FINE = names_of("fine")
GRANULAR = names_of("granular")
TAGGERS = names_of("tagger")
(SWITCH,) = names_of("switch")
STUDENTS = names_of("student")
(ALL_STUDENTS,) = names_of("all students")
"""All three students as one network, where they share their backbones."""
SOURCES = (*COARSE, *FINE, *GRANULAR)
"""All classifiers whose class maps go into SCAM or SCAM+."""
MODEL_NETWORKS = (*SOURCES, SWITCH, *STUDENTS)
"""The networks whose weights a model folder has, at most; see `model_networks`."""


def granular_of(config: "Config") -> tuple[str, ...]:
  """Returns the classifiers with companions that a configuration trains: none for STANet or a distilled student."""
  return () if config.is_stanet or config.is_distilled else GRANULAR


def students_of(config: "Config") -> tuple[str, ...]:
  """Returns the students that a configuration trains: only STA for STANet and where a finished model teaches."""
  return STUDENTS[:1] if config.is_stanet or config.is_distilled else STUDENTS


def sources_of(config: "Config") -> tuple[str, ...]:
  """Returns the classifiers that a configuration trains: none where a finished model teaches."""
  return () if config.is_distilled else (*COARSE, *FINE, *granular_of(config))


def tag_networks(config: "Config") -> tuple[str, ...]:
  """Returns the networks that maps of a tag need: none where a finished model teaches."""
  return (*sources_of(config), *_switch_of(config))


def predicting_networks(config: "Config", student: str | None = None) -> tuple[str, ...]:
  """Returns the networks that predictions need, of one student or else of all that the configuration trains."""
  return (*_switch_of(config), *(students_of(config) if student is None else (student,)))


def _switch_of(config: "Config") -> tuple[str, ...]:
  """Returns the audio switch; a distilled student has none, since it hears whenever there is sound."""
  return () if config.is_distilled else (SWITCH,)


def model_networks(config: "Config") -> tuple[str, ...]:
  """Returns the networks whose weights a model folder has."""
  return (*tag_networks(config), *students_of(config))


def training_of(name: str, config: "Config") -> "Training":
  """Returns the part of the configuration that says how a network is trained."""
  spec = NETWORKS[name]
  shared = config.shares_students and spec.role == "student"
  return getattr(config, NETWORKS[ALL_STUDENTS].config_field if shared else spec.config_field)


def sees_crops(name: str, config: "Config") -> bool:
  """Returns whether a network sees the fine crops instead of whole frames."""
  crops = NETWORKS[name].crops
  return config.plus_crops if crops == "configured" else crops == "always"


def on_crops(config: "Config") -> frozenset[str]:
  """Returns the names of the networks that see the fine crops."""
  return frozenset(name for name in NETWORKS if sees_crops(name, config))


def make_network(
  name: str, config: "Config", num_categories: int, refine: bool | None = None, int8: bool = False
) -> Network:
  """Builds the module of a network.

  Args:
    name: The network's name, such as `st_coarse`, `sa_plus_cross`, `tagger_0`, `sta_plus_long` or `students`.
    config: The configuration that gives the sizes.
    num_categories: The number of tags.
    refine: Whether the network has fixation refine layers, which have no parameters: in the C-GCN of a network with
      companions, or on the spatial map of S. None for what is usual, which is only the former.
    int8: Whether its backbone and neck convolve in 8-bit integers.
  """
  frozen = training_of(name, config).frozen
  return NETWORKS[name].module(num_categories=num_categories, sizes=_sizes(config, int8), frl=refine, frozen=frozen)


def make_backbone(config: "Config") -> Backbone:
  """Builds the visual backbone that all networks have."""
  return _sizes(config).make_visual()


def _sizes(config: "Config", int8: bool = False) -> NetworkSizes:
  settings: dict[str, Any] = config.network.model_dump(exclude={"backbone", "dtype"})
  if config.network.dtype == "auto":
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
  else:
    dtype = jnp.dtype(config.network.dtype)
  return NetworkSizes(**settings, dtype=dtype, int8=int8)


def shared_stages(name: str, config: "Config") -> tuple[str, ...]:
  """Returns the stages of a network's backbone that other networks read too; () where there are none.

  A frame is encoded to these stages once for all of the networks.
  """
  if config.has_frozen_backbone:
    return stages_at(training_of(name, config).size, sees_crops(name, config), config)

  def keeps_backbone(training: "Training") -> bool:
    return bool(training.start) and "visual" in training.frozen

  classifiers = (*SOURCES, SWITCH)
  if name not in classifiers:
    return ()
  others = [training_of(other, config) for other in classifiers]
  is_start = any(keeps_backbone(other) and name in other.start for other in others)
  return ("f5",) if is_start or keeps_backbone(training_of(name, config)) else ()


def stages_at(size: int, cropped: bool, config: "Config") -> tuple[str, ...]:
  """Returns the stages of a frozen backbone that networks read of frames, or of crops, at `size` pixels."""
  read: set[str] = set()
  for name in model_networks(config):
    if training_of(name, config).size == size and sees_crops(name, config) == cropped:
      read |= set(make_network(name, config, 1).backbone_stages)
  return tuple(sorted(read))


def example_inputs(network: Network, size: int, batch: int = 1, stored: bool = False) -> dict[str, Any]:
  """Returns the shapes of a network's inputs, by the names of its arguments.

  Args:
    network: The module.
    size: The side of its frames in pixels.
    batch: The number of examples.
    stored: Whether it takes stages of the backbone in place of frames.
  """
  n = network.num_nodes
  inputs: dict[str, Any] = {}
  if network.num_times and stored:
    shapes, times = network.sizes.make_visual().stage_shapes(size), stage_times(network)
    inputs["stages"] = {
      name: jax.ShapeDtypeStruct((batch, n, t, *shapes[name]), jnp.float32) for name, t in times.items()
    }
  elif network.num_times:
    inputs["frames"] = jax.ShapeDtypeStruct((batch, n, network.num_times, size, size, 3), jnp.float32)
  if network.hears:
    inputs["sound"] = jax.ShapeDtypeStruct((batch, n, NUM_BINS, WINDOW_COLUMNS), jnp.float32)
  if network.num_times and network.hears:
    inputs["switch"] = jax.ShapeDtypeStruct((batch, n), jnp.float32)
  return inputs


def stage_times(network: Network) -> dict[str, int]:
  """Returns for each stage that a network reads how many of a fragment's frames it reads it from.

  Only motion, which is seen in "f5", needs more than the middle frame.
  """
  return {name: network.num_times if name == "f5" else 1 for name in network.backbone_stages}


@functools.cache
def expected_variables(network: Network, size: int, stored: bool = False) -> Any:
  """Returns the shapes of a network's variables; without the visual backbone where its stages are stored."""
  fixed = _size_of_maps(network, stored, size)

  def init(inputs: dict[str, Any]) -> Any:
    return network.init(jax.random.key(0), **inputs, **fixed)

  return jax.eval_shape(init, example_inputs(network, size, 1, stored))


def initialise(network: Network, size: int, key: jax.Array, stored: bool = False) -> dict[str, Any]:
  """Draws a network's variables; without the visual backbone where its stages are stored."""
  # This compiles the draw of each shape once per process; one program for a whole network would take half a minute.
  inputs, fixed = example_inputs(network, size, 1, stored), _size_of_maps(network, stored, size)
  return dict(network.lazy_init(key, **inputs, **fixed))


def _size_of_maps(network: Network, stored: bool, size: int) -> dict[str, Any]:
  """Returns the argument that a network which predicts maps needs where it does not see the frames."""
  return {"size": (size, size)} if stored and network.predicts_maps else {}
