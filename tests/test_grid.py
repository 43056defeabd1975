"""Reflection at a clip's ends, compared with NumPy's padding, which reflects as often as needed."""

import numpy as np
import pytest

from stajax.grid import reflect


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_equals_numpy_padding(size):
  reach = 25
  padded = np.pad(np.arange(size), reach, mode="reflect")  # for size 1 NumPy repeats the only value
  np.testing.assert_array_equal(reflect(np.arange(-reach, size + reach), size), padded)


def test_one_integer_and_a_size_for_each():
  assert [reflect(i, 4) for i in range(-4, 8)] == [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
  index, size = np.arange(-9, 9)[:, None], np.arange(1, 6)
  assert reflect(index, size)[5].tolist() == [int(reflect(-4, n)) for n in range(1, 6)]
  assert (reflect(index, size) < size).all() and (reflect(index, size) >= 0).all()
