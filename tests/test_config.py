"""Configuration files, overrides and their errors."""

from pathlib import Path

import pytest

from stajax import cli
from stajax import config as configuration
from stajax.config import Config, ConfigError

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_registered_configurations_survive_json(path):
  config = configuration.load(path)
  assert configuration.loads(configuration.dumps(config), "x") == config


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("from stajax.config import *\nconfig = Config(name='a', s=Training(stepz=3))", "did you mean `steps`"),
    ("from stajax.config import *\nconfig = Config(name='a', seed='x')", "seed: found 'x'"),
    ("config = 3", "found int as `config`"),
    ("x = (", "SyntaxError"),
  ],
)
def test_a_bad_file_is_one_line(tmp_path, text, message):
  path = tmp_path / "bad.py"
  path.write_text(text)
  with pytest.raises(ConfigError, match=str(path)) as error:
    configuration.load(path)
  assert message in str(error.value)


@pytest.mark.parametrize("name", ["missing.py", "os.system('true')", "."])
def test_a_name_that_is_no_file_is_refused(name):
  with pytest.raises(ConfigError, match="no such configuration file"):
    configuration.load(name)


def test_overrides_and_differences():
  config = Config(name="a")
  changed = configuration.override(config, ["--sta.steps", "7", "--network.norm", "batch"])
  assert changed.sta.steps == 7
  assert configuration.differences(config, changed) == ['network.norm: "none" → "batch"', "sta.steps: 150000 → 7"]


def test_unknown_override_names_the_nearest(capsys):
  with pytest.raises(SystemExit) as stop:
    configuration.override(Config(name="a"), ["--sta.stepz", "7"])
  assert stop.value.code == 2 and "--sta.steps" in capsys.readouterr().err


def test_unknown_verb_names_the_nearest(capsys):
  assert cli.main(["trian"]) == 2
  assert "did you mean `train`" in capsys.readouterr().err
