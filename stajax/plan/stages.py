"""What can be planned with a configuration: its stages, the networks of each, and the number of categories."""

from pathlib import Path

from stajax.config import Config, ConfigError, Training
from stajax.files import read_json
from stajax.prepare.synthetic.categories import CATEGORIES as SYNTHETIC_CATEGORIES

PREDICT = "predict"
"""The stage without a network of its own: the final maps of the three students."""
STUDENTS = "students"
"""The stage of all three students where they are trained as one network."""


def stages_of(config: Config | None = None) -> list[str]:
  """Returns the fields that say how networks are trained, with `students` for students that are trained as one.

  Args:
    config: The configuration; None: that of the paper.
  """
  fields = [name for name, info in Config.model_fields.items() if info.annotation is Training]
  if config is not None and config.is_stanet:
    fields = [name for name in fields if not name.endswith("_plus")]
  if config is None or not config.shares_students:
    return fields
  return [*(name for name in fields if name not in ("sta", "sta_plus")), STUDENTS]


def networks_of(stage: str) -> list[str]:
  """Returns the names of the networks of a stage."""
  from stajax import networks  # loads JAX

  if stage == networks.ALL_STUDENTS:
    return [stage]
  fields = {name: spec.config_field for name, spec in networks.NETWORKS.items() if name != networks.ALL_STUDENTS}
  return [name for name, field in fields.items() if stage == field]


def find_categories(config: Config, given: int | None = None) -> tuple[int, str]:
  """Returns the number of categories to plan for, and its source.

  Args:
    config: The configuration, which names the data.
    given: The number, if the user gives one.

  Raises:
    ConfigError: The number is not positive, or the summary of the prepared data is damaged.
  """
  if given is not None:
    if given < 1:
      raise ConfigError(f"--categories {given}: expected at least 1")
    return given, "--categories"
  if config.data.source == "synthetic":
    return len(SYNTHETIC_CATEGORIES), "the synthetic clips"
  path = None if config.data.path is None else Path(config.data.path) / "summary.json"
  if path is None or not path.is_file():
    origin = "data.expected_categories, as no prepared data is at hand; --categories sets another number"
    return config.data.expected_categories, origin
  try:
    categories = read_json(path)["categories"]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ConfigError(f"{path}: not the summary of prepared data ({type(error).__name__}: {error})") from None
  if not isinstance(categories, list) or not categories:
    raise ConfigError(f"{path}: found {categories!r} as `categories`, expected a list of names")
  return len(categories), str(path)
