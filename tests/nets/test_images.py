"""The scaling of frames and maps to a network's size."""

import jax
import jax.numpy as jnp
import numpy as np

from stajax.nets import images

to_size = jax.jit(images.to_size, static_argnums=(1, 4))


def test_whole_images_are_scaled_by_antialiased_bilinear():
  stored = np.random.default_rng(0).integers(0, 255, (2, 12, 12, 3), dtype=np.uint8)
  whole = np.tile(np.array([0, 0, 1, 1], np.float32), (2, 1))
  for size in (12, 8, 15):
    expected = jax.image.resize(stored.astype(np.float32) / 255, (2, size, size, 3), "linear", antialias=True)
    for boxes in (None, whole):
      scaled_images = to_size(stored, size, boxes)
      assert scaled_images.dtype == jnp.float32
      np.testing.assert_allclose(scaled_images, expected, atol=1e-5)


def test_boxes_are_cut_out_and_flips_mirror_left_and_right():
  """A box of the result's size is a plain slice; each image has its own."""
  stored = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 1), dtype=np.uint8)
  corners = [(0, 0), (4, 7), (8, 2)]
  boxes = np.array([(y / 16, x / 16, (y + 8) / 16, (x + 8) / 16) for y, x in corners], np.float32)
  out = np.array(to_size(stored, 8, boxes, np.array([False, True, False])))
  out[1] = out[1][:, ::-1]
  for image, found, (y, x) in zip(stored, out, corners, strict=True):
    np.testing.assert_allclose(found, image[y : y + 8, x : x + 8] / 255, atol=1e-5)


def test_beyond_its_border_an_image_is_mirrored():
  """A box that is twice as large as the result, at whole pixels, is the mean of blocks of NumPy's symmetric padding."""
  stored = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 1), dtype=np.uint8)
  corners, padded = [(-4, -1), (0, -4)], np.pad(stored, ((0, 0), (4, 4), (4, 4), (0, 0)), "symmetric")
  boxes = np.array([(y / 8, x / 8, (y + 12) / 8, (x + 12) / 8) for y, x in corners], np.float32)
  found = to_size(stored, 12, boxes, None, 0.5)
  for image, shown, (y, x) in zip(padded, found, corners, strict=True):
    np.testing.assert_allclose(shown, image[y + 4 : y + 16, x + 4 : x + 16] / 255, atol=1e-5)
