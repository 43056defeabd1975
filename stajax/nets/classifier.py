"""The classifiers S, ST and SA, and S+, ST+ and SA+ (paper §3.3, §4.3, Fig. 7 a–c and e–g).

One module computes all six: its `source` says which inputs it takes, and `plus` whether it reasons over companions. It
has three pure parts: `encode_*` works on one frame or one second of sound, `fuse` on one fragment, `reason` on one
group. `__call__` composes them for training; dense inference composes them so that every frame is encoded once.

Axes: b batch, n nodes, t frames of a fragment, m merged batch, H W input, h w map, c categories, d audio features.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from stajax.nets.base import AudioVisualModule
from stajax.nets.fusion import SoundMap, TemporalBranch, fuse_source

Source = Literal["s", "st", "sa"]

_FLOOR = 3.0
"""What is added to class maps before the C-GCN and subtracted after it.

Eq. 7 weakens what companions do not confirm, and a weaker negative value is a larger one: without the floor, what
speaks most against a category would end as what speaks least against it.
"""
_LIFT = 4.0
"""What is added to the spatial map of ST and SA before it is gated, and subtracted from their class maps.

A spatial map that has learned categories is negative in most places. There the ReLU of §3.3 leaves 0 of the gated
copy, whatever the gate says, so that nothing is left of what is heard together with what is seen.
"""
_SWITCH_LIFT = 1.5
"""What is added to the spatial map of the switch, which is without that ReLU: with it, what speaks against a category
that is heard would be cut, and with it half of what the switch goes by."""
_SWITCH_GAIN = 2.0
"""What a new switch multiplies the sum over categories of heard times seen by, about what it learns on rendered clips.

All categories begin alike. Where each learns a factor of its own, training clips are told apart, but no others.
"""
_CONFIRMED = 1.45
"""About 1 over the share that Eqs. 7 and 10 leave of a state that its companions confirm, measured on new networks."""


def _scaled_identity(gain: float) -> nn.initializers.Initializer:
  """Initialises a 1×1 kernel (1, 1, k·c, c) that multiplies the mean of k maps with c channels each by `gain`."""

  def initialise(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    num_maps = shape[-2] // shape[-1]
    return gain / num_maps * jnp.tile(jnp.eye(shape[-1], dtype=dtype), (num_maps, 1)).reshape(shape)

  return initialise


def _gated_share(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
  """Initialises a 1×1 kernel (1, 1, 2c, k) that adds up the gated copy less the map itself, which is σ(a) ⊙ s."""
  signs = jnp.repeat(jnp.array([1, -1], dtype), shape[-2] // 2)
  return jnp.broadcast_to(signs[:, None] * _SWITCH_GAIN, shape)


class Classification(NamedTuple):
  """The classification of a group's target; all arrays are float32.

  Attributes:
    class_maps: (b, h, w, c), where channel i is the CAM of category i; None from a network that sees nothing.
    logits: (b, c), the mean of the class maps plus a bias.
    branch_logits: (b, n, c) of every node before reasoning, which learn the category as well; None without reasoning.
  """

  class_maps: jax.Array | None
  logits: jax.Array
  branch_logits: jax.Array | None


class Classifier(AudioVisualModule):
  """S (frame), ST (three frames) or SA (frame and sound), with a 1×1 classifier and global average pooling.

  With `plus` it is S+, ST+ or SA+: its parameters are those of its branch, under the same names, and those of the
  reasoning.

  Attributes:
    source: `s`, `st` or `sa`.
    plus: Whether the C-GCN reasons over the class maps of three nodes, and a second 1×1 classifier ends the network.
    num_outputs: c of class maps and logits, None for `num_categories`; 1 makes `sa` the audio switch's network.
  """

  source: Source
  plus: bool = False
  num_outputs: int | None = None

  @property
  def num_nodes(self) -> int:
    return 3 if self.plus else 1

  @property
  def num_times(self) -> int:
    return 3 if self.source == "st" else 1

  @property
  def hears(self) -> bool:
    return self.source == "sa"

  def setup(self) -> None:
    super().setup()
    dtype = self.sizes.dtype
    if self.source == "st":
      self.temporal = TemporalBranch(self.num_categories, dtype)
    if self.source == "sa":
      self.sound_map = SoundMap(self.num_categories, dtype)
    # The classifier's bias is added after pooling: the logits are the same, and a class map is 0 where it sees
    # nothing for or against its category, as in the original CAM.
    outputs = self.num_categories if self.num_outputs is None else self.num_outputs
    # Thus channel i of the spatial map comes to stand for category i, as that of the sound's map does. The switch asks
    # whether anything that is heard is seen.
    kernel = _scaled_identity(1.0) if self.num_outputs is None else _gated_share
    self.classify = nn.Conv(outputs, (1, 1), use_bias=False, dtype=dtype, kernel_init=kernel)
    self.bias = self.param("bias", nn.initializers.zeros, (outputs,), jnp.float32)
    if self.plus:
      self.graph = self.make_graph(outputs, _FLOOR)
      # Thus a new network says the same as its branch about whatever its companions confirm.
      gain = _CONFIRMED ** (self.sizes.reasoning_steps if self.has_frl else 0)
      self.conclude = nn.Conv(outputs, (1, 1), use_bias=False, dtype=dtype, kernel_init=_scaled_identity(gain))
      self.conclude_bias = self.param("conclude_bias", nn.initializers.zeros, (outputs,), jnp.float32)

  def encode_frames(self, frames: jax.Array, train: bool = False) -> dict[str, jax.Array]:
    """Encodes frames (m, H, W, 3) in [0, 1] to the spatial map {"s": (m, h, w, c)}."""
    return self.embed(self.backbone(frames, train), train)

  def embed(self, stages: dict[str, jax.Array], train: bool = False) -> dict[str, jax.Array]:
    """Returns the spatial map {"s": (m, h, w, c)} from the stages that `backbone` returns."""
    return {"s": self.neck(stages["f5"], self._trains("neck", train))}

  def fuse(
    self,
    features: dict[str, jax.Array],
    audio: jax.Array | None = None,
    switch: jax.Array | None = None,
  ) -> jax.Array:
    """Returns the class maps of fragments.

    Args:
      features: What `encode_frames` returns, with a time axis: {"s": (m, t, h, w, c)}.
      audio: (m, d), for `sa`.
      switch: (m,), for `sa`.

    Returns:
      (m, h, w, c) float32.
    """
    spatial = features["s"][:, self.num_times // 2]
    match self.source:
      case "st":
        gate = self.temporal(features["s"])
      case "sa":
        assert audio is not None and switch is not None
        gate = self.sound_map(audio, switch, spatial.shape[1:3])
      case "s":
        spatial = self._refined(spatial) if self.has_frl and not self.plus else spatial
        return self.classify(spatial).astype(jnp.float32)
    if self.num_outputs is not None:
      return self.classify(fuse_source(spatial + _SWITCH_LIFT, gate, rectify=False)).astype(jnp.float32)
    return self.classify(fuse_source(spatial + _LIFT, gate)).astype(jnp.float32) - _LIFT

  def _refined(self, spatial: jax.Array) -> jax.Array:
    """Applies an FRL to the spatial map of S, for row 12 of the ablation."""
    flat = rearrange(spatial.astype(jnp.float32), "m h w c -> m (h w) c")
    return rearrange(self.refine_fixations(flat), "m (h w) c -> m h w c", h=spatial.shape[1])

  def reason(self, nodes: jax.Array) -> Classification:
    """Classifies the target of a group from the class maps (b, n, h, w, c) of its fragments, the target first."""
    if not self.plus:
      target = nodes[:, 0]
      logits = jnp.mean(target, axis=(1, 2)) + self.bias
      return Classification(target, logits, None)
    target = self.conclude(self.graph(nodes + _FLOOR, read=1)[:, 0]).astype(jnp.float32) - _FLOOR
    logits = jnp.mean(target, axis=(1, 2)) + self.conclude_bias
    return Classification(target, logits, jnp.mean(nodes, axis=(2, 3)) + self.bias)

  def __call__(
    self,
    frames: jax.Array | None = None,
    sound: jax.Array | None = None,
    switch: jax.Array | None = None,
    train: bool = False,
    stages: dict[str, jax.Array] | None = None,
  ) -> Classification:
    """Classifies the targets of groups.

    Args:
      frames: (b, n, t, H, W, 3) in [0, 1].
      sound: (b, n, 257, s), for `sa`.
      switch: (b, n), for `sa`.
      train: Whether batch statistics are computed and updated.
      stages: {"f5": (b, n, t, h, w, 512·width)} from `backbone`, in place of the frames; then the network does without
        `visual`.
    """
    if stages is None:
      assert frames is not None
      stages = self.grouped_backbone(frames, train)
    b, n, t = stages["f5"].shape[:3]
    features = self.embed({"f5": rearrange(stages["f5"], "b n t h w c -> (b n t) h w c")}, train)
    features = {"s": rearrange(features["s"], "(m t) h w c -> m t h w c", t=t)}
    audio = switches = None
    if self.hears:
      assert sound is not None
      audio = self.encode_sound(rearrange(sound, "b n f s -> (b n) f s"), train)
      switches = rearrange(switch, "b n -> (b n)")
    nodes = self.fuse(features, audio, switches)
    return self.reason(rearrange(nodes, "(b n) h w c -> b n h w c", b=b, n=n))
