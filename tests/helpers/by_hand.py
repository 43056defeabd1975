"""Slow NumPy transcriptions of the parts of networks, as the paper and PyTorch's documentation describe them.

The blur in time is here as well.

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


def doubled(x, kernel):
  """Computes a transposed 4×4 convolution of stride 2: every pixel adds its kernel (PyTorch's) to its surroundings."""
  height, width = x.shape[1:3]
  out = np.zeros((len(x), 2 * height + 2, 2 * width + 2, kernel.shape[3]))
  for row in range(height):
    for column in range(width):
      patch = np.einsum("mi,hwio->mhwo", x[:, row, column], kernel)
      out[:, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4] += patch
  return out[:, 1:-1, 1:-1]


def max_pool(x, window, stride, padding):
  x = np.pad(x, ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)), constant_values=-np.inf)
  rows = range(0, x.shape[1] - window + 1, stride)
  columns = range(0, x.shape[2] - window + 1, stride)
  return np.stack(
    [np.stack([x[:, r : r + window, c : c + window].max(axis=(1, 2)) for c in columns], axis=1) for r in rows], axis=1
  )


def bilinear(x, size):
  """Resizes pixel by pixel, with half-pixel centres and repeated edges."""
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
  """Computes every stage f1 … f5 of VGG-16 at stride 8, before its pooling."""
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
  """Computes ResNet-18 with one input channel and running statistics, averaged."""
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
  """Computes the motion (m, h, w, c) of (m, 3, h, w, c)."""
  x = sum(spatial[:, t] @ params["time"]["kernel"][t, 0, 0] for t in range(3)) + params["time"]["bias"]
  for name in ("space1", "space2"):
    x = conv(relu(x), params[name]["kernel"][0], params[name]["bias"])
  return x


def c_gcn(params, nodes, steps, frl):
  """Computes Eqs. 5–8 (and 9, 10 after each step) for one group (n, h, w, c), in the paper's layout: c × h·w."""
  positions = nodes.shape[1] * nodes.shape[2]
  states = [node.reshape(positions, -1).T.astype(np.float64) for node in nodes]
  for _ in range(steps):
    updated = []
    for i in range(len(states)):
      total = np.zeros_like(states[i])
      for j in range(len(states)):
        if j == i:
          continue
        query, key = (
          params[name]["kernel"].T @ state + params[name]["bias"][:, None]
          for name, state in (("query", states[i]), ("key", states[j]))
        )
        for position in range(positions):
          consistency = np.array([query[:, position] @ key[:, other] for other in range(positions)])
          edge = np.exp(consistency) / np.exp(consistency).sum()
          total[:, position] += states[j] @ edge
      updated.append(states[i] * sigmoid(total))
    states = updated
    if frl:
      states = [fixation_refine(state.T.reshape(nodes.shape[1:])).reshape(positions, -1).T for state in states]
  return np.stack([state.T.reshape(nodes.shape[1:]) for state in states])


def fixation_refine(state, discard=0.8, refine=0.6):
  """Computes Eqs. 9 and 10 for one node (h, w, c)."""
  height, width, channels = state.shape
  mean = [[sum(state[i, j].astype(np.float64)) / channels for j in range(width)] for i in range(height)]
  largest = max(max(row) for row in mean)
  out = np.zeros(state.shape)
  for i, j in np.ndindex(height, width):
    mask = 1 if largest * discard - mean[i][j] > 0 else 0
    kept = refine * sigmoid(mean[i][j]) * mask + sigmoid(mean[i][j]) * (1 - mask)
    out[i, j] = (state[i, j] * kept + state[i, j]) / 2
  return out


def read_out(params, states, spatial, size):
  """Computes Eq. 15, with ↑ before Ref_1 as printed: two arrays (m, h, w, c) give (m, H, W)."""
  both = np.concatenate([states, spatial], axis=-1)
  refined = relu(conv(both, params["ref_32"]["conv"]["kernel"], params["ref_32"]["conv"]["bias"]))
  return conv(bilinear(refined, size), params["ref_1"]["kernel"], params["ref_1"]["bias"])[..., 0]


def blur_in_time_by_hand(maps, sigma):
  """Blurs the maps of a video in time by a Gaussian, frame by frame."""
  out = []
  for t in range(len(maps)):
    total, weight = 0, 0
    for other in range(len(maps)):
      if abs(other - t) <= np.ceil(3 * sigma):
        w = np.exp(-((other - t) ** 2) / (2 * sigma**2))
        total, weight = total + w * maps[other].astype(np.float64), weight + w
    out.append(total / weight)
  return np.array(out)
