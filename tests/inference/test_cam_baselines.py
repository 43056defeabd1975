"""The gradients of CAM baselines against derivatives forwards, and the settings of the appendix's sweeps."""

import jax
import numpy as np
import pytest

from helpers import tiny
from stajax import networks
from stajax.inference import cam_baselines, sweeps

small_programs = tiny.small_programs
pytestmark = pytest.mark.usefixtures("small_programs")


def test_gradients_are_those_of_the_logit(random_variables):
  """The logit of a category changes along a direction as its gradient at conv5_3 says."""
  network, variables = tiny.make("s_coarse", random_variables)
  derive = cam_baselines._make_derive(network, tiny.SIZE)
  frames = np.stack([frame for frame, _ in tiny.make_samples(2)])
  noise = np.random.default_rng(0).normal(size=(2, 1, tiny.SIZE, tiny.SIZE, 3)).astype(np.float32)
  features, own, noisy = (np.asarray(x) for x in derive(variables, frames, noise, np.int32(3)))
  assert features.shape == own.shape == noisy.shape[1:] and len(noisy) == 2

  def logits(f5):
    return network.apply(variables, stages={"f5": f5[:, None, None]}).logits

  direction = np.random.default_rng(1).normal(size=features.shape).astype(np.float32)
  _, change = jax.jvp(logits, (features,), (direction,))  # of all categories, derived forwards
  np.testing.assert_allclose((own * direction).sum(axis=(1, 2, 3)), change[:, 3], rtol=1e-4, atol=1e-5)
  assert not np.allclose(noisy[0], noisy[1])
  made = cam_baselines._baselines(derive, variables, frames[:1], 3, 2, tiny.SIZE, 16)
  both = cam_baselines._baselines(derive, variables, frames, 3, 2, tiny.SIZE, 16)
  for name, maps in made.items():  # what is computed together changes nothing
    assert maps.shape == (1, 16, 16) and maps.dtype == np.uint8
    np.testing.assert_allclose(maps[0].astype(int), both[name][0].astype(int), atol=1, err_msg=name)


def test_sweeps_change_fields_of_the_configuration():
  found = sweeps.settings()
  assert found["discard_threshold_0.4"] == ("T_d = 0.4", "discard_threshold", 0.4)
  for _, name, value in found.values():
    usual = getattr(tiny.CONFIG.network, name)
    changed = tiny.CONFIG.network.model_copy(update={name: type(usual)(value)})
    config = tiny.CONFIG.model_copy(update={"network": changed})
    network = networks.make_network("s_plus_long", config, 5)
    assert getattr(network.sizes, name) == value
