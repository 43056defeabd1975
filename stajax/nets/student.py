"""The fixation networks STA and STA+: they learn pseudo-fixations and need no tag (paper §5, Fig. 7 d and h).

They have the same three parts as `stajax.nets.classifier`, and the axes have the same names.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from stajax.nets.base import AudioVisualModule
from stajax.nets.fusion import SoundMap, TemporalBranch, gate
from stajax.nets.layers import ConvBlock

_REFINED = 32
_MOVED = 0.8
"""The share of the gated copy for motion that a student which begins with sound takes from the one for sound."""
_RARE = nn.initializers.constant(-3.0)
"""The last bias of a new network: it predicts that some 5% of a frame's pixels are fixated, as in the data."""


class FixationModule(AudioVisualModule):
  """What STA, STA+ and all students as one network have in common: they see three frames and hear, and predict maps."""

  @property
  def num_times(self) -> int:
    return 3

  @property
  def backbone_stages(self) -> tuple[str, ...]:
    return ("f3", "f4", "f5")

  @property
  def predicts_maps(self) -> bool:
    return True

  @property
  def output_nodes(self) -> tuple[int, ...]:
    return tuple(range(self.num_nodes))


class Student(FixationModule):
  """STA: maps three frames and a second of sound to one logit for each pixel (Eqs. 11, 12).

  With `plus` it is STA+: it takes three such fragments, and has the C-GCN and a read-out of every node in place of the
  decoder (Eqs. 14, 15). What it shares with STA, which is all but the decoder, has the same names. With
  `sizes.fine_read_out` it keeps STA's decoder instead of Eq. 15, and so the finer features F3 and F4.

  Attributes:
    plus: Whether it is STA+.
  """

  plus: bool = False

  @property
  def num_nodes(self) -> int:
    return 3 if self.plus else 1

  @property
  def decodes(self) -> bool:
    """Whether the network has the decoder of Eq. 12."""
    return not self.plus or self.sizes.fine_read_out

  @property
  def backbone_stages(self) -> tuple[str, ...]:
    return ("f3", "f4", "f5") if self.decodes else ("f5",)

  @property
  def frame_parts(self) -> tuple[str, ...]:
    refined = () if not self.decodes else tuple(f"refine_{stage}" for stage in self.backbone_stages)
    return (*super().frame_parts, *refined)

  def setup(self) -> None:
    super().setup()
    dtype, head = self.sizes.dtype, self.sizes.head
    self.temporal = TemporalBranch(self.num_categories, dtype)
    self.sound_map = SoundMap(self.num_categories, dtype)
    initial: dict[str, Any] = {"kernel_init": _difference} if self.sizes.begin_with_sound else {}
    self.combine = nn.Conv(self.num_categories, (1, 1), dtype=dtype, **initial)
    if self.plus:
      self.graph = self.make_graph(self.num_categories)
    if not self.decodes:
      self.ref_32 = ConvBlock(_REFINED, (1, 1), **head)
      self.ref_1 = nn.Conv(1, (1, 1), bias_init=_RARE, dtype=dtype)
    else:
      self.refine = {stage: ConvBlock(_REFINED, (1, 1), **head) for stage in ("f3", "f4", "f5")}
      self.decode = {stage: ConvBlock(_REFINED, **head) for stage in ("f3", "f4", "f5")}
      self.readout = nn.Conv(1, (1, 1), bias_init=_RARE, dtype=dtype)

  def encode_frames(self, frames: jax.Array, train: bool = False) -> dict[str, jax.Array]:
    """Encodes frames (m, H, W, 3) in [0, 1].

    Returns:
      The spatial map "s" (m, h, w, c) and, for the decoder, Ref(F3), Ref(F4), Ref(F5) of Eq. 12 with 32 channels, as
      "f3", "f4" and "f5".
    """
    return self.embed(self.backbone(frames, train), train)

  def embed(self, stages: dict[str, jax.Array], train: bool = False) -> dict[str, jax.Array]:
    """Returns what `encode_frames` returns from the stages that `backbone` returns."""
    return {"s": self.neck(stages["f5"], self._trains("neck", train)), **self._refined(stages, train)}

  def _refined(self, stages: dict[str, jax.Array], train: bool) -> dict[str, jax.Array]:
    """Applies Ref of Eq. 12 to every stage, where there is a decoder."""
    return {} if not self.decodes else {name: block(stages[name], train) for name, block in self.refine.items()}

  def fuse(self, features: dict[str, jax.Array], audio: jax.Array, switch: jax.Array) -> jax.Array:
    """Computes `sta` (m, h, w, c) of fragments, Eq. 11.

    Args:
      features: What `encode_frames` returns, with a time axis: {"s": (m, 3, h, w, c), …}.
      audio: (m, d).
      switch: (m,).
    """
    spatial = features["s"][:, self.num_times // 2]
    heard = gate(spatial, self.sound_map(audio, switch, spatial.shape[1:3]))
    moved = gate(spatial, self.temporal(features["s"]))
    return nn.relu(self.combine(jnp.concatenate([heard, moved], axis=-1)))

  def reason(
    self,
    nodes: jax.Array,
    features: dict[str, jax.Array],
    size: Sequence[int],
    train: bool = False,
    read: int | None = None,
  ) -> jax.Array:
    """Runs the C-GCN of STA+ (Eq. 14), and then the decoder (Eq. 12) or the read-out (Eq. 15).

    Args:
      nodes: (b, n, h, w, c), what `fuse` returns, the target first.
      features: What `encode_frames` returns for the middle frames of the fragments, (b, n, …) or at least (b, read, …).
      size: (H, W) of the result.
      train: Whether batch statistics are computed and updated.
      read: The number of nodes, from the first on, whose maps are wanted; None for all.

    Returns:
      (b, n, H, W) float32 logits, or (b, read, H, W).
    """
    states = self.graph(nodes, read) if self.plus else nodes[:, :read]
    n = states.shape[1]
    states = rearrange(states, "b n h w c -> (b n) h w c")
    features = {name: rearrange(x[:, :n], "b n h w c -> (b n) h w c") for name, x in features.items()}
    logits = self._decode(states, features, train) if self.decodes else self._read_out(states, features["s"], train)
    maps = _upsample(logits.astype(jnp.float32), size)
    return rearrange(maps[..., 0], "(b n) H W -> b n H W", n=n)

  def _decode(self, fused: jax.Array, features: dict[str, jax.Array], train: bool) -> jax.Array:
    """Computes Eq. 12 up to one logit (m, h, w, 1) at the scale of F3: the last ↑ may follow the 1×1 convolution."""
    x = fused
    for stage in ("f5", "f4", "f3"):
      x = _upsample(x, features[stage].shape[1:3])
      x = self.decode[stage](jnp.concatenate([features[stage], x], axis=-1), train)
    return self.readout(x)

  def _read_out(self, states: jax.Array, spatial: jax.Array, train: bool) -> jax.Array:
    """Computes Eq. 15 up to one logit (m, h, w, 1) at the scale of `s`.

    Ref_1 and ↑ are both linear, and ↑ keeps constants, so their order does not matter: in this order, 32 channels
    at full size are never made.
    """
    both = jnp.concatenate([states.astype(spatial.dtype), spatial], axis=-1)
    return self.ref_1(self.ref_32(both, train))

  def __call__(
    self,
    frames: jax.Array | None = None,
    sound: jax.Array | None = None,
    switch: jax.Array | None = None,
    train: bool = False,
    stages: dict[str, jax.Array] | None = None,
    size: Sequence[int] | None = None,
    audio: jax.Array | None = None,
  ) -> jax.Array:
    """Predicts the maps of all nodes of groups.

    Args:
      frames: (b, n, 3, H, W, 3) in [0, 1].
      sound: (b, n, 257, s).
      switch: (b, n).
      train: Whether batch statistics are computed and updated.
      stages: What `backbone` returns, in place of the frames: {"f5": (b, n, 3, h, w, c)} and, for the middle frames of
        STA, {"f3": (b, n, 1, …), "f4": (b, n, 1, …)}. Then the network does without `visual` and needs `size`. With "s"
        (b, n, 3, h, w, c) among them it does without the neck too, and needs "f5" of STA's middle frames only.
      size: (H, W) of the result; by default that of the frames.
      audio: (b, n, d), what `encode_sound` returns, in place of the sound.

    Returns:
      (b, n, H, W) float32 logits.
    """
    if stages is None:
      assert frames is not None
      stages, size = self.grouped_backbone(frames, train), frames.shape[3:5]
    assert size is not None and switch is not None
    spatial = stages["s"] if "s" in stages else self._spatial(stages["f5"], train)
    n, t = spatial.shape[1:3]
    spatial = rearrange(spatial, "b n t h w c -> (b n) t h w c")
    if audio is None:
      assert sound is not None
      audio = self.encode_sound(rearrange(sound, "b n f s -> (b n) f s"), train)
    else:
      audio = rearrange(audio, "b n d -> (b n) d")
    fused = self.fuse({"s": spatial}, audio, rearrange(switch, "b n -> (b n)"))
    nodes = rearrange(fused, "(b n) h w c -> b n h w c", n=n)
    middle = {
      name: rearrange(x[:, :, x.shape[2] // 2], "b n h w c -> (b n) h w c") for name, x in stages.items() if name != "s"
    }
    features = {"s": spatial[:, t // 2], **self._refined(middle, train)}
    features = {name: rearrange(x, "(b n) h w c -> b n h w c", n=n) for name, x in features.items()}
    return self.reason(nodes, features, size, train)

  def _spatial(self, f5: jax.Array, train: bool) -> jax.Array:
    """Applies the neck to (b, n, t, h, w, 512·width)."""
    b, n = f5.shape[:2]
    spatial = self.neck(rearrange(f5, "b n t h w c -> (b n t) h w c"), self._trains("neck", train))
    return rearrange(spatial, "(b n t) h w c -> b n t h w c", b=b, n=n)


def _difference(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
  """Returns a kernel (1, 1, 2c, c) that takes most of what moves from what is heard, category by category."""
  heard = jnp.eye(shape[-1], dtype=dtype)
  return jnp.concatenate([heard, -_MOVED * heard]).reshape(shape)


def _upsample(x: jax.Array, size: Sequence[int]) -> jax.Array:
  """Applies the bilinear ↑ to (m, h, w, c), which gives (m, *size, c)."""
  return x if x.shape[1:3] == tuple(size) else jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "bilinear")
