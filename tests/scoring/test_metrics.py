"""Compares metrics with published values and slow transcriptions of their definitions, and checks invariants."""

import itertools
import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stajax import scoring
from stajax.scoring import metrics
from stajax.scoring.resize import imresize, postprocess_map


def points(*indices, size=(4, 4)):
  mask = np.zeros(size, bool)
  for index in indices:
    mask.flat[index if isinstance(index, int) else np.ravel_multi_index(index, size)] = True
  return mask


FIXATIONS_A = points((2, 2), (1, 2), (2, 3), (0, 0))
OTHER_A = points((1, 1), (2, 1), (3, 2), (0, 3))
MAP_A = np.array([[0, 0.1, 0.2, 0.3], [0.1, 0.4, 0.6, 0.3], [0.2, 0.8, 1, 0.5], [0, 0.2, 0.4, 0.1]])
DENSITY_A = np.array([[0, 0, 0.1, 0.1], [0, 0.2, 0.5, 0.2], [0.1, 0.5, 1, 0.4], [0, 0.1, 0.3, 0.1]])
MAP_C = np.arange(16.0).reshape(4, 4)
DENSITY_C = np.zeros((4, 4))
DENSITY_C.flat[[15, 14, 13, 10]] = [1, 0.5, 0.25, 0.25]
MAP_D = np.array(
  [[0.03, 0.11, 0.27, 0.34], [0.13, 0.42, 0.58, 0.36], [0.22, 0.77, 0.99, 0.53], [0.05, 0.24, 0.47, 0.16]]
)
DENSITY_D = np.array(
  [[0.02, 0.05, 0.15, 0.12], [0.06, 0.22, 0.51, 0.23], [0.11, 0.54, 0.97, 0.41], [0.03, 0.12, 0.33, 0.14]]
)
GOLDEN = {
  "A": (
    MAP_A, DENSITY_A, FIXATIONS_A, OTHER_A,
    0.833333333333, 0.625, 0.704178790220, 0.957947975509, 0.861111111111, 0.079043536778,
  ),
  "C": (
    MAP_C, DENSITY_C, points(15, 13, 9, 2), points(0, 5, 8, 14),
    0.791666666667, 0.65625, 0.472594528359, 0.651920240520, 0.433333333333, 0.952252937540,
  ),
  "D": (
    MAP_D, DENSITY_D, FIXATIONS_A, OTHER_A,
    0.833333333333, 0.625, 0.669941570831, 0.963810098227, 0.883876121998, 0.035982897075,
  ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_vectors(name):
  prediction, density, fixations, other, auc_judd, s_auc, nss, cc, sim, kl = GOLDEN[name]
  rng = np.random.default_rng(0)
  assert metrics.auc_judd(prediction, fixations) == pytest.approx(auc_judd, abs=1e-12)
  assert metrics.s_auc(prediction, fixations, other, rng) == pytest.approx(s_auc, abs=1e-12)
  assert metrics.s_auc_expected(prediction, fixations, other) == pytest.approx(s_auc, abs=1e-12)
  assert metrics.nss(prediction, fixations) == pytest.approx(nss, abs=1e-12)
  assert metrics.cc(prediction, density) == pytest.approx(cc, abs=1e-12)
  assert metrics.sim(prediction, density) == pytest.approx(sim, abs=1e-12)
  assert metrics.kl(prediction, density) == pytest.approx(kl, abs=1e-12)


def test_golden_vector_b_and_shuffled_variants():
  assert metrics.sim(MAP_A + 0.2, DENSITY_A + 0.1) == pytest.approx(0.861111111111, abs=1e-12)
  assert metrics.kl(MAP_A + 0.2, DENSITY_A + 0.1) == pytest.approx(0.036299521522, abs=1e-12)
  rng = np.random.default_rng(0)
  assert metrics.s_auc(0.5 * MAP_D + 0.2, FIXATIONS_A, OTHER_A, rng) == pytest.approx(0.625, abs=1e-12)
  assert metrics.s_auc(MAP_A, FIXATIONS_A, points((0, 3)), rng) == pytest.approx(0.75, abs=1e-12)


def test_auc_judd_jitter_breaks_ties_as_published():
  values = [metrics.auc_judd(MAP_A, FIXATIONS_A, np.random.default_rng(seed)) for seed in range(400)]
  assert min(values) >= 0.8333 and max(values) <= 0.84376
  assert np.mean(values) == pytest.approx(0.8386, abs=5e-4)
  assert metrics.auc_judd(MAP_D, FIXATIONS_A, np.random.default_rng(0)) == pytest.approx(0.833333333333, abs=1e-12)


def test_postprocess_and_imresize_golden_values():
  saved = np.array([[0, 26, 51, 77], [26, 102, 153, 77], [51, 204, 255, 128], [0, 51, 102, 26]], np.uint8)
  post = postprocess_map(saved)
  np.testing.assert_allclose(post[0], [0.267835074761, 0.292176956895, 0.324363288713, 0.345466087054], atol=1e-12)
  np.testing.assert_allclose(post[3], [0.305344047185, 0.328205731574, 0.357459732975, 0.375844631685], atol=1e-12)
  np.testing.assert_allclose(postprocess_map(saved / 255), post, atol=1e-12)
  large = imresize(post, (6, 8))
  left = [0.264637184650, 0.271115950240, 0.284073481422, 0.299057304561]
  right = [0.316067419659, 0.330097718245, 0.341148200321, 0.346673441359]
  np.testing.assert_allclose(large[0], left + right, atol=1e-12)
  assert large.max() == pytest.approx(0.378012486908, abs=1e-12)


def slow_imresize(values, size):
  """Resizes one pixel at a time, by the definition: the kernel around the pixel's centre, mirrored at the borders."""

  def kernel(x):
    x = abs(x)
    if x <= 1:
      return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0

  def axis_weights(size_in, size_out):
    scale = size_out / size_in
    shrink = min(scale, 1)
    matrix = np.zeros((size_out, size_in))
    for i in range(size_out):
      centre = (i + 0.5) / scale - 0.5
      for j in range(-5 * size_in, 6 * size_in):
        mirrored = j % (2 * size_in)
        mirrored = mirrored if mirrored < size_in else 2 * size_in - 1 - mirrored
        matrix[i, mirrored] += kernel(shrink * (centre - j))
    return matrix / matrix.sum(1, keepdims=True)

  return axis_weights(values.shape[0], size[0]) @ values @ axis_weights(values.shape[1], size[1]).T


@pytest.mark.parametrize(
  "sizes", [((5, 7), (11, 13)), ((12, 9), (5, 4)), ((6, 6), (6, 9)), ((1, 3), (4, 2)), ((40, 30), (900, 1100))]
)
def test_imresize_equals_the_definition(sizes):
  values = np.random.default_rng(1).random(sizes[0])
  np.testing.assert_allclose(imresize(values, sizes[1]), slow_imresize(values, sizes[1]), atol=1e-12)


def test_imresize_keeps_constants_and_same_size():
  values = np.random.default_rng(2).random((8, 9))
  np.testing.assert_array_equal(imresize(values, (8, 9)), values)
  np.testing.assert_array_equal(imresize(np.full((8, 9), 0.3), (20, 5)), 0.3)  # else NSS would be of rounding errors


def test_postprocess_blur_is_a_13_by_13_window_with_symmetric_borders():
  saved = np.zeros((20, 16), np.uint8)
  saved[3, 2] = 255
  y, x = np.mgrid[-6:7, -6:7]
  window = np.exp(-(x**2 + y**2) / 8)
  expected = scipy.ndimage.convolve(saved / 255.0, window / window.sum(), mode="reflect")
  np.testing.assert_allclose(postprocess_map(saved), expected, atol=1e-14)
  for size in ((3, 2), (1, 300), (200, 7)):  # narrower than the window, and in several blocks
    values = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    expected = scipy.ndimage.gaussian_filter((values - values.min()) / np.ptp(values), 2, mode="reflect", radius=6)
    np.testing.assert_allclose(postprocess_map(values), expected, atol=1e-14)
  assert not postprocess_map(np.full((5, 5), 9, np.uint8)).any()
  assert not postprocess_map(np.zeros((5, 5), np.uint8)).any()


def slow_auc_judd(prediction, fixations):
  values = (prediction - prediction.min()) / (prediction.max() - prediction.min())
  fixated = sorted(values[fixations], reverse=True)
  curve = [(0.0, 0.0)]
  for i, threshold in enumerate(fixated, start=1):
    above = np.count_nonzero(values >= threshold)
    curve.append(((above - i) / (values.size - len(fixated)), i / len(fixated)))
  return area_under([*curve, (1.0, 1.0)])


def slow_s_auc(prediction, fixations, other, rng, splits):
  values = (prediction - prediction.min()) / (prediction.max() - prediction.min())
  fixated, others = values[fixations], values[other]
  areas = []
  for _ in range(splits):
    drawn = rng.permutation(others)[: min(len(fixated), len(others))]
    curve = [(0.0, 0.0)]
    for threshold in 0.1 * np.arange(11)[::-1]:
      curve.append((np.mean(drawn >= threshold), np.mean(fixated >= threshold)))
    areas.append(area_under([*curve, (1.0, 1.0)]))
  return np.mean(areas), np.std(areas) / np.sqrt(splits)


def area_under(curve):
  return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in itertools.pairwise(curve))


maps = hnp.arrays(np.float64, (4, 5), elements=st.integers(0, 12).map(lambda value: value / 12))
masks = hnp.arrays(bool, (4, 5))


@settings(deadline=None, max_examples=150)
@given(maps, masks)
def test_auc_judd_equals_slow(prediction, fixations):
  fast = metrics.auc_judd(prediction, fixations)
  if fixations.all() or not fixations.any() or np.ptp(prediction) == 0:
    assert math.isnan(fast)
  else:
    assert fast == pytest.approx(slow_auc_judd(prediction, fixations), abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(maps, masks, masks)
def test_s_auc_equals_slow(prediction, fixations, other):
  other = other & ~fixations
  fast = metrics.s_auc(prediction, fixations, other, np.random.default_rng(0))
  expected = metrics.s_auc_expected(prediction, fixations, other)
  if not fixations.any() or not other.any() or np.ptp(prediction) == 0:
    assert math.isnan(fast) and math.isnan(expected)
  elif fixations.sum() >= other.sum():  # every other pixel is drawn: nothing is random
    slow, _ = slow_s_auc(prediction, fixations, other, np.random.default_rng(0), 1)
    assert fast == pytest.approx(slow, abs=1e-12)
    assert expected == pytest.approx(slow, abs=1e-12)


def test_s_auc_draws_have_the_same_distribution_as_slow():
  rng = np.random.default_rng(5)
  prediction = rng.random((12, 12))
  fixations = rng.random((12, 12)) < 0.08
  other = (rng.random((12, 12)) < 0.4) & ~fixations
  slow, error = slow_s_auc(prediction, fixations, other, rng, 3000)
  assert metrics.s_auc_expected(prediction, fixations, other) == pytest.approx(slow, abs=4 * error)
  single = [metrics.s_auc(prediction, fixations, other, rng, splits=1) for _ in range(3000)]
  assert np.mean(single) == pytest.approx(slow, abs=6 * error)
  assert np.std(single) == pytest.approx(error * np.sqrt(3000), rel=0.1)
  same = [metrics.s_auc(prediction, fixations, other, np.random.default_rng(9)) for _ in range(2)]
  assert same[0] == same[1]


def test_invariants():
  rng = np.random.default_rng(3)
  prediction, density = rng.random((30, 40)), rng.random((30, 40))
  fixations = rng.random((30, 40)) < 0.02
  assert metrics.auc_judd(prediction**3, fixations) == pytest.approx(metrics.auc_judd(prediction, fixations), abs=1e-12)
  assert metrics.nss(5 * prediction + 2, fixations) == pytest.approx(metrics.nss(prediction, fixations), abs=1e-10)
  assert metrics.sim(5 * prediction + 2, density) == pytest.approx(metrics.sim(prediction, density), abs=1e-12)
  assert metrics.cc(prediction, density) == pytest.approx(scipy.stats.pearsonr(prediction.ravel(), density.ravel())[0])
  assert metrics.cc(-prediction, density) == pytest.approx(-metrics.cc(prediction, density), abs=1e-12)
  assert metrics.sim(density, density) == pytest.approx(1) and metrics.cc(density, density) == pytest.approx(1)
  assert metrics.kl(density, density) == pytest.approx(0, abs=1e-12)
  perfect = metrics.auc_judd(fixations + prediction / 2, fixations)
  assert perfect == 1.0
  standardised = scipy.stats.zscore(prediction, axis=None, ddof=1)
  assert metrics.nss(prediction, fixations) == pytest.approx(standardised[fixations].mean())


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_constant_prediction(value):
  rng = np.random.default_rng(4)
  prediction, density = np.full((60, 80), value), rng.random((60, 80))
  fixations = rng.random((60, 80)) < 0.2
  other = ~fixations
  assert math.isnan(metrics.auc_judd(prediction, fixations))
  assert metrics.auc_judd(prediction, fixations, rng) == pytest.approx(0.5, abs=0.05)
  assert math.isnan(metrics.s_auc(prediction, fixations, other, rng))
  assert math.isnan(metrics.nss(prediction, fixations))
  assert math.isnan(metrics.sim(prediction, density))
  assert math.isnan(metrics.cc(prediction, density))


def test_empty_ground_truth():
  rng = np.random.default_rng(6)
  prediction, nothing = rng.random((6, 7)), np.zeros((6, 7))
  none = np.zeros((6, 7), bool)
  assert math.isnan(metrics.auc_judd(prediction, none, rng))
  assert math.isnan(metrics.s_auc(prediction, none, ~none, rng))
  assert math.isnan(metrics.s_auc(prediction, points(3, size=(6, 7)), none, rng))
  assert math.isnan(metrics.nss(prediction, none))
  assert math.isnan(metrics.cc(prediction, nothing))
  assert metrics.sim(prediction, nothing) == 0.0


@pytest.mark.parametrize("exponent", [-1060, -600, 600, 1023])
@pytest.mark.filterwarnings("error")
def test_scores_do_not_depend_on_the_scale_however_far_it_is(exponent):
  rng = np.random.default_rng(0)
  values, density = rng.integers(0, 900, (6, 7)) / 1024, rng.random((6, 7))
  fixations, other = points(3, 20, size=(6, 7)), points(9, 30, 5, size=(6, 7))
  far = np.ldexp(values, exponent)
  for score in (
    metrics.auc_judd,
    metrics.nss,
    metrics.information_gain,
    lambda x, y: metrics.s_auc_expected(x, y, other),
  ):
    assert score(far, fixations) == pytest.approx(score(values, fixations), abs=1e-12)
  for score in (metrics.cc, metrics.sim, metrics.kl):
    assert score(far, density) == pytest.approx(score(values, density), abs=1e-12)
  grey = np.round(density * 255).astype(np.uint8)
  expected, found = (scoring.score_map(x, fixations, grey, other, 0, "avimos") for x in (values, -far))
  assert found["nss"] == pytest.approx(-expected["nss"], abs=1e-5)


def test_arrays_that_do_not_belong_together_are_refused():
  rng = np.random.default_rng(0)
  values, density, fixations = rng.random((6, 7)), rng.random((6, 7)), points(3, size=(6, 7))
  bad = np.where(fixations, np.nan, values)
  for call, expected in [
    (lambda: metrics.auc_judd(values, fixations[:5]), r"a map \(6, 7\) and fixations \(5, 7\)"),
    (lambda: metrics.s_auc_expected(values, fixations, fixations[:, :6]), "expected one size"),
    (lambda: metrics.cc(values, density[:1]), r"found maps \(6, 7\) and \(1, 7\)"),  # NumPy would repeat the row
    (lambda: metrics.nss(values, density), "expected a mask of fixated pixels, not a density"),
    (lambda: metrics.auc_judd(values, np.round(9 * density).astype(np.uint8)), "found fixations uint8 from 0 to 9"),
    (lambda: metrics.sim(bad, density), "not finite"),
    (lambda: metrics.nss(bad, fixations), "not finite"),
    (lambda: metrics.kl(np.log(values), density), "of log densities take exp"),
    (lambda: metrics.information_gain(np.log(values), fixations), "expected none below 0"),
  ]:
    with pytest.raises(ValueError, match=expected) as error:
      call()
    assert "\n" not in str(error.value)
  assert metrics.nss(values, fixations * np.uint8(255)) == metrics.nss(values, fixations)  # a mask from a picture
