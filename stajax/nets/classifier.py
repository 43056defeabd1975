"""The classifiers S, ST and SA: one module whose `source` says which inputs it sees (paper §3.3, Fig. 7 a–c).

Three pure parts: `encode_*` works on one frame or one second of sound, `fuse` on one fragment, `reason` on one group.
`__call__` composes them for training; dense inference composes them so that every frame is encoded once.

Axes: b batch, n nodes, t frames of a fragment, m merged batch, H W input, h w map, c categories, d audio features.
"""

from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange

from stajax.nets.fusion import SoundMap, TemporalBranch, fuse_source
from stajax.nets.layers import Norm
from stajax.nets.sound import Pooling, ResNet18
from stajax.nets.visual import DEPTHS, NECK_DEPTH, VGG16, Neck

Source = Literal["s", "st", "sa"]


class Classification(NamedTuple):
  """`class_maps` (b, h, w, c): channel i is the CAM of category i; `logits` (b, c): their mean and a bias; float32."""

  class_maps: jnp.ndarray
  logits: jnp.ndarray


class Classifier(nn.Module):
  """S (frame), ST (three frames) or SA (frame and sound), with a 1×1 classifier and global average pooling.

  Attributes:
    source: `s`, `st` or `sa`.
    num_categories: c.
    width, norm, depths, neck_depth: of the visual backbone and neck.
    audio_width, audio_norm, audio_pooling: of the audio backbone (only `sa`).
    dtype: of the convolutions; parameters, pooling and logits are float32.
    frozen: top-level parts whose batch statistics stay as they are in training, such as `visual`.
  """

  source: Source
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
    return 3 if self.source == "st" else 1

  @property
  def hears(self) -> bool:
    return self.source == "sa"

  def setup(self) -> None:
    self.visual = VGG16(self.width, self.depths, self.norm, self.dtype)
    self.neck = Neck(self.num_categories, self.width, self.neck_depth, self.norm, self.dtype)
    if self.source == "st":
      self.temporal = TemporalBranch(self.num_categories, self.dtype)
    if self.source == "sa":
      self.sound = ResNet18(self.audio_width, self.audio_norm, self.audio_pooling, self.dtype)
      self.sound_map = SoundMap(self.num_categories, self.dtype)
    # The classifier's bias is added after pooling: the logits are the same, and a class map is 0 where it sees
    # nothing for or against its category, as in the original CAM.
    self.classify = nn.Conv(self.num_categories, (1, 1), use_bias=False, dtype=self.dtype)
    self.bias = self.param("bias", nn.initializers.zeros, (self.num_categories,), jnp.float32)

  def encode_frames(self, frames: jnp.ndarray, train: bool = False) -> dict[str, jnp.ndarray]:
    """(m, H, W, 3) in [0, 1] to {"s": (m, h, w, c)}."""
    return {"s": self.neck(self.visual(frames, self._trains("visual", train)).f5, self._trains("neck", train))}

  def encode_sound(self, sound: jnp.ndarray, train: bool = False) -> jnp.ndarray:
    """(m, 257, s) normalised log-spectrograms to (m, d)."""
    return self.sound(sound, self._trains("sound", train))

  def fuse(
    self,
    features: dict[str, jnp.ndarray],
    audio: jnp.ndarray | None = None,
    switch: jnp.ndarray | None = None,
  ) -> jnp.ndarray:
    """The class maps of fragments.

    Args:
      features: of `encode_frames`, with a time axis: {"s": (m, t, h, w, c)}.
      audio: (m, d), for `sa`.
      switch: (m,), for `sa`.

    Returns:
      (m, h, w, c) float32.
    """
    spatial = features["s"][:, self.num_times // 2]
    match self.source:
      case "st":
        fused = fuse_source(spatial, self.temporal(features["s"]))
      case "sa":
        fused = fuse_source(spatial, self.sound_map(audio, switch, spatial.shape[1:3]))
      case _:
        fused = spatial
    return self.classify(fused).astype(jnp.float32)

  def reason(self, nodes: jnp.ndarray) -> Classification:
    """(b, n, h, w, c) class maps of a group's fragments to the target's classification."""
    target = nodes[:, 0]
    return Classification(target, jnp.mean(target, axis=(1, 2)) + self.bias)

  def _trains(self, part: str, train: bool) -> bool:
    return train and part not in self.frozen

  def __call__(
    self,
    frames: jnp.ndarray,
    sound: jnp.ndarray | None = None,
    switch: jnp.ndarray | None = None,
    train: bool = False,
  ) -> Classification:
    """
    Args:
      frames: (b, n, t, H, W, 3) in [0, 1].
      sound: (b, n, 257, s), for `sa`.
      switch: (b, n), for `sa`.
      train: whether batch statistics are computed and updated.
    """
    b, n, t = frames.shape[:3]
    features = self.encode_frames(rearrange(frames, "b n t H W rgb -> (b n t) H W rgb"), train)
    features = {name: rearrange(x, "(m t) h w c -> m t h w c", t=t) for name, x in features.items()}
    audio = switches = None
    if self.hears:
      audio = self.encode_sound(rearrange(sound, "b n f s -> (b n) f s"), train)
      switches = rearrange(switch, "b n -> (b n)")
    nodes = self.fuse(features, audio, switches)
    return self.reason(rearrange(nodes, "(b n) h w c -> b n h w c", b=b, n=n))
