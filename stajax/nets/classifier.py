"""The classifiers S, ST and SA, and S+, ST+ and SA+: one module whose `source` says which inputs it sees, and `plus`
whether it reasons over companions (paper §3.3, §4.3, Fig. 7 a–c and e–g).

Three pure parts: `encode_*` works on one frame or one second of sound, `fuse` on one fragment, `reason` on one group.
`__call__` composes them for training; dense inference composes them so that every frame is encoded once.

Axes: b batch, n nodes, t frames of a fragment, m merged batch, H W input, h w map, c categories, d audio features.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange

from stajax.nets.audio import Pooling, ResNet18
from stajax.nets.fusion import SoundMap, TemporalBranch, fuse_source
from stajax.nets.graph import BLOCK, STEPS, ConservativeGCN, fixation_refine
from stajax.nets.layers import Norm
from stajax.nets.visual import DEPTHS, NECK_DEPTH, VGG16, Neck

Source = Literal["s", "st", "sa"]


_FLOOR = 3.0
"""What is added to class maps before the C-GCN, and subtracted after it. Eq. 7 weakens what companions do not confirm,
which of a negative value makes a larger one: what speaks most against a category would end as what is least against it.
"""
_CONFIRMED = 1.45
"""About what Eqs. 7 and 10 take of a state that its companions confirm, as its inverse (measured on new networks)."""


def _scaled_identity(gain: float) -> nn.initializers.Initializer:
  """A 1×1 kernel (1, 1, c, c) that multiplies by `gain`."""
  return lambda key, shape, dtype=jnp.float32: gain * jnp.eye(shape[-1], dtype=dtype).reshape(shape)


class Classification(NamedTuple):
  """What a group's target is classified as; float32.

  Attributes:
    class_maps: (b, h, w, c), channel i is the CAM of category i; None of a network that sees nothing.
    logits: (b, c), their mean and a bias.
    branch_logits: (b, n, c) of every node before reasoning; without reasoning (b, 1, c), the logits.
  """

  class_maps: jnp.ndarray | None
  logits: jnp.ndarray
  branch_logits: jnp.ndarray


class Classifier(nn.Module):
  """S (frame), ST (three frames) or SA (frame and sound), with a 1×1 classifier and global average pooling.

  With `plus` S+, ST+ or SA+: its parameters are its branch's, under the same names, and those of the reasoning.

  Attributes:
    source: `s`, `st` or `sa`.
    num_categories: c of the spatial map and what is fused with it.
    plus: whether C-GCN reasons over the class maps of three nodes, and a second 1×1 classifier ends it.
    num_outputs: c of class maps and logits, None for `num_categories`; 1 makes `sa` the audio switch's network.
    frl, steps, block: of C-GCN; no parameter depends on them.
    refine_spatial: whether the spatial map of a plain `s` goes through an FRL (the ablation's row 12).
    width, norm, depths, neck_depth, neck_width: of the visual backbone and neck.
    head_norm: normalisation after the backbone; None: as `norm`.
    audio_width, audio_norm, audio_pooling: of the audio backbone (only `sa`).
    dtype: of the convolutions; parameters, pooling and logits are float32.
    frozen: top-level parts whose batch statistics stay as they are in training, such as `visual`.
  """

  source: Source
  num_categories: int
  plus: bool = False
  num_outputs: int | None = None
  frl: bool = True
  steps: int = STEPS
  block: int = BLOCK
  refine_spatial: bool = False
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
  def num_nodes(self) -> int:
    """Fragments of a group."""
    return 3 if self.plus else 1

  @property
  def num_times(self) -> int:
    """Frames of a fragment."""
    return 3 if self.source == "st" else 1

  @property
  def hears(self) -> bool:
    return self.source == "sa"

  @property
  def needed(self) -> tuple[str, ...]:
    """Stages of the backbone that this network reads."""
    return ("f5",)

  def setup(self) -> None:
    self.visual = VGG16(self.width, self.depths, self.norm, self.dtype)
    head = {"norm": self.head_norm or self.norm, "dtype": self.dtype}
    self.neck = Neck(self.num_categories, self.width * self.neck_width, self.neck_depth, **head)
    if self.source == "st":
      self.temporal = TemporalBranch(self.num_categories, self.dtype)
    if self.source == "sa":
      self.sound = ResNet18(self.audio_width, self.audio_norm, self.audio_pooling, self.dtype)
      self.sound_map = SoundMap(self.num_categories, self.dtype)
    # The classifier's bias is added after pooling: the logits are the same, and a class map is 0 where it sees
    # nothing for or against its category, as in the original CAM.
    outputs = self.num_categories if self.num_outputs is None else self.num_outputs
    self.classify = nn.Conv(outputs, (1, 1), use_bias=False, dtype=self.dtype)
    self.bias = self.param("bias", nn.initializers.zeros, (outputs,), jnp.float32)
    if self.plus:
      self.graph = ConservativeGCN(outputs, self.steps, self.frl, self.block, self.dtype)
      # Begins as none: a new network says of what its companions confirm what its branch says.
      gain = _CONFIRMED ** (self.steps if self.frl else 0)
      self.conclude = nn.Conv(outputs, (1, 1), use_bias=False, dtype=self.dtype, kernel_init=_scaled_identity(gain))
      self.conclude_bias = self.param("conclude_bias", nn.initializers.zeros, (outputs,), jnp.float32)

  def encode_frames(self, frames: jnp.ndarray, train: bool = False) -> dict[str, jnp.ndarray]:
    """(m, H, W, 3) in [0, 1] to {"s": (m, h, w, c)}."""
    return self.embed(self.backbone(frames, train), train)

  def backbone(self, frames: jnp.ndarray, train: bool = False, keep: Sequence[str] = ("f5",)) -> dict[str, jnp.ndarray]:
    """(m, H, W, 3) in [0, 1] to the backbone's stages `keep`: the part that networks with a frozen backbone share.

    Of them, "f5" (m, h, w, 512·width) is what this network reads.
    """
    stages = self.visual(frames, self._trains("visual", train))
    return {name: getattr(stages, name) for name in keep}

  def embed(self, stages: dict[str, jnp.ndarray], train: bool = False) -> dict[str, jnp.ndarray]:
    """Of `backbone` to {"s": (m, h, w, c)}."""
    return {"s": self.neck(stages["f5"], self._trains("neck", train))}

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
        if self.refine_spatial:
          flat = rearrange(spatial.astype(jnp.float32), "m h w c -> m (h w) c")
          fused = fixation_refine(flat).reshape(spatial.shape)
    return self.classify(fused).astype(jnp.float32)

  def reason(self, nodes: jnp.ndarray) -> Classification:
    """(b, n, h, w, c) class maps of a group's fragments, the target first, to the target's classification."""
    if not self.plus:
      target = nodes[:, 0]
      logits = jnp.mean(target, axis=(1, 2)) + self.bias
      return Classification(target, logits, logits[:, None])
    target = self.conclude(self.graph(nodes + _FLOOR, read=1)[:, 0]).astype(jnp.float32) - _FLOOR
    logits = jnp.mean(target, axis=(1, 2)) + self.conclude_bias
    return Classification(target, logits, jnp.mean(nodes, axis=(2, 3)) + self.bias)

  def _trains(self, part: str, train: bool) -> bool:
    return train and part not in self.frozen

  def __call__(
    self,
    frames: jnp.ndarray | None = None,
    sound: jnp.ndarray | None = None,
    switch: jnp.ndarray | None = None,
    train: bool = False,
    stages: dict[str, jnp.ndarray] | None = None,
  ) -> Classification:
    """
    Args:
      frames: (b, n, t, H, W, 3) in [0, 1].
      sound: (b, n, 257, s), for `sa`.
      switch: (b, n), for `sa`.
      train: whether batch statistics are computed and updated.
      stages: {"f5": (b, n, t, h, w, 512·width)} of `backbone`, in place of the frames; then `visual` is not needed.
    """
    if stages is None:
      flat = self.backbone(rearrange(frames, "b n t H W rgb -> (b n t) H W rgb"), train)
      stages = {"f5": rearrange(flat["f5"], "(b n t) h w c -> b n t h w c", b=frames.shape[0], n=frames.shape[1])}
    b, n, t = stages["f5"].shape[:3]
    features = self.embed({"f5": rearrange(stages["f5"], "b n t h w c -> (b n t) h w c")}, train)
    features = {"s": rearrange(features["s"], "(m t) h w c -> m t h w c", t=t)}
    audio = switches = None
    if self.hears:
      audio = self.encode_sound(rearrange(sound, "b n f s -> (b n) f s"), train)
      switches = rearrange(switch, "b n -> (b n)")
    nodes = self.fuse(features, audio, switches)
    return self.reason(rearrange(nodes, "(b n) h w c -> b n h w c", b=b, n=n))
