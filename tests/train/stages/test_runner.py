"""Finished stages are not run again, and a work folder belongs to one configuration."""

import json

import pytest

from helpers.runs import train_all

pytest.importorskip("tensorflow")

from stajax.config import Config, ConfigError, Data, Training
from stajax.data.shards import RecordError
from stajax.train.stages import runner
from stajax.train.stages.graph import make_graph
from stajax.train.workdir import WorkdirError


def runnable(**changes):
  return Config(name="ü", data=Data(source="synthetic"), init={"visual": "random"}, **(train_all() | changes))


def fake_work(monkeypatch, fail=None):
  """Stages do nothing but fail or say their names; returns the list of those that were run."""
  calls = []

  def do_work(stage, run):
    calls.append(stage.name)
    if stage.name == fail:
      raise RecordError("broken")
    return {"said": stage.name}

  monkeypatch.setattr(runner, "do_work", do_work)
  return calls


def test_finished_stages_are_not_run_again(tmp_path, monkeypatch, capsys):
  names = [stage.name for stage in make_graph(runnable())]
  calls = fake_work(monkeypatch, fail="scam_coarse")
  with pytest.raises(RecordError):
    runner.run_all(runnable(), tmp_path)
  stopped = names.index("scam_coarse")
  assert calls == names[: stopped + 1] and not (tmp_path / "stages" / "scam_coarse" / "done.json").exists()
  calls = fake_work(monkeypatch)
  begun = capsys.readouterr().out.splitlines()
  assert begun == [f"stage {i} of {len(names)}: {name}" for i, name in enumerate(names[: stopped + 1], 1)]
  assert f"{len(names) - stopped} stages in" in runner.run_all(runnable(), tmp_path)
  assert calls == names[stopped:]
  assert capsys.readouterr().out.startswith(f"stage {stopped + 1} of {len(names)}: scam_coarse\n")
  done = json.loads((tmp_path / "stages" / "sta" / "done.json").read_text())
  assert done["stage"] == done["said"] == "sta" and done["seconds"] >= 0
  assert "everything was done already" in runner.run_all(runnable(), tmp_path)
  assert not list(tmp_path.rglob("*.partial"))


def test_what_only_the_report_depends_on_may_change(tmp_path, monkeypatch):
  calls = fake_work(monkeypatch)
  runner.run_all(runnable(), tmp_path)
  calls.clear()
  runner.run_all(runnable(score_stride=3), tmp_path)
  assert calls == ["report"]
  assert json.loads((tmp_path / "config.json").read_text())["score_stride"] == 3
  with pytest.raises(WorkdirError, match=r"seed: 0 → 1"):
    runner.run_all(runnable(score_stride=2, seed=1), tmp_path)
  assert calls == ["report"]


def test_another_configuration_is_refused(tmp_path, monkeypatch):
  fake_work(monkeypatch)
  runner.run_all(runnable(), tmp_path)
  with pytest.raises(WorkdirError, match=r"tagger\.steps: 30000 → 3; sta\.flip: true → false.*another --workdir"):
    runner.run_all(runnable(tagger=Training(batch=8, steps=3), sta=Training(batch=8, flip=False)), tmp_path)
  for text in (b"{", b"\xff\xfe", b""):
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(ConfigError) as error:
      runner.run_all(runnable(), tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'config.json'}: ") and "\n" not in str(error.value)
