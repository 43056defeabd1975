"""What the networks of the method have in common: their sizes, their backbones, and what their users may ask of them.

Axes: b batch, n nodes, t frames of a fragment, m merged batch, H W input, h w map, c categories, d audio features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from stajax.nets.audio import Pooling, ResNet18
from stajax.nets.efficientnet import EfficientNetLite0
from stajax.nets.graph import (
  BLOCK,
  DISCARD_THRESHOLD,
  REFINEMENT_RATE,
  STEPS,
  ConservativeGCN,
  fixation_refine,
)
from stajax.nets.layers import Norm
from stajax.nets.visual import DEPTHS, NECK_DEPTH, VGG16, Neck
from stajax.nets.yamnet import YAMNet

Encoder = Literal["vgg16", "efficientnet_lite0"]
"""The visual backbones that there are."""
Backbone = VGG16 | EfficientNetLite0
AudioEncoder = Literal["resnet18", "yamnet"]
"""The audio backbones that there are."""


@dataclass(frozen=True)
class NetworkSizes:
  """The sizes that all networks of a model share. The defaults are the paper's.

  Attributes:
    encoder: The visual backbone. `efficientnet_lite0` has one width, one depth and no normalisation of its own.
    width: A factor for the channels of the visual backbone and of the neck.
    norm: The normalisation in the visual backbone.
    head_norm: The normalisation after the visual backbone; None for the same one.
    depths: The number of convolutions in each stage of the visual backbone.
    neck_depth: The number of 3×3 convolutions in the neck.
    neck_width: One more factor for the channels of the neck.
    audio_encoder: The audio backbone. `yamnet` has one width, no normalisation of its own and average pooling, whatever
      the next three say.
    audio_width: A factor for the channels of ResNet-18.
    audio_norm: The normalisation in ResNet-18.
    audio_pooling: How ResNet-18 pools its features to a vector.
    reasoning_steps: m, the number of steps of the C-GCN; no parameter depends on it.
    discard_threshold: T_d of the fixation refine layer; no parameter depends on it.
    refinement_rate: T_r of the fixation refine layer; no parameter depends on it.
    fine_read_out: Whether STA+ reads its maps out by the decoder of STA instead of Eq. 15.
    begin_with_sound: Whether a new student begins with what the sound adds; no parameter's shape depends on it.
    attention_block: How many positions the C-GCN attends from at a time; no parameter depends on it.
    dtype: The type that convolutions compute in; parameters, pooling and logits are float32.
    int8: Whether the visual backbone and the neck convolve in 8-bit integers, by parameters of `stajax.nets.quantised`;
      for inference.
  """

  encoder: Encoder = "vgg16"
  width: float = 1.0
  norm: Norm = "none"
  head_norm: Norm | None = None
  depths: tuple[int, ...] = DEPTHS
  neck_depth: int = NECK_DEPTH
  neck_width: float = 1.0
  audio_encoder: AudioEncoder = "resnet18"
  audio_width: float = 1.0
  audio_norm: Norm = "batch"
  audio_pooling: Pooling = "netvlad"
  reasoning_steps: int = STEPS
  discard_threshold: float = DISCARD_THRESHOLD
  refinement_rate: float = REFINEMENT_RATE
  attention_block: int = BLOCK
  fine_read_out: bool = False
  begin_with_sound: bool = False
  dtype: Any = jnp.float32
  int8: bool = False

  @property
  def head(self) -> dict[str, Any]:
    """The normalisation and the type of the convolutions after the visual backbone, by the names of their arguments."""
    return {"norm": self.head_norm or self.norm, "dtype": self.dtype}

  def make_visual(self) -> Backbone:
    """Builds the visual backbone."""
    if self.encoder == "efficientnet_lite0":
      return EfficientNetLite0(self.dtype, self.int8)
    return VGG16(self.width, self.depths, self.norm, self.dtype, self.int8)

  def make_sound(self) -> ResNet18 | YAMNet:
    """Builds the audio backbone."""
    if self.audio_encoder == "yamnet":
      return YAMNet(self.dtype)
    return ResNet18(self.audio_width, self.audio_norm, self.audio_pooling, self.dtype)


class Network(Protocol):
  """What training, dense inference and planning need from a network; every module of the method has it.

  A network is called with those of `frames`, `sound` and `switch` that it takes, or with the `stages` of its backbone
  in place of the frames. `apply`, `init` and `lazy_init` are Flax's.

  Attributes:
    sizes: The sizes of its layers.
    num_nodes: The number of fragments in a group.
    num_times: The number of frames in a fragment; 0 where the network sees none.
    hears: Whether the network takes sound.
    backbone_stages: The names of the stages of the visual backbone that the network reads.
    frame_parts: The top-level parts of its variables that `encode_frames` reads: where they are equal, so are its
      results.
    predicts_maps: Whether the network gives fixation maps instead of a classification. Its `reason` then also takes the
      features of the frames and the size of the maps, and a call with stages takes the size.
    output_nodes: The node of the group that each output is for.
  """

  @property
  def sizes(self) -> NetworkSizes: ...
  @property
  def num_nodes(self) -> int: ...
  @property
  def num_times(self) -> int: ...
  @property
  def hears(self) -> bool: ...
  @property
  def backbone_stages(self) -> tuple[str, ...]: ...
  @property
  def frame_parts(self) -> tuple[str, ...]: ...
  @property
  def predicts_maps(self) -> bool: ...
  @property
  def output_nodes(self) -> tuple[int, ...]: ...

  def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any: ...
  def init(self, rngs: jax.Array, *args: Any, **kwargs: Any) -> Any: ...
  def lazy_init(self, rngs: jax.Array, *args: Any, **kwargs: Any) -> Any: ...


class AudioVisualModule(nn.Module, kw_only=True):
  """The backbones and the neck of a network that sees, hears, or does both.

  Attributes:
    num_categories: c of the spatial map and of what is fused with it.
    sizes: The sizes of the layers.
    frl: Whether the network has the fixation refine layers that it can have, which have no parameters. None for what
      is usual: only the C-GCN of a network with companions has them.
    frozen: Top-level parts such as `visual` whose batch statistics stay as they are in training.
  """

  num_categories: int
  sizes: NetworkSizes = NetworkSizes()
  frl: bool | None = None
  frozen: tuple[str, ...] = ()

  @property
  def num_nodes(self) -> int:
    """The number of fragments in a group."""
    return 1

  @property
  def num_times(self) -> int:
    """The number of frames in a fragment; 0 where the network sees none."""
    return 1

  @property
  def hears(self) -> bool:
    """Whether the network takes sound."""
    return True

  @property
  def backbone_stages(self) -> tuple[str, ...]:
    """The names of the stages of the visual backbone that the network reads."""
    return ("f5",)

  @property
  def frame_parts(self) -> tuple[str, ...]:
    """The top-level parts of its variables that `encode_frames` reads."""
    return ("visual", "neck")

  @property
  def predicts_maps(self) -> bool:
    """Whether the network gives fixation maps instead of a classification."""
    return False

  @property
  def output_nodes(self) -> tuple[int, ...]:
    """The node of the group that each output is for."""
    return (0,)

  @property
  def has_frl(self) -> bool:
    """Whether the network has the fixation refine layers that it can have."""
    return self.num_nodes > 1 if self.frl is None else self.frl

  def setup(self) -> None:
    sizes = self.sizes
    if self.num_times:
      self.visual = sizes.make_visual()
      width = sizes.width * sizes.neck_width
      self.neck = Neck(self.num_categories, width, sizes.neck_depth, **sizes.head, int8=sizes.int8)
    if self.hears:
      self.sound = sizes.make_sound()

  def make_graph(self, features: int, floor: float = 0.0) -> ConservativeGCN:
    """Builds the C-GCN for states of so many features, to all of which `floor` has been added."""
    sizes = self.sizes
    return ConservativeGCN(
      features,
      sizes.reasoning_steps,
      self.has_frl,
      sizes.attention_block,
      sizes.dtype,
      sizes.discard_threshold,
      sizes.refinement_rate,
      floor,
    )

  def refine_fixations(self, states: jax.Array) -> jax.Array:
    """Applies a fixation refine layer (Eqs. 9 and 10) to states (…, h·w, c) float32."""
    return fixation_refine(states, self.sizes.discard_threshold, self.sizes.refinement_rate)

  def backbone(self, frames: jax.Array, train: bool = False, keep: Sequence[str] | None = None) -> dict[str, jax.Array]:
    """Computes the part of the network that networks with the same visual backbone share.

    Args:
      frames: (m, H, W, 3) in [0, 1].
      train: Whether batch statistics are computed and updated.
      keep: The names of the stages that are returned; None for those that the network reads.

    Returns:
      The stages by name, "f5" being (m, h, w, 512·width).
    """
    stages = self.visual(frames, self._trains("visual", train))
    return {name: getattr(stages, name) for name in (self.backbone_stages if keep is None else keep)}

  def grouped_backbone(self, frames: jax.Array, train: bool = False) -> dict[str, jax.Array]:
    """Computes the stages (b, n, t, h, w, …) of frames (b, n, t, H, W, 3)."""
    b, n = frames.shape[:2]
    stages = self.backbone(rearrange(frames, "b n t H W rgb -> (b n t) H W rgb"), train)
    return {name: rearrange(x, "(b n t) h w c -> b n t h w c", b=b, n=n) for name, x in stages.items()}

  def encode_sound(self, sound: jax.Array, train: bool = False) -> jax.Array:
    """Encodes normalised log-spectrograms (m, 257, s) to (m, d)."""
    return self.sound(sound, self._trains("sound", train))

  def _trains(self, part: str, train: bool) -> bool:
    """Returns whether a top-level part computes and updates its batch statistics."""
    return train and part not in self.frozen
