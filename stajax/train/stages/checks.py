"""The checks of a configuration before anything is written."""

from pathlib import Path

from stajax import networks
from stajax.config import Config, ConfigError
from stajax.eyetracking import StavisError, StavisTree, parse_data, read_tree
from stajax.files import folder_names
from stajax.nets.shared_students import COMMON
from stajax.prepare.synthetic.scene import MIN_FRAMES
from stajax.train.stages.graph import Stage, make_graph

MAX_FRAMES = 10_000
"""The most frames of a rendered clip, which is made in memory."""


def check(config: Config) -> None:
  """Checks that a configuration can be run here.

  Raises:
    ConfigError: The configuration cannot be run; one line that names the field.
  """
  graph = make_graph(config)
  for stage in graph:
    if stage.work == "train":
      _check_start(stage.name, config, graph)
  if config.shares_students:
    _check_shared_students(config)
  _check_visual(config)
  _check_sound(config)
  _check_synthetic(config)
  _check_teacher(config)
  if config.data.source == "records" and not config.data.path:
    raise ConfigError("data.path is missing: the folder that `stajax prepare` wrote")
  _check_hearing(config)
  trees_to_score(config)  # not only after days of training


def trees_to_score(config: Config) -> list[StavisTree]:
  """Lists the eye-tracking sets that the report scores.

  Raises:
    ConfigError: One cannot be read, or two have the same database.
  """
  trees: list[StavisTree] = []
  databases: dict[str, Path | str] = dict.fromkeys(_heldout_databases(config), "the held-out clips")
  for data in config.score_data:
    try:
      tree = read_tree(parse_data(data))
    except StavisError as error:
      raise ConfigError(f"score_data: {error}") from None
    for database in dict.fromkeys(video.database for video in tree.videos):
      if database in databases:
        raise ConfigError(f"score_data: {tree.root} and {databases[database]} both have the database {database}")
      databases[database] = tree.root
    trees.append(tree)
  return trees


def _heldout_databases(config: Config) -> list[str]:
  if config.data.source == "synthetic":
    return ["synthetic"]
  return folder_names(Path(config.data.path or "") / "heldout_tree" / "annotations")


def _check_visual(config: Config) -> None:
  if config.has_frozen_backbone and "visual" not in config.init_files:
    raise ConfigError("network.backbone is frozen, expected its weights: --init visual=FILE")
  if config.network.norm == "none" and "visual" not in config.init:
    raise ConfigError(
      "network.norm is 'none', and without normalisation a backbone of random numbers stays at chance for hundreds of "
      "steps; expected ImageNet's weights, as the paper has them: --init visual=FILE (stajax weights fetch vgg16), or "
      "--init visual=random to insist"
    )


def _check_sound(config: Config) -> None:
  if config.network.audio_encoder == "yamnet" and "sound" not in config.init:
    raise ConfigError(
      "network.audio_encoder is 'yamnet', expected what it has learned: --init sound=FILE (YAMNet's TFLite file), or "
      "--init sound=random to insist"
    )


def _check_synthetic(config: Config) -> None:
  embedded, rate = config.data.synthetic, config.data.rate
  number = round(embedded.seconds * rate)
  if config.data.source == "synthetic" and not MIN_FRAMES <= number <= MAX_FRAMES:
    found = f"{embedded.seconds:g} seconds at {rate:g} frames a second are {number} frames"
    raise ConfigError(f"data.synthetic.seconds and data.rate: {found}, expected {MIN_FRAMES} to {MAX_FRAMES}")


def _check_start(name: str, config: Config, graph: tuple[Stage, ...]) -> None:
  """Checks that a network starts from networks that are trained before it."""
  trained = [stage.name for stage in graph if stage.work == "train"]
  earlier = trained[: trained.index(name)]
  unknown = next((start for start in networks.training_of(name, config).start if start not in earlier), None)
  if unknown is None:
    return
  expected = f"one of {', '.join(earlier)}" if earlier else "nothing, as it is trained first"
  if unknown in networks.TAGGERS and unknown not in trained:
    expected += f" (with hearing.kind {config.hearing.kind!r} no others are trained)"
  raise ConfigError(f"{networks.NETWORKS[name].config_field}.start has {unknown!r}, expected {expected}")


def _check_shared_students(config: Config) -> None:
  if config.is_stanet:
    raise ConfigError("students.backbone is shared, but with students.learn_from scam there is only one student")
  if config.has_frozen_backbone:
    raise ConfigError("students.backbone is shared, but with network.backbone frozen all networks share one already")
  parts = (*COMMON, *networks.STUDENTS)
  if unknown := set(config.sta.frozen) - set(parts):
    raise ConfigError(f"sta.frozen has {min(unknown)!r}, expected for shared students some of {', '.join(parts)}")


def _check_teacher(config: Config) -> None:
  teacher = config.students.teacher
  if config.is_distilled and teacher is None:
    raise ConfigError("students.learn_from is 'teacher', expected a model: --students.teacher FOLDER")
  if not config.is_distilled and teacher is not None:
    raise ConfigError(f"students.teacher is {teacher!r}, but students.learn_from is {config.students.learn_from!r}")


def _check_hearing(config: Config) -> None:
  hearing = config.hearing
  if hearing.kind == "yamnet" and config.data.source == "synthetic":
    raise ConfigError("hearing.kind is 'yamnet', which needs data.source records: it hears media files")
  if hearing.teaches and hearing.kind == "trained":
    raise ConfigError("hearing.teaches is on, expected a published tagger: hearing.kind vggsound or yamnet")
  if (hearing.kind == "vggsound") != (hearing.weights is not None):
    raise ConfigError(f"hearing.weights is {hearing.weights!r}, expected a file with hearing.kind vggsound only")
