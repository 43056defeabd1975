"""Frames and maps to a network's size, and that a training step treats an example's frames and map alike."""

import jax
import jax.numpy as jnp
import numpy as np

from stajax.nets import images
from stajax.training import step

to_size = jax.jit(images.to_size, static_argnums=1)


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


class Copy:
  """A network whose prediction is the grey value of the target frame; its statistics are what it saw."""

  hears = False

  def apply(self, variables, frames, train, mutable):
    grey = jnp.clip(frames[:, :, 1, ..., 0], 1e-6, 1 - 1e-6)
    return jnp.log(grey / (1 - grey)), {"batch_stats": frames}


def test_a_step_crops_and_mirrors_an_examples_frames_and_map_alike():
  """The map is the target frame itself, so that the divergence is 0 whatever is cut out of both."""
  rng = np.random.default_rng(0)
  frames = rng.integers(10, 245, (4, 1, 3, 16, 16, 1), dtype=np.uint8).repeat(3, axis=-1)
  low, flip = rng.uniform(0, 0.4, (4, 1, 2)), np.array([True, False, False, True])
  box = np.concatenate([low, low + rng.uniform(0.4, 0.6, (4, 1, 2))], axis=-1).astype(np.float32)
  batch = {"frames": frames, "map": frames[:, :, 1, ..., 0], "box": box, "flip": flip, "weight": np.ones((4, 1))}
  value, (seen, metrics) = jax.jit(lambda batch: step.fixation_loss(12)(Copy(), {}, batch))(batch)
  np.testing.assert_allclose(metrics["divergence"], 0, atol=1e-5)
  for example in range(4):
    alone = [to_size(frames[example, :, time], 12, box[example], flip[[example]])[0] for time in range(3)]
    np.testing.assert_allclose(seen[example, 0], alone, atol=1e-6)
  grey = np.asarray(seen)[:, :, 1, ..., 0]
  entropy = -(grey * np.log(grey) + (1 - grey) * np.log(1 - grey))
  np.testing.assert_allclose(value, entropy.mean(), rtol=1e-4)
