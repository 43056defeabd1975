"""Where to look closer (paper §3.2): boxes around coarse SCAM, and maps of crops put back into the frame.

NumPy, on the host. Axes: n frames of one clip, h w map, H W frame, k the clip's tags. A box is (y0, x0, y1, x1) in
fractions of the frame, 0 and 1 being the outer edges of its outermost pixels.
"""

import numpy as np

from stajax.maps.pseudo import bilinear_weights, smooth
from stajax.maps.scale import minmax

MIN_SIDE = 1 / 8


def coarse_boxes(maps: np.ndarray, reach: int = 2, factor: float = 2.0) -> np.ndarray:
  """The box of each frame around all pixels above `factor` times the map's mean.

  The map is the mean over the frames t − reach … t + reach, scaled to [0, 1]. Where no pixel is above, as in a constant
  map, the box is the whole frame. A side under 1/8 of the frame is grown to 1/8 around its centre, and moved inside the
  frame where it would leave it.

  Args:
    maps: coarse SCAM of one clip, (n, h, w).

  Returns:
    (n, 4) float32.
  """
  maps = minmax(smooth(maps, reach))
  above = maps > factor * maps.mean(axis=(1, 2), keepdims=True)
  top, bottom = _sides(above.any(axis=2))
  left, right = _sides(above.any(axis=1))
  boxes = np.stack([top, left, bottom, right], axis=1)
  boxes[~above.any(axis=(1, 2))] = 0, 0, 1, 1
  return boxes.astype(np.float32)


def _sides(marked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Edges of the first and the last marked pixel, as fractions: (n, length) bool to (n,) and (n,)."""
  length = marked.shape[1]
  low = marked.argmax(axis=1) / length
  high = 1 - marked[:, ::-1].argmax(axis=1) / length
  side = np.maximum(high - low, MIN_SIDE)
  low = np.clip((low + high - side) / 2, 0, 1 - side)
  return low, low + side


def paste(maps: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes each map into its box of the frame: the inverse of cropping, 0 outside.

  Bilinear and antialiased, as `stajax.maps.pseudo.resize`, which is this for boxes of the whole frame. A pixel is in
  the box if its centre is; a box too thin to have a centre in it gets the pixel that its middle is in.

  Args:
    maps: (n, h, w, k) of the crops.
    boxes: (n, 4); every frame has its own.
    size: (H, W) of the frame.

  Returns:
    (n, H, W, k) float32.
  """
  top, left, bottom, right = boxes.T
  rows = bilinear_weights(maps.shape[1], size[0], top, bottom)[:, None]
  columns = bilinear_weights(maps.shape[2], size[1], left, right)[:, None]
  # Matrix products of strided arrays would not use BLAS, which is many times faster.
  planes = np.ascontiguousarray(np.moveaxis(maps, -1, 1), np.float32)
  return np.moveaxis(rows @ planes @ columns.swapaxes(-1, -2), 1, -1)
