"""The parts of the paper's networks in PyTorch, written as a careful user would: batched, and without stajax.

Layers, sizes and the order of operations are those of `stajax.nets`, so that both compute the same functions with the
same number of parameters; `tests/test_benchmarks.py` checks that with equal weights. Modules have the names of stajax's
parameters.

Axes: b batch, m merged batch, n nodes, o others of a node, t frames, h w space, L positions h·w, c categories.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = (64, 128, 256, 512, 512)
DEPTHS = (2, 2, 3, 3, 3)


def scaled(channels: int, width: float) -> int:
  """Returns a layer's channels at a width, a multiple of 8."""
  return channels if width == 1 else max(8, 8 * round(channels * width / 8))


class VGG16(nn.Module):
  """VGG-16 at stride 8, without normalisation; gives the last three stages of images (m, 3, H, W) in [0, 1]."""

  def __init__(self, width: float) -> None:
    super().__init__()
    inputs = 3
    for stage, (depth, channels) in enumerate(zip(DEPTHS, CHANNELS), start=1):
      dilation = 2 if stage == 5 else 1
      for conv in range(1, depth + 1):
        outputs = scaled(channels, width)
        self.add_module(f"conv{stage}_{conv}", nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation))
        inputs = outputs
    self.features = inputs
    self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
    self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

  def forward(self, images: Tensor) -> list[Tensor]:
    x, stages = (images - self.mean) / self.std, []
    for stage, depth in enumerate(DEPTHS, start=1):
      for conv in range(1, depth + 1):
        x = F.relu(getattr(self, f"conv{stage}_{conv}")(x))
      stages.append(x)
      if stage <= 3:
        x = F.max_pool2d(x, 2)
      elif stage == 4:
        x = F.max_pool2d(x, 3, stride=1, padding=1)
    return stages[2:]


class Neck(nn.Module):
  """Three 3×3 convolutions and a 1×1 one; gives the spatial map s (m, c, h, w) of f5."""

  def __init__(self, inputs: int, num_categories: int, width: float) -> None:
    super().__init__()
    outputs = scaled(512, width)
    for conv in (1, 2, 3):
      self.add_module(f"conv{conv}", nn.Conv2d(inputs if conv == 1 else outputs, outputs, 3, padding=1))
    self.project = nn.Conv2d(outputs, num_categories, 1)

  def forward(self, x: Tensor) -> Tensor:
    for conv in (self.conv1, self.conv2, self.conv3):
      x = F.relu(conv(x))
    return self.project(x)


class TemporalBranch(nn.Module):
  """The temporal branch; gives the motion (m, c, h, w) in the spatial maps (m, 3, c, h, w) of three frames."""

  def __init__(self, features: int) -> None:
    super().__init__()
    self.time = nn.Conv2d(3 * features, features, 1)  # (3, 1, 1) without padding sees all three at once
    self.space1 = nn.Conv2d(features, features, 3, padding=1)
    self.space2 = nn.Conv2d(features, features, 3, padding=1)

  def forward(self, spatial: Tensor) -> Tensor:
    return self.space2(F.relu(self.space1(F.relu(self.time(spatial.flatten(1, 2))))))


class BasicBlock(nn.Module):
  """A block of ResNet-18, with batch normalisation."""

  def __init__(self, inputs: int, outputs: int, stride: int) -> None:
    super().__init__()
    self.conv1 = conv_bn(inputs, outputs, 3, stride)
    self.conv2 = conv_bn(outputs, outputs, 3, 1)
    self.downsample = conv_bn(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else nn.Identity()

  def forward(self, x: Tensor) -> Tensor:
    return F.relu(self.downsample(x) + self.conv2(F.relu(self.conv1(x))))


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
  """Returns a convolution with its batch normalisation."""
  conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
  return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class ResNet18(nn.Module):
  """The VGGSound ResNet-18 with NetVLAD; gives (m, 16 · 512 · width) for spectrograms (m, 257, s)."""

  def __init__(self, width: float, clusters: int = 16) -> None:
    super().__init__()
    inputs = scaled(64, width)
    self.conv1 = conv_bn(1, inputs, 7, 2)
    for layer, channels in enumerate((64, 128, 256, 512), start=1):
      for block in range(2):
        outputs = scaled(channels, width)
        stride = 2 if layer > 1 and block == 0 else 1
        self.add_module(f"layer{layer}_{block}", BasicBlock(inputs, outputs, stride))
        inputs = outputs
    self.assign = nn.Conv2d(inputs, clusters, 1)
    self.centroids = nn.Parameter(torch.rand(clusters, inputs))
    self.features = clusters * inputs

  def forward(self, spectrogram: Tensor) -> Tensor:
    x = F.max_pool2d(F.relu(self.conv1(spectrogram[:, None])), 3, 2, 1)
    for layer in (1, 2, 3, 4):
      x = getattr(self, f"layer{layer}_1")(getattr(self, f"layer{layer}_0")(x))
    x = F.normalize(x.float(), dim=1)
    assignment = self.assign(x).float().softmax(dim=1)
    residual = torch.einsum("mkfs,mdfs->mkd", assignment, x)
    residual = residual - assignment.sum(dim=(2, 3))[:, :, None] * self.centroids
    return F.normalize(F.normalize(residual, dim=2).flatten(1), dim=1)


class SoundMap(nn.Module):
  """Grows an audio vector (m, d) to the size of the spatial map, (m, c, h, w)."""

  def __init__(self, inputs: int, features: int) -> None:
    super().__init__()
    self.seed = nn.ConvTranspose2d(inputs, 32, 4)
    self.double1 = nn.ConvTranspose2d(32, 32, 4, 2, 1)
    self.double2 = nn.ConvTranspose2d(32, 32, 4, 2, 1)
    self.double3 = nn.ConvTranspose2d(32, features, 4, 2, 1)

  def forward(self, audio: Tensor, switch: Tensor, size: torch.Size) -> Tensor:
    x = self.seed((switch[:, None] * audio)[:, :, None, None])
    for double in (self.double1, self.double2, self.double3):
      x = double(F.relu(x))
    return x if x.shape[2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class ConservativeGCN(nn.Module):
  """C-GCN with the fixation refine layer; gives the float32 states of the first `read` nodes of (b, n, c, h, w)."""

  def __init__(self, features: int, steps: int = 3) -> None:
    super().__init__()
    self.query, self.key, self.steps = nn.Linear(features, features), nn.Linear(features, features), steps

  def forward(self, nodes: Tensor, read: int | None = None) -> Tensor:
    height, states = nodes.shape[3], nodes.float()
    for step in range(self.steps):
      flat = states.flatten(3).transpose(2, 3)  # b n L c
      last = read if step == self.steps - 1 else None
      received = messages(self.query(flat[:, :last]), self.key(flat), flat)
      received = received.float().transpose(2, 3).unflatten(3, (height, -1))
      states = refine(states[:, :last] * torch.sigmoid(received))
    return states


def messages(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
  """Returns what the first r nodes receive from all others, (b, r, L, c).

  Queries are (b, r, L, c), keys and values (b, n, L, c).
  """
  num_nodes = keys.shape[1]
  received = []
  for node in range(queries.shape[1]):
    others = [other for other in range(num_nodes) if other != node]
    query = queries[:, node : node + 1].expand(-1, len(others), -1, -1)
    value = values[:, others].to(query.dtype)
    received.append(F.scaled_dot_product_attention(query, keys[:, others], value, scale=1.0).sum(dim=1))
  return torch.stack(received, dim=1)


def refine(states: Tensor) -> Tensor:
  """Applies the fixation refine layer to (…, c, h, w)."""
  response = states.mean(dim=-3, keepdim=True)
  is_redundant = response < 0.8 * response.amax(dim=(-2, -1), keepdim=True)
  kept = torch.sigmoid(response) * torch.where(is_redundant, 0.6, 1.0)
  return 0.5 * (states * kept + states)


def gate(spatial: Tensor, control: Tensor) -> Tensor:
  """Returns σ(control) ⊙ s + s."""
  return torch.sigmoid(control) * spatial + spatial
