"""The fixation network STA: learns pseudo-fixations, needs no tag (paper §5.1, Fig. 7 d, Eqs. 11–12).

Same three parts and axes as `stajax.nets.classifier`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from stajax.nets.fusion import SoundMap, TemporalBranch, gate
from stajax.nets.layers import ConvBlock, Norm
from stajax.nets.sound import Pooling, ResNet18
from stajax.nets.visual import DEPTHS, NECK_DEPTH, VGG16, Neck

_REFINED = 32


class Student(nn.Module):
  """STA: three frames and a second of sound to one logit a pixel.

  Attributes: as of `stajax.nets.classifier.Classifier`.
  """

  num_categories: int
  width: float = 1.0
  norm: Norm = "none"
  depths: tuple[int, ...] = DEPTHS
  neck_depth: int = NECK_DEPTH
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
    self.neck = Neck(self.num_categories, self.width, self.neck_depth, self.norm, self.dtype)
    self.temporal = TemporalBranch(self.num_categories, self.dtype)
    self.sound = ResNet18(self.audio_width, self.audio_norm, self.audio_pooling, self.dtype)
    self.sound_map = SoundMap(self.num_categories, self.dtype)
    self.combine = nn.Conv(self.num_categories, (1, 1), dtype=self.dtype)
    self.refine = {
      stage: ConvBlock(_REFINED, (1, 1), norm=self.norm, dtype=self.dtype) for stage in ("f3", "f4", "f5")
    }
    self.decode = {stage: ConvBlock(_REFINED, norm=self.norm, dtype=self.dtype) for stage in ("f3", "f4", "f5")}
    self.readout = nn.Conv(1, (1, 1), dtype=self.dtype)

  def encode_frames(self, frames: jnp.ndarray, train: bool = False) -> dict[str, jnp.ndarray]:
    """(m, H, W, 3) in [0, 1] to `s` (m, h, w, c) and Ref(F3), Ref(F4), Ref(F5) with 32 channels."""
    stages = self.visual(frames, self._trains("visual", train))
    refined = {name: block(getattr(stages, name), train) for name, block in self.refine.items()}
    return {"s": self.neck(stages.f5, self._trains("neck", train)), **refined}

  def encode_sound(self, sound: jnp.ndarray, train: bool = False) -> jnp.ndarray:
    """(m, 257, s) normalised log-spectrograms to (m, d)."""
    return self.sound(sound, self._trains("sound", train))

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
    self, fused: jnp.ndarray, features: dict[str, jnp.ndarray], size: tuple[int, int], train: bool = False
  ) -> jnp.ndarray:
    """Eq. 12, the decoder.

    Args:
      fused: (m, h, w, c) of `fuse`.
      features: Ref(F3), Ref(F4), Ref(F5) of the target frames, without a time axis.
      size: (H, W) of the result.

    Returns:
      (m, H, W) float32 logits.
    """
    x = fused
    for stage in ("f5", "f4", "f3"):
      x = _upsample(x, features[stage].shape[1:3])
      x = self.decode[stage](jnp.concatenate([features[stage], x], axis=-1), train)
    return _upsample(self.readout(x).astype(jnp.float32), size)[..., 0]

  def _trains(self, part: str, train: bool) -> bool:
    return train and part not in self.frozen

  def __call__(
    self, frames: jnp.ndarray, sound: jnp.ndarray, switch: jnp.ndarray, train: bool = False
  ) -> jnp.ndarray:
    """
    Args:
      frames: (b, n, 3, H, W, 3) in [0, 1].
      sound: (b, n, 257, s).
      switch: (b, n).
      train: whether batch statistics are computed and updated.

    Returns:
      (b, n, H, W) float32 logits.
    """
    b, n, t, *size = frames.shape[:5]
    features = self.encode_frames(rearrange(frames, "b n t H W rgb -> (b n t) H W rgb"), train)
    features = {name: rearrange(x, "(m t) h w c -> m t h w c", t=t) for name, x in features.items()}
    audio = self.encode_sound(rearrange(sound, "b n f s -> (b n) f s"), train)
    fused = self.fuse(features, audio, rearrange(switch, "b n -> (b n)"))
    targets = {name: x[:, t // 2] for name, x in features.items()}
    return rearrange(self.reason(fused, targets, tuple(size), train), "(b n) H W -> b n H W", b=b, n=n)


def _upsample(x: jnp.ndarray, size: tuple[int, int]) -> jnp.ndarray:
  """Bilinear ↑ of (m, h, w, c) to (m, *size, c)."""
  return x if x.shape[1:3] == tuple(size) else jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "bilinear")
