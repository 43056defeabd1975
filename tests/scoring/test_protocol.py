"""Tests of what the scores of a frame depend on, and of how scores are averaged."""

import math
import subprocess
import sys

import numpy as np
import pytest

from helpers.scores import score_frames
from stajax import scoring
from stajax.scoring import metrics, protocol
from stajax.scoring.resize import imresize, postprocess_map


def make_frames(n=3, size=(18, 24), map_size=(12, 12), seed=0):
  rng = np.random.default_rng(seed)
  fixations = rng.random((n, *size)) < 0.03
  fixations[:, 4, 5] = True
  densities = rng.integers(0, 256, (n, *size), dtype=np.uint8)
  predictions = rng.integers(0, 256, (n, *map_size), dtype=np.uint8)
  seeds = np.array([protocol.frame_seed(seed, "DB", "video", i) for i in range(n)], np.uint64)
  return predictions, fixations, densities, fixations.any(0), seeds


def test_frames_are_scored_step_by_step_as_the_protocol_says():
  predictions, fixations, densities, union, seeds = make_frames()
  found = score_frames(predictions, fixations, densities, union, seeds)
  assert tuple(found) == ("auc_judd", "s_auc", "nss", "sim", "cc")
  for i in range(3):
    resized = imresize(postprocess_map(predictions[i]), (18, 24))
    other = union.copy()
    other[fixations[i]] = False
    assert found["cc"][i] == pytest.approx(metrics.cc(resized, densities[i] / 255), abs=1e-12)
    assert found["sim"][i] == pytest.approx(metrics.sim(resized, densities[i] / 255), abs=1e-12)
    assert found["nss"][i] == pytest.approx(metrics.nss(resized, fixations[i]), abs=1e-12)
    assert found["auc_judd"][i] == pytest.approx(metrics.auc_judd(resized, fixations[i]), abs=1e-5)
    assert found["s_auc"][i] == pytest.approx(metrics.s_auc_expected(resized, fixations[i], other), abs=0.1)


def test_a_frame_does_not_depend_on_the_frames_beside_it():
  predictions, fixations, densities, union, seeds = make_frames()
  together = score_frames(predictions, fixations, densities, union, seeds)
  alone = score_frames(predictions[1:2], fixations[1:2], densities[1:2], union, seeds[1:2])
  for metric in protocol.METRICS:
    assert together[metric][1] == alone[metric][0]


def test_constant_maps_and_unwatched_frames():
  predictions, fixations, densities, union, seeds = make_frames()
  predictions[0] = 7
  fixations[1] = False
  densities[2] = 0
  found = score_frames(predictions, fixations, densities, union, seeds)
  assert found["auc_judd"][0] == pytest.approx(0.5, abs=0.25)
  assert all(math.isnan(found[metric][0]) for metric in ("s_auc", "nss", "sim", "cc"))
  assert all(math.isnan(found[metric][1]) for metric in ("auc_judd", "s_auc", "nss"))
  assert found["cc"][1] == found["cc"][1] and found["sim"][1] > 0
  assert math.isnan(found["cc"][2]) and found["sim"][2] == 0.0


def test_frame_seeds_are_stable_and_differ():
  assert protocol.frame_seed(0, "AVAD", "V1", 3) == 7074615716512124779  # the same on every machine
  seeds = {protocol.frame_seed(s, d, v, f) for s in range(2) for d in ("a", "b") for v in ("x", "y") for f in range(5)}
  assert len(seeds) == 40
  assert protocol.frame_seed(0, "ab", "c", 0) != protocol.frame_seed(0, "a", "bc", 0)


def test_averages():
  frames = np.array([1.0, np.nan, 3.0])
  assert protocol.average_frames(frames) == 2.0
  assert protocol.average_frames(frames, "zero") == pytest.approx(4 / 3)
  assert math.isnan(protocol.average_frames(np.array([np.nan])))
  assert protocol.average_frames(np.array([np.nan]), "zero") == 0.0
  # A video listed twice counts twice; its number of frames does not matter.
  assert protocol.average_videos(np.array([1.0, 4.0]), np.array([2, 1])) == 2.0
  assert protocol.average_videos(np.array([1.0, np.nan]), np.array([1, 5])) == 1.0
  assert math.isnan(protocol.average_videos(np.array([np.nan]), np.array([1])))


def test_the_library_scores_saved_maps_without_jax():
  predictions, fixations, densities, union, seeds = make_frames()
  found = scoring.score_map(predictions[1], fixations[1], densities[1], union, int(seeds[1]))
  expected = score_frames(predictions, fixations, densities, union, seeds)
  assert found == {metric: values[1] for metric, values in expected.items()}
  further = scoring.score_map(*(x[1] for x in (predictions, fixations, densities)), union, further=("kl",))
  prepared = np.maximum(scoring.prepare_map(predictions[1], (18, 24)), 0)
  assert further["kl"] == pytest.approx(metrics.kl(prepared, densities[1]), abs=1e-12)
  with pytest.raises(ValueError, match=r"expected \(h, w\) and three times"):
    scoring.score_map(predictions[1], fixations[1, :-1], densities[1], union)
  for values, fixated, density, expected in [
    (predictions[1].astype(float), fixations[1], densities[1], r"map float64 from [0-9.]+ to [0-9.]+, expected uint8"),
    (np.full((4, 4), np.nan), fixations[1], densities[1], "not finite"),
    (predictions[1], densities[1], fixations[1], "are they exchanged"),
    (predictions[1], -fixations[1].astype(int), densities[1], "fixations down to -1, expected a mask or counts"),
  ]:
    with pytest.raises(ValueError, match=expected):
      scoring.score_map(values, fixated, density, union)
  with pytest.raises(ValueError, match="did you mean `pysaliency`"):
    scoring.score_map(predictions[1], fixations[1], densities[1], union, protocol="pysalience")
  shown = 255 * fixations[1].astype(np.uint8)  # a mask, not counts
  mask, picture = (
    scoring.score_map(predictions[1], x, densities[1], union, 0, "avimos") for x in (fixations[1], shown)
  )
  np.testing.assert_equal(mask, picture)
  code = "import sys, stajax.scoring; print([m for m in ('jax', 'tensorflow', 'av', 'matplotlib') if m in sys.modules])"
  light = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert light.stdout.strip() == "[]"
