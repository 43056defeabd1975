"""What finished stages left behind is checked before a run goes on, and a stage can be done again."""

import contextlib
import json
import shutil

import pytest

from helpers.runs import train_all

pytest.importorskip("tensorflow")

from stajax.config import Config, ConfigError, Data, Students
from stajax.train.stages import runner, stage_files
from stajax.train.stages.graph import make_graph
from stajax.train.workdir import Workdir, WorkdirError

CONFIG = Config(name="a", data=Data(source="synthetic"), init={"visual": "random"}, **train_all())
GRAPH = make_graph(CONFIG)
SHORT = CONFIG.model_copy(update={"students": Students(learn_from="teacher", teacher="model")})
"""A configuration with five stages."""


@pytest.fixture
def work(monkeypatch):
  """Stages write their results and nothing else; returns the list of those that were run, and what they write."""
  calls, content = [], {}

  def do_work(stage, run):
    calls.append(stage.name)
    for path in stage_files.products(stage, run.workdir, run.config):
      is_file = bool(path.suffix)
      path = path if is_file else path / "values.npy"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(content.get(stage.name, stage.name))
    return {"said": stage.name}

  monkeypatch.setattr(runner, "do_work", do_work)
  monkeypatch.setattr(runner, "check_teacher", lambda config: None)
  return calls, content


def run(folder, *redo, config=CONFIG):
  return runner.run_all(config, folder, redo)


NOT_RESULTS = ("config.json", "begun.json", "log.jsonl")


def results(folder):
  return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in NOT_RESULTS)


@pytest.mark.parametrize("config", [SHORT, pytest.param(CONFIG, marks=pytest.mark.slow)], ids=["short", "whole"])
@pytest.mark.parametrize("how", ["flip", "cut", "empty", "none", "folder"])
def test_damage_to_any_file_is_named_and_can_be_redone(tmp_path, work, how, config):
  calls, _ = work
  run(tmp_path / "whole", config=config)
  stages = {stage.name for stage in make_graph(config)}
  before = {path.relative_to(tmp_path / "whole"): path.read_bytes() for path in results(tmp_path / "whole")}
  for number, path in enumerate(results(tmp_path / "whole")):
    if how == "none" and path.name == "done.json":
      continue  # then the stage is not finished
    folder = tmp_path / str(number)
    shutil.copytree(tmp_path / "whole", folder)
    own = folder / path.relative_to(tmp_path / "whole")
    content = bytearray(own.read_bytes())
    own.unlink()
    if how == "folder":
      own.mkdir()
    elif how != "none":
      content[len(content) // 2] ^= 2
      own.write_bytes({"flip": content, "cut": content[:-2], "empty": b""}[how])
    with pytest.raises(WorkdirError) as error:
      run(folder, config=config)
    line = str(error.value)
    assert line.startswith(f"{own}: ") and "\n" not in line
    stage = line.partition("--redo ")[2].partition("`")[0]
    assert stage in stages
    calls.clear()
    run(folder, stage, config=config)
    assert calls == [stage]  # it comes out as before, so what was made from it stays
    assert {p.relative_to(folder): p.read_bytes() for p in results(folder) if p.name != "done.json"} == {
      name: content for name, content in before.items() if name.name != "done.json"
    }
    shutil.rmtree(folder)


def test_what_was_made_from_another_result_is_redone(tmp_path, work, capsys):
  calls, content = work
  run(tmp_path)
  calls.clear()
  content["st"] = "another network"
  run(tmp_path, "st")
  after = [stage.name for stage in GRAPH]
  # What needs `st`, and nothing else: the rest comes out as before, and stays.
  assert calls == ["st", "scam_plus"] and after.index("scam_plus") > after.index("st")
  assert "scam_plus: was made from another result of st than the one that is there" in capsys.readouterr().out


def test_what_was_begun_with_another_result_is_begun_again(tmp_path, work, monkeypatch):
  """A stage was interrupted; before it goes on, what it is made from comes out differently."""
  _, content = work
  finish, known = runner.do_work, []

  def interrupted(stage, run):
    if stage.name == "scam_coarse":
      staged = tmp_path / "tables" / ".boxes.staging" / "1.npz"
      known.append(staged.exists())
      staged.parent.mkdir(parents=True, exist_ok=True)
      staged.touch()
      if len(known) < 4:
        raise KeyboardInterrupt
    return finish(stage, run)

  monkeypatch.setattr(runner, "do_work", interrupted)
  for again in ((), (), ("s_coarse",), ()):
    content["s_coarse"] = "another" if again else content.get("s_coarse", "s_coarse")
    with contextlib.suppress(KeyboardInterrupt):
      run(tmp_path, *again)
  assert known == [False, True, False, True]  # a second run goes on, and a third one begins again
  assert not list(tmp_path.rglob("*.staging"))


def test_redo_keeps_checkpoints_and_a_stale_stage_loses_them(tmp_path, work):
  _, content = work
  run(tmp_path)
  for name in ("s_coarse", "st", "s"):
    (tmp_path / "stages" / name / "checkpoints" / "2").mkdir(parents=True)
  content["s_coarse"], content["scam_coarse"] = "another", "others"
  run(tmp_path, "s_coarse")
  kept = [(tmp_path / "stages" / name / "checkpoints").exists() for name in ("s_coarse", "st", "s")]
  assert kept == [True, False, False]


@pytest.mark.parametrize("is_damaged", [False, True])
def test_redo_keeps_the_log_unless_it_is_damaged(tmp_path, work, monkeypatch, is_damaged):
  """With a checkpoint of the last step nothing would write its lines again."""
  run(tmp_path)
  log = tmp_path / "stages" / "s_coarse" / stage_files.LOG
  if is_damaged:
    log.write_text("damaged")
  found = []
  monkeypatch.setattr(runner, "do_work", lambda stage, run: found.append(log.exists()) or {"said": ""})
  with contextlib.suppress(FileNotFoundError, WorkdirError):
    run(tmp_path, "s_coarse")
  assert found[0] is not is_damaged


def test_an_unknown_stage_is_one_line(tmp_path, work):
  run(tmp_path)
  with pytest.raises(ConfigError, match=r"^--redo: unknown stage 'scam_pls'; did you mean `scam_plus`\? Known: data, "):
    run(tmp_path, "scam_pls")


def test_stages_that_were_finished_before_digests_were_written_are_taken(tmp_path, work):
  calls, _ = work
  run(tmp_path)
  for stage in GRAPH:
    path = tmp_path / "stages" / stage.name / "done.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps({key: about[key] for key in ("stage", "said", "seconds")}))
  calls.clear()
  assert "everything was done already" in run(tmp_path) and not calls
  assert Workdir(tmp_path).files("s") == {}
