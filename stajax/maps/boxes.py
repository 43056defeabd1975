"""Finds where to look closer (paper §3.2): boxes around coarse SCAM; pastes maps of crops back into the frame.

NumPy, on the host. Axes: n frames of one clip, h w map, H W frame, k the clip's tags. A box is (y0, x0, y1, x1) in
fractions of the frame: 0 and 1 are the outer edges of the outermost pixels.
"""

import numpy as np

from stajax.maps.pseudo import bilinear_weights, smooth
from stajax.maps.scale import minmax

MIN_SIDE = 1 / 8
"""The smallest side of a box, as a fraction of the frame's."""


def coarse_boxes(maps: np.ndarray, reach: int = 2, factor: float = 2.0) -> np.ndarray:
  """Returns the box of each frame around all pixels that are above `factor` times the map's mean.

  Each map is first averaged over the frames t − reach … t + reach and scaled to [0, 1]. If no pixel is above that, as
  in a constant map, the box is the whole frame. A side shorter than 1/8 of the frame is grown to 1/8 around its centre,
  and shifted so that it stays inside the frame.

  Args:
    maps: Coarse SCAM of one clip, (n, h, w).
    reach: How many frames to either side are averaged.
    factor: How many times the mean a pixel has to exceed.

  Returns:
    The boxes (n, 4), float32.
  """
  maps = minmax(smooth(maps, reach))
  above = maps > factor * maps.mean(axis=(1, 2), keepdims=True)
  top, bottom = _edges(above.any(axis=2))
  left, right = _edges(above.any(axis=1))
  boxes = np.stack([top, left, bottom, right], axis=1)
  boxes[~above.any(axis=(1, 2))] = 0, 0, 1, 1
  return boxes.astype(np.float32)


def _edges(marked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the outer edges of the first and last marked pixels, (n,) each, as fractions, for (n, length) bool."""
  length = marked.shape[1]
  low = marked.argmax(axis=1) / length
  high = 1 - marked[:, ::-1].argmax(axis=1) / length
  side = np.maximum(high - low, MIN_SIDE)
  low = np.clip((low + high - side) / 2, 0, 1 - side)
  return low, low + side


def paste(maps: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes each map into its box of the frame, which is 0 outside: the inverse of cropping.

  It is bilinear and antialiased, and equals `stajax.maps.pseudo.resize` for boxes of the whole frame. A pixel is in the
  box if its centre is. A box too thin to have a centre in it gets the pixel that contains its middle.

  Args:
    maps: The maps of the crops, (n, h, w, k).
    boxes: The box of every frame, (n, 4).
    size: The size (H, W) of the frame.

  Returns:
    The maps of the frames, (n, H, W, k) float32.
  """
  top, left, bottom, right = boxes.T
  rows = bilinear_weights(maps.shape[1], size[0], top, bottom)[:, None]
  columns = bilinear_weights(maps.shape[2], size[1], left, right)[:, None]
  # Matrix products of strided arrays would not use BLAS, which is many times faster.
  planes = np.ascontiguousarray(np.moveaxis(maps, -1, 1), np.float32)
  return np.moveaxis(rows @ planes @ columns.swapaxes(-1, -2), 1, -1)
