"""Decodes parts of JPEG frames with TensorFlow: only the pixels that a step reads for a crop.

Legend: m frames, S decoded side.
"""

from __future__ import annotations

from collections.abc import Callable

from stajax.data.frame_sides import scaled_side
from stajax.data.tensorflow_cpu import tf


def seen_windows(boxes: tf.Tensor, side: int, scaled_to: int) -> tf.Tensor:
  """Returns the windows of pixels that scaling boxes (bilinear, antialiased) reads from frames.

  Args:
    boxes: (m, 4) float32, (y0, x0, y1, x1) in [0, 1].
    side: The side of the frames.
    scaled_to: The side to which boxes are scaled.

  Returns:
    (m, 4) int32: first row and column, height and width; at least one pixel each.
  """
  begin, end = boxes[:, :2] * side, boxes[:, 2:] * side
  # The filter's reach around a point inside the box, and one pixel for rounding.
  margin = tf.maximum((end - begin) / scaled_to, 1) + 1
  first = tf.clip_by_value(tf.cast(tf.floor(begin - margin), tf.int32), 0, side - 1)
  last = tf.clip_by_value(tf.cast(tf.math.ceil(end + margin), tf.int32), first + 1, side)
  return tf.concat([first, last - first], axis=1)


def make_decode_window(stored_side: int, ratio: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
  """Makes the function that decodes a window of a frame at 1/ratio.

  Args:
    stored_side: The side of the frames in their files.
    ratio: The factor by which frames are decoded smaller.

  Returns:
    A function that takes a JPEG file and a window (4,) int32, as `seen_windows` returns it, and returns a frame
    (S, S, 3) uint8, which is 0 outside the window.
  """
  side = scaled_side(stored_side, ratio)

  def decode(jpeg: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    # Checked before decoding, so that a damaged or hostile record cannot take unbounded memory.
    stored = tf.io.extract_jpeg_shape(jpeg)
    is_right = tf.reduce_all(stored == [stored_side, stored_side, 3])
    # `tf.debugging.assert_equal` would add a conditional, which takes longer than everything else except decoding.
    with tf.control_dependencies([tf.raw_ops.Assert(condition=is_right, data=["frame size", stored])]):
      part = tf.io.decode_and_crop_jpeg(jpeg, window, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")
    return tf.ensure_shape(_place(part, window, side), (side, side, 3))

  return decode


def _place(part: tf.Tensor, window: tf.Tensor, side: int) -> tf.Tensor:
  """Places a part of an image at its position in the whole image, which is 0 elsewhere."""
  y, x, height, width = tf.unstack(window)
  # This copies whole rows at once, while `tf.pad` copies value by value.
  left, right = (tf.zeros([height, number, 3], tf.uint8) for number in (x, side - x - width))
  above, below = (tf.zeros([number, side, 3], tf.uint8) for number in (y, side - y - height))
  return tf.concat([above, tf.concat([left, part, right], axis=1), below], axis=0)
