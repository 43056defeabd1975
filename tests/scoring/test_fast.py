"""Compares the fast metrics with the definitions, and checks that a frame's scores depend on nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stajax.scoring import fast, metrics
from stajax.scoring import frame as frames
from stajax.scoring.frame import FrameMap, FrameTruth, Scored, without

SHAPE = (5, 6)
# Few values, so that there are many ties; and values closer together than the jitter.
values = st.integers(0, 5).map(lambda x: x / 5) | st.integers(0, 9).map(lambda x: 0.4 + x * 3e-8)
maps = hnp.arrays(np.float64, SHAPE, elements=values)
masks = hnp.arrays(bool, SHAPE)
densities = hnp.arrays(np.uint8, SHAPE)


@pytest.fixture(autouse=True)
def small(monkeypatch):
  """Small frames go through several blocks, and through the histogram rather than the sort."""
  monkeypatch.setattr(frames, "_BLOCK", 12)
  monkeypatch.setattr(fast, "_SORTED", 0)
  monkeypatch.setattr(fast, "_FEW", 4)


def make(prediction, fixated, density=None, union=None):
  positions = np.flatnonzero(fixated)
  other = without(np.flatnonzero(fixated if union is None else union | fixated), positions)
  return Scored(
    FrameMap(prediction), FrameTruth(positions, np.zeros(SHAPE, np.uint8) if density is None else density, other)
  )


def same(found, expected):
  assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(deadline=None, max_examples=80)
@given(maps, masks, densities, masks, st.integers(0, 99))
def test_fast_equals_plain(prediction, fixated, density, union, seed):
  frame, other = make(prediction, fixated, density, union), union & ~fixated
  rngs = [np.random.default_rng(seed) for _ in range(2)]
  assert np.array_equal(fast.auc_judd(frame), metrics.auc_judd(prediction, fixated), equal_nan=True)
  assert np.array_equal(fast.auc_judd(frame, rngs[0]), metrics.auc_judd(prediction, fixated, rngs[1]), equal_nan=True)
  assert rngs[0].bit_generator.state["state"] == rngs[1].bit_generator.state["state"]  # the same numbers follow
  same(fast.s_auc(frame, rngs[0]), metrics.s_auc(prediction, fixated, other, rngs[1]))
  same(fast.s_auc(frame, None), metrics.s_auc_expected(prediction, fixated, other))
  same(fast.nss(frame), metrics.nss(prediction, fixated))
  same(fast.sim(frame), metrics.sim(prediction, density))
  same(fast.cc(frame), metrics.cc(prediction, density))
  same(fast.kl(frame), metrics.kl(prediction, density))
  same(fast.information_gain(frame), metrics.information_gain(prediction, fixated))
  lowered = make(prediction - 0.5, fixated, density, union)  # what is below 0 counts as 0
  same(fast.kl(lowered), metrics.kl(np.maximum(prediction - 0.5, 0), density))
  same(fast.information_gain(lowered), metrics.information_gain(np.maximum(prediction - 0.5, 0), fixated))


def test_a_large_frame_equals_plain_with_and_without_ties(monkeypatch):
  monkeypatch.undo()  # the real sizes of blocks
  rng = np.random.default_rng(0)
  fixated, union = (rng.random((200, 300)) < share for share in (0.001, 0.01))
  positions = np.flatnonzero(fixated)
  density = rng.integers(0, 256, (200, 300), dtype=np.uint8)
  truth = FrameTruth(positions, density, without(np.flatnonzero(union | fixated), positions))
  smooth = np.add.outer(np.sin(np.arange(200) / 40), np.cos(np.arange(300) / 50))
  for prediction in (smooth, np.round(smooth, 1), np.maximum(smooth, 0.9), np.full((200, 300), 0.3)):
    frame, rngs = Scored(FrameMap(prediction), truth), [np.random.default_rng(7) for _ in range(2)]
    assert fast.auc_judd(frame, rngs[0]) == metrics.auc_judd(prediction, fixated, rngs[1])
    same(fast.s_auc(frame, rngs[0]), metrics.s_auc(prediction, fixated, union & ~fixated, rngs[1]))
    same(fast.cc(frame), metrics.cc(prediction, density))
    same(fast.sim(frame), metrics.sim(prediction, density))
    same(fast.nss(frame), metrics.nss(prediction, fixated))


@settings(deadline=None, max_examples=40)
@given(maps, masks, densities, masks, st.randoms(use_true_random=False))
def test_invariants(prediction, fixated, density, union, random):
  frame = make(prediction, fixated, density, union)
  order = list(range(prediction.size))
  random.shuffle(order)
  permuted = make(*(x.ravel()[order].reshape(SHAPE) for x in (prediction, fixated, density, union)))
  risen = make(np.exp(3 * np.round(prediction, 2)), fixated, density, union)  # a rising transform
  rounded = make(np.round(prediction, 2), fixated, density, union)
  for score in (fast.nss, fast.sim, fast.cc, fast.auc_judd, lambda frame: fast.s_auc(frame, None)):
    same(score(permuted), score(frame))
  same(fast.auc_judd(risen), fast.auc_judd(rounded))
  scaled = make(4 * prediction + 1, fixated, density, union)
  for score in (fast.nss, fast.sim, fast.cc):
    assert score(scaled) == pytest.approx(score(frame), abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("fixated", [np.zeros(SHAPE, bool), np.ones(SHAPE, bool)])
def test_none_and_all_fixated(fixated):
  frame = make(np.arange(30.0).reshape(SHAPE), fixated)
  assert np.isnan(fast.auc_judd(frame)) and np.isnan(fast.s_auc(frame, None))
  assert np.isnan(fast.nss(frame)) == (not fixated.any())


def test_repeated_fixations_count_as_often():
  prediction = np.arange(30.0).reshape(SHAPE)
  truth = FrameTruth(np.array([29, 29, 3]), np.zeros(SHAPE, np.uint8), np.array([5]))
  standard = (prediction.ravel() - 14.5) / prediction.std(ddof=1)
  same(fast.nss(Scored(FrameMap(prediction), truth)), (2 * standard[29] + standard[3]) / 3)


def test_what_is_left_of_the_union():
  union = np.array([1, 4, 7, 9])
  np.testing.assert_array_equal(without(union, np.array([9, 4, 4, 5, 30])), [1, 7])
  assert without(np.array([], np.int64), np.array([3])).size == 0


def test_only_generators_whose_steps_are_known():
  frame = make(np.arange(30.0).reshape(SHAPE), np.arange(30).reshape(SHAPE) == 3)
  with pytest.raises(TypeError, match="MT19937"):
    fast.auc_judd(frame, np.random.Generator(np.random.MT19937(0)))
