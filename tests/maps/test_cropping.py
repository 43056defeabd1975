"""Tests of crop windows: their sizes, their calm, and where videos are cut."""

from fractions import Fraction

import numpy as np
import pytest

from stajax.maps.cropping import CropPath, calm_path, find_cuts, parse_aspect, window_heat, window_size


@pytest.mark.parametrize("size, aspect, pixel, expected", [
  ((1920, 1080), "9:16", 1, (608, 1080)),
  ((1080, 1920), "16:9", 1, (1080, 608)),
  ((1920, 1080), "16:9", 1, (1920, 1080)),
  ((641, 481), "4:5", 1, (384, 481)),
  ((720, 576), "1:1", Fraction(16, 15), (540, 576)),  # PAL, whose pixels are wide
])  # fmt: skip
def test_windows_have_the_asked_shape(size, aspect, pixel, expected):
  assert window_size(size, parse_aspect(aspect), Fraction(pixel)) == expected


@pytest.mark.parametrize("text", ["9x16", "0:1", "9:", "1:100", "wide"])
def test_shapes_of_other_forms_are_refused(text):
  with pytest.raises(ValueError, match=f"^crop {text}: expected"):
    parse_aspect(text)


def test_heat_is_the_sum_in_the_window():
  profile = np.random.default_rng(0).random(64)
  heat = window_heat(profile, 0.5)  # 65 windows that move by half a cell
  for place in range(0, 65, 2):
    assert heat[place] == pytest.approx(profile[place // 2 : place // 2 + 32].sum() / profile.sum(), abs=1e-5)
  np.testing.assert_allclose(window_heat(np.zeros(10), 0.25), 0.25)


def test_a_path_is_at_the_heat_and_does_not_follow_flicker():
  times, places = np.arange(150) / 25, np.arange(65)
  heat = np.exp(-0.5 * ((places - 40) / 6) ** 2)[None].repeat(150, 0)
  np.testing.assert_allclose(calm_path(times, heat, 1.0), 40 / 64, atol=1e-6)
  for start in (30, 80):  # three frames elsewhere
    heat[start : start + 3] = np.exp(-0.5 * ((places - 5) / 6) ** 2)
  np.testing.assert_allclose(calm_path(times, heat, 1.0), 40 / 64, atol=1e-6)
  heat[75:] = np.exp(-0.5 * ((places - 5) / 6) ** 2)  # it moves for good
  path = calm_path(times, heat, 1.0)
  assert abs(path[0] - 40 / 64) < 0.05 and abs(path[-1] - 5 / 64) < 0.05
  assert np.abs(np.diff(path)).max() < 0.03 and (np.diff(path) < 1e-5).all()
  assert calm_path(np.zeros(1), heat[:1], 1.0).shape == (1,)


def scene(seed: int, count: int) -> np.ndarray:
  """Frames of one place over which a camera moves slowly."""
  rng = np.random.default_rng(seed)
  small = rng.integers(0, 256, (4, 8, 3))
  wide = np.kron(small, np.ones((12, 12, 1))).astype(np.uint8)
  return np.stack([wide[:, number : number + 64] for number in range(count)])


def test_cuts_are_found_and_flashes_are_not():
  frames = np.concatenate([scene(0, 20), scene(1, 20), scene(2, 20)])
  frames[30] = 255  # a flash
  path = CropPath((64, 48), (26, 48))
  for number, frame in enumerate(frames):
    saliency = np.zeros((6, 8))
    saliency[3, 1 if number < 20 else 6] = 1
    path.add(number / 25, frame, saliency)
  windows = path.windows()
  assert windows.dtype == np.int32 and (windows[:, 1:] == (0, 26, 48)).all() and (windows[:, 0] % 2 == 0).all()
  assert (windows[:20, 0] + 26 > 10).all() and (np.abs(np.diff(windows[:20, 0])) <= 2).all()
  assert (windows[20:, 0] > 20).all() and (np.abs(np.diff(windows[20:, 0])) <= 2).all()
  assert windows[20, 0] - windows[19, 0] > 15
  assert find_cuts(np.arange(60) / 25, np.array(path._changes)) == [20, 40]


def test_a_window_of_the_whole_frame_stays():
  path = CropPath((64, 36), (64, 36))
  path.add(0.0, np.zeros((36, 64, 3), np.uint8), np.ones((4, 4)))
  assert path.windows().tolist() == [[0, 0, 64, 36]]
  assert CropPath((64, 36), (20, 36)).windows().shape == (0, 4)
