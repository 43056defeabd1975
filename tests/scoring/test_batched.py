"""Compares the jitted metrics with the definitions, in 64 bits and in 32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stajax.scoring import batched, metrics

SHAPE, LENGTH = (5, 6), 30
maps = hnp.arrays(np.float64, SHAPE, elements=st.integers(0, 12).map(lambda x: x / 12))
masks = hnp.arrays(bool, SHAPE)
densities = hnp.arrays(np.uint8, SHAPE)
BASELINE = np.exp(-np.add.outer(np.linspace(-1, 1, 5) ** 2, np.linspace(-1, 1, 6) ** 2))


def score(frames, dtype, length=LENGTH):
  """Returns the scores (n,) of frames of (map, density, fixated, other)."""
  stacked = [np.stack([frame[k] for frame in frames]) for k in (0, 1)]
  positions = [batched.pad([np.flatnonzero(frame[k]) for frame in frames], length) for k in (2, 3)]
  return batched.score_batch(*(jnp.asarray(x, dtype) for x in stacked), *positions, jnp.asarray(BASELINE, dtype))


def plain(prediction, density, fixated, other):
  return {
    "auc_judd": metrics.auc_judd(prediction, fixated),
    "s_auc": metrics.s_auc_expected(prediction, fixated, other),
    "nss": metrics.nss(prediction, fixated),
    "sim": metrics.sim(prediction, density),
    "cc": metrics.cc(prediction, density),
    "kl": metrics.kl(prediction, density),
    "information_gain": metrics.information_gain(prediction, fixated, BASELINE),
  }


def test_special_frames_equal_plain_however_long_the_lists_are():
  """Constant maps and densities, no fixation, one, and all pixels; long lists are counted in another way."""
  rng, one = np.random.default_rng(0), np.zeros(SHAPE, bool)
  one[2, 3] = True
  values, density, some = rng.random(SHAPE), rng.integers(0, 256, SHAPE), rng.random(SHAPE) < 0.3
  none, all_pixels = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
  frames = [
    (np.full(SHAPE, 0.3), density, one, some & ~one), (np.zeros(SHAPE), density, one, some & ~one),
    (values, density, none, some), (values, density, one, none), (values, density, all_pixels, none),
    (values, density * 0, some, ~some), (values, density * 0 + 7, some, ~some), (values, density, ~one, one),
  ]  # fmt: skip
  with jax.enable_x64(True):
    for length in (LENGTH, 300):
      found = score(frames, jnp.float64, length)
      for i, frame in enumerate(frames):
        for metric, value in plain(*frame).items():
          assert found[metric][i] == pytest.approx(value, abs=1e-9, nan_ok=True), (metric, i)
      order = rng.permutation(len(frames))
      permuted = score([frames[i] for i in order], jnp.float64, length)
      for metric, of_metric in found.items():
        np.testing.assert_array_equal(permuted[metric], of_metric[order])
  with pytest.raises(ValueError, match=r"found maps \(1, 5, 6\), .*expected \(n, H, W\) twice"):
    batched.score_batch(jnp.zeros((1, *SHAPE)), jnp.zeros((1, 5, 5)), jnp.zeros((1, 1), int), jnp.zeros((1, 1), int))


# Scaled to [0, 1], one value is 0.7, just below the threshold 7 × 0.1 of s-AUC.
AT_A_THRESHOLD = np.pad(np.array([[7.0, 8.0, 11.0]]) / 12, ((0, 4), (0, 3)), constant_values=1 / 12)


@settings(deadline=None, max_examples=60)
@example([(AT_A_THRESHOLD, np.zeros(SHAPE, np.uint8), AT_A_THRESHOLD != 7 / 12, np.ones(SHAPE, bool))] * 3)
@given(st.lists(st.tuples(maps, densities, masks, masks), min_size=3, max_size=3))
def test_batched_equals_plain(frames):
  frames = [(values, density, fixated, other & ~fixated) for values, density, fixated, other in frames]
  with jax.enable_x64(True):
    found = score(frames, jnp.float64)
  for i, frame in enumerate(frames):
    for metric, value in plain(*frame).items():
      assert found[metric][i] == pytest.approx(value, abs=1e-9, nan_ok=True), metric


def test_a_score_does_not_depend_on_the_batch_and_32_bits_are_near():
  rng = np.random.default_rng(0)
  frames = [
    (rng.random(SHAPE), rng.integers(0, 256, SHAPE), rng.random(SHAPE) < 0.2, rng.random(SHAPE) < 0.3) for _ in range(3)
  ]
  together, alone = score(frames, jnp.float32), score(frames[1:2], jnp.float32)
  for metric, value in plain(*frames[1]).items():
    assert together[metric][1] == alone[metric][0]
    assert float(alone[metric][0]) == pytest.approx(value, abs=1e-4)


def test_information_gain_is_in_bits():
  fixated = np.zeros((4, 4), bool)
  fixated[0, 0] = True
  values = np.full((4, 4), 0.5 / 15)
  values[0, 0] = 0.5  # half of all probability, where a constant map has a sixteenth
  assert metrics.information_gain(values, fixated) == pytest.approx(3)
  assert metrics.information_gain(values, fixated, values) == pytest.approx(0)
  assert np.isnan(metrics.information_gain(np.zeros((4, 4)), fixated))
