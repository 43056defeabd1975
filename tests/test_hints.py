"""Tests of hints at the nearest name: wrong values of options and of fields of a configuration, command by command."""

import numpy as np
import pytest

from helpers.paths import CONFIGS
from stajax import __main__ as console
from stajax import config, hints

QUICKSTART = str(CONFIGS / "quickstart.py")


@pytest.mark.parametrize(
  ("name", "known", "hint"),
  [
    ("viridiss", ["viridis", "gray"], " did you mean `viridis`?"),
    ("AVAD", ["avad"], " did you mean `avad`?"),
    ("zzz", ["viridis"], ""),
    ("", ["a"], ""),
    ("x", [], ""),
  ],
)
def test_the_nearest_name(name, known, hint):
  assert hints.nearest(name, known) == hint


def test_options_are_compared_without_their_dashes():
  assert hints.misspelled(["--formt", "x"], ["--out", "--max-tb"]) == ""
  assert hints.misspelled(["--otu"], ["--out"]) == "unknown option --otu; did you mean `--out`?"


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["predict", "a.mp4", "--out", "o", "--format", "npz,jsn"], "--format npz,jsn: found 'jsn', expected one of npz,"),
    (["predict", "a.mp4", "--out", "o", "--colormap", "viridiss"], "colormap viridiss: expected one of Matplotlib's"),
    (["predict", "a.mp4", "--out", "o", "--student", "sta_pluss_long"], "expected one of sta, sta_plus_long,"),
    (["evaluate", "--maps", "m", "--data", "x", "--out", "o", "--protocol", "stavs"], "--protocol stavs: expected one"),
    (["evaluate", "--maps", "m", "--data", "stvis:x", "--out", "o"], "data stvis:x: expected NAME:ROOT"),
    (["prepare", "videos", "--root", "x", "--units", "pixel"], "--units pixel: expected one of normalised, percent"),
    (
      ["train", "--config", QUICKSTART, "--students.learn-from", "scamplus"],
      "learn-from scamplus: expected",
    ),
    (["plan", "--config", QUICKSTART, "--topology", "h10:1", "--stage", "s"], "h10:1: found 'h10' as the kind of chip"),
    (["plan", "--config", QUICKSTART, "--topology", "h100:1", "--stage", "stat"], "--stage: found stat, expected one"),
    (["weights", "fetch", "vgg-16"], "unknown name 'vgg-16';"),
  ],
)
def test_a_wrong_value_is_answered_with_the_nearest_one_in_one_line(arguments, message, capsys):
  try:
    code = console.main(arguments)
  except SystemExit as stop:
    code = stop.code
  out, error = capsys.readouterr()
  assert code == 2 and not out and error.count("\n") == 1
  assert error.startswith(f"stajax {arguments[0]}: ") and message in error and "did you mean `" in error, error
  assert "None" not in error and "parsing" not in error, error


@pytest.mark.parametrize(
  ("text", "hint"),
  [
    ("Config(name='x', students=Students(learn_from='scamm'))", "did you mean `scam`?"),
    ("Config(name='x', students=Students(lern_from='scam'))", "did you mean `learn_from`?"),
    ("Config(name='x', seed='much')", ""),
  ],
)
def test_a_wrong_value_in_a_configuration_is_answered_with_the_nearest_one(tmp_path, text, hint):
  path = tmp_path / "x.py"
  path.write_text(f"from stajax.config import *\nconfig = {text}")
  with pytest.raises(config.ConfigError) as raised:
    config.load(path)
  assert hint in str(raised.value) and ("did you mean" in str(raised.value)) == bool(hint)


@pytest.mark.parametrize("value", ["2", None, True, [2], 2.5])
def test_a_type_that_is_not_possible_is_said_in_one_line(value):
  with pytest.raises(TypeError, match=rf"^every: found {type(value).__name__}, expected a whole number$"):
    hints.check_type("every", value, "a whole number")
  hints.check_type("every", np.int64(2), "a whole number")
