"""EfficientNet-Lite0 from a file with the published names, against a transcription that keeps the normalisations."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from helpers.tiny import quick_jit
from stajax.nets.efficientnet import EfficientNetLite0
from stajax.weights import convert
from stajax.weights.store import WeightsError, unflatten

# Published rows: repeats, kernel, stride, expansion, input channels, output channels.
ROWS = (
  (1, 3, 1, 1, 32, 16),
  (2, 3, 2, 6, 16, 24),
  (2, 5, 2, 6, 24, 40),
  (3, 3, 2, 6, 40, 80),
  (3, 5, 1, 6, 80, 112),
  (4, 5, 2, 6, 112, 192),
  (1, 3, 1, 6, 192, 320),
)


def published_blocks():
  for repeats, kernel, stride, expand, channels, features in ROWS:
    for repeat in range(repeats):
      yield kernel, stride if repeat == 0 else 1, expand, features if repeat else channels, features


def published_weights(rng):
  """Returns random arrays under the published names."""
  arrays = {}

  def norm(name, channels):
    arrays[f"{name}.weight"] = rng.uniform(0.5, 1.5, channels)
    arrays[f"{name}.bias"] = rng.normal(0, 0.1, channels)
    arrays[f"{name}.running_mean"] = rng.normal(0, 0.1, channels)
    arrays[f"{name}.running_var"] = rng.uniform(0.5, 1.5, channels)
    arrays[f"{name}.num_batches_tracked"] = np.array(1)

  def convolution(name, *shape):
    arrays[f"{name}.weight"] = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)

  convolution("_conv_stem", 32, 3, 3, 3)
  norm("_bn0", 32)
  for i, (kernel, _, expand, channels, features) in enumerate(published_blocks()):
    inside = channels * expand
    if expand > 1:
      convolution(f"_blocks.{i}._expand_conv", inside, channels, 1, 1)
      norm(f"_blocks.{i}._bn0", inside)
    convolution(f"_blocks.{i}._depthwise_conv", inside, 1, kernel, kernel)
    norm(f"_blocks.{i}._bn1", inside)
    convolution(f"_blocks.{i}._project_conv", features, inside, 1, 1)
    norm(f"_blocks.{i}._bn2", features)
  arrays["_fc.bias"] = np.zeros(1000)
  return {name: x.astype(np.float32) for name, x in arrays.items()}


def convolve(x, weight, stride, depthwise=False):
  """Convolves (h, w, c) with PyTorch's (out, in, k, k) and TensorFlow's padding `same`."""
  kernel, pads = weight.shape[-1], []
  for size in x.shape[:2]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    pads.append((total // 2, total - total // 2))
  windows = sliding_window_view(np.pad(x, (*pads, (0, 0))), (kernel, kernel), (0, 1))[::stride, ::stride]
  if depthwise:
    return np.einsum("hwcij,cij->hwc", windows, weight[:, 0])
  return np.einsum("hwcij,ocij->hwo", windows, weight, optimize=True)


def transcription(arrays, image):
  def normalise(name, x):
    variance, mean = arrays[f"{name}.running_var"], arrays[f"{name}.running_mean"]
    return (x - mean) / np.sqrt(variance + 1e-3) * arrays[f"{name}.weight"] + arrays[f"{name}.bias"]

  x = convolve((image * 255 - 127) / 128, arrays["_conv_stem.weight"], 2)
  x, results = np.clip(normalise("_bn0", x), 0, 6), []
  for i, (_, stride, expand, channels, features) in enumerate(published_blocks()):
    block, y = f"_blocks.{i}", x
    if expand > 1:
      y = np.clip(normalise(f"{block}._bn0", convolve(y, arrays[f"{block}._expand_conv.weight"], 1)), 0, 6)
    y = convolve(y, arrays[f"{block}._depthwise_conv.weight"], stride, depthwise=True)
    y = np.clip(normalise(f"{block}._bn1", y), 0, 6)
    y = normalise(f"{block}._bn2", convolve(y, arrays[f"{block}._project_conv.weight"], 1))
    x = x + y if stride == 1 and channels == features else y
    results.append(x)
  return results[4], results[10], results[15]


def test_folded_convolutions_are_the_published_network(tmp_path):
  rng = np.random.default_rng(0)
  arrays, image = published_weights(rng), rng.uniform(size=(45, 64, 3)).astype(np.float32)
  np.savez(tmp_path / "lite0.npz", **arrays)
  converted = convert.read(tmp_path / "lite0.npz")
  assert converted.kind == "EfficientNet-Lite0" and "_fc.bias" in converted.left_out
  variables = {"params": unflatten(converted.arrays)["params"]["visual"]}
  found: Any = quick_jit(EfficientNetLite0().apply)(variables, jnp.asarray(image[None]))
  for ours, expected in zip(found, transcription(arrays, image), strict=True):
    np.testing.assert_allclose(ours[0], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_a_file_that_lacks_a_block_is_refused(tmp_path):
  arrays = published_weights(np.random.default_rng(0))
  del arrays["_blocks.7._bn1.running_var"]
  np.savez(tmp_path / "cut.npz", **arrays)
  with pytest.raises(WeightsError, match=r"cut\.npz.*missing _blocks\.7\._bn1\.running_var"):
    convert.read(tmp_path / "cut.npz")
