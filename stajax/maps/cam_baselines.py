"""Class activation maps of other authors, with which the paper compares (Table 2). NumPy, on the host.

Axes: n frames, h w map, c channels. `features` are those of the last convolution, `gradients` those of the category's
logit with respect to them.
"""

import numpy as np

from stajax.maps.scale import minmax

TINY = 1e-12


def eigen_cam(features: np.ndarray) -> np.ndarray:
  """Computes Eigen-CAM (Muhammad and Yeasin, 2020): what the first principal component of the features shows.

  A component has no sign of its own; here it is the one that agrees with the mean over the channels.

  Args:
    features: (n, h, w, c) float.

  Returns:
    The maps (n, h, w), float32 in [0, 1].
  """
  n, height, width, channels = features.shape
  flat = features.astype(np.float64).reshape(n, height * width, channels)
  flat -= flat.mean(axis=1, keepdims=True)
  maps = np.empty((n, height * width))
  for i, each in enumerate(flat):
    _, vectors = np.linalg.eigh(each.T @ each)
    projection = each @ vectors[:, -1]
    maps[i] = projection if projection @ each.mean(axis=1) >= 0 else -projection
  return _scaled(maps.reshape(n, height, width))


def eigen_grad_cam(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
  """Computes Eigen-CAM of the features times their gradients; the shapes are those of `layer_cam`."""
  return eigen_cam(features * gradients)


def layer_cam(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
  """Computes LayerCAM (Jiang et al., 2021): features weighted by their positive gradients, place by place.

  Args:
    features: (n, h, w, c) float.
    gradients: Alike.

  Returns:
    The maps (n, h, w), float32 in [0, 1].
  """
  return _scaled((np.maximum(gradients, 0) * features).sum(axis=-1))


def smooth_grad_cam_pp(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
  """Computes Smooth Grad-CAM++ (Omeiza et al., 2019): Grad-CAM++ with derivatives averaged over noisy frames.

  As usual, the exponential of the logit is differentiated, so that its second and third derivatives are powers of the
  logit's gradient.

  Args:
    features: (n, h, w, c) of the frames themselves.
    gradients: (s, n, h, w, c) of s noisy copies.

  Returns:
    The maps (n, h, w), float32 in [0, 1].
  """
  first, second, third = ((gradients**power).mean(axis=0) for power in (1, 2, 3))
  below = 2 * second + features.sum(axis=(1, 2), keepdims=True) * third
  alpha = second / np.where(np.abs(below) > TINY, below, 1.0) * (np.abs(below) > TINY)
  weights = (alpha * np.maximum(first, 0)).sum(axis=(1, 2), keepdims=True)
  return _scaled((weights * features).sum(axis=-1))


def _scaled(maps: np.ndarray) -> np.ndarray:
  return minmax(np.maximum(maps, 0).astype(np.float32))
