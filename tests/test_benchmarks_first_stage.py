"""The kernel of VGG-16's first stage has the numbers of the plain stage."""

import sys

import jax
import numpy as np
import pytest

from helpers import by_hand
from helpers.paths import ROOT

sys.path.insert(0, str(ROOT))  # `benchmarks` is not installed with stajax

from benchmarks import first_stage
from stajax.plan import topology


@pytest.mark.parametrize(("height", "width"), [(8, 2), (8, 6), (16, 10)])
def test_one_kernel_equals_the_plain_stage(height, width):
  rng = np.random.default_rng(height + width)
  weights = [
    {"kernel": rng.normal(size=(3, 3, i, o)).astype(np.float32), "bias": rng.normal(size=o).astype(np.float32)}
    for i, o in ((3, 5), (5, 5))
  ]
  x = rng.normal(size=(2, height, width, 3)).astype(np.float32)
  found = jax.jit(first_stage.one_kernel, static_argnames="interpret")(x, *weights, interpret=True)
  for each in weights:
    x = by_hand.relu(by_hand.conv(x, each["kernel"], each["bias"]))
  expected = by_hand.max_pool(x, 2, 2, 0)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_its_floors():
  chip = topology.CHIPS["v5e"]
  found = first_stage.floors(64, 256, chip)
  plain = 2 * 64 * 256**2 * 9 * (3 * 64 + 64 * 64) / chip.flops
  assert found["FLOPs"] == pytest.approx(plain * (7 * 128 * 128 / 2) / (9 * (3 * 64 + 64 * 64)))
  assert found["bytes"] == pytest.approx((64 * 258 * 16 * 256 + 64 * 128 * 128 * 128) * 2 / chip.bandwidth)
