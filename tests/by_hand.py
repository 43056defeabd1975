"""Slow NumPy transcriptions of the networks' parts, as the paper and PyTorch's documentation describe them.

Convolutions are cross-correlations with zeros around the image, (m, h, w, i) with kernels (kh, kw, i, o).
"""

import numpy as np


def conv(x, kernel, bias=0.0, stride=1, padding=None, dilation=1):
  kh, kw = kernel.shape[:2]
  pads = [dilation * (k - 1) // 2 if padding is None else padding for k in (kh, kw)]
  x = np.pad(x.astype(np.float64), ((0, 0), (pads[0],) * 2, (pads[1],) * 2, (0, 0)))
  height, width = ((n - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(x.shape[1:3], (kh, kw), strict=True))
  out = np.zeros((len(x), height, width, kernel.shape[3]))
  for i in range(kh):
    for j in range(kw):
      shifted = x[:, i * dilation :: stride, j * dilation :: stride][:, :height, :width]
      out += shifted @ kernel[i, j].astype(np.float64)
  return out + bias


def max_pool(x, window, stride, padding):
  x = np.pad(x, ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)), constant_values=-np.inf)
  rows = range(0, x.shape[1] - window + 1, stride)
  columns = range(0, x.shape[2] - window + 1, stride)
  return np.stack(
    [np.stack([x[:, r : r + window, c : c + window].max(axis=(1, 2)) for c in columns], axis=1) for r in rows], axis=1
  )


def bilinear(x, size):
  """Half-pixel centres, edges repeated: pixel by pixel."""
  out = np.zeros((len(x), *size, x.shape[3]))
  for row in range(size[0]):
    for column in range(size[1]):
      at = [(p + 0.5) * old / new - 0.5 for p, old, new in zip((row, column), x.shape[1:3], size, strict=True)]
      for di in (0, 1):
        for dj in (0, 1):
          low = [int(np.floor(v)) for v in at]
          share = (1 - abs(at[0] - low[0] - di)) * (1 - abs(at[1] - low[1] - dj))
          i, j = (min(max(v + d, 0), n - 1) for v, d, n in zip(low, (di, dj), x.shape[1:3], strict=True))
          out[:, row, column] += share * x[:, i, j]
  return out


def relu(x):
  return np.maximum(x, 0)


def sigmoid(x):
  return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def vgg(params, images):
  """VGG-16 at stride 8: every stage before its pooling, f1 … f5."""
  x = (images - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
  stages = {}
  for stage, convs in enumerate((2, 2, 3, 3, 3), 1):
    for i in range(1, convs + 1):
      weights = params[f"conv{stage}_{i}"]["conv"]
      x = relu(conv(x, weights["kernel"], weights["bias"], dilation=2 if stage == 5 else 1))
    stages[f"f{stage}"] = x
    if stage < 4:
      x = max_pool(x, 2, 2, 0)
    elif stage == 4:
      x = max_pool(x, 3, 1, 1)
  return stages


def normalised(x, params, statistics):
  scale = params["scale"] / np.sqrt(statistics["var"] + 1e-5)
  return (x - statistics["mean"]) * scale + params["bias"]


def resnet(variables, spectrogram):
  """ResNet-18 with one input channel and running statistics, averaged."""
  params, statistics = variables["params"], variables["batch_stats"]

  def block(x, path, **how):
    p, s = params, statistics
    for part in path:
      p, s = p[part], s[part]
    return normalised(conv(x, p["conv"]["kernel"], **how), p["norm"]["batch"], s["norm"]["batch"])

  x = max_pool(relu(block(spectrogram[..., None], ["conv1"], stride=2)), 3, 2, 1)
  for layer in range(1, 5):
    for i in range(2):
      name, stride = f"layer{layer}_{i}", 2 if layer > 1 and i == 0 else 1
      y = block(relu(block(x, [name, "conv1"], stride=stride)), [name, "conv2"])
      shortcut = block(x, [name, "downsample"], stride=stride) if "downsample" in params[name] else x
      x = relu(y + shortcut)
  return x.mean(axis=(1, 2))


def temporal_branch(params, spatial):
  """(m, 3, h, w, c) to (m, h, w, c)."""
  x = sum(spatial[:, t] @ params["time"]["kernel"][t, 0, 0] for t in range(3)) + params["time"]["bias"]
  for name in ("space1", "space2"):
    x = conv(relu(x), params[name]["kernel"][0], params[name]["bias"])
  return x
