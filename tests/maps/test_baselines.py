"""Tests of the centre factor and of the baselines without training."""

import numpy as np
import pytest

from stajax.maps import baselines
from stajax.maps.final import centre_factor
from stajax.scoring.baselines import centre_map


def test_centre_factor():
  """It is exp(−1/2) at 0.2 of the height or width from the middle, and it equals the baseline of that name."""
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
