"""Tests that the blur in time is a weighted mean over frames, however the maps are divided into parts."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from helpers.by_hand import blur_in_time_by_hand
from stajax.maps.time_blur import blur_in_time


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("sizes", [[40], [1] * 40, [3, 30, 7], [39, 1], [1], [2, 1]])
def test_parts_do_not_matter(sigma, sizes):
  maps = np.random.default_rng(0).random((sum(sizes), 4, 5), np.float32)
  parts = np.split(maps, np.cumsum(sizes)[:-1])
  found = np.concatenate(list(blur_in_time(iter(parts), sigma)))
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, blur_in_time_by_hand(maps, sigma), rtol=1e-5)


def test_inside_it_is_a_gaussian_filter():
  maps = np.random.default_rng(1).random((50, 3, 3), np.float32)
  found = np.concatenate(list(blur_in_time([maps], 2.0)))
  expected = gaussian_filter1d(maps, 2.0, axis=0, truncate=3.0)
  np.testing.assert_allclose(found[6:-6], expected[6:-6], rtol=1e-5)


def test_methods_keep_together_and_some_stay_as_they_are():
  rng = np.random.default_rng(2)
  parts = [{"sta": rng.random((n, 2, 2), np.float32), "other": rng.random((n, 2, 2), np.float32)} for n in (5, 1, 9)]
  found = list(blur_in_time(parts, 1.0, unchanged=("other",)))
  joined = {name: np.concatenate([part[name] for part in parts]) for name in ("sta", "other")}
  np.testing.assert_allclose(
    np.concatenate([part["sta"] for part in found]), blur_in_time_by_hand(joined["sta"], 1.0), rtol=1e-5
  )
  np.testing.assert_array_equal(np.concatenate([part["other"] for part in found]), joined["other"])


def test_no_maps_give_none():
  assert list(blur_in_time([], 1.0)) == []


def test_few_maps_are_kept():
  """A map is returned as soon as the maps after it that it needs are there."""
  given = []
  parts = (given.append(t) or np.full((1, 1, 1), t, np.float32) for t in range(100))
  for t, _ in enumerate(blur_in_time(parts, 2.0)):
    assert len(given) <= t + 7
