"""The curve of confidence that a training measures on the clips that were left out."""

from types import SimpleNamespace

import numpy as np
import pytest

from stajax.maps import confidence
from stajax.maps.final import centre_factor
from stajax.train.stages import confidence as stage

SIDE, FRAMES = 16, 6


class Pictures:
  """A predictor whose maps are the frames."""

  side, centre = SIDE, True

  def maps(self, samples):
    return iter(samples)


@pytest.fixture
def run(monkeypatch):
  """Three clips, of which the last two are left out; one of their frames has no pseudo-fixation."""
  generator = np.random.default_rng(0)
  maps = generator.random((3, FRAMES, SIDE, SIDE)).astype(np.float32)
  fixations = generator.integers(1, 255, (3, FRAMES, SIDE, SIDE)).astype(np.uint8)
  weights = np.ones((3, FRAMES), np.float32)
  weights[2, 1] = 0
  monkeypatch.setattr(stage, "clip_samples", lambda _records, clip, _side: list(maps[clip]))
  monkeypatch.setattr(stage, "_students", lambda _run: Pictures())
  stored = SimpleNamespace(clip_maps=lambda _records, clip: (fixations[clip], weights[clip]))
  data = SimpleNamespace(is_validation=np.array([False, True, True]), records=None, pseudo_fixations=lambda: stored)
  config = SimpleNamespace(maps=SimpleNamespace(size=SIDE))
  return SimpleNamespace(data=data, config=config), maps, fixations, weights


def test_the_curve_is_of_the_frames_left_out_that_have_a_target(run):
  made, maps, fixations, weights = run
  kept = weights[1:] > 0
  expected = confidence.fit(maps[1:][kept], (fixations[1:] / np.float32(255) * centre_factor((SIDE, SIDE)))[kept])
  found = stage.measure_confidence(made)
  np.testing.assert_allclose(found.departures, expected.departures, rtol=1e-5)
  np.testing.assert_allclose(found.gains, expected.gains, rtol=1e-4, atol=1e-6)


def test_without_clips_left_out_there_is_no_curve(run):
  made = run[0]
  made.data.is_validation[:] = False
  assert stage.measure_confidence(made) is None
