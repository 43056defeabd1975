"""Computes saliency without any training, for comparison. NumPy, on the host."""

import numpy as np

_SIDE = 64
_BLUR = 2.5
_FLOOR = 1e-8


def spectral_residual(frame: np.ndarray) -> np.ndarray:
  """Computes the saliency of Hou and Zhang, "Saliency detection: a spectral residual approach", CVPR 2007.

  The local mean of the log amplitude spectrum is subtracted from it. What remains is transformed back into an image
  with the original phase, squared and smoothed. As in the paper, this happens at 64×64.

  Args:
    frame: The frame (S, S, 3), uint8.

  Returns:
    The map (64, 64), float32, ≥ 0.
  """
  from scipy import ndimage  # imported late, because prediction starts without it

  grey = frame.astype(np.float32).mean(axis=-1)
  smooth = np.asarray(ndimage.gaussian_filter(grey, len(grey) / _SIDE / 2))  # against aliasing
  small = np.asarray(ndimage.zoom(smooth, _SIDE / np.array(grey.shape), order=1))
  spectrum = np.fft.fft2(small)
  amplitude = np.log(np.abs(spectrum) + _FLOOR)
  residual = amplitude - ndimage.uniform_filter(amplitude, 3, mode="wrap")
  saliency = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
  return np.asarray(ndimage.gaussian_filter(saliency, _BLUR)).astype(np.float32)


def feature_distance(features: np.ndarray) -> np.ndarray:
  """Returns how far each position's feature is from the mean of its frame: (n, h, w, c) to (n, h, w) float32, ≥ 0."""
  difference = features - features.mean(axis=(1, 2), keepdims=True)
  return np.sqrt(np.einsum("nhwc,nhwc->nhw", difference, difference))
