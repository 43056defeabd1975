"""Runs every example in README and the documentation, or checks its options with the command's own parser."""

import argparse
import functools
import importlib
import inspect
import re
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tyro
from PIL import Image

from helpers.examples import PAGES, Block, commands, find_blocks
from helpers.media_files import clicks, ramp, write_video
from helpers.paths import ROOT
from helpers.tiny import model_folder, random_networks, small_programs  # noqa: F401
from stajax import __main__ as stajax_command
from stajax import model, runtime
from stajax.plan import topology
from stajax.prepare.tree_files import write_fold_lists
from stajax.prepare.tree_files import write_video as write_tree_video

BLOCKS = [block for page in PAGES for block in find_blocks(page)]
EXAMPLES = [block for block in BLOCKS if block.check != "shown"]

SHELL = ("cd", "export", "source", "ls", "git")
TOOLS = ("ruff", "pyright", "pre-commit", "sphinx-build", "sbatch", "kubectl", ".ci/run")
"""Programs whose options are not checked; the files that they are given have to exist."""


class Parsed(BaseException):
  """A command has accepted its arguments."""


@pytest.fixture
def parse_only(monkeypatch):
  """Makes commands raise `Parsed` as soon as they have accepted their arguments, before they do anything."""

  read, parse_args = tyro.cli, argparse.ArgumentParser.parse_args

  def stop(*args, **kwargs):
    raise Parsed

  def read_and_stop(target, *args, **kwargs):
    if kwargs.get("return_unknown_args"):  # the others are overrides of a configuration, which are read next
      return read(target, *args, **kwargs)
    # A function would be called with the arguments, and do the work.
    read(functools.wraps(target)(stop) if inspect.isfunction(target) else target, *args, **kwargs)
    raise Parsed

  def parse_and_stop(*args, **kwargs):
    parse_args(*args, **kwargs)
    raise Parsed

  monkeypatch.setattr(tyro, "cli", read_and_stop)
  monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
  monkeypatch.setattr(runtime, "configure", stop)
  monkeypatch.setattr(topology, "prepare_process", stop)


@pytest.fixture(scope="module")
def supplies(tmp_path_factory, model_folder):  # noqa: F811
  """Returns a folder with everything that the examples need to run."""
  folder = tmp_path_factory.mktemp("supplies")
  video = write_video(folder / "my_video.mp4", ramp(6), sound=clicks(0.6, [0.2]))
  for copy in ("videos/a.mp4", "CLIPS/violin/a.mp4", "CLIPS/dog/b.mp4", "RECORDED/a.mp4", "RECORDED/b.mp4"):
    (folder / copy).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(video, folder / copy)
  (folder / "clips.csv").write_text("path,tags\nCLIPS/violin/a.mp4,violin;music\nCLIPS/dog/b.mp4,dog\n")
  for name in ("a", "b"):
    table = "frame,x,y,viewer\n" + "".join(f"{frame},{20 + frame},{10 + frame},v\n" for frame in range(6))
    (folder / f"RECORDED/{name}.csv").write_text(table)
  (folder / "runs").mkdir()
  (folder / "runs/quickstart").symlink_to(model_folder)
  _write_tree(folder)
  for name in ("configs", "launch", "benchmarks"):
    (folder / name).symlink_to(ROOT / name)
  return folder


def _write_tree(folder: Path) -> None:
  """Writes a tree of one video with viewers, and maps of it that were made elsewhere."""
  rng, shape = np.random.default_rng(0), (4, 24, 32)
  fixations, density = rng.random(shape) < 0.05, rng.integers(0, 256, shape, dtype=np.uint8)
  write_tree_video(folder / "TREE", "Tiny", "a", ramp(4, 24, 32), None, zip(fixations, density))
  write_fold_lists(folder / "TREE", "Tiny", [("a", 4, 8.0)])
  (folder / "my_maps/Tiny/a").mkdir(parents=True)
  for number in range(1, 5):
    Image.fromarray(density[number - 1]).save(folder / f"my_maps/Tiny/a/img_{number:05d}.png")


@pytest.fixture(scope="module")
def places(tmp_path_factory, supplies):
  """Makes one folder for each page, in which its examples are run in order."""
  made: dict[str, Path] = {}

  def place(page: str) -> Path:
    if page not in made:
      made[page] = tmp_path_factory.mktemp(Path(page).stem)
      shutil.copytree(supplies, made[page], symlinks=True, dirs_exist_ok=True)
    return made[page]

  return place


@pytest.fixture(scope="module")
def names():
  """Returns the names that the Python examples of a page have in common."""
  made: dict[str, dict[str, object]] = {}
  return lambda page: made.setdefault(page, {"__name__": "__main__"})


@pytest.mark.parametrize("block", [block for block in EXAMPLES if block.check == "run"], ids=str)
def test_example_runs(block: Block, places, names, monkeypatch):
  monkeypatch.chdir(places(block.page))
  monkeypatch.setattr(model, "SHIPPED", Path("runs/quickstart/model"))  # the examples' networks are others
  if block.language != "sh":
    exec(compile(block.text, str(block), "exec"), names(block.page))
    return
  for words in commands(block.text):
    program, *arguments = _program(words)
    if program == "stajax":
      assert stajax_command.main(arguments) == 0, words
    elif program == "ls":
      assert all(any(Path(argument).iterdir()) for argument in arguments)
    else:
      assert program in SHELL, f"{block}: {program} is not run"


@pytest.mark.parametrize("block", [block for block in EXAMPLES if block.check == "options"], ids=str)
def test_options_exist(block: Block, parse_only, request, monkeypatch, capsys):
  monkeypatch.chdir(ROOT)
  for words in commands(block.text):
    try:
      _check_options(_program(words), request.config)
    except SystemExit as stop:
      assert stop.code == 0, f"{words}: {capsys.readouterr().err}"


def _program(words: list[str]) -> list[str]:
  """Returns a command's words with `stajax VERB` for `python -m stajax.VERB`, and without the folder of programs."""
  program, *arguments = words
  program = program.removeprefix(".venv/bin/")
  if program in ("python", "python3") and arguments[0] == "-m":
    module = arguments[1]
    verb = module.removeprefix("stajax.")
    return ["stajax", verb, *arguments[2:]] if verb in stajax_command.VERBS else ["python -m", *arguments[1:]]
  return [program, *arguments]


def _check_options(words: list[str], config: pytest.Config) -> None:
  program, *arguments = words
  if program == "stajax":
    with pytest.raises(Parsed):
      assert stajax_command.main(arguments) == 0, words
  elif program == "python -m":
    if arguments[0] != "venv":
      with pytest.raises(Parsed):
        found = importlib.import_module(arguments[0])
        if hasattr(found, "__path__"):  # a package is run by its module `__main__`
          found = importlib.import_module(f"{arguments[0]}.__main__")
        found.main(arguments[1:])
  elif program.startswith("launch/") or (program == "sbatch" and arguments[0].startswith("launch/")):
    script, *rest = arguments if program == "sbatch" else words
    assert Path(script).is_file(), words
    _check_options(["stajax", "train", *rest[rest.index("--config") :]], config)
  elif program == "pip":
    _check_extras(arguments)
  elif program == "pytest":
    assert not config._parser.parse_known_and_unknown_args(arguments)[1], words
    assert all(Path(argument).exists() for argument in arguments if argument.startswith("tests/")), words
  else:
    assert program in (*SHELL, *TOOLS), f"{program}: nothing checks this command"
    assert all(Path(argument).exists() for argument in arguments if re.match(r"(configs|launch|tests)/", argument))


def _check_extras(arguments: list[str]) -> None:
  known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
  for argument in arguments:
    if found := re.search(r"(?:stajax|\.)\[(.*)\]", argument):
      assert set(found[1].split(",")) <= known.keys(), argument
