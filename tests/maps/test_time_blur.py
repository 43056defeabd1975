"""The blur in time is a weighted mean over frames, however a video's maps come in parts."""

import dataclasses
import functools

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from helpers import tiny
from helpers.tiny import CATEGORIES, CONFIG, SIZE, STORED, make_samples
from stajax import model, networks
from stajax.inference import dataset
from stajax.inference.clip import Clip
from stajax.inference.predictor import Predictor
from stajax.maps.time_blur import blur_in_time

small_programs = tiny.small_programs


def slow(maps, sigma):
  """Frame by frame."""
  out = []
  for t in range(len(maps)):
    total, weight = 0, 0
    for other in range(len(maps)):
      if abs(other - t) <= np.ceil(3 * sigma):
        w = np.exp(-((other - t) ** 2) / (2 * sigma**2))
        total, weight = total + w * maps[other].astype(np.float64), weight + w
    out.append(total / weight)
  return np.array(out)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("sizes", [[40], [1] * 40, [3, 30, 7], [39, 1], [1], [2, 1]])
def test_parts_do_not_matter(sigma, sizes):
  maps = np.random.default_rng(0).random((sum(sizes), 4, 5), np.float32)
  parts = np.split(maps, np.cumsum(sizes)[:-1])
  found = np.concatenate(list(blur_in_time(iter(parts), sigma)))
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, slow(maps, sigma), rtol=1e-5)


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
  np.testing.assert_allclose(np.concatenate([part["sta"] for part in found]), slow(joined["sta"], 1.0), rtol=1e-5)
  np.testing.assert_array_equal(np.concatenate([part["other"] for part in found]), joined["other"])


def test_no_maps_give_none():
  assert list(blur_in_time([], 1.0)) == []


def test_few_maps_are_kept():
  """A map is given as soon as those behind it are there."""
  given = []
  parts = (given.append(t) or np.full((1, 1, 1), t, np.float32) for t in range(100))
  for t, _ in enumerate(blur_in_time(parts, 2.0)):
    assert len(given) <= t + 7


@pytest.fixture
def models(random_variables, small_programs):
  variables = {
    name: random_variables(networks.make_network(name, CONFIG, len(CATEGORIES)), SIZE, seed=number)
    for number, name in enumerate((networks.SWITCH, *networks.STUDENTS))
  }
  plain = model.Model(CONFIG, CATEGORIES, 8.0, STORED, "synthetic", variables, {}, {})
  maps = CONFIG.maps.model_copy(update={"time_blur": 0.25})
  return plain, dataclasses.replace(plain, config=CONFIG.model_copy(update={"maps": maps}))


def test_final_maps_and_those_of_methods_are_smoothed(models):
  """0.25 s are two frames of the grid, and four where every second frame is a neighbour."""
  plain, steady = (Predictor(each, batch=4) for each in models)
  samples = make_samples(11)
  for reach, sigma in ((1, 2.0), (2, 4.0)):
    expected = slow(np.array(list(plain.maps(iter(samples), reach))), sigma)
    np.testing.assert_allclose(list(steady.maps(iter(samples), reach)), expected, atol=1e-5)
  (before,), found = plain.method_maps(iter(samples)), list(steady.method_maps(iter(samples)))
  for name, maps in before.items():
    expected = maps if name == "spectral_residual" else slow(maps, 2.0)
    np.testing.assert_allclose(np.concatenate([part[name] for part in found]), expected, atol=1e-5, err_msg=name)
  whole = steady.clip_maps(Clip(samples))
  np.testing.assert_allclose(whole["final"], slow(before["final"], 2.0), atol=1e-5)
  assert steady.made_with != plain.made_with


def test_videos_of_a_set_are_not_mixed(models, monkeypatch):
  """Nor is a video lost that cannot be read to its end."""
  _, steady = (Predictor(each, batch=4) for each in models)
  videos = ["a", "b", "c"]
  maps = np.random.default_rng(3).random((9, 2, 2), np.float32)
  error = ValueError("cut off")
  parts = [[("a", maps[:4])], [("a", maps[4:6]), ("b", maps[6:])], [("c", maps[:2])], [("c", error)]]
  monkeypatch.setattr(dataset, "pack", lambda *_: [None])
  monkeypatch.setattr(dataset, "_begin", lambda *_: (functools.partial(list, part) for part in parts))
  monkeypatch.setattr(dataset, "_key", lambda video: video)
  monkeypatch.setattr(dataset, "reach_of", lambda video, rate: 1)
  found = {name: [] for name in videos}
  for name, part in dataset.set_maps(steady, steady.begin_final, videos):
    found[name].append(part)
  np.testing.assert_allclose(np.concatenate(found["a"]), slow(maps[:6], 2.0), rtol=1e-5)
  np.testing.assert_allclose(np.concatenate(found["b"]), slow(maps[6:], 2.0), rtol=1e-5)
  np.testing.assert_allclose(np.concatenate(found["c"][:-1]), slow(maps[:2], 2.0), rtol=1e-5)
  assert found["c"][-1] is error
