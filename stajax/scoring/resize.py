"""Brings a predicted map to the size of the ground truth as the `stavis` protocol does.

`postprocess_map` is the protocol's normalisation and blur. `imresize` is MATLAB's bicubic `imresize` (a = -0.5,
half-pixel centres, symmetric borders, antialiased and renormalised when shrinking), which differs from OpenCV's and
PyTorch's (a = -0.75).

Both are a product with a matrix for each axis, whose rows have few weights, all near the diagonal. They are multiplied
in small dense blocks, which is several times as fast as a sparse product, and too small for BLAS to divide among
threads, so that no result depends on their number.
"""

import functools
from dataclasses import dataclass

import numpy as np
import scipy.sparse

SIGMA = 2.0
"""The standard deviation of the blur, in pixels of the prediction's own size."""
_BLOCK = 2**17
"""The most multiplications of a block; OpenBLAS uses several threads from twice as many on."""


def postprocess_map(prediction: np.ndarray, sigma: float = SIGMA) -> np.ndarray:
  """Scales a map to [0, 1] and blurs it.

  The blur works at the map's own resolution, so the size at which maps are saved has an influence on scores.

  Args:
    prediction: The map (h, w), uint8 in [0, 255] or float in [0, 1].
    sigma: The standard deviation of the Gaussian, which is cut at ceil(3 sigma) and has symmetric borders.

  Returns:
    The map (h, w), float64; all 0 for a constant map.

  Raises:
    ValueError: A float is outside of [0, 1], which MATLAB's code would clip.
  """
  values = prediction.astype(np.float64)
  low, high = values.min(), values.max()
  if prediction.dtype != np.uint8 and not (low >= 0 and high <= 1):  # NaN is neither
    raise ValueError(f"found a map {prediction.dtype} from {low:.6g} to {high:.6g}, expected uint8, or float in [0, 1]")
  if high == low:
    return np.zeros_like(values)
  values = (values - low) / (high - low)
  height, width = values.shape
  rows, columns = (_blocks("blur", n, n, across, sigma) for n, across in ((height, width), (width, height)))
  return _along_rows(_along_columns(values, columns, width), rows, np.empty(values.shape))


def imresize(values: np.ndarray, size: tuple[int, int], out: np.ndarray | None = None) -> np.ndarray:
  """Resizes as MATLAB's `imresize(values, size)` does.

  Args:
    values: The map (h, w), float64.
    size: The new (height, width).
    out: An array (height, width), float64, that may be used for the result, so that none need be allocated.

  Returns:
    The map (height, width), float64. Bicubic overshoot may take it out of the range of `values`; a constant map stays
    exactly constant.
  """
  if values.shape == size:
    return values
  if values.min() == values.max():
    return np.full(size, values.flat[0])
  # Columns come first: that leaves fewer rows to do where maps are enlarged.
  if values.shape[1] != size[1]:
    values = _along_columns(values, _blocks("resize", values.shape[1], size[1], values.shape[0]), size[1])
  if values.shape[0] == size[0]:
    return values
  result = np.empty(size) if out is None else out
  return _along_rows(values, _blocks("resize", values.shape[0], size[0], size[1]), result)


@dataclass(frozen=True)
class _Block:
  """Some rows of a matrix: all their weights lie in `columns`."""

  rows: slice
  columns: slice
  weights: np.ndarray


def _along_rows(values: np.ndarray, blocks: list[_Block], out: np.ndarray) -> np.ndarray:
  """Returns matrix @ values (h, w) in `out`."""
  for block in blocks:
    np.matmul(block.weights, values[block.columns], out=out[block.rows])
  return out


def _along_columns(values: np.ndarray, blocks: list[_Block], width: int) -> np.ndarray:
  """Returns values (h, w) @ matrix.T, (h, width)."""
  out = np.empty((values.shape[0], width))
  for block in blocks:
    np.matmul(values[:, block.columns], block.weights.T, out=out[:, block.rows])
  return out


@functools.lru_cache(maxsize=64)
def _blocks(kind: str, size_in: int, size_out: int, across: int, sigma: float = SIGMA) -> list[_Block]:
  """Returns the blocks of the matrix that resizes or blurs an axis, where the other one has the length `across`."""
  matrix = resize_weights(size_in, size_out) if kind == "resize" else _blur_weights(size_in, sigma)
  taps, rows = int(np.diff(matrix.indptr).max()), 1
  while rows < size_out and 2 * rows * (taps + 2 * rows * size_in // size_out) * across <= _BLOCK:
    rows *= 2
  blocks = []
  for start in range(0, size_out, rows):
    part = matrix[start : start + rows]
    first, last = int(part.indices.min()), int(part.indices.max()) + 1
    weights = np.ascontiguousarray(part[:, first:last].toarray())
    blocks.append(_Block(slice(start, start + rows), slice(first, last), weights))
  return blocks


def _blur_weights(size: int, sigma: float) -> scipy.sparse.csr_array:
  """Returns the (size, size) matrix of a Gaussian cut at ceil(3 sigma), with symmetric borders."""
  radius = int(np.ceil(3 * sigma))
  at = np.arange(-radius, radius + 1)
  bell = np.exp(-0.5 * (at / sigma) ** 2)
  columns = np.arange(size)[:, None] + at
  return _banded(np.broadcast_to(bell / bell.sum(), columns.shape), columns, size)


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
  return _banded(weights, columns - 1, size_in)


def _banded(weights: np.ndarray, columns: np.ndarray, size_in: int) -> scipy.sparse.csr_array:
  """Returns the matrix (n, size_in) with weights (n, k) at columns (n, k), which are mirrored at the borders."""
  columns = columns % (2 * size_in)
  columns = np.where(columns < size_in, columns, 2 * size_in - 1 - columns)
  rows = np.broadcast_to(np.arange(len(columns))[:, None], columns.shape)
  shape = len(columns), size_in
  matrix = scipy.sparse.coo_array((weights.ravel(), (rows.ravel(), columns.ravel())), shape=shape).tocsr()
  matrix.eliminate_zeros()
  return matrix


def resize_bilinear(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes as OpenCV's `resize` does by default: bilinear with half-pixel centres, never antialiased.

  Args:
    values: The map (h, w), float64.
    size: The new (height, width).

  Returns:
    The map (height, width), float64, as OpenCV's packages for x86 give it to 1e-14; on other processors OpenCV rounds
    weights to float32, which moves values by up to 1e-5. Equal neighbours give exactly their value, as there.
  """
  for axis in (1, 0):
    if values.shape[axis] != size[axis]:
      first, second, weight = _bilinear_taps(values.shape[axis], size[axis])
      weight = weight[:, None] if axis == 0 else weight
      start = values.take(first, axis)
      values = start + (values.take(second, axis) - start) * weight
  return values


def _bilinear_taps(size_in: int, size_out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the two sources (size_out,) of each result along an axis, and the weight of the second one, float64."""
  at = (np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5
  first = np.floor(at)
  weight = at - first
  weight[(first < 0) | (first >= size_in - 1)] = 0
  first = np.clip(first, 0, size_in - 1).astype(np.int64)
  return first, np.minimum(first + 1, size_in - 1), weight


def _cubic(x: np.ndarray) -> np.ndarray:
  """Computes Keys' cubic convolution kernel with a = -0.5."""
  x = np.abs(x)
  inner = 1.5 * x**3 - 2.5 * x**2 + 1
  outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
  return np.where(x <= 1, inner, np.where(x <= 2, outer, 0.0))
