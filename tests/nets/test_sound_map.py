"""The map that is grown from a sound: its size, its switch, and how much a new one varies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import by_hand
from helpers.random_variables import randomise
from stajax import networks
from stajax.nets.base import NetworkSizes
from stajax.nets.fusion import SoundMap
from stajax.nets.student import Student


@pytest.fixture(scope="module")
def sound_map():
  network = SoundMap(5)
  audio = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
  shape = jax.eval_shape(lambda key: network.init(key, audio, jnp.ones(2), (4, 4)), jax.random.key(0))
  apply = jax.jit(network.apply, static_argnums=3)
  return (
    lambda audio, switch, size: np.asarray(apply(variables, audio, jnp.asarray(switch), size)),
    audio,
    (variables := randomise(shape)),
  )


def test_switch_0_leaves_a_constant_map(sound_map):
  run, audio, _ = sound_map
  silent = run(audio, [0.0, 0.0], (6, 6))
  np.testing.assert_allclose(silent[0], silent[1], atol=1e-6)
  np.testing.assert_allclose(silent, run(100 * audio, [0.0, 0.0], (6, 6)), atol=1e-6)
  np.testing.assert_allclose(silent, run(0 * audio, [1.0, 1.0], (6, 6)), atol=1e-6)
  assert np.std(silent) > 0
  heard = run(audio, [1.0, 0.0], (6, 6))
  np.testing.assert_allclose(heard[1], silent[1], atol=1e-6)
  assert np.abs(heard[0] - silent[0]).max() > 1e-3


def test_new_sound_map_varies_as_much_as_the_sound():
  """Four layers keep the variance over sounds, at every position and category, whatever the width of the sound."""
  for width in (32, 512):
    audio, network = jax.random.normal(jax.random.key(0), (256, width)), SoundMap(10)
    variables = network.init(jax.random.key(1), audio[:1], jnp.ones(1), (32, 32))
    grown = network.apply(variables, audio, jnp.ones(256), (32, 32))
    assert 0.25 < float(jnp.sqrt(jnp.mean(jnp.var(grown, axis=0)))) < 4


def test_sound_map_grows_to_32(sound_map):
  """32×32 comes from the transposed convolutions alone: each of the 4×4 seed pixels reaches a part of the map."""
  run, audio, variables = sound_map
  params = variables["params"]
  whole = run(audio, [1.0, 1.0], (32, 32))
  assert whole.shape == (2, 32, 32, 5)
  smaller = jax.image.resize(whole, (2, 16, 16, 5), "linear")
  np.testing.assert_allclose(run(audio, [1.0, 1.0], (16, 16)), smaller, atol=1e-6)
  x = np.einsum("md,hwdc->mhwc", audio, params["seed"]["kernel"][::-1, ::-1]) + params["seed"]["bias"]
  for name in ("double1", "double2", "double3"):
    x = by_hand.doubled(by_hand.relu(x), params[name]["kernel"][::-1, ::-1]) + params[name]["bias"]
  np.testing.assert_allclose(whole, x, rtol=1e-4, atol=1e-4)


def test_a_student_may_begin_with_what_the_sound_adds():
  """Category by category: what is heard, less 0.8 of what moves."""
  sizes = NetworkSizes(width=0.01, audio_width=0.01, audio_pooling="average", begin_with_sound=True)
  network = Student(num_categories=5, sizes=sizes)
  params = randomise(networks.expected_variables(network, 32), 3)["params"]
  kernel = network.apply({}, jax.random.key(0), method=lambda self, key: self.combine.kernel_init(key, (1, 1, 10, 5)))
  params["combine"] = {"kernel": kernel, "bias": np.zeros(5, np.float32)}
  rng = np.random.default_rng(0)
  spatial, audio = rng.normal(size=(1, 3, 4, 4, 5)).astype(np.float32), rng.normal(size=(1, 8)).astype(np.float32)
  heard = SoundMap(5).apply({"params": params["sound_map"]}, audio, np.ones(1, np.float32), (4, 4))
  moves = by_hand.temporal_branch(params["temporal"], spatial)
  expected = by_hand.relu(spatial[:, 1] * (0.2 + by_hand.sigmoid(heard) - 0.8 * by_hand.sigmoid(moves)))
  found = network.apply({"params": params}, {"s": spatial}, audio, np.ones(1, np.float32), method="fuse")
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
