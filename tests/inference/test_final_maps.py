"""The maps that a model predicts: with the centre factor, blurred in space and in time, and beside baselines."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from helpers import tiny
from helpers.by_hand import blur_in_time_by_hand
from helpers.tiny import CATEGORIES, CONFIG, SIZE, STORED, make_samples
from stajax import model, networks
from stajax.inference import dataset
from stajax.inference.clip import Clip
from stajax.inference.predictor import Predictor
from stajax.maps import baselines
from stajax.maps.final import NO_CENTRE, blur_maps, centre_factor, final_map

small_programs = tiny.small_programs


@pytest.fixture(scope="module")
def frozen_model(random_variables):
  network = CONFIG.network.model_copy(update={"backbone": "frozen", "norm": "none"})
  config = CONFIG.model_copy(
    update={"network": network, "maps": CONFIG.maps.model_copy(update={"centre": True}), "name": "centred"}
  )
  variables = {}
  for number, name in enumerate((networks.SWITCH, *networks.STUDENTS)):
    own = random_variables(networks.make_network(name, config, 5), 32, seed=number)
    visual = own["params"]["visual"] if number == 0 else variables[networks.SWITCH]["params"]["visual"]
    variables[name] = model.with_visual(own, visual)
  return model.Model(config, tuple("abcde"), 8.0, 40, "clips", variables, {}, {})


def test_the_centre_factor_can_be_left_out(frozen_model):
  """Maps with it are predicted, maps with and without it are scored, and the argument wins over the configuration."""
  samples = make_samples(3)
  predictor = Predictor(frozen_model, 4)
  (found,) = tiny.method_maps(predictor, samples)
  without = Predictor(frozen_model, 4, centre=False)
  (plain,) = tiny.method_maps(without, samples)
  factor = centre_factor((32, 32))
  for name in (*networks.STUDENTS, "final", "final_no_switch"):
    np.testing.assert_array_equal(found[f"{name}{NO_CENTRE}"], plain[name])
  for name in networks.STUDENTS:
    np.testing.assert_allclose(found[name], plain[name] * factor, rtol=1e-6)
  expected = final_map(*(plain[name] for name in networks.STUDENTS), factor)
  np.testing.assert_allclose(found["final"], expected, atol=1e-5)
  np.testing.assert_array_equal(list(predictor.maps(iter(samples))), found["final"])
  np.testing.assert_array_equal(list(without.maps(iter(samples))), plain["final"])
  assert not any(name.endswith(NO_CENTRE) for name in plain)


def test_the_maps_of_the_students_are_blurred(frozen_model):
  """The blur comes before Eq. 17 and before the factor."""
  maps = frozen_model.config.maps.model_copy(update={"blur": 0.1})
  blurring = dataclasses.replace(frozen_model, config=frozen_model.config.model_copy(update={"maps": maps}))
  samples = make_samples(3)
  (plain,) = tiny.method_maps(Predictor(frozen_model, 4, centre=False), samples)
  (found,) = tiny.method_maps(Predictor(blurring, 4), samples)
  expected = {name: blur_maps(plain[name], 0.1) for name in networks.STUDENTS}
  for name, values in expected.items():
    np.testing.assert_allclose(found[f"{name}{NO_CENTRE}"], values, atol=1e-5)
  np.testing.assert_allclose(found["final"], final_map(*expected.values(), centre_factor((32, 32))), atol=1e-5)


def test_the_baseline_sees_the_backbones_features(frozen_model):
  samples = make_samples(3)
  (found,) = tiny.method_maps(Predictor(frozen_model, 4), samples)
  backbone = model.make_backbone(frozen_model.config)
  images = jax.image.resize(
    np.stack([frame for frame, _ in samples]).astype(np.float32) / 255, (3, 32, 32, 3), "bilinear", antialias=True
  )
  f5 = np.asarray(backbone.apply({"params": frozen_model.variables["sta"]["params"]["visual"]}, images).f5)
  expected = jax.image.resize(baselines.feature_distance(f5), (3, 32, 32), "bilinear") * centre_factor((32, 32))
  np.testing.assert_allclose(found["feature_distance"], expected, rtol=1e-3, atol=1e-5)


def test_each_frame_is_encoded_once_for_all(frozen_model):
  """The switch, three students and the baseline share what the backbone makes of a frame."""
  predictor, clip = Predictor(frozen_model, 4), Clip(make_samples(3))
  predictor.clip_maps(clip)
  kept = [value for value in clip.features.values() if "f5" in value and "s" not in value]
  assert len(kept) == 1 and set(kept[0]) == {"f3", "f4", "f5"}


@pytest.fixture
def models(random_variables, small_programs):
  variables = {
    name: random_variables(networks.make_network(name, CONFIG, len(CATEGORIES)), SIZE, seed=number)
    for number, name in enumerate((networks.SWITCH, *networks.STUDENTS))
  }
  plain = model.Model(CONFIG, CATEGORIES, 8.0, STORED, "synthetic", variables, {}, {})
  maps = CONFIG.maps.model_copy(update={"time_blur": 0.25})
  return plain, dataclasses.replace(plain, config=CONFIG.model_copy(update={"maps": maps}))


def test_final_maps_and_those_of_methods_are_blurred_in_time(models):
  """A quarter of a second is two frames of the grid, and four where every second frame is a neighbour."""
  plain, blurring = (Predictor(each, batch=4) for each in models)
  samples = make_samples(11)
  for reach, sigma in ((1, 2.0), (2, 4.0)):
    expected = blur_in_time_by_hand(np.array(list(plain.maps(iter(samples), reach))), sigma)
    np.testing.assert_allclose(list(blurring.maps(iter(samples), reach)), expected, atol=1e-5)
  (before,), found = (tiny.method_maps(each, samples) for each in (plain, blurring))
  for name, maps in before.items():
    expected = maps if name == "spectral_residual" else blur_in_time_by_hand(maps, 2.0)
    np.testing.assert_allclose(np.concatenate([part[name] for part in found]), expected, atol=1e-5, err_msg=name)
  whole = blurring.clip_maps(Clip(samples))
  np.testing.assert_allclose(whole["final"], blur_in_time_by_hand(before["final"], 2.0), atol=1e-5)
  assert blurring.made_with != plain.made_with


def test_videos_of_a_set_are_not_mixed(models, monkeypatch):
  """A video that cannot be read to its end is not lost either."""
  _, blurring = (Predictor(each, batch=4) for each in models)
  videos = ["a", "b", "c"]
  maps = np.random.default_rng(3).random((9, 2, 2), np.float32)
  error = ValueError("cut off")
  parts = [[("a", maps[:4])], [("a", maps[4:6]), ("b", maps[6:])], [("c", maps[:2])], [("c", error)]]
  monkeypatch.setattr(dataset, "pack", lambda *_: [None])
  monkeypatch.setattr(dataset._Starter, "start", lambda *_: (functools.partial(list, part) for part in parts))
  monkeypatch.setattr(dataset, "_key", lambda video: video)
  monkeypatch.setattr(dataset, "reach_of", lambda video, rate: 1)
  found = {name: [] for name in videos}
  for name, part in dataset.compute_dataset_maps(blurring, blurring.start_final_maps, videos):
    found[name].append(part)
  np.testing.assert_allclose(np.concatenate(found["a"]), blur_in_time_by_hand(maps[:6], 2.0), rtol=1e-5)
  np.testing.assert_allclose(np.concatenate(found["b"]), blur_in_time_by_hand(maps[6:], 2.0), rtol=1e-5)
  np.testing.assert_allclose(np.concatenate(found["c"][:-1]), blur_in_time_by_hand(maps[:2], 2.0), rtol=1e-5)
  assert found["c"][-1] is error
