"""Tests of configuration files, of overrides and of their errors."""

import json
from pathlib import Path

import pydantic
import pytest

from helpers.paths import ROOT
from stajax import cli
from stajax import config as configuration
from stajax.config import Config, ConfigError, Optimizer, Training

CONFIGS = sorted((ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_registered_configurations_survive_json(path):
  config = configuration.load(path)
  assert configuration.loads(configuration.dumps(config), "x") == config


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("from stajax.config import *\nconfig = Config(name='a', s=Training(stepz=3))", "did you mean `steps`"),
    ("from stajax.config import *\nconfig = Config(name='a', s={'optimizer': {'lr': 3}})", "'s.optimizer.lr'"),
    ("from stajax.config import *\nconfig = Config(name='a', seed='x')", "seed: found 'x'"),
    ("from stajax.config import *\nconfig = Config()", "name: Field required"),
    ("from stajax.config import *\nconfig = Config(name='a')\nconfig.seed = 3", "Instance is frozen"),
    ("config = 3", "found int as `config`"),
    ("conf = 3", "found NoneType as `config`"),
    ("x = (", "SyntaxError"),
    ("import no_such_module", "ModuleNotFoundError"),
    ("\udcff", "SyntaxError"),
  ],
)
def test_a_bad_file_is_one_line(tmp_path, text, message):
  path = tmp_path / "bad.py"
  path.write_bytes(text.encode("utf-8", "surrogateescape"))
  with pytest.raises(ConfigError) as error:
    configuration.load(path)
  assert str(error.value).startswith(f"{path}: ")
  assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["missing.py", "os.system('true')", ".", "text.txt", "folder.py"])
def test_a_name_that_is_no_file_is_refused(name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  Path("text.txt").write_text("from stajax.config import *\nconfig = Config(name='a')")
  Path("folder.py").mkdir()
  with pytest.raises(ConfigError, match="no such configuration file"):
    configuration.load(name)


def test_every_field_survives_json():
  """A configuration without any default is the same when it is written and read again."""
  config = Config(
    name="ü",
    seed=3,
    s=Training(optimizer=Optimizer(name="adam", multipliers=(0.0, 1e-9, 0.1, 1e9), learning_rate=1 / 3)),
    sta=Training(start=("st", "sa"), frozen=("visual",), flip=False, min_scale=0.7),
  )
  text = configuration.dumps(config)
  assert configuration.loads(text, "x") == config and configuration.differences(config, config) == []
  assert json.loads(text)["sta"]["start"] == ["st", "sa"]


@pytest.mark.parametrize(
  ("path", "value", "message"),
  [
    (("seeed",), 1, "x.json: unknown field 'seeed'; did you mean `seed`?"),
    (("sta", "optimizer", "momentun"), 1, "unknown field 'sta.optimizer.momentun'; did you mean `momentum`?"),
    (("sta", "steps"), "x", "sta.steps: found 'x', expected: Input should be a valid integer"),
    (("sta", "steps"), 0, "sta.steps: found 0, expected: Input should be greater than 0"),
    (("network", "norm"), "btach", "network.norm: found 'btach', expected: Input should be 'none', 'group' or 'batch'"),
    (("s", "optimizer", "multipliers"), [1, 2], "s.optimizer.multipliers.2: Field required"),
    (("s", "optimizer", "learning_rate"), float("inf"), "expected: Input should be a finite number"),
    (("s", "optimizer", "multipliers"), [1, 1, 1, float("nan")], "expected: Input should be a finite number"),
    (("s",), None, "x.json: s: found None"),
  ],
)
def test_a_bad_field_in_json_is_one_line(path, value, message):
  tree = node = json.loads(configuration.dumps(Config(name="a")))
  for part in path[:-1]:
    node = node[part]
  node[path[-1]] = value
  with pytest.raises(ConfigError) as error:
    configuration.loads(json.dumps(tree), "x.json")
  assert message in str(error.value) and str(error.value).startswith("x.json: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("length", [0, 1, 300])
def test_json_that_was_cut_off_is_one_short_line(length):
  with pytest.raises(ConfigError, match="Invalid JSON") as error:
    configuration.loads(configuration.dumps(Config(name="a"))[:length], "x.json")
  assert len(str(error.value)) < 120


def test_a_configuration_cannot_be_changed():
  config = Config(name="a")
  for part, field in ((config, "seed"), (config.sta, "steps"), (config.sta.optimizer, "momentum")):
    with pytest.raises(pydantic.ValidationError, match="frozen"):
      setattr(part, field, 3)


def test_overrides_and_differences():
  config = Config(name="a")
  changed = cli.override(config, ["--sta.steps", "7", "--network.norm", "batch"])
  assert changed.sta.steps == 7
  assert configuration.differences(config, changed) == ['network.norm: "none" → "batch"', "sta.steps: 150000 → 7"]


@pytest.mark.parametrize(
  ("arguments", "named"),
  [
    (["--sta.stepz", "7"], "--sta.steps"),
    (["--nettwork.norm", "batch"], "--network.norm"),
    (["--sta.steps", "many"], "--sta.steps"),
    (["--sta.steps", "0"], "greater than 0"),
    (["--network.norm", "btach"], "did you mean `batch`?"),
    (["stray"], "stray"),
  ],
)
def test_a_bad_override_says_what_is_known(capsys, arguments, named):
  with pytest.raises(SystemExit) as stop:
    cli.override(Config(name="a"), arguments)
  assert stop.value.code == 2 and named in capsys.readouterr().err


def test_overrides_of_sequences_and_hyphens():
  arguments = ["--sta.optimizer.learning-rate", "1e-3", "--sta.frozen", "visual", "sound", "--s.no-flip"]
  changed = cli.override(Config(name="a"), arguments)
  assert changed.sta.optimizer.learning_rate == 1e-3 and changed.sta.frozen == ("visual", "sound")
  assert changed.s.flip is False and changed.st.flip is True


def test_init_of_parts():
  """The option adds to what the file says, is kept in a work folder, and makes a run different from one without it."""
  config = Config(name="a", init={"sound": "one"})
  changed = cli.override(config, ["--init", "visual=a=b.pth", "--init=sound=two", "--seed", "3"])
  assert changed.init == {"visual": "a=b.pth", "sound": "two"} and changed.seed == 3
  assert configuration.loads(configuration.dumps(changed), "x") == changed
  assert cli.override(config, ["--seed", "3"]).init == {"sound": "one"}
  assert configuration.differences(changed, Config(name="a", seed=3)) == [
    'init.sound: "two" → None', 'init.visual: "a=b.pth" → None',
  ]  # fmt: skip


@pytest.mark.parametrize("text", ["visual", "visual=", "vision=x", "=x", "x.pth"])
def test_a_bad_init_is_one_line(text):
  with pytest.raises(ConfigError, match=r"expected NAME=FILE with one of the names visual, sound") as error:
    cli.override(Config(name="a"), ["--init", text])
  assert str(error.value).startswith(f"--init {text}: ")


@pytest.mark.parametrize(
  "fields",
  [
    {"seed": 10**30},
    {"data": {"rate": 1e300}},
    {"data": {"synthetic": {"seconds": 1e9}}},
    {"network": {"width": 1e12}},
    {"network": {"depths": [2**31, 1, 1, 1, 1]}},
    {"network": {"reasoning_steps": 10**6}},
    {"sta": {"size": 10**8}},
    {"sta": {"batch": 10**9}},
    {"maps": {"size": 99_999}},
    {"inference_batch": 10**7},
  ],
)
def test_sizes_beyond_all_machines_are_refused(fields):
  with pytest.raises(ConfigError, match="less than"):
    configuration.loads(json.dumps({"name": "a", **fields}), "x.json")
