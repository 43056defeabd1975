"""A network with batch statistics that stands for any in tests of training, and its batches, as the pipeline's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from helpers.random_variables import randomise
from stajax.nets.classifier import Classification
from stajax.nets.layers import ConvBlock
from stajax.train import loop, optimizer, step

MULTIPLIERS = (1.0, 2.0, 10.0, 20.0)
SIZE = 16


class Small(nn.Module):
  """A classifier or a student whose nodes do not see each other."""

  output: str = "classes"
  frozen: tuple[str, ...] = ()
  num_nodes: int = 1
  num_times = 3
  hears = False
  backbone_stages = ("f5",)

  @property
  def predicts_maps(self):
    return self.output == "maps"

  @property
  def output_nodes(self):
    return tuple(range(self.num_nodes)) if self.predicts_maps else (0,)

  @nn.compact
  def __call__(self, frames, train=False):
    b, n, t, *size = frames.shape[:5]
    x = frames[:, :, t // 2].reshape(b * n, *frames.shape[3:])
    x = ConvBlock(8, strides=2, norm="batch", name="visual")(x, train and "visual" not in self.frozen)
    x = ConvBlock(8, norm="batch", name="neck")(x, train)
    x = nn.Conv(3, (1, 1), name="classify")(x)
    if self.output == "maps":
      return jax.image.resize(x[..., 0], (b * n, *size), "bilinear").reshape(b, n, *size)
    logits = jnp.mean(x, axis=(1, 2)).reshape(b, n, 3)
    return Classification(x.reshape(b, n, *x.shape[1:])[:, 0], logits[:, 0], logits)


def make_batch(number, batch=16, nodes=1, times=3, sound=False):
  """The batch of a step, of three categories."""
  rng = np.random.default_rng(number)
  low = rng.uniform(0, 0.3, (batch, nodes, times, 2))
  sound = {
    "sound": rng.normal(size=(batch, nodes, 257, 98)).astype(np.float16),
    "sound_mean": rng.normal(size=(batch, nodes)).astype(np.float32),
    "sound_deviation": rng.uniform(0.5, 2, (batch, nodes)).astype(np.float32),
  } if sound else {}  # fmt: skip
  return {
    "frames": rng.integers(0, 255, (batch, nodes, times, 20, 20, 3), dtype=np.uint8),
    "box": np.concatenate([low, low + 0.7], axis=-1).astype(np.float32),
    "flip": rng.random(batch) < 0.5,
    "tags": np.eye(3, dtype=np.float32)[rng.integers(0, 3, (batch, nodes))],
    "map": rng.integers(0, 255, (batch, nodes, 10, 10), dtype=np.uint8),
    "weight": (rng.random((batch, nodes)) < 0.4).astype(np.float32),
    "clip": np.arange(batch, dtype=np.int32)[:, None].repeat(nodes, axis=1),
    "frame": np.zeros((batch, nodes), np.int32),
    **sound,
    "switch": np.ones((batch, nodes), np.float32),
  }


def on_devices(batch, mesh):
  return loop.put_on_devices(batch, mesh)


def sgd(decay=1e-3):
  return optimizer.make_optimizer("sgd", optimizer.make_schedule(0.02, 9, 0, "constant"), 0.9, decay, MULTIPLIERS)


def start(network, mesh, update):
  """A random state of a `Small`."""
  shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, network.num_nodes, 3, SIZE, SIZE, 3)))
  return step.replicate(step.make_state(randomise(shapes), update), mesh)
