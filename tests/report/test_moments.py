"""Tests of curves over time and of the best and worst frames."""

import re

import numpy as np

from helpers.scores import SIZE, write_tree
from stajax.evaluate.__main__ import main
from stajax.eyetracking import read_tree
from stajax.report.moments import best_and_worst, time_curves
from stajax.scoring.extremes import Extremes
from stajax.scoring.videos import evaluate_videos


def good_and_bad(video, frames):
  """Maps that mark fixations; in frame 2 of video `a` they mark all other pixels."""
  fixated = [video.fixations(i) for i in frames]
  marked = [~x if (video.name, i) == ("a", 2) else x for i, x in zip(frames, fixated)]
  yield list(frames), {"maps": np.stack([x * np.uint8(255) for x in marked])}


def test_the_best_and_worst_frames_are_found(tmp_path):
  write_tree(tmp_path, "Tiny", [["a", "b"]], num_frames=4)
  videos = read_tree(tmp_path).videos
  found = evaluate_videos(videos, good_and_bad, processes=1)
  examples = best_and_worst(found, videos, "maps", tmp_path)
  nss = np.concatenate([video.scores["maps"]["nss"] for video in found.videos])
  assert examples[0].title.startswith("Best: Tiny/") and f"NSS {np.nanmax(nss):.2f}" in examples[0].title
  worst = next(example for example in examples if example.title.startswith("Worst"))
  assert worst.title == f"Worst: Tiny/a, frame 3, NSS {np.nanmin(nss):.2f}"
  np.testing.assert_array_equal(worst.maps["maps"] > 0, ~worst.fixations)
  assert worst.frame.shape == (*SIZE, 3) and len({example.title for example in examples}) == len(examples)


def test_kept_maps_are_small_and_the_same_for_any_chunks():
  rng = np.random.default_rng(0)
  maps, scores = rng.random((6, 700, 30)), np.array([2.0, np.nan, 5.0, 5.0, -1.0, 0.0])
  for size in (1, 4, 6):
    found = Extremes()
    for start in range(0, 6, size):
      part = slice(start, start + size)
      found.expect(range(6)[part], {"sta": maps[part], "maps": maps[part]})
    for start in range(0, 6, size):
      found.compare({"sta": {}, "maps": {"nss": scores[start : start + size]}})
    best, worst = found.found()
    assert (best.frame, best.score, worst.frame, worst.score) == (2, 5.0, 4, -1.0)
    assert best.prediction.dtype == np.uint8 and best.prediction.shape == (233, 30)
    np.testing.assert_array_equal(worst.prediction, np.round(maps[4, 1::3] * 255))
  unscored = Extremes()
  unscored.expect([0], {"maps": maps[:1]})
  unscored.compare({"maps": {"nss": scores[1:2]}})
  assert unscored.found() == ()


def test_curves_span_the_frames(tmp_path):
  write_tree(tmp_path, "Tiny", [["a"]], num_frames=4)
  found = evaluate_videos(read_tree(tmp_path).videos, good_and_bad, processes=1)
  ((title, svg),) = time_curves(found, "maps")
  assert title.startswith("Tiny/a: ") and "aria-label" in svg
  points = [[tuple(map(float, p.split(","))) for p in line.split()] for line in re.findall('points="([^"]*)"', svg)]
  assert [len(line) for line in points] == [4, 4]  # the centre, and the maps over it
  lowest = max(points[1], key=lambda point: point[1])  # y points downwards
  assert lowest == points[1][2] and points[1][0][0] < points[1][1][0] < points[1][3][0]


def test_the_page_of_a_command_shows_them(tmp_path):
  write_tree(tmp_path / "tree", "Tiny", [["a", "b"]], num_frames=3)
  for name in "ab":
    (tmp_path / "maps" / name).mkdir(parents=True)
    for i in range(1, 4):
      np.save(tmp_path / "maps" / name / f"{i}.npy", np.random.default_rng(i).random((9, 12)))
  arguments = ["--maps", tmp_path / "maps", "--data", tmp_path / "tree", "--out", tmp_path / "out", "--processes", 1]
  assert main([str(x) for x in arguments]) == 0
  page = (tmp_path / "out" / "index.html").read_text()
  assert page.count("<polyline") == 4 and "Best: Tiny/" in page and "Worst: Tiny/" in page
