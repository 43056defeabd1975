"""The centre factor and the baselines without training."""

import dataclasses

import jax
import numpy as np
import pytest

from helpers.tiny import CONFIG, make_samples
from stajax import model, networks
from stajax.inference import predictor as prediction
from stajax.inference.clip import Clip
from stajax.maps import baselines
from stajax.maps.final import NO_CENTRE, blur_maps, centre_factor, final_map
from stajax.scoring.baselines import centre_map


def test_centre_factor():
  """0.2 of the height and of the width away from the middle it is exp(−1/2), and it is the baseline of that name."""
  factor = centre_factor((101, 201))
  assert factor.shape == (101, 201) and factor.dtype == np.float32 and factor[50, 100] == 1
  assert factor[50 + 20, 100] == pytest.approx(np.exp(-0.5 * (20 / 20.2) ** 2), rel=1e-5)
  assert factor[50, 100 - 40] == pytest.approx(np.exp(-0.5 * (40 / 40.2) ** 2), rel=1e-5)
  np.testing.assert_array_equal(centre_map((101, 201)), np.round(factor * 255))


def test_spectral_residual_finds_the_odd_one():
  """Among equal discs on a grid, the one that is missing and the one that is larger stand out; a shift moves them."""
  y, x = np.mgrid[:256, :256]
  frame = np.full((256, 256, 3), 60, np.uint8)
  for row in range(16, 256, 32):
    for column in range(16, 256, 32):
      radius = 12 if (row, column) == (80, 176) else 6
      frame[(y - row) ** 2 + (x - column) ** 2 < radius**2] = 200
  saliency = baselines.spectral_residual(frame)
  assert saliency.shape == (64, 64) and saliency.dtype == np.float32 and saliency.min() >= 0
  assert np.hypot(*(np.array(np.unravel_index(saliency.argmax(), saliency.shape)) * 4 - (80, 176))) < 20
  assert np.isfinite(baselines.spectral_residual(np.zeros((40, 40, 3), np.uint8))).all()


def test_feature_distance():
  features = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
  found = baselines.feature_distance(features)
  for n in range(2):
    mean = np.mean([features[n, i, j] for i in range(3) for j in range(4)], axis=0)
    for i in range(3):
      for j in range(4):
        assert found[n, i, j] == pytest.approx(np.linalg.norm(features[n, i, j] - mean), rel=1e-5)


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


def test_the_factor_can_be_left_out(frozen_model):
  """What is predicted is the product; both are scored; the argument wins over the configuration."""
  samples = make_samples(3)
  predictor = prediction.Predictor(frozen_model, 4)
  (found,) = predictor.method_maps(iter(samples))
  without = prediction.Predictor(frozen_model, 4, centre=False)
  (plain,) = without.method_maps(iter(samples))
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


def test_the_blur_is_of_what_the_students_predict(frozen_model):
  """Before Eq. 17 and before the factor."""
  maps = frozen_model.config.maps.model_copy(update={"blur": 0.1})
  blurring = dataclasses.replace(frozen_model, config=frozen_model.config.model_copy(update={"maps": maps}))
  samples = make_samples(3)
  (plain,) = prediction.Predictor(frozen_model, 4, centre=False).method_maps(iter(samples))
  (found,) = prediction.Predictor(blurring, 4).method_maps(iter(samples))
  expected = {name: blur_maps(plain[name], 0.1) for name in networks.STUDENTS}
  for name, values in expected.items():
    np.testing.assert_allclose(found[f"{name}{NO_CENTRE}"], values, atol=1e-5)
  np.testing.assert_allclose(found["final"], final_map(*expected.values(), centre_factor((32, 32))), atol=1e-5)


def test_the_baseline_sees_the_backbones_features(frozen_model):
  samples = make_samples(3)
  (found,) = prediction.Predictor(frozen_model, 4).method_maps(iter(samples))
  backbone = model.make_backbone(frozen_model.config)
  images = jax.image.resize(
    np.stack([frame for frame, _ in samples]).astype(np.float32) / 255, (3, 32, 32, 3), "bilinear", antialias=True
  )
  f5 = np.asarray(backbone.apply({"params": frozen_model.variables["sta"]["params"]["visual"]}, images).f5)
  expected = jax.image.resize(baselines.feature_distance(f5), (3, 32, 32), "bilinear") * centre_factor((32, 32))
  np.testing.assert_allclose(found["feature_distance"], expected, rtol=1e-3, atol=1e-5)


def test_one_encode_a_frame_for_all(frozen_model):
  """The switch, three students and the baseline share what the backbone makes of a frame."""
  predictor, clip = prediction.Predictor(frozen_model, 4), Clip(make_samples(3))
  predictor.clip_maps(clip)
  kept = [value for value in clip.features.values() if "f5" in value and "s" not in value]
  assert len(kept) == 1 and set(kept[0]) == {"f3", "f4", "f5"}
