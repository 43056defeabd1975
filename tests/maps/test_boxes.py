"""Compares coarse boxes and pasting with loops and JAX's resampling, and checks what holds for every box."""

import jax
import numpy as np
import pytest

from stajax.maps import boxes, pseudo, scam

WHOLE = np.array([0, 0, 1, 1], np.float32)


def minmax(image):
  low, high = image.min(), image.max()
  return np.zeros_like(image) if high == low else (image - low) / (high - low)


def box_by_hand(image, factor):
  """Returns the box around the pixels of one smoothed map, found pixel by pixel."""
  image = minmax(image)
  height, width = image.shape
  above = [(y, x) for y in range(height) for x in range(width) if image[y, x] > factor * image.mean()]
  if not above:
    return [0, 0, 1, 1]
  ends = []
  for places, length in ((sorted(y for y, _ in above), height), (sorted(x for _, x in above), width)):
    low, high = places[0] / length, (places[-1] + 1) / length
    if high - low < 1 / 8:
      low, high = (low + high) / 2 - 1 / 16, (low + high) / 2 + 1 / 16
    if low < 0:
      low, high = 0, high - low
    if high > 1:
      low, high = low - (high - 1), 1
    ends.append((low, high))
  return [ends[0][0], ends[1][0], ends[0][1], ends[1][1]]


@pytest.mark.parametrize(("reach", "factor"), [(0, 2.0), (2, 2.0), (1, 3.5)])
def test_boxes_pixel_by_pixel(reach, factor):
  rng = np.random.default_rng(reach)
  maps = 0.1 * rng.random((40, 20, 24)).astype(np.float32) + 0.3
  for t in range(0, 40, 4):  # blobs of all sizes, also of single pixels and at the edges
    y, x = rng.integers(0, 20), rng.integers(0, 24)
    maps[t, y : y + rng.integers(1, 9), x : x + rng.integers(1, 9)] += 1
  smoothed = []
  for t in range(40):
    at = [abs(u) if u < 40 else 78 - u for u in range(t - reach, t + reach + 1)]
    smoothed.append(np.mean(maps[at], axis=0))
  found = boxes.coarse_boxes(maps, reach, factor)
  assert found.dtype == np.float32 and found.shape == (40, 4)
  np.testing.assert_allclose(found, [box_by_hand(x, factor) for x in smoothed], atol=1e-6)
  sides = found[:, 2:] - found[:, :2]
  assert found.min() >= 0 and found.max() <= 1 and sides.min() >= 1 / 8 - 1e-6
  assert len(np.unique(sides)) > 5


def test_degenerate_boxes():
  maps = np.zeros((5, 32, 32), np.float32)
  maps[1, 0, 31] = maps[2, 8, 16] = 1  # single pixels, one in a corner
  maps[3] = 7.0
  maps[4] = np.indices((32, 32)).sum(0) % 2  # pixels of 0 and 1: none above twice the mean
  found = boxes.coarse_boxes(maps, reach=0)
  np.testing.assert_array_equal(found[[0, 3, 4]], [WHOLE] * 3)
  np.testing.assert_allclose(found[1], [0, 28 / 32, 4 / 32, 1])
  np.testing.assert_allclose(found[2], [6.5 / 32, 14.5 / 32, 10.5 / 32, 18.5 / 32])


def test_a_box_does_not_depend_on_the_scale_of_maps():
  maps = np.random.default_rng(0).random((3, 16, 16)).astype(np.float32) ** 4
  np.testing.assert_array_equal(boxes.coarse_boxes(maps), boxes.coarse_boxes(4 * maps + 2))


def paste_by_hand(image, box, size):
  """Pastes one map (h, w) pixel by pixel; only for boxes with at least as many pixels as the map."""
  height, width = image.shape
  y0, x0, y1, x1 = (float(end) for end in box)
  frame = np.zeros(size)
  for Y, X in np.ndindex(*size):
    y, x = (Y + 0.5) / size[0], (X + 0.5) / size[1]
    if y0 <= y < y1 and x0 <= x < x1:
      y = min(max((y - y0) / (y1 - y0) * height - 0.5, 0), height - 1)
      x = min(max((x - x0) / (x1 - x0) * width - 0.5, 0), width - 1)
      a, b = int(y), int(x)
      c, d = min(a + 1, height - 1), min(b + 1, width - 1)
      top = image[a, b] * (b + 1 - x) + image[a, d] * (x - b)
      below = image[c, b] * (b + 1 - x) + image[c, d] * (x - b)
      frame[Y, X] = top * (a + 1 - y) + below * (y - a)
  return frame


def random_boxes(rng, n, smallest):
  sides = rng.uniform(smallest, 1, (n, 2))
  low = rng.uniform(0, 1, (n, 2)) * (1 - sides)
  return np.concatenate([low, low + sides], axis=1).astype(np.float32)


def test_paste_pixel_by_pixel():
  rng = np.random.default_rng(0)
  maps, places = rng.random((6, 4, 5, 2)).astype(np.float32), random_boxes(rng, 6, 0.45)
  pasted = boxes.paste(maps, places, (13, 17))
  assert pasted.shape == (6, 13, 17, 2) and pasted.dtype == np.float32
  for n, k in np.ndindex(6, 2):
    np.testing.assert_allclose(pasted[n, ..., k], paste_by_hand(maps[n, ..., k], places[n], (13, 17)), atol=1e-5)


@pytest.mark.parametrize("size", [(24, 20), (7, 9)])
def test_paste_is_jaxs_resampling(size):
  """It is so for boxes with more and with fewer pixels than the map; the device crops by the same function."""
  rng = np.random.default_rng(1)
  maps, places = rng.random((20, 11, 12, 1)).astype(np.float32), random_boxes(rng, 20, 0.2)
  pasted = boxes.paste(maps, places, size)
  scale = (places[:, 2:] - places[:, :2]) * size / np.array([11, 12])
  for n in range(20):
    expected = jax.image.scale_and_translate(
      maps[n], (*size, 1), (0, 1), scale[n], places[n, :2] * np.array(size), "linear", antialias=True
    )
    np.testing.assert_allclose(pasted[n], expected, atol=1e-5)


@pytest.mark.parametrize("size", [(9, 12), (4, 6), (3, 2)])
def test_paste_into_the_whole_frame_is_resize(size):
  maps = np.random.default_rng(0).random((3, 4, 6, 2)).astype(np.float32)
  pasted = boxes.paste(maps, np.stack([WHOLE] * 3), size)
  for k in range(2):
    np.testing.assert_allclose(pasted[..., k], pseudo.resize(maps[..., k], size), atol=1e-6)


def test_a_pasted_constant_marks_the_pixels_whose_centres_are_inside():
  rng = np.random.default_rng(2)
  places = random_boxes(rng, 50, 0.13)
  pasted = boxes.paste(np.ones((50, 5, 5, 1)), places, (16, 12))[..., 0]
  ys, xs = (np.arange(16) + 0.5)[:, None] / 16, (np.arange(12) + 0.5) / 12
  for image, (y0, x0, y1, x1) in zip(pasted, places, strict=True):
    np.testing.assert_allclose(image, (ys >= y0) & (ys < y1) & (xs >= x0) & (xs < x1), atol=1e-6)


def test_a_box_within_a_pixel_gets_that_pixel():
  places = np.array([[0.30, 0.55, 0.31, 0.56], [0.99, 0.99, 1, 1], [0.4, 0.4, 0.4, 0.4]], np.float32)
  pasted = boxes.paste(np.ones((3, 5, 5, 1)), places, (4, 4))[..., 0]
  expected = np.zeros((3, 4, 4))
  expected[0, 1, 2] = expected[1, 3, 3] = expected[2, 1, 1] = 1
  np.testing.assert_allclose(pasted, expected, atol=1e-6)


def test_source_maps_of_crops_land_where_the_crop_was():
  """A peak is in the crop's upper right corner; the maps of several tags stay apart."""
  class_maps = np.full((2, 8, 8, 2), -1, np.float32)
  class_maps[:, 1, 6, 0], class_maps[1, 6, 1, 1] = 3, 40
  place = np.array([[0.5, 0.25, 1, 0.5], [0, 0, 0.5, 1]], np.float32)
  maps = scam.source_maps(class_maps, (64, 64), place)
  assert maps.shape == (2, 64, 64, 2) and 0.6 < maps[0].max() <= 1 and not maps[0, ..., 1].any()
  for n, k, y, x in ((0, 0, 1.5, 6.5), (1, 0, 1.5, 6.5), (1, 1, 6.5, 1.5)):
    y0, x0, y1, x1 = place[n]
    peak = np.array(np.unravel_index(maps[n, ..., k].argmax(), (64, 64))) + 0.5
    assert np.abs(peak / 64 - [y0 + y / 8 * (y1 - y0), x0 + x / 8 * (x1 - x0)]).max() <= 0.5 / 64 + 1e-6
  np.testing.assert_allclose(
    scam.source_maps(class_maps, (30, 20)), scam.source_maps(class_maps, (30, 20), np.stack([WHOLE] * 2)), atol=1e-7
  )
