"""The first stage on pairs of pixels has the numbers, gradients and parameters of the plain one."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from helpers import by_hand
from helpers.random_variables import randomise
from stajax.nets import packed
from stajax.nets.visual import VGG16
from stajax.plan.count import count_macs

SIZES = [(2, 2), (2, 6), (3, 4), (7, 2), (8, 10), (9, 12)]


def make(height, width, channels=(3, 5, 6)):
  """Makes images with values of both signs, the weights of both convolutions, and a gradient of the result."""
  rng = np.random.default_rng(height + width)
  weights = [
    {"kernel": rng.normal(size=(3, 3, i, o)).astype(np.float32), "bias": rng.normal(size=o).astype(np.float32)}
    for i, o in pairwise(channels)
  ]
  x = rng.normal(size=(2, height, width, channels[0])).astype(np.float32)
  return x, *weights, rng.normal(size=(2, height // 2, width // 2, channels[-1])).astype(np.float32)


def plain(x, *weights):
  for each in weights:
    x = jax.lax.conv_general_dilated(x, each["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = jax.nn.relu(x + each["bias"])
  return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def close(found, expected):
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_packed_stage_equals_the_plain_one(height, width):
  x, first, second, _ = make(height, width)
  found = jax.jit(packed.first_stage)(x, first, second)
  for each in (first, second):
    x = by_hand.relu(by_hand.conv(x, each["kernel"], each["bias"]))
  close(found, by_hand.max_pool(x, 2, 2, 0))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_its_gradients_equal_those_of_the_plain_stage(height, width):
  *arguments, back = make(height, width)
  found, expected = (
    jax.jit(jax.grad(lambda *given, stage=stage: jnp.vdot(stage(*given), back), argnums=(0, 1, 2)))(*arguments)
    for stage in (packed.first_stage, plain)
  )
  jax.tree.map(close, found, expected)
  assert all(np.any(np.asarray(x)) for x in jax.tree.leaves(found))


def test_a_split_batch_stays_split():
  """With explicit axes a resharding that nobody asked for would be a type error."""
  mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))
  with jax.set_mesh(mesh):
    x, first, second, back = make(4, 6)
    x, back = (jax.device_put(each, PartitionSpec("data")) for each in (x, back))
    out = jax.eval_shape(packed.first_stage, x, first, second)
    assert out.sharding.spec[0] == "data"
    gradient = jax.grad(lambda *weights: (packed.first_stage(x, *weights) * back).sum(), argnums=(0, 1))
    jax.jit(gradient).lower(first, second)


def test_a_packed_kernel_has_every_tap_twice_and_a_quarter_of_zeros():
  kernel = np.arange(1, 1 + 3 * 3 * 2 * 5, dtype=np.float32).reshape(3, 3, 2, 5)
  found = np.asarray(packed.pack_kernel(jnp.asarray(kernel)))
  assert found.shape == (3, 2, 4, 10)
  values, counts = np.unique(found, return_counts=True)
  assert values[0] == 0 and counts[0] == found.size // 4
  assert set(values[1:]) == set(kernel.ravel()) and set(counts[1:]) == {2}


@pytest.fixture(scope="module")
def full():
  """A backbone of full width, with parameters that are not those of its initialisation."""
  network = VGG16()
  return network, {"params": randomise(jax.eval_shape(network.init, jax.random.key(0), images(16)), 1)["params"]}


def images(width, height=17):
  return jnp.asarray(np.random.default_rng(0).random((1, height, width, 3)), jnp.float32)


@pytest.mark.slow
def test_the_backbone_is_the_same_on_tpus(full, monkeypatch):
  """What TPUs run is run here instead; the batch is one image, so that every number counts."""
  network, variables = full
  here = jax.jit(lambda x: network.apply(variables, x))(images(16))
  monkeypatch.setattr(jax.lax, "platform_dependent", lambda *given, tpu, default: tpu(*given))
  there = jax.jit(lambda x: network.apply(variables, x))(images(16))
  jax.tree.map(close, there, here)
  assert float(jnp.std(here.f5)) > 0


@pytest.mark.parametrize(
  ("platform", "width", "changes", "is_packed"),
  [
    ("tpu", 16, {}, True),
    ("tpu", 15, {}, False),
    ("tpu", 16, {"norm": "batch"}, False),
    ("tpu", 16, {"width": 0.5}, False),
    ("tpu", 16, {"depths": (1, 1, 1, 1, 1)}, False),
    ("cpu", 16, {}, False),
    ("cuda", 16, {}, False),
  ],
)
def test_only_tpus_pack_and_only_a_whole_first_stage(platform, width, changes, is_packed):
  network, x = VGG16(**changes), images(width)
  variables = jax.eval_shape(network.init, jax.random.key(0), x)
  traced = jax.jit(lambda variables, x: network.apply(variables, x).f3).trace(variables, x)
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  assert ("tensor<3x2x6x128xf32>" in text) == is_packed


def test_plans_count_the_plain_stage(full):
  """Zeros that fill lanes do not count as work: otherwise a TPU would seem to come closer to its peak."""
  network, variables = full
  both = [count_macs(network.apply, variables, images(width, 16)) for width in (16, 32)]
  # A frame of 16×16 has 256, 64, 16 and twice 4 pixels in the five stages.
  channels = [(3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512)]
  taps = [9 * pixels * sum(i * o for i, o in pairwise(c)) for pixels, c in zip((256, 64, 16, 4, 4), channels)]
  assert both == [sum(taps), 2 * sum(taps)]
