"""From class maps to pseudo-fixations, against loops over single pixels written from the paper's equations."""

import jax
import numpy as np
import pytest

from stajax.maps import pseudo, scam

LAMBDA = 1e-4


def minmax(image):
  low, high = image.min(), image.max()
  return np.zeros_like(image) if high == low else (image - low) / (high - low)


def soft_filter(confidences, tag, tags):
  """Eq. 2 for one source and frame, with the categories that are not tags as rivals."""
  rivals = [c for u, c in enumerate(confidences) if u not in tags]
  return confidences[tag] if all(confidences[tag] > c for c in rivals) else 0.0


def scam_by_hand(class_maps, confidences, tags):
  """Eq. 1, pixel by pixel: (j, n, h, w, k), (j, n, c) to SCAM (n, h, w) and which frames have a source."""
  sources, frames, height, width, _ = class_maps.shape
  maps, found = [], []
  for n in range(frames):
    of_tags = []
    for k, tag in enumerate(tags):
      cams = [minmax(np.maximum(class_maps[j, n, ..., k], 0)) for j in range(sources)]
      weights = [soft_filter(confidences[j, n], tag, tags) for j in range(sources)]
      if not any(weights):
        continue
      mean = np.zeros((height, width))
      for at in np.ndindex(height, width):
        top = sum(weight * cam[at] for weight, cam in zip(weights, cams, strict=True))
        mean[at] = (top + LAMBDA) / (sum(weights) + LAMBDA)
      of_tags.append(minmax(mean))
    plain = [
      np.mean([minmax(np.maximum(class_maps[j, n, ..., k], 0)) for k in range(len(tags))], axis=0)
      for j in range(sources)
    ]
    found.append(bool(of_tags))
    maps.append(np.mean(of_tags, axis=0) if of_tags else minmax(np.mean(plain, axis=0)))
  return np.array(maps), np.array(found)


@pytest.mark.parametrize("tags", [(2,), (0, 3), (1, 2, 4)])
def test_scam_is_equations_1_and_2(tags):
  rng = np.random.default_rng(len(tags))
  class_maps = rng.normal(size=(3, 40, 4, 5, len(tags))).astype(np.float32)
  confidences = rng.uniform(0.01, 0.99, (3, 40, 6)).astype(np.float32)
  confidences[:, ::7, :] = np.round(confidences[:, ::7, :])  # ties, and confidences of exactly 0 and 1
  cams, maps, found = scam.scam(class_maps, confidences, tags)
  expected, expected_found = scam_by_hand(class_maps, confidences, tags)
  assert 3 < found.sum() < 40
  np.testing.assert_array_equal(found, expected_found)
  np.testing.assert_allclose(maps, expected, atol=1e-5)
  assert cams.shape == (3, 40, 4, 5) and maps.dtype == cams.dtype == np.float32
  one = np.mean([minmax(np.maximum(class_maps[1, 9, ..., k], 0)) for k in range(len(tags))], axis=0)
  np.testing.assert_allclose(cams[1, 9], one, atol=1e-6)


def test_a_tie_with_another_category_does_not_count():
  assert scam.soft_filter(np.array([[0.7, 0.7, 0.1]]), [0]).tolist() == [[0]]
  np.testing.assert_allclose(scam.soft_filter(np.array([[0.7, 0.7, 0.1]]), [0, 1]), [[0.7, 0.7]])
  np.testing.assert_allclose(scam.soft_filter(np.array([[0.1, 0.2]]), [0, 1]), [[0.1, 0.2]])  # all are tags
  assert scam.soft_filter(np.array([[0.3, 0.2, 0.9]]), [0, 1]).tolist() == [[0, 0]]


def test_only_right_sources_count_by_their_confidence():
  """Two right sources whose CAMs are single pixels, and a wrong one: the ratio of the pixels is that of confidences."""
  class_maps = np.zeros((3, 1, 2, 2, 1), np.float32)
  class_maps[0, 0, 0, 0, 0], class_maps[1, 0, 0, 1, 0], class_maps[2, 0, 1, 0, 0] = 5, 0.1, 9
  confidences = np.array([[[0.8, 0.1]], [[0.4, 0.1]], [[0.5, 0.6]]], np.float32)
  _, maps, found = scam.scam(class_maps, confidences, [0])
  np.testing.assert_allclose(maps[0], [[1, 0.5], [0, 0]], atol=1e-6)
  assert found.tolist() == [True]


def test_lambda_before_normalisation():
  weights, maps = np.array([[[0.3]]], np.float32), np.array([0.0, 1.0], np.float32).reshape(1, 1, 1, 2, 1)
  assert scam.LAMBDA == LAMBDA
  np.testing.assert_allclose(scam.selective_maps(maps, weights)[0, 0, :, 0], [0, 1])
  assert not scam.selective_maps(maps, 0 * weights).any()  # λ/λ everywhere is constant


def test_minmax_of_a_constant_is_zero():
  for value in (0.0, 3.5, -2.0):
    assert not scam.minmax(np.full((2, 3, 4), value, np.float32)).any()
  maps = np.random.default_rng(0).normal(size=(2, 3, 4))
  np.testing.assert_allclose(scam.minmax(maps)[1], minmax(maps[1]), rtol=1e-6)
  assert not scam.class_activation_maps(-np.ones((1, 2, 2, 1)) * np.arange(1, 5).reshape(1, 2, 2, 1)).any()


@pytest.mark.parametrize("size", [(9, 12), (3, 3), (4, 6), (1, 1), (32, 5)])
def test_resize_is_jaxs_bilinear(size):
  maps = np.random.default_rng(0).random((3, 4, 6)).astype(np.float32)
  expected = jax.image.resize(maps, (3, *size), "bilinear", antialias=False)
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


def test_cut():
  maps = np.array([[[0.0, 0.0, 0.0, 1.0]], [[1.0, 1.0, 1.0, 1.0]], [[0.0, 0.5, 0.5, 1.0]]])  # means 1/4, 1, 1/2
  expected = [[[0, 0, 0, 1.0]], [[0, 0, 0, 0.0]], [[0, 0, 0, 1.0]]]
  np.testing.assert_array_equal(pseudo.cut(maps, 1.5), expected)
  np.testing.assert_array_equal(pseudo.cut(maps, 0), maps)
  np.testing.assert_array_equal(pseudo.cut(maps, 1)[1], maps[1])  # only what is under the threshold


def test_pseudo_fixations():
  """A peak that stays, a peak without a right source, and a map so flat that nothing is left of it."""
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
