"""Whole small trainings that are killed, stopped, lose what was not synced, and whose files are damaged; minutes long.

`python -m helpers.interrupted` does the same as often as wanted.
"""

import os
import shutil
import signal
from pathlib import Path

import pytest

from helpers.interrupted import Training, run_chains
from helpers.tiny_training import CONFIG
from helpers.zygote import Zygote
from stajax import config as configuration
from stajax import model, networks
from stajax.train.stages import runner
from stajax.train.workdir import WorkdirError

pytestmark = pytest.mark.slow

HOWS = ("flip", "cut", "empty", "none", "folder")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
  folder = tmp_path_factory.mktemp("interrupted")
  (folder / "tiny.py").write_text(CONFIG)
  return folder


@pytest.fixture(scope="module")
def zygote(one_device_everywhere):
  with Zygote() as zygote:
    yield zygote


@pytest.fixture(scope="module")
def one_device_everywhere():
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")  # compiles faster; all runs have it
    yield


@pytest.fixture(scope="module")
def reference(place, zygote) -> Path:
  """The work folder of a training that was left alone."""
  assert Training(place / "tiny.py", zygote).start(place / "reference").wait(900) == 0
  return place / "reference"


@pytest.mark.parametrize("number, code", [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75)])
def test_interrupted_trainings_end_as_if_nothing_had_been(place, zygote, reference, number, code):
  made = run_chains(Training(place / "tiny.py", zygote), reference, place, 6, 20, number)
  assert {found.code for found in made} == {code}
  # SIGTERM is answered by a line; whoever is killed says nothing.
  assert all(len(found.lines) == (number == signal.SIGTERM) for found in made), made


def test_trainings_go_on_after_the_power_has_failed(place, zygote, reference):
  training = Training(place / "tiny.py", zygote, losses=(place / "disk").absolute())
  run_chains(training, reference, place, 6, 20, signal.SIGKILL, seed=1)


@pytest.mark.parametrize("killed", [0, 1])
def test_if_one_of_two_processes_is_killed_both_end(place, zygote, killed):
  """A training of two has other batches than one of one, so it is compared with its own kind."""
  training = Training(place / "tiny.py", zygote, processes=2)
  reference = place / "reference-of-two"
  if not reference.exists():
    assert training.start(reference).wait(900) == 0
  for found in run_chains(training, reference, place, 1, 20, signal.SIGKILL, seed=killed):
    assert found.code and not any("Traceback" in line for line in found.lines), found


def damage(path: Path, how: str) -> None:
  """Damages a file, which other folders may have, too."""
  content = bytearray(path.read_bytes())
  path.unlink()
  if how == "folder":
    path.mkdir()
  elif how != "none":
    if how == "flip" and content:
      content[len(content) // 2] ^= 2
    path.write_bytes({"flip": content, "cut": content[: len(content) * 2 // 3], "empty": b""}[how])


def outcome_of(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> str:
  """Returns the line that refuses a finished work folder, or the names of the stages that would be done again."""
  again: list[str] = []
  monkeypatch.setattr(runner, "_run_stage", lambda stage, run: again.append(stage.name))
  config = configuration.load(workdir.parent / "tiny.py")
  try:
    runner.run_all(config, workdir)
  except (WorkdirError, configuration.ConfigError) as error:
    return str(error)
  return f"again: {', '.join(again)}" if again else ""


def files_that_count(folder: Path) -> list[Path]:
  """Returns the files of a work folder without those that nobody reads once a stage is done."""
  unread = ("checkpoints", "tensorboard", "begun.json")
  found = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
  return [path for path in found if not any(part in unread for part in path.parts)]


@pytest.mark.parametrize("how", HOWS)
def test_no_damage_to_a_work_folder_is_accepted(place, reference, monkeypatch, how):
  workdir = place / f"damaged-{how}"
  for name in files_that_count(reference):
    if how == "none" and name.name == "done.json":
      continue  # then the stage is not finished
    shutil.copytree(reference, workdir, copy_function=os.link)
    content = (workdir / name).read_bytes()
    damage(workdir / name, how)
    found = outcome_of(workdir, monkeypatch)
    is_same = (workdir / name).is_file() and (workdir / name).read_bytes() == content
    assert is_same or str(workdir / name) in found or found.startswith("again: "), name
    assert "\n" not in found
    shutil.rmtree(workdir)


@pytest.mark.parametrize("how", HOWS)
def test_no_damage_to_a_model_folder_is_accepted(place, reference, how):
  names = [path.name for path in sorted((reference / "model").iterdir())]
  for name in names:
    folder = place / f"model-{how}"
    shutil.copytree(reference / "model", folder)
    damage(folder / name, how)
    with pytest.raises(ValueError) as error:
      model.load(folder, networks.MODEL_NETWORKS)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
    assert name in str(error.value) or (name, how) == ("model.json", "none")
    shutil.rmtree(folder)
