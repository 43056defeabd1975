"""Brings a predicted map to the size of the ground truth as the `stavis` protocol does.

`postprocess_map` is the protocol's normalisation and blur. `imresize` is MATLAB's bicubic `imresize` (a = -0.5,
half-pixel centres, symmetric borders, antialiased and renormalised when shrinking), which differs from OpenCV's and
PyTorch's (a = -0.75).
"""

import functools

import numpy as np
import scipy.ndimage
import scipy.sparse

SIGMA = 2.0
"""The standard deviation of the blur, in pixels of the prediction's own size."""
_BLOCK = 2**16
"""The pixels that are resized at a time, so that they stay in a core's cache."""


def postprocess_map(prediction: np.ndarray, sigma: float = SIGMA) -> np.ndarray:
  """Scales a map to [0, 1] and blurs it.

  The blur works at the map's own resolution, so the size at which maps are saved has an influence on scores.

  Args:
    prediction: The map (h, w), uint8 in [0, 255] or float in [0, 1] (clipped to it).
    sigma: The standard deviation of the Gaussian, which is cut at ceil(3 sigma) and has symmetric borders.

  Returns:
    The map (h, w), float64; all 0 for a constant map.
  """
  values = prediction.astype(np.float64)
  if prediction.dtype == np.uint8:
    values /= 255
  values = np.clip(255 * values, 0, 255)
  low, high = values.min(), values.max()
  if high == low:
    return np.zeros_like(values)
  values = values / high * 255
  low, high = values.min(), values.max()
  values = (values - low) / (high - low)
  radius = int(np.ceil(3 * sigma))
  return scipy.ndimage.gaussian_filter(values, sigma, mode="reflect", radius=radius)


def imresize(values: np.ndarray, size: tuple[int, int], out: np.ndarray | None = None) -> np.ndarray:
  """Resizes as MATLAB's `imresize(values, size)` does.

  Args:
    values: The map (h, w), float64.
    size: The new (height, width).
    out: An array (height, width), float64, that may be used for the result, so that none need be allocated.

  Returns:
    The map (height, width), float64. Bicubic overshoot may take it out of the range of `values`.
  """
  # Columns come first: what has to be turned round for them is smaller where maps are enlarged.
  if values.shape[1] != size[1]:
    values = np.ascontiguousarray(_resize_rows(values.T, size[1]).T)
  return values if values.shape[0] == size[0] else _resize_rows(values, size[0], out)


def _resize_rows(values: np.ndarray, size: int, out: np.ndarray | None = None) -> np.ndarray:
  """Returns (h, w) resized to (size, w)."""
  # Sparse products, not dense ones: four taps a pixel, and a sum that does not depend on the number of BLAS threads.
  rows = max(1, _BLOCK // values.shape[1])
  parts = _weights_of_blocks(values.shape[0], size, rows)
  if len(parts) == 1:
    return parts[0] @ values
  result = np.empty((size, values.shape[1])) if out is None else out
  values = np.ascontiguousarray(values)
  for i, part in enumerate(parts):
    result[i * rows : (i + 1) * rows] = part @ values
  return result


@functools.lru_cache(maxsize=64)
def _weights_of_blocks(size_in: int, size_out: int, rows: int) -> list[scipy.sparse.csr_array]:
  weights = resize_weights(size_in, size_out)
  return [weights[start : start + rows] for start in range(0, size_out, rows)]


@functools.lru_cache(maxsize=64)
def resize_weights(size_in: int, size_out: int) -> scipy.sparse.csr_array:
  """Returns the (size_out, size_in) matrix that resizes one axis; every row sums to 1."""
  scale = size_out / size_in
  kernel_scale = min(scale, 1.0)  # shrinking widens the kernel
  width = 4 / kernel_scale
  centre = np.arange(1, size_out + 1) / scale + 0.5 * (1 - 1 / scale)  # 1-based, as MATLAB counts
  first = np.floor(centre - width / 2).astype(np.int64)
  columns = first[:, None] + np.arange(int(np.ceil(width)) + 2)
  weights = _cubic(kernel_scale * (centre[:, None] - columns))
  weights /= weights.sum(axis=1, keepdims=True)
  columns = (columns - 1) % (2 * size_in)
  columns = np.where(columns < size_in, columns, 2 * size_in - 1 - columns)
  rows = np.broadcast_to(np.arange(size_out)[:, None], columns.shape)
  matrix = scipy.sparse.coo_array((weights.ravel(), (rows.ravel(), columns.ravel())), shape=(size_out, size_in)).tocsr()
  matrix.eliminate_zeros()
  return matrix


def resize_bilinear(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes as OpenCV's `resize` does by default: bilinear with half-pixel centres, never antialiased.

  Args:
    values: The map (h, w), float64.
    size: The new (height, width).

  Returns:
    The map (height, width), float64. As in OpenCV, the weights are rounded to float32.
  """
  for axis in (1, 0):
    if values.shape[axis] != size[axis]:
      first, second, weight = _bilinear_taps(values.shape[axis], size[axis])
      weight = weight[:, None] if axis == 0 else weight
      values = values.take(first, axis) * (1 - weight) + values.take(second, axis) * weight
  return values


def _bilinear_taps(size_in: int, size_out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the two sources (size_out,) of each result along an axis, and the weight of the second one, float64."""
  at = ((np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5).astype(np.float32)
  first = np.floor(at)
  weight = at - first
  weight[(first < 0) | (first >= size_in - 1)] = 0
  first = np.clip(first, 0, size_in - 1).astype(np.int64)
  return first, np.minimum(first + 1, size_in - 1), weight.astype(np.float64)


def _cubic(x: np.ndarray) -> np.ndarray:
  """Computes Keys' cubic convolution kernel with a = -0.5."""
  x = np.abs(x)
  inner = 1.5 * x**3 - 2.5 * x**2 + 1
  outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
  return np.where(x <= 1, inner, np.where(x <= 2, outer, 0.0))
