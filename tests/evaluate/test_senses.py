"""`evaluate --sense` on trees with sound, with one sound and without any."""

import csv
import json
import shutil

import numpy as np
import pytest

from helpers import tiny
from stajax import networks
from stajax.evaluate.__main__ import main
from stajax.prepare.tree_files import write_fold_lists, write_groups, write_video
from stajax.report import paired

small_programs = tiny.small_programs
random_networks, model_folder = tiny.random_networks, tiny.model_folder
pytestmark = pytest.mark.usefixtures("small_programs")

STUDENTS = (*networks.STUDENTS, "final")


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
  """A tree of four videos, of which three have sound; the same with one sound, and with none."""
  folder = tmp_path_factory.mktemp("trees")
  rng = np.random.default_rng(0)
  for name in ("a", "b", "c", "silent"):
    frames = [rng.integers(0, 255, (24, 32, 3), dtype=np.uint8) for _ in range(3)]
    truth = zip(rng.random((3, 24, 32)) < 0.05, rng.integers(0, 255, (3, 24, 32), dtype=np.uint8))
    samples = None if name == "silent" else rng.normal(0, 0.1, 16000)
    write_video(folder / "some", "Tiny", name, frames, samples, truth)
  write_fold_lists(folder / "some", "Tiny", [(name, 3, 4.0) for name in ("a", "b", "c", "silent")])
  write_groups(folder / "some", {"Tiny/foreign": ["c"]})
  for name in ("one", "none"):
    shutil.copytree(folder / "some", folder / name)
  for name in ("b", "c"):
    shutil.rmtree(folder / "one" / "video_audio" / "Tiny" / name)
  shutil.rmtree(folder / "none" / "video_audio")
  return folder


def run(model, tree, out, *senses):
  options = [option for sense in senses for option in ("--sense", sense)]
  arguments = ["--model", model, "--data", tree, "--out", out, "--processes", 1, *options]
  return main([str(argument) for argument in arguments])


def read(path):
  return json.loads(path.read_text(), parse_constant=pytest.fail)


def test_rows_beside_the_usual_ones_and_their_differences(model_folder, trees, tmp_path, capsys):
  senses = ("sound=other", "sound=none", "motion=none", "sound=none,motion=none", "sound=other")
  assert run(model_folder, trees / "some", tmp_path / "plain") == 0
  capsys.readouterr()
  assert run(model_folder, trees / "some", tmp_path / "out", *senses) == 0
  printed = capsys.readouterr().out
  scores, plain = read(tmp_path / "out" / "scores.json"), read(tmp_path / "plain" / "scores.json")
  suffixes = ("_other_sound", "_no_sound", "_no_motion", "_no_sound_no_motion")
  ablated = {f"{name}{suffix}" for name in STUDENTS for suffix in suffixes}
  assert set(scores["Tiny"]) - set(plain["Tiny"]) == ablated
  assert all(scores[name][method] == row for name, rows in plain.items() for method, row in rows.items())

  about = read(tmp_path / "out" / "evaluation.json")["senses"]
  assert list(about["differences"]) == ["Tiny", "Tiny/own_sound", "Tiny/foreign"] and len(about["says"]) == 4
  assert all(line in printed for line in about["says"]) and "final_other_sound" in printed
  report = paired.read_report(tmp_path / "out")
  for method, of_metrics in about["differences"]["Tiny"].items():
    own = next(name for name in reversed(STUDENTS) if method.startswith(name))
    assert of_metrics["nss"]["videos"] == (4 if "sound" not in method else 3)
    if "sound" not in method:
      expected = paired.compare([report], f"{own}:{method}", "nss")
      assert of_metrics["nss"]["difference"] == pytest.approx(expected.mean, abs=1e-5)
      assert of_metrics["nss"]["better"] == expected.num_better
  page = (tmp_path / "out" / "index.html").read_text()
  assert "What each sense adds" in page and "Final, no sound, no motion" in page
  assert "What each sense adds" not in (tmp_path / "plain" / "index.html").read_text()
  assert "senses" not in read(tmp_path / "plain" / "evaluation.json")
  # A silent video is the same without sound.
  rows = {(row["video"], row["method"]): row["nss"] for row in csv.DictReader((tmp_path / "out/per_video.csv").open())}
  assert rows["silent", "final"] == rows["silent", "final_other_sound"] == rows["silent", "final_no_sound"]
  assert rows["a", "final"] != rows["a", "final_other_sound"]


def test_a_silent_tree_has_no_sound_to_exchange(model_folder, trees, tmp_path, capsys):
  assert run(model_folder, trees / "none", tmp_path, "sound=other", "companions=none") == 0
  scores, about = read(tmp_path / "scores.json")["Tiny"], read(tmp_path / "evaluation.json")["senses"]
  assert scores["final_other_sound"] == scores["final"] != scores["final_no_companions"]
  assert about["says"][0] in capsys.readouterr().out and "there is no sound to exchange" in about["says"][0]
  assert "sta_no_companions" not in scores


@pytest.mark.parametrize(
  "arguments, expected",
  [
    (["--model", "{model}", "--sense", "sound=other", "--data", "{trees}/one"], "found sound in one video"),
    (["--model", "{model}", "--sense", "sund=other", "--data", "{trees}/some"], "did you mean `sound`?"),
    (["--model", "{model}", "--ablation", "--sense", "sound=none", "--data", "{trees}/some"], "without --ablation"),
    (["--maps", "{trees}", "--sense", "sound=none", "--data", "{trees}/some"], "without --maps"),
  ],
)
def test_bad_input_is_one_line(model_folder, trees, tmp_path, capsys, arguments, expected):
  filled = [argument.format(model=model_folder, trees=trees) for argument in arguments]
  assert main([*filled, "--out", str(tmp_path / "out")]) == 2
  error = capsys.readouterr().err
  assert expected in error and error.count("\n") == 1 and not (tmp_path / "out").exists()
