"""Tests that evaluation from Python gives the scores of the command."""

import json

import numpy as np
import pytest
from PIL import Image

import stajax
from helpers.scores import write_tree
from stajax.evaluate.__main__ import main
from stajax.eyetracking import StavisError, read_tree
from stajax.scoring import metrics, protocol
from tests.evaluate.test_evaluate import write_maps

NAMES = ("a", "bb", "ccc")


@pytest.fixture
def tree(tmp_path):
  write_tree(tmp_path / "tree", "Tiny", [["a"], ["bb", "a", "a"], ["ccc"]])
  return tmp_path / "tree"


def read_arrays(folder):
  arrays = {}
  for video in sorted(folder.iterdir()):
    arrays[video.name] = np.stack([np.asarray(Image.open(path)) for path in sorted(video.iterdir())])
  return arrays


def test_scores_of_a_folder_and_of_arrays_are_those_of_the_command(tree, tmp_path):
  for number, name in enumerate(NAMES):
    write_maps(tmp_path / "maps" / name, range(1 + number, 7 + number))
    for path in sorted((tmp_path / "maps" / name).iterdir()):
      path.rename(path.with_name(f"{int(path.stem[4:]) - number:03d}.png"))
  arguments = ["--maps", tmp_path / "maps", "--data", f"stavis:{tree}", "--out", tmp_path / "out", "--processes", "1"]
  assert main([str(argument) for argument in arguments]) == 0
  expected = json.loads((tmp_path / "out" / "scores.json").read_text())
  arrays = read_arrays(tmp_path / "maps")
  arrays["Tiny/a"] = arrays.pop("a")
  for maps, data in ((tmp_path / "maps", tree), (str(tmp_path / "maps"), f"stavis:{tree}"), (arrays, tree)):
    evaluation = stajax.evaluate_maps(maps, data)
    assert not evaluation.skipped
    assert evaluation.set_scores()["Tiny"]["maps"] == expected["Tiny"]["maps"]


def test_arrays_may_be_short_and_of_any_numbers(tree):
  rng = np.random.default_rng(0)
  whole = {name: rng.integers(0, 256, (6, 12, 16), np.uint8) for name in NAMES}
  for values in whole.values():
    values[:, 0, 0] = 255
  short = {"a": whole["a"][:4].astype(np.float32) / 7, "bb": whole["bb"]}
  evaluation = stajax.evaluate_maps(short, tree)
  assert evaluation.skipped == (("Tiny", "ccc", "Tiny/ccc: there are no maps of it"),)
  found = {video.name: video for video in evaluation.videos}
  assert found["a"].frames.tolist() == [0, 1, 2, 3] and len(found["bb"].frames) == 6
  expected = {video.name: video for video in stajax.evaluate_maps(whole, tree).videos}
  for metric, values in found["a"].scores["maps"].items():
    np.testing.assert_array_equal(values, expected["a"].scores["maps"][metric][:4])


@pytest.mark.parametrize("name", ["pysaliency", "avimos", "stavis", "dhf1k"])
def test_only_protocols_that_read_pictures_round_densities(tree, name):
  """A sharp density loses most of its values in 8 bits: AUC must see them where the protocol takes any numbers."""
  y, x = np.mgrid[:24, :32]
  logs = -0.5 * (((y - 8) / 1.5) ** 2 + ((x - 20) / 2) ** 2)
  logs -= np.log(np.exp(logs).sum())
  maps = {name: np.repeat(logs[None], 6, axis=0) for name in NAMES}
  found = stajax.evaluate_maps(maps, tree, settings=protocol.Settings(protocol=name))
  video = found.videos[0]
  fixated = next(video for video in read_tree(tree).videos if video.name == "a").fixations(0)
  areas = [
    np.mean([[(p > n) + (p == n) / 2 for n in values.ravel()] for p in values[fixated]])
    for values in (logs, np.round(255 * np.exp(logs - logs.max())))
  ]
  assert areas[0] != pytest.approx(areas[1], abs=0.04)
  if name in ("pysaliency", "avimos"):
    area = metrics.auc_judd(logs, fixated) if name == "avimos" else areas[0]
    assert video.scores["maps"]["auc_judd"][0] == pytest.approx(area, abs=0.02 if name == "avimos" else 1e-12)
  else:
    pictures = {video: np.round(255 * np.exp(x - x.max())).astype(np.uint8) for video, x in maps.items()}
    expected = stajax.evaluate_maps(pictures, tree, settings=found.settings)
    for metric, values in expected.videos[0].scores["maps"].items():
      np.testing.assert_array_equal(video.scores["maps"][metric], values)


def test_pictures_may_lie_beside_arrays(tree, tmp_path):
  pixels = np.random.default_rng(0).integers(0, 256, (6, 12, 16), np.uint8)
  pixels[:, 0, 0] = 255
  for i, values in enumerate(pixels, start=1):
    write_maps(tmp_path / "maps" / "a", [i], values)
    if i % 2:
      (tmp_path / "maps" / "a" / f"img_{i:05d}.png").unlink()
      np.save(tmp_path / "maps" / "a" / f"{i}.npy", values / 500)
  found, expected = (stajax.evaluate_maps(maps, tree).videos[0] for maps in (tmp_path / "maps", {"a": pixels}))
  np.testing.assert_array_equal(found.scores["maps"]["nss"], expected.scores["maps"]["nss"])


@pytest.mark.parametrize(
  ("maps", "message"),
  [
    ({"d": np.zeros((6, 4, 4), np.uint8)}, "maps of d: found no such video"),
    ({"a": np.zeros((4, 4), np.uint8)}, r"maps of a: found uint8 \(4, 4\), expected real numbers \(n, h, w\)"),
    ({"a": np.zeros((6, 4, 4), complex)}, "maps of a: found complex128"),
    ("nothing", "nothing: no such folder of maps"),
  ],
)
def test_maps_that_cannot_be_used(tree, maps, message):
  with pytest.raises(StavisError, match=message):
    stajax.evaluate_maps(maps, tree)


@pytest.mark.parametrize("data", ["/nope", "mit:/nope"])
def test_videos_that_are_not_there(data):
  with pytest.raises(StavisError, match=f"^data {data}: expected NAME:ROOT with .* folder annotations$"):
    stajax.evaluate_maps({}, data)


def test_a_name_of_two_videos_needs_its_database(tree):
  write_tree(tree, "Other", [["a"]])
  maps = np.zeros((6, 4, 4), np.uint8)
  with pytest.raises(StavisError, match=r"maps of a: found .*Tiny/a.*, expected one video"):
    stajax.evaluate_maps({"a": maps}, tree)
  assert {(video.database, video.name) for video in stajax.evaluate_maps({"Other/a": maps}, tree).videos} == {
    ("Other", "a")
  }
