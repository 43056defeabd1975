"""Prediction on Apache Beam: its workers write what a local run writes, leave what exists, and survive broken videos.

Most tests need no Beam, since a loop stands for it. For the others:
pip install -e '.[train,test,beam]' && pytest -m "slow or not slow" tests/predict/test_beam.py
"""

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.media_files import clicks, write_video
from helpers.tiny import CATEGORIES, PLUS_CONFIG, SIZE, SMALL, write_model
from stajax import networks, runtime
from stajax.predict import beam
from stajax.predict.__main__ import main
from stajax.predict.job import Job
from tests.predict import test_outputs
from tests.predict.test_outputs import spot

model = test_outputs.model
OPTIONS = "--runner=DirectRunner --direct_running_mode=multi_processing --direct_num_workers=2"


@pytest.fixture
def loop(monkeypatch):
  """Puts a loop in place of Beam's workers; returns what it was asked to do."""
  asked = []

  def run_on_beam(options, function, count):
    asked.append((tuple(options), count))
    for number in reversed(range(count)):  # workers finish in any order
      function(number)

  monkeypatch.setattr(runtime, "run_on_beam", run_on_beam)
  beam._loaded.cache_clear()
  return asked


@pytest.fixture
def videos(tmp_path) -> Path:
  folder = tmp_path / "in"
  (folder / "day1").mkdir(parents=True)
  for number, name in enumerate(("a.mp4", "b.mp4", "day1/a.mp4", "b.mkv")):
    sound = clicks(0.6, [0.2]) if number % 2 else None
    write_video(folder / name, np.roll(spot(6 + number), number, axis=0), sound=sound)
  (folder / "broken.mp4").write_text("not media")
  return folder


def contents(out: Path) -> dict[str, bytes]:
  paths = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name != beam.SUMMARY]
  return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def summary(out: Path) -> list[dict]:
  return [json.loads(line) for line in (out / beam.SUMMARY).read_text().splitlines()]


def test_workers_write_the_files_of_a_local_run(videos, model, tmp_path, loop, monkeypatch, capsys):
  monkeypatch.setattr(beam.predict_on_beam, "__defaults__", (2,))  # chunks of two videos
  command = [str(videos), "--recursive", "--model", str(model)]
  assert main([*command, "--out", str(tmp_path / "local")]) == 1
  capsys.readouterr()
  assert main([*command, "--out", str(tmp_path / "beam"), "--beam=--runner=X --workers=3"]) == 1
  assert loop == [(("--runner=X", "--workers=3"), 3)]
  captured = capsys.readouterr()
  assert "4 of 5 videos, 30 frames, 26 maps" in captured.out and "1 failed" in captured.out
  (line,) = [line for line in captured.err.splitlines() if "broken.mp4" in line]
  assert line.startswith("stajax predict: ") and "is not a media file" in line
  assert "note: the outputs of" in captured.err and captured.err.splitlines()[-1] == line
  expected = contents(tmp_path / "local")
  assert contents(tmp_path / "beam") == expected and {"a.json", "b.mp4.json", "day1/a.overlay.mp4"} <= set(expected)

  found = {Path(entry["video"]).relative_to(videos).as_posix(): entry for entry in summary(tmp_path / "beam")}
  assert list(found) == ["a.mp4", "b.mkv", "b.mp4", "broken.mp4", "day1/a.mp4"]
  assert found["a.mp4"]["frames"] == 6 and found["a.mp4"]["maps"] == 5 and not found["a.mp4"]["was_done"]
  assert found["b.mp4"]["name"] == "b.mp4" and "not a media file" in found["broken.mp4"]["error"]


def test_the_next_run_makes_only_what_is_missing(videos, model, tmp_path, loop, capsys):
  out = tmp_path / "out"
  command = [str(videos), "--recursive", "--model", str(model), "--out", str(out), "--beam=--runner=X"]
  assert main(command) == 1
  first = {name: (out / name).stat().st_mtime_ns for name in contents(out)}
  (out / "day1" / "a.json").unlink()  # as a worker leaves it that is killed while it writes
  write_video(videos / "broken.mp4", spot(3))
  assert main(command) == 0
  assert "2 of 5 videos, 3 were done before, 11 frames" in capsys.readouterr().out
  made = {name for name in contents(out) if first.get(name) != (out / name).stat().st_mtime_ns}
  assert {name.split(".")[0] for name in made} == {"day1/a", "broken"}
  assert [entry["was_done"] for entry in summary(out)] == [True, True, True, False, False]
  assert loop[-1] == (("--runner=X",), 5)  # few videos are units of their own
  assert main([*command, "--opacity", "0.5"]) == 3  # were made with other settings
  assert "made with other settings (opacity 0.75 there, 0.5 now)" in capsys.readouterr().err
  assert main([*command, "--opacity", "0.5", "--overwrite"]) == 0


def test_a_pipeline_that_fails_keeps_what_is_done(videos, model, tmp_path, loop, monkeypatch, capsys):
  def failing(options, function, count):
    function(0)
    raise OSError("the Beam pipeline failed: a worker was lost")

  monkeypatch.setattr(beam.predict_on_beam, "__defaults__", (1,))
  command = [str(videos), "--model", str(model), "--out", str(tmp_path / "out"), "--beam=--runner=X"]
  with monkeypatch.context() as patch:
    patch.setattr(runtime, "run_on_beam", failing)
    assert main(command) == 2
  assert capsys.readouterr().err.splitlines()[-1] == "stajax predict: the Beam pipeline failed: a worker was lost"
  assert (tmp_path / "out" / "a.json").exists()
  assert main(command) == 1 and summary(tmp_path / "out")[0]["was_done"]
  assert not list((tmp_path / "out").glob(".*"))


def test_arguments_that_do_not_go_together_are_one_line(tmp_path, capsys):
  assert main(["--data", f"stavis:{tmp_path}", "--out", str(tmp_path / "out"), "--beam=--runner=X"]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert "--beam and --data" in line and "expected videos with --beam" in line


def test_the_direct_runner_in_this_process(videos, model, tmp_path, capsys):
  pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
  beam._loaded.cache_clear()
  command = [str(videos), "--recursive", "--model", str(model)]
  assert main([*command, "--out", str(tmp_path / "beam"), "--beam=--runner=DirectRunner"]) == 1
  assert main([*command, "--out", str(tmp_path / "local")]) == 1
  assert contents(tmp_path / "beam") == contents(tmp_path / "local")
  assert main([*command, "--out", str(tmp_path / "x"), "--beam=--runner=NoSuchRunner"]) == 2
  assert "Beam pipeline failed" in capsys.readouterr().err.splitlines()[-1]


def test_a_pipeline_of_ones_own(videos, model, tmp_path):
  pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
  from functools import partial

  import apache_beam

  beam._loaded.cache_clear()
  (tmp_path / "out").mkdir()
  job = Job(tmp_path / "out", str(model))
  with apache_beam.Pipeline() as pipeline:
    names = pipeline | apache_beam.Create(["a", "broken"])
    found = names | apache_beam.Map(lambda name: beam.predict_one(job, videos / f"{name}.mp4", name))
    lines = found | apache_beam.Map(lambda outcome: json.dumps([outcome.name, outcome.maps, bool(outcome.error)]))
    _ = lines | apache_beam.io.WriteToText(str(tmp_path / "found"), num_shards=1)
  (path,) = tmp_path.glob("found*")
  assert sorted(path.read_text().splitlines()) == ['["a", 5, false]', '["broken", 0, true]']
  assert partial(beam.predict_one, job)(videos / "a.mp4", "a").was_done


@pytest.mark.slow
def test_several_workers_with_a_model(videos, tmp_path, random_variables, one_device, monkeypatch, capsys):
  pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
  monkeypatch.setenv("XLA_FLAGS", one_device["XLA_FLAGS"])  # the workers are processes of their own
  variables = {}
  for seed, name in enumerate((networks.SWITCH, *networks.STUDENTS)):
    network = networks.make_network(name, PLUS_CONFIG, len(CATEGORIES))
    variables[name] = random_variables(network, SMALL if "plus" in name else SIZE, seed)
  folder = write_model(tmp_path, variables)
  monkeypatch.setattr(beam.predict_on_beam, "__defaults__", (1,))
  command = [str(videos), "--recursive", "--model", str(folder)]
  assert main([*command, "--out", str(tmp_path / "beam"), f"--beam={OPTIONS}"]) == 1
  assert main([*command, "--out", str(tmp_path / "local")]) == 1
  assert contents(tmp_path / "beam") == contents(tmp_path / "local")
  assert main([*command, "--out", str(tmp_path / "beam"), f"--beam={OPTIONS}"]) == 1
  assert "0 of 5 videos, 4 were done before" in capsys.readouterr().out
