"""The fixation networks STA and STA+: they learn pseudo-fixations and need no tag (paper §5, Fig. 7 d and h).

Same three parts and axes as `stajax.nets.classifier`.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from stajax.nets.audio import Pooling, ResNet18
from stajax.nets.fusion import SoundMap, TemporalBranch, gate
from stajax.nets.graph import BLOCK, STEPS, ConservativeGCN
from stajax.nets.layers import ConvBlock, Norm
from stajax.nets.visual import DEPTHS, NECK_DEPTH, VGG16, Neck

_REFINED = 32
_RARE = nn.initializers.constant(-3.0)
"""Of the last bias: fixated pixels are some 5% of a frame, and a new network begins with that."""


class Encoders(nn.Module):
  """What all that learn fixations see and hear with, and their attributes.

  Attributes: as of `stajax.nets.classifier.Classifier`.
  """

  num_categories: int
  frl: bool = True
  steps: int = STEPS
  block: int = BLOCK
  width: float = 1.0
  norm: Norm = "none"
  head_norm: Norm | None = None
  depths: tuple[int, ...] = DEPTHS
  neck_depth: int = NECK_DEPTH
  neck_width: float = 1.0
  audio_width: float = 1.0
  audio_norm: Norm = "batch"
  audio_pooling: Pooling = "netvlad"
  dtype: Any = jnp.float32
  frozen: tuple[str, ...] = ()

  @property
  def num_times(self) -> int:
    """Frames of a fragment."""
    return 3

  @property
  def hears(self) -> bool:
    return True

  def setup(self) -> None:
    self.visual = VGG16(self.width, self.depths, self.norm, self.dtype)
    self.sound = ResNet18(self.audio_width, self.audio_norm, self.audio_pooling, self.dtype)

  def make_neck(self) -> Neck:
    return Neck(
      self.num_categories,
      self.width * self.neck_width,
      self.neck_depth,
      norm=self.head_norm or self.norm,
      dtype=self.dtype,
    )

  def backbone(
    self, frames: jnp.ndarray, train: bool = False, keep: Sequence[str] = ("f3", "f4", "f5")
  ) -> dict[str, jnp.ndarray]:
    """(m, H, W, 3) in [0, 1] to the backbone's stages `keep`: the part that networks with one backbone share."""
    stages = self.visual(frames, self._trains("visual", train))
    return {name: getattr(stages, name) for name in keep}

  def encode_sound(self, sound: jnp.ndarray, train: bool = False) -> jnp.ndarray:
    """(m, 257, s) normalised log-spectrograms to (m, d)."""
    return self.sound(sound, self._trains("sound", train))

  def _trains(self, part: str, train: bool) -> bool:
    return train and part not in self.frozen


class Student(Encoders):
  """STA: three frames and a second of sound to one logit a pixel (Eqs. 11, 12).

  With `plus` STA+: three such fragments, C-GCN in the decoder's place, and a read-out of every node (Eqs. 14, 15). What
  it shares with STA, all but the decoder, has the same names.
  """

  plus: bool = False

  @property
  def num_nodes(self) -> int:
    """Fragments of a group."""
    return 3 if self.plus else 1

  def setup(self) -> None:
    super().setup()
    head = {"norm": self.head_norm or self.norm, "dtype": self.dtype}
    self.neck = self.make_neck()
    self.temporal = TemporalBranch(self.num_categories, self.dtype)
    self.sound_map = SoundMap(self.num_categories, self.dtype)
    self.combine = nn.Conv(self.num_categories, (1, 1), dtype=self.dtype)
    if self.plus:
      self.graph = ConservativeGCN(self.num_categories, self.steps, self.frl, self.block, self.dtype)
      self.ref_32 = ConvBlock(_REFINED, (1, 1), **head)
      self.ref_1 = nn.Conv(1, (1, 1), bias_init=_RARE, dtype=self.dtype)
    else:
      self.refine = {stage: ConvBlock(_REFINED, (1, 1), **head) for stage in ("f3", "f4", "f5")}
      self.decode = {stage: ConvBlock(_REFINED, **head) for stage in ("f3", "f4", "f5")}
      self.readout = nn.Conv(1, (1, 1), bias_init=_RARE, dtype=self.dtype)

  def encode_frames(self, frames: jnp.ndarray, train: bool = False) -> dict[str, jnp.ndarray]:
    """(m, H, W, 3) in [0, 1] to `s` (m, h, w, c) and, of STA, Ref(F3), Ref(F4), Ref(F5) with 32 channels."""
    return self.embed(self.backbone(frames, train, self.needed), train)

  @property
  def needed(self) -> tuple[str, ...]:
    """Stages of the backbone that this network reads."""
    return ("f5",) if self.plus else ("f3", "f4", "f5")

  def embed(self, stages: dict[str, jnp.ndarray], train: bool = False) -> dict[str, jnp.ndarray]:
    """Of `backbone` to what `encode_frames` gives."""
    return {"s": self.neck(stages["f5"], self._trains("neck", train)), **self._refined(stages, train)}

  def _refined(self, stages: dict[str, jnp.ndarray], train: bool) -> dict[str, jnp.ndarray]:
    """Ref of Eq. 12, of STA."""
    return {} if self.plus else {name: block(stages[name], train) for name, block in self.refine.items()}

  def fuse(self, features: dict[str, jnp.ndarray], audio: jnp.ndarray, switch: jnp.ndarray) -> jnp.ndarray:
    """Eq. 11: `sta` (m, h, w, c) of fragments.

    Args:
      features: of `encode_frames`, with a time axis: {"s": (m, 3, h, w, c), …}.
      audio: (m, d).
      switch: (m,).
    """
    spatial = features["s"][:, self.num_times // 2]
    heard = gate(spatial, self.sound_map(audio, switch, spatial.shape[1:3]))
    moved = gate(spatial, self.temporal(features["s"]))
    return nn.relu(self.combine(jnp.concatenate([heard, moved], axis=-1)))

  def reason(
    self,
    nodes: jnp.ndarray,
    features: dict[str, jnp.ndarray],
    size: tuple[int, int],
    train: bool = False,
    read: int | None = None,
  ) -> jnp.ndarray:
    """The decoder of STA (Eq. 12), or C-GCN (Eq. 14) and the read-out (Eq. 15) of STA+.

    Args:
      nodes: (b, n, h, w, c) of `fuse`, the target first.
      features: of `encode_frames` for the middle frames of the fragments, (b, n, …) or at least (b, read, …).
      size: (H, W) of the result.
      train: as of `__call__`.
      read: maps of how many nodes are wanted, from the first on; None for all.

    Returns:
      (b, n, H, W) float32 logits, or (b, read, H, W).
    """
    states = self.graph(nodes, read) if self.plus else nodes[:, :read]
    n = states.shape[1]
    states = rearrange(states, "b n h w c -> (b n) h w c")
    features = {name: rearrange(x[:, :n], "b n h w c -> (b n) h w c") for name, x in features.items()}
    logits = self._read_out(states, features["s"], train) if self.plus else self._decode(states, features, train)
    maps = _upsample(logits.astype(jnp.float32), size)
    return rearrange(maps[..., 0], "(b n) H W -> b n H W", n=n)

  def _decode(self, fused: jnp.ndarray, features: dict[str, jnp.ndarray], train: bool) -> jnp.ndarray:
    """Eq. 12 up to one logit (m, h, w, 1) at the scale of F3: one channel can be made before the last ↑ as after."""
    x = fused
    for stage in ("f5", "f4", "f3"):
      x = _upsample(x, features[stage].shape[1:3])
      x = self.decode[stage](jnp.concatenate([features[stage], x], axis=-1), train)
    return self.readout(x)

  def _read_out(self, states: jnp.ndarray, spatial: jnp.ndarray, train: bool) -> jnp.ndarray:
    """Eq. 15 up to one logit (m, h, w, 1) at the scale of `s`.

    Ref_1 and ↑ are both linear, and ↑ keeps constants, so that their order does not matter: this way 32 channels at
    full size are never made.
    """
    both = jnp.concatenate([states.astype(spatial.dtype), spatial], axis=-1)
    return self.ref_1(self.ref_32(both, train))

  def __call__(
    self,
    frames: jnp.ndarray | None = None,
    sound: jnp.ndarray | None = None,
    switch: jnp.ndarray | None = None,
    train: bool = False,
    stages: dict[str, jnp.ndarray] | None = None,
    size: tuple[int, int] | None = None,
    audio: jnp.ndarray | None = None,
  ) -> jnp.ndarray:
    """
    Args:
      frames: (b, n, 3, H, W, 3) in [0, 1].
      sound: (b, n, 257, s).
      switch: (b, n).
      train: whether batch statistics are computed and updated.
      stages: of `backbone`, in place of the frames: {"f5": (b, n, 3, h, w, c)} and, of STA's middle frames,
        {"f3": (b, n, 1, …), "f4": (b, n, 1, …)}. Then `visual` is not needed, but `size`. With "s" (b, n, 3, h, w, c)
        among them the neck is not needed either, and "f5" only of STA's middle frames.
      size: (H, W) of the result; the frames' where there are any.
      audio: (b, n, d) of `encode_sound`, in place of the sound.

    Returns:
      (b, n, H, W) float32 logits.
    """
    if stages is None:
      size = frames.shape[3:5]
      flat = self.backbone(rearrange(frames, "b n t H W rgb -> (b n t) H W rgb"), train, self.needed)
      b, n = frames.shape[:2]
      stages = {name: rearrange(x, "(b n t) h w c -> b n t h w c", b=b, n=n) for name, x in flat.items()}
    stages = dict(stages)
    if "s" in stages:
      spatial = stages.pop("s")
    else:
      b, n = stages["f5"].shape[:2]
      spatial = self.neck(rearrange(stages["f5"], "b n t h w c -> (b n t) h w c"), self._trains("neck", train))
      spatial = rearrange(spatial, "(b n t) h w c -> b n t h w c", b=b, n=n)
    n, t = spatial.shape[1:3]
    spatial = rearrange(spatial, "b n t h w c -> (b n) t h w c")
    if audio is None:
      audio = self.encode_sound(rearrange(sound, "b n f s -> (b n) f s"), train)
    else:
      audio = rearrange(audio, "b n d -> (b n) d")
    fused = self.fuse({"s": spatial}, audio, rearrange(switch, "b n -> (b n)"))
    nodes = rearrange(fused, "(b n) h w c -> b n h w c", n=n)
    middle = {name: rearrange(x[:, :, x.shape[2] // 2], "b n h w c -> (b n) h w c") for name, x in stages.items()}
    features = {"s": spatial[:, t // 2], **self._refined(middle, train)}
    features = {name: rearrange(x, "(b n) h w c -> b n h w c", n=n) for name, x in features.items()}
    return self.reason(nodes, features, tuple(size), train)


def _upsample(x: jnp.ndarray, size: tuple[int, int]) -> jnp.ndarray:
  """Bilinear ↑ of (m, h, w, c) to (m, *size, c)."""
  return x if x.shape[1:3] == tuple(size) else jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "bilinear")
