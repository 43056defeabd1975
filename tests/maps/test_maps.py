"""Compares the way from class maps to pseudo-fixations with loops over pixels, written from the paper's equations."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from stajax.maps import final, pseudo, scale, scam

LAMBDA = 1e-4


def minmax(image):
  low, high = image.min(), image.max()
  return np.zeros_like(image) if high == low else (image - low) / (high - low)


def soft_filter(confidences, tag, tags):
  """Computes Eq. 2 for one source and frame, with the categories that are not tags as rivals."""
  rivals = [c for u, c in enumerate(confidences) if u not in tags]
  return confidences[tag] if all(confidences[tag] > c for c in rivals) else 0.0


def select_by_hand(activation_maps, confidences, tags):
  """Computes Eqs. 1 and 4 pixel by pixel; returns the maps (n, h, w) and which frames have a source."""
  sources, frames, height, width, _ = activation_maps.shape
  maps, found = [], []
  for n in range(frames):
    of_tags = []
    for k, tag in enumerate(tags):
      weights = [soft_filter(confidences[j, n], tag, tags) for j in range(sources)]
      if not any(weights):
        continue
      mean = np.zeros((height, width))
      for y, x in np.ndindex(height, width):
        top = sum(weights[j] * activation_maps[j, n, y, x, k] for j in range(sources))
        mean[y, x] = (top + LAMBDA) / (sum(weights) + LAMBDA)
      of_tags.append(minmax(mean))
    found.append(bool(of_tags))
    maps.append(np.mean(of_tags, axis=0) if of_tags else average_by_hand(activation_maps[:, n]))
  return np.array(maps), np.array(found)


def average_by_hand(activation_maps):
  """Computes AC of one frame: (j, h, w, k) to (h, w)."""
  sources, height, width, tags = activation_maps.shape
  mean = np.zeros((height, width))
  for j, y, x, k in np.ndindex(sources, height, width, tags):
    mean[y, x] += activation_maps[j, y, x, k] / (sources * tags)
  return minmax(mean)


def random_sources(sources, frames, tags, seed=0):
  rng = np.random.default_rng(seed)
  activation_maps = rng.random((sources, frames, 4, 5, len(tags))).astype(np.float32)
  confidences = rng.uniform(0.01, 0.99, (sources, frames, 6)).astype(np.float32)
  confidences[:, ::7, :] = np.round(confidences[:, ::7, :])  # ties, and confidences of exactly 0 and 1
  return activation_maps, confidences


@pytest.mark.parametrize("sources", [1, 3, 11])
@pytest.mark.parametrize("tags", [(2,), (0, 3), (1, 2, 4)])
def test_select_is_equations_1_2_and_4(sources, tags):
  activation_maps, confidences = random_sources(sources, 40, tags)
  maps, found = scam.select(activation_maps, confidences, tags)
  expected, expected_found = select_by_hand(activation_maps, confidences, tags)
  assert 0 < found.sum() < 40
  np.testing.assert_array_equal(found, expected_found)
  np.testing.assert_allclose(maps, expected, atol=1e-5)
  assert maps.dtype == np.float32
  again, _ = scam.select(list(activation_maps), confidences, tags)  # sources as a list
  np.testing.assert_array_equal(again, maps)


def test_equation_4_as_printed():
  """This is Eq. 4 as printed, UC of three sources, SC of two, LC and CC of three, and Z."""
  rng = np.random.default_rng(3)
  granularities = [(rng.random(j), rng.random((j, 6, 7))) for j in (3, 2, 3, 3)]
  top = sum(np.abs(c[:, None, None] * r).sum(axis=0) for c, r in granularities)
  expected = minmax((top + LAMBDA) / (sum(np.abs(c).sum() for c, _ in granularities) + LAMBDA))
  own = np.concatenate([c for c, _ in granularities])
  confidences = np.stack([own, 0 * own], axis=-1)[:, None].astype(np.float32)
  maps = np.concatenate([r for _, r in granularities])[:, None, ..., None].astype(np.float32)
  np.testing.assert_allclose(scam.select(maps, confidences, [0])[0][0], expected, atol=1e-5)


@pytest.mark.parametrize("tags", [(2,), (0, 3)])
def test_average_and_cams(tags):
  activation_maps, _ = random_sources(4, 3, tags)
  average, cams = scam.average(activation_maps), scam.average_over_tags(activation_maps)
  np.testing.assert_allclose(average, [average_by_hand(activation_maps[:, n]) for n in range(3)], atol=1e-5)
  assert average.dtype == cams.dtype == np.float32 and cams.shape == (4, 3, 4, 5)
  np.testing.assert_allclose(cams[2, 1], sum(activation_maps[2, 1, ..., k] for k in range(len(tags))) / len(tags))
  np.testing.assert_allclose(scam.average(activation_maps[:1])[0], minmax(cams[0, 0]), atol=1e-6)


def test_a_clip_without_a_tag_has_empty_maps():
  activation_maps, confidences = random_sources(4, 3, ())
  maps, found = scam.select(activation_maps, confidences, ())
  assert maps.shape == (3, 4, 5) and not maps.any() and not found.any()


@pytest.mark.parametrize("tags", [(2,), (0, 3)])
def test_the_order_of_sources_and_wrong_sources_do_not_matter(tags):
  activation_maps, confidences = random_sources(5, 20, tags, seed=1)
  maps, found = scam.select(activation_maps, confidences, tags)
  order = [3, 0, 4, 2, 1]
  np.testing.assert_allclose(scam.select(activation_maps[order], confidences[order], tags)[0], maps, atol=1e-5)
  wrong = confidences[:2].copy()
  wrong[..., 5] = 1  # sure of what is not a tag
  more = np.concatenate([activation_maps, activation_maps[:2] ** 2])
  changed, also_found = scam.select(more, np.concatenate([confidences, wrong]), tags)
  np.testing.assert_array_equal(also_found, found)
  np.testing.assert_allclose(changed[found], maps[found], atol=1e-5)


def test_a_single_right_source_gives_its_own_map():
  activation_maps, confidences = random_sources(3, 1, (2,))
  confidences[:] = 0.5
  confidences[1, 0, 2] = 0.51
  maps, found = scam.select(activation_maps, confidences, [2])
  np.testing.assert_allclose(maps[0], minmax(activation_maps[1, 0, ..., 0]), atol=1e-5)
  assert found.tolist() == [True]


def test_constant_sources_leave_nothing_but_do_not_break():
  confidences = np.array([[[0.9, 0.1]], [[0.8, 0.1]]], np.float32)
  maps, found = scam.select(np.zeros((2, 1, 3, 3, 1), np.float32), confidences, [0])
  assert found.all() and not maps.any()
  assert not scam.average(np.full((2, 1, 3, 3, 1), 0.3, np.float32)).any()


def test_a_tie_with_another_category_does_not_count():
  assert scam.soft_filter(np.array([[0.7, 0.7, 0.1]]), [0]).tolist() == [[0]]
  np.testing.assert_allclose(scam.soft_filter(np.array([[0.7, 0.7, 0.1]]), [0, 1]), [[0.7, 0.7]])
  np.testing.assert_allclose(scam.soft_filter(np.array([[0.1, 0.2]]), [0, 1]), [[0.1, 0.2]])  # all are tags
  assert scam.soft_filter(np.array([[0.3, 0.2, 0.9]]), [0, 1]).tolist() == [[0, 0]]


def test_only_right_sources_count_by_their_confidence():
  """Two right sources mark one pixel each, in the ratio of their confidences; a wrong source marks nothing."""
  class_maps = np.zeros((3, 1, 2, 2, 1), np.float32)
  class_maps[0, 0, 0, 0, 0], class_maps[1, 0, 0, 1, 0], class_maps[2, 0, 1, 0, 0] = 5, 0.1, 9
  confidences = np.array([[[0.8, 0.1]], [[0.4, 0.1]], [[0.5, 0.6]]], np.float32)
  maps, found = scam.select([scam.source_maps(x, (2, 2)) for x in class_maps], confidences, [0])
  np.testing.assert_allclose(maps[0], [[1, 0.5], [0, 0]], atol=1e-6)
  assert found.tolist() == [True]


def test_lambda_before_normalisation():
  weights, maps = np.array([[[0.3]]], np.float32), np.array([0.0, 1.0], np.float32).reshape(1, 1, 1, 2, 1)
  assert scam.LAMBDA == LAMBDA
  np.testing.assert_allclose(scam.selective_maps(maps, weights)[0, 0, :, 0], [0, 1])
  assert not scam.selective_maps(maps, 0 * weights).any()  # λ/λ everywhere is constant


def test_minmax_of_a_constant_is_zero():
  for value in (0.0, 3.5, -2.0):
    assert not scale.minmax(np.full((2, 3, 4), value, np.float32)).any()
  maps = np.random.default_rng(0).normal(size=(2, 3, 4))
  before = maps.copy()
  np.testing.assert_allclose(scale.minmax(maps)[1], minmax(maps[1]), rtol=1e-6)
  np.testing.assert_array_equal(maps, before)


def test_activation_maps_are_positive_parts_unless_there_is_none():
  """Where nothing speaks for a tag, they are what speaks least against it, for each tag and frame by itself."""
  mixed, against = np.array([[-2.0, 0], [1, 3]]), np.array([[-4.0, -3], [-2, -1]])
  class_maps = np.stack([np.stack([mixed, against], -1), np.stack([against, 0 * against - 1], -1)])
  maps = scam.class_activation_maps(class_maps)
  np.testing.assert_allclose(maps[0, ..., 0], [[0, 0], [1 / 3, 1]], rtol=1e-6)
  for n, k in ((0, 1), (1, 0)):
    np.testing.assert_allclose(maps[n, ..., k], [[0, 1 / 3], [2 / 3, 1]], rtol=1e-6)
  assert not maps[1, ..., 1].any()  # Z of a constant


def test_source_maps_are_resized_after_normalisation():
  class_maps = np.random.default_rng(0).normal(size=(2, 4, 5, 2)).astype(np.float32)
  maps = scam.source_maps(class_maps, (9, 7))
  assert maps.shape == (2, 9, 7, 2) and maps.dtype == np.float32
  for n, k in np.ndindex(2, 2):
    cam = minmax(np.maximum(class_maps[n, ..., k], 0))
    np.testing.assert_allclose(maps[n, ..., k], jax.image.resize(cam, (9, 7), "bilinear"), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_final_map_is_equation_17(dtype):
  maps = np.random.default_rng(0).random((3, 4, 5, 6)).astype(dtype)
  maps[1, 1] = 0.25  # a constant student
  maps[:, 2] = 0.5  # all of them
  fused = final.final_map(*maps)
  assert fused.dtype == np.float32 and fused.shape == (4, 5, 6)
  for n in range(4):
    sta, short, long = maps[:, n].astype(np.float64)
    product, total = np.zeros((5, 6)), np.zeros((5, 6))
    for at in np.ndindex(5, 6):
      product[at] = minmax(sta)[at] * minmax(short)[at] * minmax(long)[at]
      total[at] = sta[at] + short[at] + long[at]
    np.testing.assert_allclose(fused[n], 0.5 * minmax(product) + 0.5 * minmax(total), atol=1e-5)
  np.testing.assert_allclose(final.final_map(*maps[[2, 0, 1]]), fused, atol=1e-5)  # no student is special
  one = maps[0, :2].astype(np.float64)
  cubed = [0.5 * minmax(x) ** 3 + 0.5 * minmax(x) for x in one]
  np.testing.assert_allclose(final.final_map(maps[0, :2], maps[0, :2], maps[0, :2]), cubed, atol=1e-5)


def test_the_factor_counts_once_in_each_term_of_equation_17():
  """Uniform maps are not lost: where the students say the same everywhere, the factor itself remains."""
  maps = np.random.default_rng(0).random((3, 2, 5, 6))
  factor = final.centre_factor((5, 6)).astype(np.float64)
  for n, found in enumerate(final.final_map(*maps, factor)):
    product = np.prod([minmax(x) for x in maps[:, n]], axis=0)
    expected = 0.5 * minmax(product * factor) + 0.5 * minmax(maps[:, n].sum(axis=0) * factor)
    np.testing.assert_allclose(found, expected, atol=1e-5)
  same = np.full((1, 5, 6), 0.3)
  np.testing.assert_allclose(final.final_map(same, same, same, factor)[0], 0.5 * minmax(factor), atol=1e-5)


def test_blur():
  """It is SciPy's filter away from the borders, and a constant stays a constant up to the border."""
  maps = np.random.default_rng(0).random((2, 60, 80)).astype(np.float32)
  found = final.blur_maps(maps, 0.03)
  inner = np.s_[:, 12:-12, 15:-15]
  expected = ndimage.gaussian_filter(maps.astype(np.float64), (0, 1.8, 2.4), truncate=6)
  np.testing.assert_allclose(found[inner], expected[inner], rtol=1e-5)
  np.testing.assert_allclose(final.blur_maps(np.full((1, 7, 5), 0.3, np.float32), 0.2), 0.3, rtol=1e-6)


def test_thresholds_of_table_3():
  maps = np.array([[[2.0, 2.6], [3.0, 4.0]], [[5.0, 5.0], [5.0, 5.0]]])
  np.testing.assert_allclose(scale.threshold_maps(maps, 0.0), [[[0, 0.3], [0.5, 1]], [[0, 0], [0, 0]]], rtol=1e-6)
  np.testing.assert_allclose(scale.threshold_maps(maps, 0.5)[0], [[0, 0], [0.5, 1]])
  np.testing.assert_allclose(scale.threshold_maps(maps, 0.7)[0], [[0, 0], [0, 1]])


@pytest.mark.parametrize("size", [(9, 12), (3, 3), (4, 6), (1, 1), (32, 5)])
def test_resize_is_jaxs_bilinear(size):
  maps = np.random.default_rng(0).random((3, 4, 6)).astype(np.float32)
  expected = jax.image.resize(maps, (3, *size), "bilinear", antialias=True)
  resized = pseudo.resize(maps, size)
  assert resized.dtype == np.float32
  np.testing.assert_allclose(resized, expected, atol=1e-6)
  if size == (4, 6):
    np.testing.assert_array_equal(resized, maps)


@pytest.mark.parametrize(("frames", "reach"), [(7, 2), (1, 2), (2, 3), (5, 0)])
def test_smooth(frames, reach):
  maps = np.random.default_rng(0).random((frames, 2, 3)).astype(np.float32)
  expected = np.zeros_like(maps)
  for t in range(frames):
    for at in range(t - reach, t + reach + 1):
      while not 0 <= at < frames:  # bounce
        at = 0 if frames == 1 else -at if at < 0 else 2 * (frames - 1) - at
      expected[t] += maps[at] / (2 * reach + 1)
  np.testing.assert_allclose(pseudo.smooth(maps, reach), expected, rtol=1e-5)


def test_low_values_are_suppressed():
  maps = np.array([[[0.0, 0.0, 0.0, 1.0]], [[1.0, 1.0, 1.0, 1.0]], [[0.0, 0.5, 0.5, 1.0]]])  # means 1/4, 1, 1/2
  expected = [[[0, 0, 0, 1.0]], [[0, 0, 0, 0.0]], [[0, 0, 0, 1.0]]]
  np.testing.assert_array_equal(pseudo.suppress_low_values(maps, 1.5), expected)
  np.testing.assert_array_equal(pseudo.suppress_low_values(maps, 0), maps)
  np.testing.assert_array_equal(pseudo.suppress_low_values(maps, 1)[1], maps[1])  # only what is under the threshold


def test_pseudo_fixations():
  """The maps are a peak that stays, a peak without a right source, and one so flat that nothing is left of it."""
  peak = np.zeros((8, 8), np.float32)
  peak[2, 3], peak[5, 5] = 1, 0.05
  flat = np.full((8, 8), 0.5, np.float32)
  flat[0, :4] = 0
  maps = np.stack([peak, peak, flat])
  targets, weights = pseudo.pseudo_fixations(maps, np.array([True, False, True]), reach=0, threshold=3.0)
  assert targets.dtype == np.uint8 and weights.dtype == np.float32 and weights.tolist() == [1, 0, 0]
  for target in targets[:2]:
    assert target[2, 3] == 255 and np.count_nonzero(target) == 2
    assert target[5, 5] == round(0.05 * 255)  # 0.05 is just above 3 × the mean, 0.0492
  assert not targets[2].any()


def test_pseudo_fixations_are_smoothed_first():
  maps = np.zeros((5, 6, 6), np.float32)
  maps[0, 1, 1] = maps[4, 4, 4] = 1
  targets, weights = pseudo.pseudo_fixations(maps, np.ones(5, bool), reach=1, threshold=3.0)
  assert weights.tolist() == [1, 1, 0, 1, 1]
  assert [np.unravel_index(x.argmax(), x.shape) for x in targets[[0, 1, 3, 4]]] == [(1, 1), (1, 1), (4, 4), (4, 4)]
