"""The neighbours of frames on a grid in time: indices past the ends of a clip are reflected.

Everything that looks up a neighbour in time (fragments, companions, sound windows, smoothing) uses `reflect`,
so that every frame has all its neighbours and a clip of one frame works.
"""

import numpy as np
import numpy.typing as npt


def reflect(index: npt.ArrayLike, size: npt.ArrayLike) -> np.ndarray:
  """Reflects indices into [0, size) without repeating the edge, as often as needed: -1 is 1, `size` is `size - 2`.

  Args:
    index: Integers of any shape.
    size: The number of valid indices, at least 1, broadcast against `index`. For size 1 the result is always 0.

  Returns:
    Integers of the broadcast shape.
  """
  index, last = np.asarray(index), np.asarray(size) - 1
  period = np.maximum(2 * last, 1)
  return last - np.abs(last - index % period)
