"""Tests of the baselines that know where viewers looked."""

import numpy as np
import pytest

from helpers.scores import SIZE, write_tree
from stajax.eyetracking import read_tree
from stajax.scoring import metrics, protocol
from stajax.scoring.others import VideoFixations
from stajax.scoring.protocols import PROTOCOLS
from stajax.scoring.videos import evaluate_videos
from stajax.scoring.viewers import inter_observer, learned_centre


def test_viewers_predict_each_other_as_by_hand():
  rng = np.random.default_rng(0)
  size, sigma = (40, 60), 0.025 * 60
  near = [y * 60 + x for y in range(15, 22) for x in range(24, 32)]  # farther off, jitter would decide
  positions, other = np.sort(rng.choice(near, 6, replace=False)), np.sort(rng.choice(2400, 300, replace=False))
  other = np.setdiff1d(other, positions)
  y, x = np.mgrid[:40, :60]
  expected = {"auc_judd": [], "s_auc": [], "nss": []}
  masks = np.zeros((2, 2400), bool)
  for left_out in positions:
    rest = sum(np.exp(-((y - p // 60) ** 2 + (x - p % 60) ** 2) / (2 * sigma**2)) for p in positions if p != left_out)
    masks[:] = False
    masks[0, left_out], masks[1, other] = True, True
    fixated, elsewhere = masks.reshape(2, 40, 60)
    expected["auc_judd"].append(((rest < rest[fixated]).sum() + ((rest == rest[fixated]).sum() - 1) / 2) / 2399)
    expected["s_auc"].append(metrics.s_auc_expected(rest, fixated, elsewhere))
    expected["nss"].append(metrics.nss(rest, fixated))
  found = inter_observer(positions, other, size, 0, protocol.DEFAULT_SETTINGS)
  assert found["nss"] == pytest.approx(np.mean(expected["nss"]), abs=1e-9)
  assert found["auc_judd"] == pytest.approx(np.mean(expected["auc_judd"]), abs=1e-9)
  assert found["s_auc"] == pytest.approx(np.mean(expected["s_auc"]), abs=0.1)  # draws
  assert np.isnan(found["sim"]) and np.isnan(found["cc"])
  assert all(np.isnan(list(inter_observer(positions[:1], other, size, 0, protocol.DEFAULT_SETTINGS).values())))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_viewers_who_look_anywhere_score_as_chance(name):
  rng, size = np.random.default_rng(1), (60, 80)
  found = [
    inter_observer(rng.integers(0, 4800, 12), rng.integers(0, 4800, 40), size, i, protocol.Settings(protocol=name))
    for i in range(60)
  ]
  for metric in ("auc_judd", "s_auc"):
    mean = np.mean([row[metric] for row in found])
    assert mean == pytest.approx(0.5, abs=0.03) or PROTOCOLS[name].rules.get(metric, "") is None


def test_viewers_who_agree_score_higher_on_large_frames_too():
  together, apart = np.array([5000, 5001, 5002, 5640]), np.array([50, 60_000, 120_320, 300_000])
  agreed, disagreed = (
    inter_observer(x, np.array([7, 70_000]), (480, 640), 0, protocol.DEFAULT_SETTINGS) for x in (together, apart)
  )
  assert agreed["nss"] > 5 > 0 > disagreed["nss"] and agreed["auc_judd"] > 0.99


def test_the_learned_centre_is_where_other_viewers_look():
  left, right = (VideoFixations((10, 20), {0: np.array([place])}) for place in (5 * 20 + 2, 5 * 20 + 17))
  found = learned_centre([left, left, right])
  assert found.max() == 255 and found.dtype == np.uint8
  assert np.unravel_index(found.argmax(), found.shape)[1] == (2 * 2 + 1) * 64 // 40
  many = VideoFixations((10, 20), {i: np.array([117]) for i in range(50)})
  np.testing.assert_array_equal(learned_centre([left, left, many]), found)  # long videos weigh no more


def test_the_learned_centre_leaves_its_own_video_out(tmp_path):
  write_tree(tmp_path, "Tiny", [["a", "b"]], num_frames=3)
  videos = read_tree(tmp_path).videos

  def maps(video, frames):
    """Returns the learned centre, made from what the other video's files say."""
    other = next(x for x in videos if x.name != video.name)
    positions = {i: np.flatnonzero(other.fixations(i)) for i in other.annotated}
    yield list(frames), {"m": np.repeat(learned_centre([VideoFixations(SIZE, positions)])[None], len(frames), 0)}

  found = evaluate_videos(videos, maps, processes=1, baselines=["centre_learned", "inter_observer"])
  assert found.methods == ["centre", "uniform", "inter_observer", "centre_learned", "m"]
  for video in found.videos:
    for metric in protocol.METRICS:
      np.testing.assert_array_equal(video.scores["centre_learned"][metric], video.scores["m"][metric])
