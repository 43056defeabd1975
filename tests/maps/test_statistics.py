"""Tests the four numbers of a map against known values."""

import numpy as np
import pytest

from stajax.maps.statistics import frame_statistics, moved_share


def test_frame_statistics_have_known_values():
  point = np.zeros((10, 20))
  point[2, 5] = 3
  assert frame_statistics(point, (200, 100)) == {"peak": [54, 24], "centroid": [54.5, 24.5], "spread": 0, "entropy": 0}
  uniform = frame_statistics(np.ones((30, 40)), (400, 300))
  assert uniform["entropy"] == 1 and uniform["centroid"] == [199.5, 149.5]
  assert uniform["spread"] == pytest.approx(1 / np.sqrt(12), abs=1e-3)  # of a uniform rectangle, for any sides
  assert frame_statistics(np.zeros((30, 40)), (400, 300)) == uniform
  two = np.zeros((4, 4))
  two[0, 0] = two[3, 3] = 1
  assert frame_statistics(two, (4, 4))["entropy"] == pytest.approx(1 / 4)  # one bit of four
  assert frame_statistics(two, (4, 4))["spread"] == pytest.approx(1.5 / 4)


def test_the_share_of_attention_that_moved():
  left, right = np.zeros((2, 4)), np.zeros((2, 4))
  left[:, 0], right[:, 3] = 5, 0.1
  assert moved_share(left, left) == 0 and moved_share(left, right) == pytest.approx(1)
  assert moved_share(left, left + right * 50) == pytest.approx(0.5)  # half of it
  assert moved_share(np.zeros((2, 4)), left) == pytest.approx(0.75)  # from everywhere
