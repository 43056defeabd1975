"""Losses against the paper's formulas, written out with NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from stajax.train import losses

multilabel_soft_margin = jax.jit(losses.multilabel_soft_margin)
divergence = jax.jit(losses.divergence)


@jax.jit
def divergence_and_gradient(logits, targets):
  return jax.value_and_grad(lambda x: losses.divergence(x, targets).sum())(logits)


def test_equation_3():
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 3, (6, 5))
  tags = (rng.random((6, 5)) < 0.4).astype(np.float64)
  expected = []
  for st, vc in zip(logits, tags, strict=True):
    total = 0.0
    for x, target in zip(st, vc, strict=True):
      total += target * np.log(1 / (1 + np.exp(-x))) + (1 - target) * np.log(np.exp(-x) / (1 + np.exp(-x)))
    expected.append(-total / 5)
  np.testing.assert_allclose(multilabel_soft_margin(logits, tags), expected, rtol=1e-5)


def test_equation_3_with_large_logits():
  logits, tags = jnp.array([[200.0, -200.0], [-200.0, 200.0]]), jnp.array([[1.0, 0.0], [1.0, 0.0]])
  np.testing.assert_allclose(multilabel_soft_margin(logits, tags), [0, 200])


def test_an_example_is_right_if_a_tag_is_on_top():
  logits = jnp.array([[1.0, 3.0, 2.0]] * 3)
  tags = jnp.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
  assert losses.is_right(logits, tags).tolist() == [1, 0, 1]


def test_a_binary_output_is_right_on_the_side_of_its_label():
  """The audio switch has one output, whose largest logit would always be right."""
  logits, labels = jnp.array([[0.3], [-0.3], [0.3], [-0.3]]), jnp.array([[1.0], [1.0], [0.0], [0.0]])
  right = losses.is_right(logits, labels)
  assert right.tolist() == [1, 0, 0, 1] and right.dtype == jnp.float32


def maps(seed=0):
  rng = np.random.default_rng(seed)
  targets = rng.random((2, 3, 4, 5)).astype(np.float32) * (rng.random((2, 3, 4, 5)) < 0.5)
  return rng.normal(0, 2, targets.shape).astype(np.float32), targets


def test_cross_entropy_of_each_map():
  logits, targets = maps()
  p = scipy.special.expit(logits.astype(np.float64))
  expected = -(scipy.special.xlogy(targets, p) + scipy.special.xlogy(1 - targets, 1 - p)).mean(axis=(2, 3))
  np.testing.assert_allclose(losses.pixel_cross_entropy(logits, targets), expected, rtol=1e-5)


def test_divergence_of_each_map():
  """Each map is a distribution: scaling it, or changing another map of the batch, changes nothing."""
  logits, targets = maps()
  expected = np.zeros((2, 3))
  for at in np.ndindex(2, 3):
    p, q = targets[at].astype(np.float64), scipy.special.expit(logits[at].astype(np.float64))
    expected[at] = scipy.special.rel_entr(p / p.sum(), q / q.sum()).sum()
  np.testing.assert_allclose(divergence(logits, targets), expected, rtol=1e-4)
  changed = targets.copy()
  changed[0, 0] *= 0.2
  changed[1, 2] = targets[1, 2] ** 2
  out = np.array(divergence(logits, changed))
  assert abs(out[1, 2] - expected[1, 2]) > 1e-3
  out[1, 2] = expected[1, 2]
  np.testing.assert_allclose(out, expected, rtol=1e-4)


def test_divergence_is_0_for_equal_maps_and_empty_targets():
  logits, targets = maps()
  np.testing.assert_allclose(divergence(logits, scipy.special.expit(logits)), 0, atol=1e-6)
  targets[0, 1] = 0
  value, gradient = divergence_and_gradient(logits, targets)
  assert divergence(logits, targets)[0, 1] == 0
  assert np.isfinite(value) and np.isfinite(gradient).all() and not gradient[0, 1].any() and gradient[0, 0].any()


def test_divergence_of_extreme_logits_is_finite():
  logits, targets = np.full((2, 3, 4, 5), -300, np.float32), np.zeros((2, 3, 4, 5), np.float32)
  logits[..., 0, 0], targets[..., 3, 3] = 300, 1
  value, gradient = divergence_and_gradient(logits, targets)
  np.testing.assert_allclose(value, 6 * 300, rtol=1e-5)
  assert np.isfinite(gradient).all()
