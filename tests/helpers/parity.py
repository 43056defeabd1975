"""What the tests of parity with PyTorch share: random weights under the publishers' names, inputs, and our outputs.

Axes: m batch, c channels, h w space, f frequency bins, s spectrogram columns.
"""

import functools
import re

import jax
import numpy as np

from helpers import torch_files
from helpers.paths import GOLDEN
from stajax.nets.base import NetworkSizes
from stajax.nets.tagger import Tagger
from stajax.nets.visual import VGG16
from stajax.weights import convert, store

DATA = GOLDEN / "parity"
KINDS = ("vgg16", "average", "netvlad")
CATEGORIES = 309
NUM_SAMPLES = 24
"""Values of each stage's output that are stored."""
# As published, in torchvision's order; numbers are channels, M is a pooling.
VGG16_LAYERS = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)
_SEEDS = {"vgg16": 1, "average": 2, "netvlad": 3}


def state(kind):
  """Random parameters and statistics by the publisher's names, float32 in PyTorch's order of axes."""
  rng = np.random.default_rng(_SEEDS[kind])

  def uniform(low, high, *shape):
    return (low + (high - low) * rng.random(shape, np.float32)).astype(np.float32)

  def kernel(*shape):
    # Keeps the variance through a ReLU.
    bound = (6 / np.prod(shape[1:])) ** 0.5
    return uniform(-bound, bound, *shape)

  return (_vgg16 if kind == "vgg16" else functools.partial(_resnet18, kind))(uniform, kernel)


def _vgg16(uniform, kernel):
  made, inputs, place = {}, 3, 0
  for channels in VGG16_LAYERS:
    if channels != "M":
      made[f"features.{place}.weight"] = kernel(channels, inputs, 3, 3)
      made[f"features.{place}.bias"] = uniform(-0.3, 0.3, channels)
      inputs = channels
    place += 1 if channels == "M" else 2  # a ReLU follows each convolution
  return made


def _resnet18(pooling, uniform, kernel):
  made = {"audnet.conv1.weight": kernel(64, 1, 7, 7)}

  def normalisation(name, channels):
    made[f"audnet.{name}.weight"] = uniform(0.5, 1.5, channels)
    made[f"audnet.{name}.bias"] = uniform(-0.5, 0.5, channels)
    made[f"audnet.{name}.running_mean"] = uniform(-0.5, 0.5, channels)
    made[f"audnet.{name}.running_var"] = uniform(0.5, 1.5, channels)
    made[f"audnet.{name}.num_batches_tracked"] = np.int64(1000)

  normalisation("bn1", 64)
  inputs = 64
  for layer, channels in enumerate((64, 128, 256, 512), 1):
    for block in range(2):
      name = f"layer{layer}.{block}"
      made[f"audnet.{name}.conv1.weight"] = kernel(channels, inputs, 3, 3)
      normalisation(f"{name}.bn1", channels)
      made[f"audnet.{name}.conv2.weight"] = kernel(channels, channels, 3, 3)
      normalisation(f"{name}.bn2", channels)
      if layer > 1 and block == 0:
        made[f"audnet.{name}.downsample.0.weight"] = kernel(channels, inputs, 1, 1)
        normalisation(f"{name}.downsample.1", channels)
      inputs = channels
  if pooling == "netvlad":
    # Vectors of length 1 go in, so this makes the softmax choose.
    made["audnet.avgpool.conv.weight"] = uniform(-9, 9, 16, 512, 1, 1)
    made["audnet.avgpool.conv.bias"] = uniform(-1, 1, 16)
    made["audnet.avgpool.centroids"] = uniform(0, 0.1, 16, 512)
    made["audnet.fc_.weight"] = uniform(-1, 1, CATEGORIES, 16 * 512)
    made["audnet.fc_.bias"] = uniform(-1, 1, CATEGORIES)
  else:
    made["audnet.fc.weight"] = kernel(CATEGORIES, 512)
    made["audnet.fc.bias"] = uniform(-1, 1, CATEGORIES)
  return made


def inputs(kind):
  """Images (m, h, w, 3) RGB in [0, 1], or sounds (m, f, s).

  Their sizes are odd in some layers and even in others: at even ones padding that is not explicit is one-sided.
  """
  rng = np.random.default_rng(100 + _SEEDS[kind])
  if kind == "vgg16":
    return rng.random((2, 45, 38, 3), np.float32)
  return (4 * rng.random((2, 257, 103), np.float32) - 2).astype(np.float32)


def write(kind, path, made):
  """Writes a state as its publisher does, without PyTorch: a bare state, or a checkpoint in the older format."""
  if kind == "vgg16":
    # Those of no use here, which the published file has too.
    rest = {f"classifier.{i}.{leaf}": np.zeros(3, np.float32) for i in (0, 3, 6) for leaf in ("weight", "bias")}
    torch_files.write_state(torch_files.write_zip, path, made | rest)
  else:
    torch_files.write_state(
      torch_files.write_legacy, path, made, lambda tensors: {"epoch": 9, "model_state_dict": tensors}
    )


def stages(kind, path, images_or_sounds, train=False):
  """Our outputs by the publisher's names, of a file that `convert` reads: (m, c, h, w), or (m, d) of what is pooled.

  Returns:
    The outputs, and the statistics after the call.
  """
  found = convert.read(path)
  variables = store.unflatten(found.arrays)
  if kind == "vgg16":
    network, variables = VGG16(), {"params": variables["params"]["visual"]}
  else:
    network, images_or_sounds = (
      Tagger(num_categories=CATEGORIES, sizes=NetworkSizes(audio_pooling=kind)),
      images_or_sounds[:, None],
    )
  how = {"train": train, "capture_intermediates": True, "mutable": ["batch_stats", "intermediates"]}
  out, changed = jax.jit(functools.partial(network.apply, **how))(variables, images_or_sounds)
  seen = {
    name.removesuffix("/__call__").removeprefix("sound/"): x
    for name, (x,) in store.flatten(changed["intermediates"]).items()
    if name.endswith("/__call__")
  }
  outputs = {name: x for name, x in seen.items() if re.fullmatch(r"conv\d(_\d)?|layer\d_\d|netvlad/conv", name)}
  if kind != "vgg16":
    outputs |= {"pooled": seen["sound"], "logits": out.logits}
  return {name: np.moveaxis(np.asarray(x), -1, 1) for name, x in outputs.items()}, changed.get("batch_stats", {})


def sample(name, x):
  """The stored values of a stage's output, and the root of the mean square of all."""
  rng = np.random.default_rng(sum(map(ord, name)))
  return x.ravel()[rng.integers(0, x.size, NUM_SAMPLES)], np.sqrt(np.mean(x.astype(np.float64) ** 2))
