"""The frame grid's neighbours: indices past a clip's ends are reflected.

Everything that looks up a neighbour in time (fragments, companions, sound windows, smoothing) uses `reflect`,
so that every frame has all its neighbours and a clip of one frame works.
"""

from typing import TypeVar

Index = TypeVar("Index")


def reflect(index: Index, size: Index) -> Index:
  """Reflects indices into [0, size) without repeating the edge, as often as needed: -1 is 1, `size` is `size - 2`.

  Works alike on Python, NumPy, JAX and TensorFlow integers. For size 1 the result is always 0.

  Args:
    index: integers of any shape.
    size: number of valid indices, at least 1; broadcast against `index`.
  """
  last = size - 1
  period = 2 * last + 1 // size  # 1 // size is 1 for size 1 alone, where the period would be 0
  return last - abs(last - index % period)
