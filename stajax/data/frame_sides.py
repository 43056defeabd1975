"""The sides at which JPEGs are decoded: smaller than they are stored where no network needs all of their pixels."""


def decode_ratio(side: int, size: int) -> int:
  """Returns the largest of the factors 1, 2, 4 and 8 by which frames can be smaller but not below `size`.

  Args:
    side: The side of the stored frames in pixels.
    size: The smallest side that is large enough.
  """
  return next((ratio for ratio in (8, 4, 2) if scaled_side(side, ratio) >= size), 1)


def scaled_side(side: int, ratio: int) -> int:
  """Returns the side of a frame that is decoded at 1/ratio."""
  return -(-side // ratio)
