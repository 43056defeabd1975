"""The scaling of frames and maps to a network's size, on the device.

Axes: m images, S stored side, H W result, c channels.
"""

import math

import jax
import jax.numpy as jnp


def to_size(
  images: jax.Array, size: int, boxes: jax.Array | None = None, flip: jax.Array | None = None, reach: float = 0.0
) -> jax.Array:
  """Crops, scales (bilinear, antialiased) and mirrors images.

  Args:
    images: (m, S, S, c) uint8.
    size: H and W of the result.
    boxes: (m, 4) float32, (y0, x0, y1, x1) as fractions of the image; None for whole images.
    flip: (m,) bool, which images are mirrored left to right; None for none.
    reach: How far boxes may reach beyond an image, as a part of its side, at most 1. What lies there is the image
      mirrored at its border.

  Returns:
    (m, size, size, c) float32 in [0, 1].
  """
  if boxes is not None and reach:
    images, boxes = _with_surroundings(images, boxes, reach)
  images = images.astype(jnp.float32) / 255
  _, height, width, channels = images.shape
  if boxes is not None:
    extent = jnp.asarray([height, width], jnp.float32)

    def crop(image: jax.Array, box: jax.Array) -> jax.Array:
      scale = size / ((box[2:] - box[:2]) * extent)
      return jax.image.scale_and_translate(
        image, (size, size, channels), (0, 1), scale, -box[:2] * extent * scale, "linear", antialias=True
      )

    images = jax.vmap(crop)(images, boxes)
  elif (height, width) != (size, size):
    images = jax.image.resize(images, (images.shape[0], size, size, channels), "bilinear", antialias=True)
  if flip is not None:
    images = jnp.where(flip[:, None, None, None], images[:, :, ::-1], images)
  return images


def _with_surroundings(images: jax.Array, boxes: jax.Array, reach: float) -> tuple[jax.Array, jax.Array]:
  """Returns images with mirrored margins, and the boxes as fractions of these."""
  margins = [math.ceil(reach * side) for side in images.shape[1:3]]
  extent, margin = (jnp.asarray(x, jnp.float32) for x in (images.shape[1:3], margins))
  padded = jnp.pad(images, ((0, 0), *((margin, margin) for margin in margins), (0, 0)), "symmetric")
  corners = [(boxes[:, of_corner] * extent + margin) / (extent + 2 * margin) for of_corner in (slice(2), slice(2, 4))]
  return padded, jnp.concatenate(corners, axis=-1)
