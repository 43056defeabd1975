"""Classifiers and students of the paper in PyTorch, built from the parts in `networks.py`, and their losses.

Axes: b batch, m merged batch, n nodes, t frames, H W input, h w map, c categories.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers import networks

_FLOOR = 3.0  # added to class maps before the C-GCN, subtracted after it
_LIFT = 4.0  # likewise to spatial maps before they are gated
_REFINED = 32


class Classification(NamedTuple):
  """Class maps (b, c, h, w), logits (b, c), and those of every node before reasoning (b, n, c)."""

  class_maps: Tensor
  logits: Tensor
  branch_logits: Tensor


def make(name: str, num_categories: int = 28, width: float = 1.0) -> nn.Module:
  """Builds a network by its name, such as `st_plus`."""
  if name.startswith("sta"):
    return Student(num_categories, "plus" in name, width)
  return Classifier(name.split("_")[0], num_categories, "plus" in name, width)


class Classifier(nn.Module):
  """S, ST or SA, as `source` says; with `plus` S+, ST+ or SA+."""

  def __init__(self, source: str, num_categories: int, plus: bool, width: float) -> None:
    super().__init__()
    self.source, self.plus, c = source, plus, num_categories
    self.visual = networks.VGG16(width)
    self.neck = networks.Neck(self.visual.features, c, width)
    if source == "st":
      self.temporal = networks.TemporalBranch(c)
    if source == "sa":
      self.sound = networks.ResNet18(width)
      self.sound_map = networks.SoundMap(self.sound.features, c)
    self.classify = nn.Conv2d(c if source == "s" else 2 * c, c, 1, bias=False)
    self.bias = nn.Parameter(torch.zeros(c))
    if plus:
      self.graph = networks.ConservativeGCN(c)
      self.conclude = nn.Conv2d(c, c, 1, bias=False)
      self.conclude_bias = nn.Parameter(torch.zeros(c))

  def forward(self, frames: Tensor, sound: Tensor | None = None, switch: Tensor | None = None) -> Classification:
    """Takes frames (b, n, t, 3, H, W) in [0, 1], sound (b, n, 257, s) and switch (b, n)."""
    b, n, t = frames.shape[:3]
    spatial = self.neck(self.visual(frames.flatten(0, 2))[-1]).unflatten(0, (b * n, t))
    middle = spatial[:, t // 2]
    control = None
    if self.source == "st":
      control = self.temporal(spatial)
    if self.source == "sa" and sound is not None and switch is not None:
      control = self.sound_map(self.sound(sound.flatten(0, 1)), switch.flatten(), middle.shape[2:])
    lift, fused = 0.0, middle
    if control is not None:
      lift, lifted = _LIFT, middle + _LIFT
      fused = torch.cat([F.relu(networks.gate(lifted, control)), lifted], dim=1)
    nodes = (self.classify(fused).float() - lift).unflatten(0, (b, n))
    branches = nodes.mean(dim=(3, 4)) + self.bias
    if not self.plus:
      return Classification(nodes[:, 0], branches[:, 0], branches)
    target = self.conclude(self.graph(nodes + _FLOOR, read=1)[:, 0]).float() - _FLOOR
    return Classification(target, target.mean(dim=(2, 3)) + self.conclude_bias, branches)


class Student(nn.Module):
  """STA, or with `plus` STA+; gives logits (b, n, H, W), or (b, read, H, W)."""

  def __init__(self, num_categories: int, plus: bool, width: float) -> None:
    super().__init__()
    self.plus, c = plus, num_categories
    self.visual = networks.VGG16(width)
    self.neck = networks.Neck(self.visual.features, c, width)
    self.temporal = networks.TemporalBranch(c)
    self.sound = networks.ResNet18(width)
    self.sound_map = networks.SoundMap(self.sound.features, c)
    self.combine = nn.Conv2d(2 * c, c, 1)
    if plus:
      self.graph = networks.ConservativeGCN(c)
      self.ref_32, self.ref_1 = nn.Conv2d(2 * c, _REFINED, 1), nn.Conv2d(_REFINED, 1, 1)
    else:
      widths = [networks.scaled(channels, width) for channels in networks.CHANNELS[2:]]
      self.refine = nn.ModuleList(nn.Conv2d(inputs, _REFINED, 1) for inputs in widths)
      self.decode = nn.ModuleList(
        nn.Conv2d(_REFINED + inputs, _REFINED, 3, padding=1) for inputs in (_REFINED, _REFINED, c)
      )
      self.readout = nn.Conv2d(_REFINED, 1, 1)

  def forward(self, frames: Tensor, sound: Tensor, switch: Tensor, read: int | None = None) -> Tensor:
    """Takes frames (b, n, 3, 3, H, W) in [0, 1], sound (b, n, 257, s) and switch (b, n)."""
    b, n, t = frames.shape[:3]
    stages = self.visual(frames.flatten(0, 2))
    spatial = self.neck(stages[-1]).unflatten(0, (b * n, t))
    middle = spatial[:, t // 2]
    heard = self.sound_map(self.sound(sound.flatten(0, 1)), switch.flatten(), middle.shape[2:])
    moved = self.temporal(spatial)
    fused = F.relu(self.combine(torch.cat([networks.gate(middle, heard), networks.gate(middle, moved)], dim=1)))
    if self.plus:
      states = self.graph(fused.unflatten(0, (b, n)), read)
      n = states.shape[1]
      middle = middle.unflatten(0, (b, -1))[:, :n].flatten(0, 1)
      logits = self.ref_1(F.relu(self.ref_32(torch.cat([states.flatten(0, 1).to(middle.dtype), middle], dim=1))))
    else:
      logits = self._decoded(fused, [stage.unflatten(0, (b * n, t))[:, t // 2] for stage in stages])
    maps = F.interpolate(logits.float(), size=frames.shape[4:], mode="bilinear", align_corners=False)
    return maps[:, 0].unflatten(0, (b, n))

  def _decoded(self, x: Tensor, stages: list[Tensor]) -> Tensor:
    for place in (2, 1, 0):  # f5, f4, f3
      refined = F.relu(self.refine[place](stages[place]))
      if x.shape[2:] != refined.shape[2:]:
        x = F.interpolate(x, size=refined.shape[2:], mode="bilinear", align_corners=False)
      x = F.relu(self.decode[place](torch.cat([refined, x.to(refined.dtype)], dim=1)))
    return self.readout(x)


def classification_loss(out: Classification, tags: Tensor) -> Tensor:
  """Returns the multi-label soft margin with deep supervision for tags (b, n, c)."""
  loss = F.binary_cross_entropy_with_logits(out.logits, tags[:, 0])
  if tags.shape[1] > 1:
    loss = loss + 0.4 * F.binary_cross_entropy_with_logits(out.branch_logits, tags)
  return loss


def fixation_loss(logits: Tensor, maps: Tensor, weight: Tensor) -> Tensor:
  """Returns cross-entropy plus divergence of maps (b, n, H, W) in [0, 1], weighted by (b, n) and added over nodes."""
  weight = weight / weight.sum(dim=0).clamp(min=1e-6)
  entropy = F.binary_cross_entropy_with_logits(logits, maps, reduction="none").mean(dim=(2, 3))
  target = maps / maps.sum(dim=(2, 3), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
  log_prediction = F.logsigmoid(logits)
  log_prediction = log_prediction - log_prediction.logsumexp(dim=(2, 3), keepdim=True)
  divergence = (torch.xlogy(target, target) - target * log_prediction).sum(dim=(2, 3))
  return (weight * (entropy + divergence)).sum()
