"""The neighbours of frames on a grid in time, where indices past the ends of a clip are reflected.

Fragments, companions, sound windows and smoothing all find neighbours in time by `reflect`, so that every frame has all
its neighbours, even in a clip of one frame.
"""

import numpy as np
import numpy.typing as npt


def reflect(index: npt.ArrayLike, size: npt.ArrayLike) -> np.ndarray:
  """Reflects indices into [0, size) without repeating the edge, as often as needed.

  Args:
    index: Integers of any shape; -1 becomes 1, and `size` becomes `size - 2`.
    size: The number of valid indices, at least 1, broadcast against `index`. For size 1 the result is always 0.

  Returns:
    Integers of the broadcast shape.
  """
  index, last = np.asarray(index), np.asarray(size) - 1
  period = np.maximum(2 * last, 1)
  return last - np.abs(last - index % period)
