"""CAM baselines against loops over single places and channels."""

import numpy as np

from stajax.maps import cam_baselines

N, H, W, C = 2, 3, 4, 5


def make(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def scaled(values):
  """ReLU, then min–max of each map."""
  values = np.maximum(values, 0)
  low, high = values.min(axis=(1, 2), keepdims=True), values.max(axis=(1, 2), keepdims=True)
  return (values - low) / np.maximum(high - low, 1e-12)


def test_layer_cam_place_by_place():
  features, gradients = np.abs(make(N, H, W, C)), make(N, H, W, C, seed=1)
  expected = np.zeros((N, H, W))
  for place in np.ndindex(N, H, W):
    expected[place] = sum(max(gradients[*place, k], 0) * features[*place, k] for k in range(C))
  np.testing.assert_allclose(cam_baselines.layer_cam(features, gradients), scaled(expected), atol=1e-6)


def test_smooth_grad_cam_pp_channel_by_channel():
  features, gradients = np.abs(make(N, H, W, C)), make(3, N, H, W, C, seed=1)
  expected = np.zeros((N, H, W))
  for i in range(N):
    for k in range(C):
      weight, total = 0.0, features[i, :, :, k].sum()
      for y, x in np.ndindex(H, W):
        found = gradients[:, i, y, x, k]
        first, second, third = found.mean(), (found**2).mean(), (found**3).mean()
        weight += second / (2 * second + total * third) * max(first, 0)
      expected[i] += weight * features[i, :, :, k]
  np.testing.assert_allclose(cam_baselines.smooth_grad_cam_pp(features, gradients), scaled(expected), atol=1e-5)


def test_a_gradient_of_zero_gives_an_empty_map():
  features, zeros = np.abs(make(N, H, W, C)), np.zeros((2, N, H, W, C))
  assert not cam_baselines.smooth_grad_cam_pp(features, zeros).any()
  assert (
    not cam_baselines.layer_cam(features, zeros[0]).any() and not cam_baselines.eigen_grad_cam(features, zeros[0]).any()
  )


def test_eigen_cam_is_the_component_of_the_singular_value_decomposition():
  features = make(N, H, W, C)
  for i, found in enumerate(cam_baselines.eigen_cam(features)):
    flat = features[i].reshape(-1, C) - features[i].reshape(-1, C).mean(axis=0)
    component = (flat @ np.linalg.svd(flat)[2][0]).reshape(H, W)
    both = [scaled(sign * component[None])[0] for sign in (1, -1)]
    assert min(np.abs(found - each).max() for each in both) < 1e-6
  # What all channels show is the component, and it is bright where they are.
  shape = np.abs(make(1, H, W, 1, seed=2))
  found = cam_baselines.eigen_cam(shape * np.array([1.0, 2.0, 3.0]))
  np.testing.assert_allclose(found, scaled((shape - shape.mean())[..., 0]), atol=1e-6)
