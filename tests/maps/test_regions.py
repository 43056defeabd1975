"""Tests of boxes and block weights, against pixels counted one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stajax.maps.regions import BoxTracker, block_weights, cover, merge_blocks, qp_offsets


def spots(*places: tuple[int, int], shape=(36, 64), side=5) -> np.ndarray:
  """A map with square spots at (row, column)."""
  saliency = np.zeros(shape, np.float32)
  for row, column in places:
    saliency[row : row + side, column : column + side] = 1
  return saliency


def painted(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """The cells whose middles are in a box."""
  rows, columns = ((np.arange(n) + 0.5) / n for n in shape)
  inside = [
    ((top < rows) & (rows < bottom))[:, None] & ((left < columns) & (columns < right))
    for left, top, right, bottom in boxes
  ]
  return np.any(inside, axis=0) if inside else np.zeros(shape, bool)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_boxes_cover_all_of_the_heat_and_more_of_them_cover_no_more_of_the_rest(seed, count):
  rng = np.random.default_rng(seed)
  saliency = rng.random((9, 14)) ** 8
  areas = []
  for number in range(1, count + 1):
    boxes = cover(saliency, number)
    assert 1 <= len(boxes) <= number
    assert painted(boxes, saliency.shape)[saliency >= 0.5 * saliency.max()].all()
    areas.append(painted(boxes, saliency.shape).sum())
  assert areas == sorted(areas, reverse=True)


def test_spots_get_a_box_each():
  saliency = spots((2, 3), (20, 50), (25, 10))
  boxes = cover(saliency, 3)
  np.testing.assert_array_equal(painted(boxes, saliency.shape), saliency > 0)
  assert len(cover(saliency, 8)) == 3  # a solid spot is not divided
  assert len(cover(np.zeros((4, 4)), 3)) == 0
  np.testing.assert_allclose(cover(np.ones((300, 500)), 2), [[0, 0, 1, 1]])


def test_boxes_move_smoothly_and_keep_their_places():
  tracker = BoxTracker(3, (640, 360))
  first = tracker.add(0.0, spots((2, 3), (20, 50)))
  assert first.dtype == np.int32
  assert sorted(first.tolist()) == [[0, 0, 0, 0], [30, 20, 50, 50], [500, 200, 50, 50]]
  at = first[:, 0].tolist().index(30)
  moved = tracker.add(0.04, spots((2, 5), (20, 50)))
  assert moved[at].tolist() == [32, 20, 51, 50]  # 3 of 20 pixels in 0.04 s; the pixels that it touches
  assert (moved[:, 0] == 500).sum() == 1
  late = tracker.add(5.0, spots((2, 5)))
  assert late[at].tolist() == [50, 20, 50, 50] and not late[np.arange(3) != at].any()
  elsewhere = tracker.add(5.04, spots((25, 40)))  # a cut: the box does not wander over
  assert [400, 250, 50, 50] in elsewhere.tolist()
  with pytest.raises(ValueError, match="0 boxes"):
    BoxTracker(0, (640, 360))


@pytest.mark.parametrize("size, side", [((64, 36), 16), ((50, 30), 8), ((7, 5), 16)])
def test_block_weights_are_means_over_the_pixels_of_blocks(size, side):
  rng = np.random.default_rng(0)
  width, height = size
  maps = rng.random((2, height, width)).astype(np.float32)  # a value for each pixel, so that nothing is interpolated
  found = block_weights(maps, size, side)
  assert found.shape == (2, -(-height // side), -(-width // side)) and found.dtype == np.float32
  for n, row, column in np.ndindex(found.shape):
    block = maps[n, row * side : (row + 1) * side, column * side : (column + 1) * side]
    assert found[n, row, column] == pytest.approx(block.mean(), abs=1e-5)
  with pytest.raises(ValueError, match="blocks of 0 pixels"):
    block_weights(maps, size, 0)


def test_qp_offsets():
  assert qp_offsets(np.array([0, 0.25, 0.5, 1.0])).tolist() == [6, 3, 0, -6]
  assert qp_offsets(np.ones(1), 20).dtype == np.int8


def test_merged_blocks_are_the_same_blocks():
  offsets = np.random.default_rng(0).integers(-1, 2, (5, 7))
  offsets[1:4, 2:6] = 6
  found, painted_ = merge_blocks(offsets, 8, (52, 37)), np.zeros((37, 52), int)
  for x, y, width, height, value in found:
    assert not painted_[y : y + height, x : x + width].any() and x + width <= 52 and y + height <= 37
    painted_[y : y + height, x : x + width] = value
  np.testing.assert_array_equal(painted_, np.kron(offsets, np.ones((8, 8), int))[:37, :52])
  assert (16, 8, 32, 24, 6) in found
