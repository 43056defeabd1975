"""Turns maps into what encoders take: a few boxes a frame that cover the heat, or a weight for every block of a frame.

NumPy, on the host. A box is (x, y, width, height) in pixels of the frame here, unlike in `stajax.maps.boxes`.
"""

import math

import numpy as np

from stajax.maps.pseudo import bilinear_weights, resize

SHARE = 0.5
"""Boxes cover what is above this share of a map's maximum."""
QP_RANGE = 12
"""The difference between the quantisation of a block without any heat and of one at the maximum, in steps of QP."""
_CELLS = 64  # boxes are found on maps of at most this many cells to a side
_WORTHWHILE = 0.01  # a box is only divided if that saves at least this part of the frame
_SECONDS = 0.25  # how long a box takes for 63% of its way to a new place
_SAME = 0.1  # the intersection over union from which two boxes in successive frames count as the same one

Edges = tuple[int, int, int, int]
"""The first row and column of a rectangle of cells, and those after its last ones."""


def cover(saliency: np.ndarray, count: int, share: float = SHARE) -> np.ndarray:
  """Returns at most `count` boxes that cover all of a map that is at least `share` of its maximum.

  The box around all of it is divided again and again where that saves the largest area.

  Args:
    saliency: The map (h, w), float, not negative.
    count: The largest number of boxes, at least 1.
    share: A part of the maximum, in (0, 1].

  Returns:
    The boxes (k, 4) float64, `left, top, right, bottom` as fractions of the frame; none for a map that is 0 everywhere.
  """
  if max(saliency.shape) > _CELLS:
    height, width = (min(side, _CELLS) for side in saliency.shape)
    saliency = resize(saliency[None], (height, width))[0]
  top = float(saliency.max())
  if top <= 0:
    return np.zeros((0, 4))
  marked = saliency >= share * top
  found = [_tighten(marked, (0, 0, *marked.shape))]
  while len(found) < count:
    divided = [_divide(marked, box) for box in found]
    saved = [_area(box) - sum(map(_area, parts)) for box, parts in zip(found, divided, strict=True)]
    best = int(np.argmax(saved))
    if saved[best] < max(1, _WORTHWHILE * marked.size):
      break
    found[best : best + 1] = divided[best]
  (height, width), edges = marked.shape, np.array(found, np.float64)
  return edges[:, [1, 0, 3, 2]] / (width, height, width, height)


def _area(box: Edges) -> int:
  return (box[2] - box[0]) * (box[3] - box[1])


def _tighten(marked: np.ndarray, box: Edges) -> Edges:
  """Returns the smallest box around the marked cells in a box, which has some."""
  top, left, bottom, right = box
  rows, columns = np.nonzero(marked[top:bottom, left:right])
  return (
    top + int(rows.min()),
    left + int(columns.min()),
    top + int(rows.max()) + 1,
    left + int(columns.max()) + 1,
  )


def _divide(marked: np.ndarray, box: Edges) -> list[Edges]:
  """Returns the two tight boxes that cover what a tight box covers, with the smallest area; or the box itself."""
  top, left, bottom, right = box
  inside = marked[top:bottom, left:right]
  best, parts = _area(box), [box]
  for is_across, cells in ((True, inside), (False, inside.T)):
    before = _prefix_areas(cells)[:-1]
    after = _prefix_areas(cells[:, ::-1])[-2::-1]
    if len(before) and (before + after).min() < best:
      at = int((before + after).argmin()) + 1
      best = int(before[at - 1] + after[at - 1])
      halves = (
        ((top, left, bottom, left + at), (top, left + at, bottom, right))
        if is_across
        else ((top, left, top + at, right), (top + at, left, bottom, right))
      )
      parts = [_tighten(marked, half) for half in halves]
  return parts


def _prefix_areas(cells: np.ndarray) -> np.ndarray:
  """Returns the areas of the tight boxes of the first 1, 2, … columns, of which the first and last have marks."""
  reached = np.logical_or.accumulate(cells, axis=1)
  heights = len(cells) - reached.argmax(axis=0) - reached[::-1].argmax(axis=0)
  last = np.maximum.accumulate(np.where(cells.any(axis=0), np.arange(cells.shape[1]), 0))
  return heights * (last + 1)


class BoxTracker:
  """Finds the boxes of successive maps; a box moves smoothly, and keeps its place in the list while it is followed.

  Args:
    count: The largest number of boxes.
    size: The (width, height) of the frame in pixels.
  """

  def __init__(self, count: int, size: tuple[int, int]) -> None:
    if count < 1:
      raise ValueError(f"{count} boxes: expected at least 1")
    self._size = size
    self._boxes: list[np.ndarray | None] = [None] * count
    self._time = -math.inf

  def add(self, time: float, saliency: np.ndarray) -> np.ndarray:
    """Returns the boxes of the next map.

    Args:
      time: Its time in seconds, not before that of the last one.
      saliency: The map (h, w), float, not negative.

    Returns:
      The boxes (count, 4) int32, x, y, width and height in pixels; 0 in places without a box.
    """
    weight = 1 - math.exp(-(time - self._time) / _SECONDS)
    self._time, before = time, self._boxes
    self._boxes = [None] * len(before)
    found = list(cover(saliency, len(before)))
    pairs = [
      (_overlap(old, new), i, j) for i, old in enumerate(before) if old is not None for j, new in enumerate(found)
    ]
    left = set(range(len(found)))
    for overlap, i, j in sorted(pairs, reverse=True):
      old = before[i]
      if overlap >= _SAME and old is not None and self._boxes[i] is None and j in left:
        self._boxes[i] = old + weight * (found[j] - old)
        left.discard(j)
    free = [i for i, box in enumerate(self._boxes) if box is None]
    for i, j in zip(free, sorted(left), strict=False):
      self._boxes[i] = found[j]
    return np.array([self._pixels(box) for box in self._boxes], np.int32)

  def _pixels(self, box: np.ndarray | None) -> tuple[int, int, int, int]:
    if box is None:
      return 0, 0, 0, 0
    width, height = self._size
    left, top = math.floor(box[0] * width + 1e-6), math.floor(box[1] * height + 1e-6)
    return left, top, math.ceil(box[2] * width - 1e-6) - left, math.ceil(box[3] * height - 1e-6) - top


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
  """Returns the intersection over union of two boxes (left, top, right, bottom)."""
  sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
  common = float(np.prod(np.maximum(sides, 0)))
  return common / max(float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - common, 1e-12)


def block_weights(maps: np.ndarray, size: tuple[int, int], side: int = 16) -> np.ndarray:
  """Returns the mean of maps in every block of a frame.

  Args:
    maps: (n, h, w) float in [0, 1].
    size: The (width, height) of the frame in pixels.
    side: The side of a block in pixels, at least 1. The last block of a row or column may reach beyond the frame, and
      counts what is inside.

  Returns:
    The weights (n, rows, columns) float32 in [0, 1], block by block from the upper left.
  """
  if side < 1:
    raise ValueError(f"blocks of {side} pixels: expected at least 1")
  down, across = (_block_means(n, pixels, side) for n, pixels in zip(maps.shape[1:], size[::-1], strict=True))
  return np.clip(down @ np.ascontiguousarray(maps, np.float32) @ across.T, 0, 1)


def _block_means(length: int, pixels: int, side: int) -> np.ndarray:
  """Returns the matrix (blocks, length) that takes values along a line to their means in blocks of its pixels."""
  starts = np.arange(0, pixels, side)
  counts = np.diff(starts, append=pixels)[:, None]
  return np.add.reduceat(bilinear_weights(length, pixels), starts, axis=0) / counts.astype(np.float32)


def qp_offsets(weights: np.ndarray, strength: int = QP_RANGE) -> np.ndarray:
  """Returns offsets of the quantisation parameter: half of `strength` without heat, minus half at most.

  Args:
    weights: Any shape, float in [0, 1].
    strength: The difference between the largest and the smallest offset, from 0 to 100.

  Returns:
    int8 of the same shape.
  """
  return np.round(strength * (0.5 - weights)).astype(np.int8)


def merge_blocks(offsets: np.ndarray, side: int, size: tuple[int, int]) -> list[tuple[int, int, int, int, int]]:
  """Covers blocks of equal value with few rectangles that do not overlap; blocks of 0 are left out.

  Args:
    offsets: (rows, columns) integers.
    side: The side of a block in pixels.
    size: The (width, height) of the frame in pixels, beyond which no rectangle reaches.

  Returns:
    x, y, width and height in pixels, and the value, of each rectangle.
  """
  left, (num_rows, num_columns), found = offsets != 0, offsets.shape, list[tuple[int, int, int, int, int]]()
  for row, column in zip(*np.nonzero(left), strict=True):
    if not left[row, column]:  # a rectangle has it
      continue
    alike = left & (offsets == offsets[row, column])
    right, bottom = column + 1, row + 1
    while right < num_columns and alike[row, right]:
      right += 1
    while bottom < num_rows and alike[bottom, column:right].all():
      bottom += 1
    left[row:bottom, column:right] = False
    x, y = int(column) * side, int(row) * side
    width, height = min(int(right) * side, size[0]) - x, min(int(bottom) * side, size[1]) - y
    found.append((x, y, width, height, int(offsets[row, column])))
  return found
