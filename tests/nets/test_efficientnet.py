"""EfficientNet-Lite0 against a slow transcription, and its depthwise convolution against XLA's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stajax.nets import efficientnet, layers
from stajax.nets.efficientnet import BLOCKS, EfficientNetLite0


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("strides", [1, 2])
def test_shifted_products_are_the_depthwise_convolution(size, kernel, strides):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, size, size + 3, 4)), jnp.float32)
  weights = jnp.asarray(rng.normal(size=(kernel, kernel, 1, 4)), jnp.float32)
  shifted = layers._shifted(x, weights, strides)
  np.testing.assert_allclose(shifted, layers._convolved(x, weights, strides), rtol=1e-5, atol=1e-5)


def test_stages_have_the_published_strides_and_channels():
  network = EfficientNetLite0()
  frames = jax.ShapeDtypeStruct((1, 96, 96, 3), jnp.float32)
  variables: Any = jax.eval_shape(network.init, jax.random.key(0), frames)
  stages: Any = jax.eval_shape(network.apply, variables, frames)
  assert {name: x.shape[1:] for name, x in stages._asdict().items()} == network.stage_shapes(96)
  assert network.stage_shapes(96) == {"f3": (12, 12, 40), "f4": (6, 6, 112), "f5": (3, 3, 320)}
  # The published network has 4,652,008 parameters: without its head (320·1280 + 2·1280), its classifier
  # (1280·1000 + 1000), and one of the two vectors of each of its 47 other normalisations.
  norms = efficientnet.STEM + sum(
    inside * (2 if block.expand > 1 else 1) + block.features for inside, block in zip(_inside(), BLOCKS, strict=True)
  )
  count = sum(x.size for x in jax.tree.leaves(variables))
  assert count == 4_652_008 - (320 * 1280 + 2 * 1280) - (1280 * 1000 + 1000) - norms


def _inside():
  """Yields the channels inside every block."""
  channels = efficientnet.STEM
  for block in BLOCKS:
    yield channels * block.expand
    channels = block.features
