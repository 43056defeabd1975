"""The transposed convolutions that grow the map of a sound, whose gradient is computed as a product of matrices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stajax.nets import fusion


@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (3, 1, 5, 2)])
def test_the_product_doubles_like_the_transposed_convolution(shape):
  """Values and gradients are equal but for rounding."""
  x = jax.random.normal(jax.random.key(0), shape)
  kernel = jax.random.normal(jax.random.key(1), (4, 4, shape[-1], 5))
  change = jax.random.normal(jax.random.key(2), (shape[0], 2 * shape[1], 2 * shape[2], 5))

  def usual(x, kernel):
    return jax.lax.conv_transpose(x, kernel, (2, 2), "SAME")

  values, pullback = jax.vjp(usual, x, kernel)
  for function in (fusion._double_by_products, jax.jit(fusion._double)):
    found, own_pullback = jax.vjp(function, x, kernel)
    np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-5)
    for gradient, expected in zip(own_pullback(change), pullback(change), strict=True):
      np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(jax.jit(fusion._double)(x, kernel), jax.jit(usual)(x, kernel))


def test_it_has_the_parameters_and_the_values_of_the_layer_of_flax():
  x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
  usual = nn.ConvTranspose(5, (4, 4), (2, 2), "SAME")
  variables = usual.init(jax.random.key(1), x)
  variables["params"]["bias"] = jnp.arange(5.0)
  own = fusion._Doubling(5, jnp.float32, nn.initializers.lecun_normal())
  shapes = jax.tree.map(jnp.shape, own.init(jax.random.key(1), x))
  assert shapes == jax.tree.map(jnp.shape, variables)
  np.testing.assert_array_equal(own.apply(variables, x), usual.apply(variables, x))
