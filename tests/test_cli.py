"""Tests of the verbs of `stajax`: help, errors and exit codes, and `stajax train` before there is anything to train."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

import stajax
from helpers.paths import CONFIGS
from stajax import __main__ as console
from stajax import cli, runtime, screen
from stajax.train import __main__ as train


@pytest.mark.parametrize(("verb", "nearest"), [("trian", "train"), ("evalute", "evaluate"), ("Predict", "predict")])
def test_unknown_verb_names_the_nearest(verb, nearest, capsys):
  assert console.main([verb, "--config", "x"]) == 2
  out, error = capsys.readouterr()
  assert not out and error.startswith(f"stajax: unknown verb '{verb}'; did you mean `{nearest}`?")
  assert error.count("\n") == 1 and all(known in error for known in console.VERBS)


def test_a_verb_unlike_all_others_has_no_hint(capsys):
  assert console.main(["zzzz"]) == 2
  error = capsys.readouterr().err
  assert "did you mean" not in error and all(known in error for known in console.VERBS)


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_lists_the_verbs(arguments, capsys):
  assert console.main(arguments) == 0
  out = capsys.readouterr().out
  assert all(f"  {verb} " in out and what in out for verb, what in console.VERBS.items())


def test_version(capsys):
  assert console.main(["--version"]) == 0
  assert capsys.readouterr().out.strip() == stajax.__version__


@pytest.mark.parametrize("verb", console.VERBS)
def test_every_verb_has_help(verb, capsys):
  try:
    code = console.main([verb, "--help"])
  except SystemExit as stop:
    code = stop.code
  assert code in (0, None)
  assert "--" in capsys.readouterr().out


@pytest.mark.parametrize("verb", console.VERBS)
def test_every_verb_is_a_module_that_calls_itself_stajax(verb):
  child = subprocess.run(
    [sys.executable, "-m", f"stajax.{verb.replace('-', '_')}", "--help"], capture_output=True, text=True
  )
  assert child.returncode == 0 and f"stajax {verb}" in child.stdout


@pytest.mark.parametrize(
  ("arguments", "nearest"),
  [
    (["prepare", "folders", "--rot", "x"], "--root"),
    (["train", "--confg", "x"], "--config"),
    (["predict", "a.mp4", "--modle", "x"], "--model"),
    (["evaluate", "--dtaa", "x"], "--data"),
    (["weights", "fetch", "vgg16", "--otu", "x"], "--out"),
    (["plan", "--confg=x"], "--config"),
  ],
)
def test_every_verb_hints_at_the_nearest_option(arguments, nearest, capsys):
  with pytest.raises(SystemExit) as stop:
    console.main(arguments)
  out, error = capsys.readouterr()
  assert stop.value.code == 2 and not out and error.count("\n") == 1
  assert error.startswith(f"stajax {arguments[0]}: unknown option --") and f"did you mean `{nearest}`?" in error


@pytest.mark.parametrize("arguments", [[], ["--config"]])
def test_train_without_a_configuration_shows_how(arguments):
  utf8 = {**os.environ, "PYTHONIOENCODING": "utf-8"}  # where tyro draws boxes around errors
  child = subprocess.run([sys.executable, "-m", "stajax.train", *arguments], capture_output=True, text=True, env=utf8)
  assert child.returncode == 2 and not child.stdout
  assert child.stderr.startswith("stajax train: Missing") and "--config" in child.stderr
  assert child.stderr.count("\n") == 1


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--numbr", "3"], "unknown option --numbr; did you mean `--number`?"),
    (["--no-detail=x", "--number", "3"], "unknown option --no-detail; did you mean `--no-detailed`?"),
    (["--numbr", "3", "--elsewher"], "unknown option --numbr"),
    (["--number", "3", "--elsewher"], "unknown option --elsewher; did you mean `--elsewhere`?"),
    ([], "--number INT The count. (required)"),
    (["--number", "x"], "invalid literal for int() with base 10: 'x'"),
    (["--number", "3", "stray"], "stray"),
  ],
)
@pytest.mark.parametrize("columns", ["40", "200"])
def test_wrong_arguments_are_one_line(monkeypatch, capsys, arguments, message, columns):
  @dataclasses.dataclass
  class Arguments:
    number: int
    """The count."""
    detailed: bool = True

  monkeypatch.setenv("COLUMNS", columns)
  with pytest.raises(SystemExit) as stop:
    cli.parse("stajax test", Arguments, arguments, ["--elsewhere"])
  out, error = capsys.readouterr()
  assert stop.value.code == 2 and not out and error.count("\n") == 1
  assert error.startswith("stajax test: ") and message in error and "`stajax test --help`" in error


def test_errors_and_exit_codes(capsys):
  def fail_with(error):
    raise error

  assert cli.run("stajax test", lambda: 1) == 1
  assert cli.run("stajax test", lambda: fail_with(ValueError("two\nlines"))) == 2
  assert capsys.readouterr().err == "stajax test: two lines\n"
  assert cli.run("stajax test", lambda: fail_with(KeyboardInterrupt())) == 130
  with pytest.raises(RuntimeError):  # where another place reports it
    cli.run("stajax test", lambda: fail_with(RuntimeError("a mistake of ours")), reports=False)
  assert [cli.exit_code(failed, 3) for failed in range(4)] == [0, 1, 1, 3] and cli.exit_code(0, 0) == 0
  assert screen.one_line(KeyError("a"), Path("b.mp4")) == "b.mp4: KeyError: 'a'"


def test_a_missing_package_is_one_line_that_says_what_to_install(capsys, tmp_path, monkeypatch):
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

  def load(name):
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

  assert cli.run("stajax test", lambda: load("tensorflow.io")) == 2
  error = capsys.readouterr().err
  assert error == "stajax test: needs the package tensorflow, which is not installed: pip install 'stajax[train]'\n"
  assert cli.run("stajax test", lambda: load("stajax.nothing")) == 70  # a mistake of ours


HIDDEN = ("tensorflow", "tensorflow_datasets", "array_record", "simplejpeg", "librosa", "tensorboard", "pebble")
AS_BASE_INSTALL = f"import sys; sys.modules.update(dict.fromkeys({HIDDEN})); from stajax.__main__ import main; "


@pytest.mark.parametrize(
  "arguments",
  [
    ["prepare", "folders", "--root", "media", "--out", "records"],
    ["prepare", "videos", "--root", "media/a", "--out", "tree"],
    ["prepare", "synthetic", "--out", "records"],
    ["train", "--config", "tiny.py", "--workdir", "work"],
  ],
)
def test_the_base_install_says_what_preparation_and_training_need(arguments, tmp_path):
  (tmp_path / "media" / "a").mkdir(parents=True)
  (tmp_path / "media" / "a" / "a.mp4").write_bytes(b"video")
  (tmp_path / "tiny.py").write_text("from stajax.config import Config\nconfig = Config(name='tiny')\n")
  code = f"{AS_BASE_INSTALL}sys.exit(main({arguments!r}))"
  child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
  assert child.returncode == 2 and not child.stdout
  assert child.stderr.startswith(f"stajax {arguments[0]}: needs the package "), child.stderr
  assert child.stderr.endswith("pip install 'stajax[train]'\n") and child.stderr.count("\n") == 1


@pytest.mark.parametrize(
  ("error", "code", "message"),
  [
    (KeyboardInterrupt(), cli.INTERRUPTED, "interrupted"),
    (OSError(28, "No space left on device", "work"), 2, "[Errno 28] No space left on device: 'work'"),
  ],
)
def test_training_that_is_stopped_ends_with_one_line(monkeypatch, tmp_path, capsys, error, code, message):
  from stajax.config import Config
  from stajax.train.stages import runner

  def stop(*_):
    raise error

  monkeypatch.setattr(runner, "run_all", stop)
  assert train.run(Config(name="tiny"), tmp_path) == code
  assert capsys.readouterr().err == f"stajax train: {message}\n"


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (None, "no such configuration file"),
    ("from stajax.config import *\nconfig = Config(name='x', seeed=1)", "did you mean `seed`?"),
    ("config = (", "SyntaxError"),
  ],
)
def test_train_with_a_bad_configuration_is_one_line(tmp_path, capsys, text, message):
  path = tmp_path / "x.py"
  if text is not None:
    path.write_text(text)
  assert train.main(["--config", str(path), "--workdir", str(tmp_path / "run")]) == 2
  out, error = capsys.readouterr()
  assert not out and error.startswith(f"stajax train: {path}: ") and message in error and error.count("\n") == 1
  assert not (tmp_path / "run").exists()


def test_train_with_an_unknown_override(tmp_path, capsys):
  path = tmp_path / "x.py"
  path.write_text("from stajax.config import *\nconfig = Config(name='x')")
  with pytest.raises(SystemExit) as stop:
    train.main(["--config", str(path), "--workdir", str(tmp_path / "run"), "--s.stepz", "3"])
  assert stop.value.code == 2 and "--s.steps" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_train_help_lists_the_fields(tmp_path, capsys):
  path = tmp_path / "x.py"
  path.write_text("from stajax.config import *\nconfig = Config(name='x')")
  with pytest.raises(SystemExit) as stop:
    train.main(["--config", str(path), "--help"])
  assert stop.value.code == 0 and "--sta.optimizer.learning-rate" in capsys.readouterr().out


def test_help_ends_quietly_when_its_reader_does():
  command = [sys.executable, "-m", "stajax.train", "--config", str(CONFIGS / "quickstart.py"), "--help"]
  with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 0


def test_what_the_user_set_in_the_environment_stays(monkeypatch):
  monkeypatch.setattr(os, "environ", {"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=x --other", "HOME": "h"})
  os.environ |= {"JAX_COMPILATION_CACHE_DIR": "mine", "TF_CPP_MIN_LOG_LEVEL": "0"}
  before = dict(os.environ)
  runtime.configure()
  assert {name: os.environ[name] for name in before} == before
  os.environ["XLA_FLAGS"] = "--other"
  runtime.configure()
  runtime.configure()
  flags = os.environ["XLA_FLAGS"].split()
  assert flags[0] == "--other" and len(flags) == len(set(flags)) <= 2


@pytest.mark.parametrize(
  ("error", "code", "start"),
  [
    (OSError(28, "No space left on device", "a.npz"), 2, "[Errno 28] No space left on device: 'a.npz'"),
    (MemoryError("Unable to allocate 8 TiB"), 2, "needs more memory than there is (MemoryError: Unable to allocate"),
    (
      RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating"),
      2,
      "needs more memory than there is (RuntimeError: RESOURCE_EX",
    ),
    (
      RuntimeError("RESOURCE_EXHAUSTED: x: No space left on device"),
      2,
      "cannot write any more: No space left on device (",
    ),
    (ValueError("--x 3: expected 4"), 2, "--x 3: expected 4"),
    (ValueError("name\x1b[2J"), 2, "name\\x1b[2J"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (TypeError("a bug"), 70, "an unexpected error, please report it (TypeError: a bug); the report is in "),
  ],
)
def test_every_failure_is_one_line(capsys, tmp_path, monkeypatch, error, code, start):
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

  def fail():
    raise error

  assert cli.run("stajax x", fail) == code
  out, line = capsys.readouterr()
  assert not out and line.startswith(f"stajax x: {start}") and line.count("\n") == 1
  reports = list(tmp_path.iterdir())
  assert len(reports) == (code == 70)
  if reports:
    assert line.endswith(f"{reports[0]}\n") and "in fail\n    raise error" in reports[0].read_text()


def test_a_bug_that_cannot_be_reported_says_where_it_is(capsys, tmp_path, monkeypatch):
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
  assert cli.run("stajax x", lambda: {}["key"]) == 70
  line = capsys.readouterr().err
  assert line.count("\n") == 1 and "test_cli.py:" in line and "no report can be written" in line


@pytest.mark.parametrize("override", [["--data.rate", "1e300"], ["--network.width", "1e12"]])
def test_overrides_that_cannot_be_run_are_one_line(tmp_path, capsys, override):
  path = tmp_path / "x.py"
  path.write_text("from stajax.config import Config\nconfig = Config(name='x')\n")
  with pytest.raises(SystemExit) as stop:
    train.main(["--config", str(path), "--workdir", str(tmp_path / "run"), *override])
  out, error = capsys.readouterr()
  assert stop.value.code == 2 and not out and error.count("\n") == 1 and "less than" in error
  assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_named_with_its_option(tmp_path, monkeypatch):
  """The superuser may write anywhere, so what refuses is made up."""

  def refuse(path):
    raise PermissionError(13, "Permission denied", str(path))

  monkeypatch.setattr(cli, "make_folder", refuse)
  with pytest.raises(OSError, match=r"^--out .*/new: cannot be made \(Permission denied\)$"):
    cli.make_out_folder("--out", tmp_path / "new")
