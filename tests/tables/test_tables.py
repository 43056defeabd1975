"""The command `stajax tables`: what runs stand for, that finished scores are kept, and its errors."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from helpers import tiny
from stajax.config import Config, Students
from stajax.evaluate.methods import Methods
from stajax.eyetracking import read_tree
from stajax.model import Model
from stajax.prepare.tree_files import write_fold_lists, write_video
from stajax.scoring.protocol import Settings
from stajax.tables.__main__ import main
from stajax.tables.runs import role_of
from stajax.tables.scored import Scorer, Tree, merge, renamed

SIZE = (24, 32)
random_networks, model_folder, small_programs = tiny.random_networks, tiny.model_folder, tiny.small_programs


@pytest.fixture
def tree(tmp_path):
  rng, root = np.random.default_rng(0), tmp_path / "tree"
  frames = rng.integers(0, 255, (3, *SIZE, 3), dtype=np.uint8)
  annotations = [(rng.random(SIZE) < 0.02, rng.integers(0, 255, SIZE, dtype=np.uint8)) for _ in frames]
  write_video(root, "AVAD", "a", frames, None, annotations)
  write_fold_lists(root, "AVAD", [("a", len(frames), 8.0)])
  return Tree(root, read_tree(root))


def random_maps(video, frames):
  rng = np.random.default_rng(1)
  yield list(frames), {name: rng.integers(0, 255, (len(frames), 8, 8), dtype=np.uint8) for name in ("sta", "x")}


def test_runs_stand_for_rows_of_the_paper():
  def role(trained_on, **students):
    return role_of(
      cast(Model, SimpleNamespace(trained_on=trained_on, config=Config(name="a", students=Students(**students))))
    )

  assert role("ave") == role("synthetic") == "STANet+" and role("vggsound") == "STANet+♭"
  assert role("ave", learn_from="scam") == "STANet" and role("stavis") == "re-trained"


def test_scores_are_kept_until_what_they_depend_on_changes(tmp_path, tree):
  calls = []

  def make():
    calls.append(1)
    return Methods("", {0: renamed(random_maps, {"sta": "final"})}, row_titles={"final": "the final"})

  scorer = Scorer(tmp_path / "out", Settings(), 1)
  scores, about = scorer.score("run", tree, {"sta": "abc"}, make)
  assert list(scores["AVAD"]) == ["centre", "uniform", "final"] and about["rows"] == {"final": "the final"}
  again = scorer.score("run", tree, {"sta": "abc"}, make)
  assert len(calls) == 1 and again[0] == scores and again[1]["rows"] == about["rows"]
  scorer.score("run", tree, {"sta": "abd"}, make)
  Scorer(tmp_path / "out", Settings(stride=2), 1).score("run", tree, {"sta": "abd"}, make)
  assert len(calls) == 3
  (tmp_path / "out" / "run" / "request.json").unlink()  # as if it had been stopped before the end
  scorer.score("run", tree, {"sta": "abd"}, make)
  assert len(calls) == 4
  merged = merge([scores, {"AVAD": {"x": {}}, "DIEM": {}}])
  assert list(merged["AVAD"]) == ["centre", "uniform", "final", "x"] and "DIEM" in merged


def test_a_stopped_command_goes_on_with_the_videos_that_have_no_scores(tmp_path, tree):
  (tree.root / "annotations" / "AVAD" / "a").parent.joinpath("b").symlink_to("a")
  (tree.root / "video_frames" / "AVAD" / "b").symlink_to("a")
  write_fold_lists(tree.root, "AVAD", [("a", 3, 8.0), ("b", 3, 8.0)])
  both, asked = Tree(tree.root, read_tree(tree.root)), []

  def score(stops):
    def maps(video, frames):
      asked.append(video.name)
      if stops and video.name == "b":
        raise KeyboardInterrupt
      yield from random_maps(video, frames)

    return Scorer(tmp_path / "out", Settings(), 1).score("run", both, {}, lambda: Methods("", {0: maps}))[0]

  with pytest.raises(KeyboardInterrupt):
    score(stops=True)
  found = score(stops=False)
  assert asked == ["a", "b", "b"] and not (tmp_path / "out" / "run" / ".scores").exists()
  assert (
    found == Scorer(tmp_path / "new", Settings(), 1).score("run", both, {}, lambda: Methods("", {0: random_maps}))[0]
  )


def test_videos_that_cannot_be_scored_are_remembered(tmp_path, tree):
  (tree.root / "annotations" / "AVAD" / "a" / "fixMap_00002.mat").write_bytes(b"no matrix")
  for _ in range(2):  # scored, and read again
    scorer = Scorer(tmp_path / "out", Settings(), 1)
    scorer.score("run", tree, {}, lambda: Methods("", {0: random_maps}))
    assert scorer.failed == {"AVAD/a"}


def test_what_the_data_do_not_allow_is_named_and_no_failure(tmp_path, model_folder, capsys):
  assert main([str(model_folder), "--out", str(tmp_path / "out")]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert "missing: table_5: scores on devices (Snapdragon 8 Gen 3, RTX 3060): no such device was measured" in lines
  assert any(line.startswith("missing: table_1: no tree that was given has the set AVAD") for line in lines)
  assert "6 tables" in lines[-1] and (tmp_path / "out" / "tables.md").is_file()


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "no run"),
    (["nowhere"], "nowhere: not a model"),
  ],
)
def test_bad_input_is_one_line(tmp_path, capsys, arguments, message):
  assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
  error = capsys.readouterr().err
  assert error.startswith("stajax tables: ") and message in error and error.count("\n") == 1
  assert not (tmp_path / "out").exists()
