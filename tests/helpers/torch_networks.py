"""The published networks of PyTorch's own layers, for the tests of parity: needs the extra `parity`.

VGG-16 is torchvision's list of layers with this package's two changes: pool4 is 3×3 of stride 1, and conv5 is dilated.
"""

import torch
from torch import nn
from torch.nn import functional

from helpers.parity import CATEGORIES, VGG16_LAYERS


class VGG16(nn.Module):
  """Its `features` have torchvision's places."""

  def __init__(self):
    super().__init__()
    layers, channels, poolings = [], 3, 0
    for layer in VGG16_LAYERS:
      if layer == "M":
        poolings += 1
        layers.append(nn.MaxPool2d(2, 2) if poolings < 4 else nn.MaxPool2d(3, stride=1, padding=1))
      else:
        dilation = 2 if poolings == 4 else 1
        layers += [nn.Conv2d(channels, layer, 3, padding=dilation, dilation=dilation), nn.ReLU()]
        channels = layer
    self.features = nn.Sequential(*layers)

  def forward(self, images):
    """(m, 3, h, w) normalised; outputs after each ReLU, by the names that Simonyan and Zisserman gave."""
    outputs, stage, conv, x = {}, 1, 0, images
    for layer in self.features:
      x = layer(x)
      if isinstance(layer, nn.MaxPool2d):
        stage, conv = stage + 1, 0
      elif isinstance(layer, nn.ReLU):
        conv += 1
        outputs[f"conv{stage}_{conv}"] = x
    return outputs


class Block(nn.Module):
  def __init__(self, inputs, channels, stride):
    super().__init__()
    self.conv1 = nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False)
    self.bn1 = nn.BatchNorm2d(channels)
    self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    self.bn2 = nn.BatchNorm2d(channels)
    self.downsample = None
    if stride > 1:
      self.downsample = nn.Sequential(nn.Conv2d(inputs, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

  def forward(self, x):
    y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
    return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class NetVLAD(nn.Module):
  def __init__(self):
    super().__init__()
    self.conv = nn.Conv2d(512, 16, 1)
    self.centroids = nn.Parameter(torch.zeros(16, 512))

  def forward(self, x):
    x = functional.normalize(x, dim=1)
    assignment = self.conv(x)
    shares = assignment.softmax(1).flatten(2)  # m k p
    residuals = x.flatten(2)[:, None] - self.centroids[None, :, :, None]  # m k c p
    sums = functional.normalize((shares[:, :, None] * residuals).sum(-1), dim=2)
    return assignment, functional.normalize(sums.flatten(1), dim=1)


class ResNet18(nn.Module):
  def __init__(self, pooling):
    super().__init__()
    self.conv1 = nn.Conv2d(1, 64, 7, 2, padding=3, bias=False)
    self.bn1 = nn.BatchNorm2d(64)
    for layer, (inputs, channels) in enumerate([(64, 64), (64, 128), (128, 256), (256, 512)], 1):
      blocks = Block(inputs, channels, 1 if layer == 1 else 2), Block(channels, channels, 1)
      setattr(self, f"layer{layer}", nn.Sequential(*blocks))
    if pooling == "netvlad":
      self.avgpool = NetVLAD()
      self.fc_ = nn.Linear(16 * 512, CATEGORIES)
    else:
      self.avgpool = nn.AdaptiveAvgPool2d(1)
      self.fc = nn.Linear(512, CATEGORIES)

  def forward(self, sounds):
    """(m, 1, f, s); outputs after each block, by our names."""
    outputs = {"conv1": functional.relu(self.bn1(self.conv1(sounds)))}
    x = functional.max_pool2d(outputs["conv1"], 3, 2, padding=1)
    for layer in range(1, 5):
      for block in range(2):
        x = outputs[f"layer{layer}_{block}"] = getattr(self, f"layer{layer}")[block](x)
    if isinstance(self.avgpool, NetVLAD):
      outputs["netvlad/conv"], outputs["pooled"] = self.avgpool(x)
      outputs["logits"] = self.fc_(outputs["pooled"])
    else:
      outputs["pooled"] = self.avgpool(x).flatten(1)
      outputs["logits"] = self.fc(outputs["pooled"])
    return outputs


class AudioNetwork(nn.Module):
  """VGGSound's, which has its ResNet under this name."""

  def __init__(self, pooling):
    super().__init__()
    self.audnet = ResNet18(pooling)

  def forward(self, sounds):
    return self.audnet(sounds)


def make(kind, state):
  """A network with NumPy's arrays as its state, which must have exactly its names."""
  network = VGG16() if kind == "vgg16" else AudioNetwork(kind)
  network.load_state_dict({name: torch.tensor(x) for name, x in state.items()})
  return network.eval()


def run(kind, network, inputs):
  """Outputs of all stages as NumPy arrays, for inputs of `parity.inputs`."""
  x = torch.tensor(inputs)
  if kind == "vgg16":
    mean, deviation = (torch.tensor(values) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = ((x - mean) / deviation).permute(0, 3, 1, 2)
  else:
    x = x[:, None]
  with torch.no_grad():
    return {name: output.numpy() for name, output in network(x).items()}
