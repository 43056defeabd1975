"""Tests of evaluation as a whole, which takes trees and maps and writes files of scores."""

import csv
import itertools
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from helpers.paths import SHARED
from helpers.scores import SIZE, score_frames, write_tree
from stajax.evaluate.__main__ import main
from stajax.eyetracking import StavisError, read_tree
from stajax.prepare.tree_files import write_groups
from stajax.report.page import Page, write_page
from stajax.report.score_files import describe, write_scores
from stajax.report.tables import format_table
from stajax.scoring import protocol
from stajax.scoring import videos as scoring_videos
from stajax.scoring.baselines import centre_map
from stajax.scoring.protocol import Settings
from stajax.scoring.videos import evaluate_videos


def random_maps(video, frames):
  for start in range(0, len(frames), 2):
    chunk = list(frames[start : start + 2])
    maps = [np.random.default_rng([len(video.name), i]).integers(0, 256, (12, 16), dtype=np.uint8) for i in chunk]
    yield chunk, {"random": np.stack(maps), "same": np.stack(maps)}


@pytest.fixture
def tree(tmp_path):
  write_tree(tmp_path / "tree", "Tiny", [["a"], ["bb", "a", "a"], ["ccc"]])
  write_groups(tmp_path / "tree", {"Tiny/few": ["a", "nobody"], "Tiny/none": ["nobody"], "Else/x": ["a"]})
  return tmp_path / "tree"


def write_maps(folder, numbers, values=None, suffix="png", stem="img_"):
  folder.mkdir(parents=True, exist_ok=True)
  for number in numbers:
    maps = np.random.default_rng(number).integers(0, 256, (12, 16), dtype=np.uint8) if values is None else values
    Image.fromarray(maps).save(folder / f"{stem}{number:05d}.{suffix}")


def test_scores_equal_the_protocol_and_every_list_row_counts(tree):
  videos = read_tree(tree).videos
  found = evaluate_videos(videos, random_maps, Settings(seed=3, stride=2), processes=1)
  expected = {}
  for video in videos:
    frames, union = [0, 2, 4], np.any([video.fixations(i) for i in video.fixation_paths], axis=0)
    for chunk_frames, maps in [next(random_maps(video, frames)), (frames[2:], list(random_maps(video, frames))[1][1])]:
      seeds = np.array([protocol.frame_seed(3, "Tiny", video.name, i) for i in chunk_frames], np.uint64)
      truth = [np.stack([read(i) for i in chunk_frames]) for read in (video.fixations, video.density)]
      scored = score_frames(maps["random"], *truth, union, seeds)
      for metric, values in scored.items():
        expected.setdefault(metric, {}).setdefault(video.name, []).extend(values)
  assert found.methods == ["centre", "uniform", "random", "same"]
  for metric in protocol.METRICS:
    for row in found.videos:
      np.testing.assert_array_equal(row.frames, [0, 2, 4])
      np.testing.assert_array_equal(row.scores["random"][metric], expected[metric][row.name])
      np.testing.assert_array_equal(row.scores["random"][metric], row.scores["same"][metric])
    means = {name: np.mean(values) for name, values in expected[metric].items()}
    pooled = (3 * means["a"] + means["bb"] + means["ccc"]) / 5  # `a` is in the lists three times
    assert found.set_scores()["Tiny"]["random"][metric] == pytest.approx(pooled, abs=1e-12)


def test_results_do_not_depend_on_the_order_of_videos_or_on_how_frames_are_grouped(tree, monkeypatch):
  videos = read_tree(tree).videos
  together = evaluate_videos(videos, random_maps, processes=1)
  monkeypatch.setattr(scoring_videos, "TASK_FRAMES", 1)
  apart = evaluate_videos(videos[::-1], random_maps, processes=1)
  for first, second in zip(together.videos, apart.videos[::-1], strict=True):
    assert first.name == second.name
    for method, metric in itertools.product(together.methods, protocol.METRICS):
      np.testing.assert_array_equal(first.scores[method][metric], second.scores[method][metric])


def test_results_do_not_depend_on_processes_and_workers_stay_light(tree, monkeypatch):
  videos = read_tree(tree).videos
  monkeypatch.setattr(scoring_videos, "TASK_FRAMES", 4)
  one = evaluate_videos(videos, random_maps, processes=1)
  two = evaluate_videos(videos, random_maps, processes=2)
  assert [video.name for video in one.videos] == [video.name for video in two.videos]
  for first, second in zip(one.videos, two.videos):
    for method in one.methods:
      for metric in protocol.METRICS:
        np.testing.assert_array_equal(first.scores[method][metric], second.scores[method][metric])
  code = (
    "import sys, stajax.scoring.videos; print([m for m in ('jax', 'tensorflow', 'librosa', 'av') if m in sys.modules])"
  )
  light = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert light.stdout.strip() == "[]"


def test_too_little_memory_costs_the_video(tree, monkeypatch):
  """The maps of one video are too large for the processes that score."""

  def maps_of(video, frames):
    size = (6000, 6000) if video.name == "bb" else (4, 4)
    for i in frames:
      yield [i], {"m": np.full((1, *size), i, np.uint8)}

  monkeypatch.setattr(scoring_videos, "MEMORY", 2**28)
  found = evaluate_videos(read_tree(tree).videos, maps_of, processes=2)
  assert [video.name for video in found.videos] == ["a", "ccc"]
  assert found.skipped == (("Tiny", "bb", "scoring it needs more than 0.25 GiB of memory in a process"),)


def test_each_split_has_its_own_maps(tmp_path):
  write_tree(tmp_path, "AVAD", [["a"], ["bb"]])
  write_tree(tmp_path, "DIEM", [["d"]])
  videos = read_tree(tmp_path).videos

  def constant(values):
    return lambda video, frames: iter([(list(frames), {"m": np.stack([values] * len(frames))})])

  centre, corner = centre_map(SIZE), np.roll(centre_map(SIZE), 12, 0)
  found = evaluate_videos(videos, {1: constant(centre), 2: constant(corner)}, processes=1)
  assert [(row.database, row.name, row.split, row.entries) for row in found.videos] == [
    ("AVAD", "a", 1, 1), ("AVAD", "bb", 2, 1), ("DIEM", "d", 1, 1), ("DIEM", "d", 2, 1),
  ]  # fmt: skip
  for row in found.videos:
    same = np.array_equal(row.scores["m"]["nss"], row.scores["centre"]["nss"])
    assert same == (row.split == 1)
  nss = [found.video_score(row, "m", "nss") for row in found.videos]
  assert found.set_scores()["DIEM"]["m"]["nss"] == pytest.approx((nss[2] + nss[3]) / 2)


def test_bad_videos_are_skipped_with_the_reason(tree):
  bad = tree / "annotations" / "Tiny" / "bb" / "maps" / "eyeMap_00005.jpg"
  bad.write_bytes(b"nothing")
  (tree / "annotations" / "Tiny" / "ccc" / "fixMap_00003.mat").write_bytes(b"nothing")
  found = evaluate_videos(read_tree(tree).videos, random_maps, processes=1)
  assert [video.name for video in found.videos] == ["a"]
  reasons = {name: reason for _, name, reason in found.skipped}
  assert "eyeMap_00005.jpg: cannot be read" in reasons["bb"] and "fixMap_00003.mat" in reasons["ccc"]


def test_errors_in_the_maps_of_a_method(tree):
  videos = read_tree(tree).videos
  with pytest.raises(ValueError, match="m: found maps float32"):
    evaluate_videos(videos, lambda video, frames: iter([([0], {"m": np.zeros((1, 4, 4), np.float32)})]), processes=1)

  def refuse(video, frames):
    raise StavisError("no maps today")
    yield

  found = evaluate_videos(videos, refuse, processes=1)
  assert not found.videos and {reason for _, _, reason in found.skipped} == {"no maps today"}
  assert found.set_scores() == {}


def test_the_files_that_are_written(tree, tmp_path):
  tree_found = read_tree(tree)
  found = evaluate_videos(
    tree_found.videos, random_maps, Settings(first_frame=2), groups={"Tiny/few": ["a"], "Tiny/none": []}, processes=1
  )
  skipped = [("Tiny", "x<y", "gone")]
  about = describe(found, ["a <note>"], tree_found.fold_lists, skipped)
  written = write_scores(found, about, tmp_path / "out")
  write_page(tmp_path / "out", Page("T & T", written, about))
  scores = json.loads((tmp_path / "out" / "scores.json").read_text(), parse_constant=pytest.fail)
  assert scores == written and list(scores) == ["Tiny", "Tiny/few"]
  assert scores["Tiny"]["uniform"]["nss"] is None
  assert scores["Tiny"]["uniform"]["auc_judd"] == pytest.approx(0.5, abs=0.2)
  assert list(scores["Tiny"]["centre"]) == ["auc_judd", "s_auc", "nss", "sim", "cc"]

  about = json.loads((tmp_path / "out" / "evaluation.json").read_text(), parse_constant=pytest.fail)
  assert (about["protocol"], about["seed"], about["first_frame"], about["nan_policy"]) == ("stavis", 0, 2, "stavis")
  assert about["map_sizes_height_width"] == {name: [[24, 32]] for name in ("centre", "uniform")} | {
    name: [[12, 16]] for name in ("random", "same")
  }
  whole = about["sets"]["Tiny"]
  assert (whole["videos"], whole["list_rows"], whole["frames"]) == (3, 5, 15)
  assert whole["methods"]["uniform"]["cc"]["dropped"] == 15 and whole["methods"]["random"]["cc"]["scored"] == 15
  assert about["skipped"] == [{"database": "Tiny", "video": "x<y", "reason": "gone"}]
  assert about["fold_lists"] == [f"Tiny_list_test_{i}_fps.txt" for i in (1, 2, 3)]

  rows = list(csv.DictReader((tmp_path / "out" / "per_video.csv").open()))
  assert len(rows) == 3 * 4
  assert float(rows[2]["nss"]) == pytest.approx(found.video_score(found.videos[0], "random", "nss"), abs=1e-6)

  page = (tmp_path / "out" / "index.html").read_text()
  assert not re.search(r"(src|href)=|url\(|https?:", page) and "a &lt;note&gt;" in page and "T &amp; T" in page
  assert f"{scores['Tiny']['random']['nss']:.3f}" in page and "x&lt;y: gone" in page
  best = max(row["nss"] for row in scores["Tiny"].values() if row["nss"] is not None)
  assert f'<td class="best">{best:.3f}</td>' in page
  assert f"{best:.3f}" in format_table(scores)
  assert not [path for path in (tmp_path / "out").iterdir() if path.suffix == ".tmp"]


def test_a_new_metric_is_one_row(tmp_path, monkeypatch):
  """It is computed, written to every file and explained on the page, beside the paper's numbers as well."""
  least = protocol.Metric("Least", "The least density.", lambda frame, rng: float(frame.truth.density.min()))
  monkeypatch.setitem(protocol.METRICS, "least", least)
  write_tree(tmp_path, "AVAD", [["a", "bb"]])

  def row_maps(video, frames):
    yield from ((chunk, {"row_01": maps["random"]}) for chunk, maps in random_maps(video, frames))

  found = evaluate_videos(read_tree(tmp_path).videos, row_maps, processes=1)
  about = describe(found)
  scores = write_scores(found, about, tmp_path / "out")
  write_page(tmp_path / "out", Page("Scores", scores, about))
  assert scores["AVAD"]["row_01"]["least"] == scores["AVAD"]["centre"]["least"] >= 0
  page = (tmp_path / "out" / "index.html").read_text()
  assert "The least density." in page and "0.774" in page and "Least" in format_table(scores)
  assert next(csv.DictReader((tmp_path / "out" / "per_video.csv").open()))["least"]


def test_undefined_scores_as_zero(tree):
  videos = read_tree(tree).videos
  found = evaluate_videos(videos, random_maps, Settings(nan_policy="zero"), processes=1)
  assert found.set_scores()["Tiny"]["uniform"]["nss"] == 0.0


def test_synthetic_scores_are_labelled(tmp_path):
  write_tree(tmp_path, "synthetic", [["a"]], num_frames=1)
  found = evaluate_videos(read_tree(tmp_path).videos, random_maps, processes=1)
  about = describe(found)
  write_page(tmp_path / "out", Page("Scores", write_scores(found, about, tmp_path / "out"), about))
  assert "rendered clips" in (tmp_path / "out" / "index.html").read_text()
  assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["notes"][0].startswith("synthetic")


def run(*arguments):
  return main([str(argument) for argument in arguments])


def test_command_scores_maps(tree, tmp_path, capsys):
  for name in ("a", "bb"):
    write_maps(tmp_path / "maps" / "Tiny" / name, range(2, 9), stem="pred_sal_")
  arguments = ["--maps", tmp_path / "maps", "--data", f"stavis:{tree}", "--out", tmp_path / "out", "--processes", 1]
  assert run(*arguments) == 1  # `ccc` has no maps
  captured = capsys.readouterr()
  assert "maps" in captured.out
  assert "2 videos, 10 frames scored (there is no map for 2 more), 1 video skipped" in captured.out
  assert "skipped Tiny/ccc: " in captured.err
  scores = json.loads((tmp_path / "out" / "scores.json").read_text())
  assert list(scores) == ["Tiny", "Tiny/few"] and list(scores["Tiny"]) == ["centre", "uniform", "maps"]
  about = json.loads((tmp_path / "out" / "evaluation.json").read_text())
  assert about["sets"]["Tiny"]["frames_without_map"] == 2
  assert any("files past frame 6 ignored" in note for note in about["notes"])


def test_command_scores_further_metrics(tree, tmp_path, capsys):
  write_maps(tmp_path / "maps" / "Tiny" / "a", range(1, 7))
  arguments = ["--maps", tmp_path / "maps", "--data", f"stavis:{tree}", "--out", tmp_path / "out", "--processes", 1]
  assert run(*arguments, "--further", "information_gain", "kl") == 1
  scores = json.loads((tmp_path / "out" / "scores.json").read_text())["Tiny"]
  assert list(scores["maps"]) == [*protocol.METRICS, "kl", "information_gain"]
  assert "KL      IG" in capsys.readouterr().out
  page = (tmp_path / "out" / "index.html").read_text()
  assert "lower where it points down" in page and page.count("↓</span></th>") >= 2
  assert f'<td class="best">{min(row["kl"] for row in scores.values() if row["kl"] is not None):.3f}</td>' in page
  with pytest.raises(ValueError, match="further metric auc: expected one of s_auc_expected, kl"):
    Settings(further=("auc",))


def test_command_scores_thresholds(tree, tmp_path):
  write_maps(tmp_path / "maps" / "Tiny" / "a", range(1, 7))
  arguments = ["--maps", tmp_path / "maps", "--data", f"stavis:{tree}", "--out", tmp_path / "out", "--processes", 1]
  assert run(*arguments, "--thresholds") == 1
  scores = json.loads((tmp_path / "out" / "scores.json").read_text())["Tiny"]
  assert list(scores) == ["centre", "uniform", "maps", "maps_0.3", "maps_0.5", "maps_0.7"]
  assert len({row["nss"] for row in scores.values()}) == 6
  page = (tmp_path / "out" / "index.html").read_text()
  assert "Maps, threshold 0.3" in page and "thresholds: The maps of NAME have none" in page
  assert run(*arguments) == 1
  assert json.loads((tmp_path / "out" / "scores.json").read_text())["Tiny"]["maps"] == scores["maps"]


def test_command_scores_split_maps_without_frame_images(tree, tmp_path):
  for split, name in [(1, "a"), (2, "a"), (2, "bb"), (3, "ccc")]:
    write_maps(tmp_path / "maps" / f"split{split}_results" / "tiny" / name, [1, 4], suffix="jpg", stem="pred_sal_")
  (tree / "video_frames").rename(tree / "elsewhere")
  assert run("--maps", tmp_path / "maps", "--data", tree, "--out", tmp_path / "out", "--databases", "Tiny") == 0
  assert "Best: Tiny/" in (tmp_path / "out" / "index.html").read_text()
  rows = list(csv.DictReader((tmp_path / "out" / "per_video.csv").open()))
  assert [(row["video"], row["split"], row["list_rows"]) for row in rows if row["method"] == "maps"] == [
    ("a", "1", "1"), ("a", "2", "2"), ("bb", "2", "1"), ("ccc", "3", "1"),
  ]  # fmt: skip


@pytest.mark.parametrize(
  "arguments, expected",
  [
    (["--maps", "{maps}", "--data", "mit:{tree}"], "expected NAME:ROOT with NAME one of stavis"),
    (["--maps", "{maps}", "--data", "stavis:{maps}"], "not a tree in the STAViS layout"),
    (["--maps", "{tree}/nowhere", "--data", "stavis:{tree}"], "no such folder of maps"),
    (["--ablation", "--data", "stavis:{tree}"], "has no classifiers, as it learned from a finished model"),
    (["--model", "m", "--maps", "{maps}", "--data", "stavis:{tree}"], "give either --model DIR or --maps DIR"),
    (["--maps", "{maps}", "--data", "stavis:{tree}", "--stride", "0"], "at least 1"),
    (["--maps", "{maps}", "--data", "stavis:{tree}", "--databases", "DIEM"], "no database DIEM"),
  ],
)
def test_bad_input_is_one_line(tree, tmp_path, capsys, arguments, expected):
  (tmp_path / "maps").mkdir()
  filled = [argument.format(tree=tree, maps=tmp_path / "maps") for argument in arguments]
  assert run(*filled, "--out", tmp_path / "out") == 2
  error = capsys.readouterr().err
  assert expected in error and error.count("\n") == 1
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["file", "file/out", "locked/new/out"])
def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path, capsys, monkeypatch, name):
  """The superuser may write anywhere, so what is locked is made up."""
  (tmp_path / "file").touch()
  (tmp_path / "locked").mkdir()
  monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "locked")
  assert run("--maps", tmp_path, "--data", tmp_path / "not even read", "--out", tmp_path / name) == 2
  error = capsys.readouterr().err
  assert f"--out {tmp_path / name}: {tmp_path / name.partition('/')[0]} is not a folder" in error
  assert error.count("\n") == 1 and sorted(path.name for path in tmp_path.iterdir()) == ["file", "locked"]


def test_nothing_to_score(tree, tmp_path, capsys):
  (tmp_path / "maps").mkdir()
  assert run("--maps", tmp_path / "maps", "--data", tree, "--out", tmp_path / "out", "--processes", 1) == 3
  assert "none of 3 videos could be scored" in capsys.readouterr().err
  write_maps(tmp_path / "maps" / "a", [1])
  late = ["--first-frame", 7, "--processes", 1]
  assert run("--maps", tmp_path / "maps", "--data", tree, "--out", tmp_path / "out", *late) == 3
  assert "Tiny/a: none of its annotated frames is to be scored (frames from 7 on)" in capsys.readouterr().err


def test_colour_maps_are_refused(tree, tmp_path, capsys):
  overlay = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
  write_maps(tmp_path / "maps" / "a", [1], overlay)
  assert run("--maps", tmp_path / "maps", "--data", tree, "--out", tmp_path / "out", "--processes", 1) == 3
  assert "img_00001.png: a colour image" in capsys.readouterr().err


def test_centre_map():
  values = centre_map((50, 100)).astype(float)
  np.testing.assert_array_equal(values, values[::-1, ::-1])
  assert values.max() == 255
  assert values[25, 69] / values[25, 49] == pytest.approx(np.exp(-0.5 * (19.5**2 - 0.5**2) / 20**2), abs=0.005)


@pytest.mark.skipif(not (SHARED / "data" / "fixations").is_dir(), reason="needs ../shared/data/fixations")
def test_centre_on_real_viewers():
  videos = read_tree(SHARED / "data" / "fixations").videos
  found = evaluate_videos(videos, random_maps, Settings(stride=16), processes=1).set_scores()["HEVC"]
  assert found["centre"]["auc_judd"] == pytest.approx(0.805, abs=0.02)
  assert found["centre"]["nss"] == pytest.approx(1.17, abs=0.08)
  assert found["centre"]["s_auc"] == pytest.approx(0.508, abs=0.03)
  assert found["random"]["nss"] == pytest.approx(0, abs=0.1)
