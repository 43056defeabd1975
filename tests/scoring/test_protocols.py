"""Compares the protocols with published vectors and with slow transcriptions of what their authors' code computes."""

import dataclasses

import numpy as np
import pytest
import scipy.io

from helpers.scores import SIZE, avimos_by_hand, write_tree
from stajax.eyetracking import StavisError, read_tree
from stajax.scoring import fast, metrics, protocol
from stajax.scoring.frame import FrameMap, FrameTruth, Scored
from stajax.scoring.protocols import PROTOCOLS, density_of
from stajax.scoring.resize import resize_bilinear
from stajax.scoring.tasks import read_fixations_task
from stajax.scoring.videos import evaluate_videos
from tests.scoring.test_metrics import DENSITY_A, DENSITY_C, DENSITY_D, FIXATIONS_A, MAP_A, MAP_C, MAP_D, points

VECTORS = {  # ties ½ against unfixated pixels, NSS with ddof 0, Pearson's correlation
  "A": (MAP_A, DENSITY_A, FIXATIONS_A, 0.71875, 0.727272727273, 0.957947975509),
  "C": (MAP_C, DENSITY_C, points(15, 13, 9, 2), 0.6875, 0.488093530092, 0.651920240520),
  "D": (MAP_D, DENSITY_D, FIXATIONS_A, 0.708333333333, 0.691912679136, 0.963810098227),
}


def make(prediction, fixated, density):
  return Scored(FrameMap(prediction), FrameTruth(np.flatnonzero(fixated), density, np.array([], np.int64)))


@pytest.mark.parametrize("name", VECTORS)
def test_pysaliency_vectors(name):
  prediction, density, fixated, area, nss, cc = VECTORS[name]
  frame = make(prediction, fixated, density)
  assert fast.auc(frame, "unfixated") == pytest.approx(area, abs=1e-12)
  found = protocol.score_frame(prediction, fixated, density, fixated, 0, "pysaliency")
  assert found["nss"] == pytest.approx(nss, abs=1e-12) and found["cc"] == pytest.approx(cc, abs=1e-12)


def test_similarity_without_scaling():
  frame = make(MAP_A + 0.2, FIXATIONS_A, DENSITY_A + 0.1)  # vector B
  assert fast.sim(frame, "negative") == pytest.approx(0.890109890110, abs=1e-12)
  assert fast.sim(frame, "minimum") == pytest.approx(0.861111111111, abs=1e-12)
  flat = make(np.zeros((4, 4)), FIXATIONS_A, DENSITY_A)
  assert fast.sim(flat, "negative") == pytest.approx(np.minimum(1 / 16, DENSITY_A / DENSITY_A.sum()).sum())


def test_pysaliency_divergence():
  """`MIT_KLDiv` subtracts a negative minimum, and takes a map that is 0 everywhere for a constant one."""
  low, eps = MAP_A - 0.07, 2.2204e-16
  share, other = (low - low.min()) / (low - low.min()).sum(), DENSITY_A / DENSITY_A.sum()
  found = fast.kl(make(low, FIXATIONS_A, DENSITY_A), "shift", eps)
  assert found == pytest.approx((other * np.log(eps + other / (share + eps))).sum(), abs=1e-12)
  empty, uniform = np.zeros((4, 4)), np.full((4, 4), 1 / 16)
  density = np.round(DENSITY_A * 255).astype(np.uint8)
  other = density / density.sum()
  scores = {
    name: protocol.score_frame(empty, FIXATIONS_A, density, FIXATIONS_A, 0, name, ("kl", "s_auc_expected"))
    for name in PROTOCOLS
  }
  assert scores["pysaliency"]["kl"] == pytest.approx((other * np.log(eps + other / (uniform + eps))).sum(), abs=1e-12)
  below = protocol.score_frame(empty - 0.1, FIXATIONS_A, density, FIXATIONS_A, 0, "pysaliency", ("kl",))
  for metric in ("kl", "sim"):
    assert below[metric] == pytest.approx(scores["pysaliency"][metric], abs=1e-12)
  assert all(np.isnan(scores[name]["kl"]) for name in ("stavis", "dhf1k", "avimos"))
  assert np.isnan(scores["avimos"]["s_auc_expected"])  # it has no s-AUC


def slow_area(positives, negatives):
  return np.mean([[(p > n) + (p == n) / 2 for n in negatives] for p in positives])


def test_pysaliency_areas_and_constants():
  rng = np.random.default_rng(0)
  prediction = rng.integers(0, 6, (9, 8)) / 5
  positions, other = np.array([3, 3, 40, 71]), np.array([5, 5, 5, 60, 12])
  frame = Scored(FrameMap(prediction), FrameTruth(positions, rng.random((9, 8)), other))
  values = prediction.ravel()
  assert fast.auc(frame, "uniform") == pytest.approx(slow_area(values[positions], values), abs=1e-12)
  assert fast.auc(frame, "other") == pytest.approx(slow_area(values[positions], values[other]), abs=1e-12)
  rest = np.delete(values, positions)
  assert fast.auc(frame, "unfixated") == pytest.approx(slow_area(values[positions], rest), abs=1e-12)
  flat = dataclasses.replace(frame, prediction=FrameMap(np.full((9, 8), 0.3)))
  rules = PROTOCOLS["pysaliency"].rules
  found = {name: rule(flat, rng) for name, rule in rules.items() if rule is not None}
  assert (found["auc_judd"], found["s_auc"], found["nss"], found["cc"]) == (0.5, 0.5, 0.0, 0.0)


@pytest.mark.parametrize("diagonal", [False, True])
def test_avimos_equals_its_scorer(diagonal):
  rng = np.random.default_rng(1)
  prediction, density = rng.integers(3, 250, (6, 9), dtype=np.uint8), rng.integers(2, 255, (13, 16), dtype=np.uint8)
  fixations, counts = (
    [(2, 2), (7, 7), (7, 7)] if diagonal else [(1, 4), (7, 2), (7, 2), (12, 15)],
    np.zeros((13, 16), int),
  )
  for i, j in fixations:
    counts[i, j] += 1
  prepared = protocol.prepare_map(prediction, (13, 16), protocol="avimos")
  found = protocol.score_frame(prepared, counts, density, counts > 0, 0, "avimos")
  for metric, value in avimos_by_hand(prediction, fixations, density).items():
    assert found[metric] == pytest.approx(value, abs=1e-12)
  assert np.isnan(found["s_auc"])


def test_bilinear_resizing_as_opencv():
  """Values that OpenCV 4 gives for a ramp of squares."""
  values = np.arange(12.0).reshape(3, 4) ** 2
  assert resize_bilinear(values, (3, 4)) is values
  np.testing.assert_allclose(resize_bilinear(values, (1, 2))[0], [20.5, 42.5], rtol=1e-6)
  np.testing.assert_allclose(
    resize_bilinear(values, (4, 6))[1], [10, 13, 17.333333333, 22.666666667, 29, 34], rtol=1e-6
  )
  # The package of OpenCV 4.8.1 for x86; with weights of float32 the numbers differ in the fifth digit.
  found = resize_bilinear(((np.arange(356) * 37 % 101) / 101)[None].repeat(2, 0), (2, 72))[0, 60:64]
  np.testing.assert_allclose(
    found, [0.40236523652366163, 0.21369636963697758, 0.49724972497250125, 0.3641364136413602], rtol=0, atol=1e-14
  )


def test_averages_and_negatives_of_a_set(tmp_path):
  write_tree(tmp_path, "Tiny", [["a", "b"], ["a", "c"]], num_frames=3)
  videos = read_tree(tmp_path).videos

  def maps(video, frames):
    rng = np.random.default_rng(ord(video.name))
    frames = [i for i in frames if video.name != "b" or i == 0]  # videos of different length
    yield frames, {"m": rng.integers(0, 256, (len(frames), *SIZE), dtype=np.uint8)}

  settings = protocol.Settings(protocol="dhf1k", further=("s_auc_expected",))
  found = evaluate_videos(videos, maps, settings, processes=1)
  # The set has nine frames, so all are among the ten that are drawn: the union of their fixations, without one's own.
  union = np.any([video.fixations(i) for video in videos for i in range(3)], axis=0)
  for video, scored in zip(videos, found.videos, strict=True):
    values, fixated = next(maps(video, [0]))[1]["m"][0] / 255, video.fixations(0)
    expected = metrics.s_auc_expected(values, fixated, union & ~fixated)
    assert scored.scores["m"]["s_auc_expected"][0] == pytest.approx(expected, abs=1e-12)
    assert scored.scores["m"]["s_auc"][0] == pytest.approx(expected, abs=0.05)
  scores = {video.name: video.scores["m"]["cc"] for video in found.videos}
  pooled = np.concatenate([scores["a"], scores["a"], scores["b"], scores["c"]])  # `a` is listed twice
  assert found.set_scores()["Tiny"]["m"]["cc"] == pytest.approx(pooled.mean(), abs=1e-12)

  found = evaluate_videos(videos, maps, protocol.Settings(protocol="pysaliency"), processes=1)
  by_name = {video.name: video for video in videos}
  for video in found.videos:
    own = by_name[video.name]
    elsewhere = [v.fixations(i) for v in videos if v.name != video.name for i in range(3)]
    frames, prepared = next(maps(own, [0, 1, 2]))
    for k, i in enumerate(frames):
      values = prepared["m"][k] / 255
      negatives = np.concatenate([values[mask] for mask in elsewhere])
      expected = slow_area(values[own.fixations(i)], negatives)
      assert video.scores["m"]["s_auc"][k] == pytest.approx(expected, abs=1e-12)


def test_an_unknown_protocol_is_refused():
  with pytest.raises(ValueError, match="protocol mit: expected one of stavis, dhf1k"):
    protocol.Settings(protocol="mit")


def test_densities_are_scaled_only_where_the_protocol_does():
  density = np.array([[10, 60], [110, 35]], np.uint8)
  assert density_of(density, PROTOCOLS["stavis"]) is density
  np.testing.assert_allclose(density_of(density, PROTOCOLS["avimos"]), [[0, 0.5], [1, 0.25]], atol=1e-8)


@pytest.mark.parametrize("value", [0.5, 2.25, 10_001, np.inf])
def test_values_that_are_no_number_of_fixations_are_refused(value, tmp_path):
  counts = np.zeros(SIZE)
  counts[3, 4], counts[5, 6] = 2, value
  assert protocol.positions_of(counts).tolist() == [3 * SIZE[1] + 4, 5 * SIZE[1] + 6]  # `stavis` counts pixels
  scipy.io.savemat(tmp_path / "fixMap_00001.mat", {"eyeMap": counts})
  with pytest.raises(StavisError, match=rf"fixMap_00001\.mat: a pixel has the value {value:g}, expected how often"):
    read_fixations_task([tmp_path / "fixMap_00001.mat"], "pysaliency")
