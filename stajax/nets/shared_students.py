"""The three students as one network: backbones and neck run once, and the parts after them three times.

The axes have the names of `stajax.nets.student`; n is 5: the target, its two short companions, its two long ones.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange

from stajax.nets.student import FixationModule, Student

NODES = {"sta": (0,), "sta_plus_short": (0, 1, 2), "sta_plus_long": (0, 3, 4)}
"""The nodes of a group that each student reads; its own parameters are in the top-level part of its name."""
COMMON = ("visual", "neck", "sound")
"""The top-level parts that all three read."""


class Students(FixationModule):
  """STA, STA+ short and STA+ long on one visual backbone with its neck and one audio backbone.

  Every frame of a group is encoded once.
  """

  @property
  def num_nodes(self) -> int:
    return 1 + max(max(nodes) for nodes in NODES.values())

  @property
  def output_nodes(self) -> tuple[int, ...]:
    return tuple(node for nodes in NODES.values() for node in nodes)

  def setup(self) -> None:
    super().setup()
    for name, nodes in NODES.items():
      student = Student(plus=len(nodes) > 1, num_categories=self.num_categories, sizes=self.sizes, frl=self.frl)
      setattr(self, name, student)

  def __call__(self, frames: jax.Array, sound: jax.Array, switch: jax.Array, train: bool = False) -> jax.Array:
    """Predicts the maps of all nodes that the students read.

    Args:
      frames: (b, n, 3, H, W, 3) in [0, 1].
      sound: (b, n, 257, s).
      switch: (b, n).
      train: Whether batch statistics are computed and updated.

    Returns:
      (b, 7, H, W) float32 logits: the maps of STA's node, of STA+ short's three, of STA+ long's three.
    """
    b, n, t = frames.shape[:3]
    flat = self.backbone(rearrange(frames, "b n t H W rgb -> (b n t) H W rgb"), train)
    flat["s"] = self.neck(flat["f5"], self._trains("neck", train))
    stages = {name: rearrange(x, "(b n t) h w c -> b n t h w c", b=b, n=n) for name, x in flat.items()}
    # Only motion needs more than a fragment's middle frame.
    stages = {name: x if name == "s" else x[:, :, t // 2, None] for name, x in stages.items()}
    audio = rearrange(self.encode_sound(rearrange(sound, "b n f s -> (b n) f s"), train), "(b n) d -> b n d", b=b)
    maps = []
    for name, nodes in NODES.items():
      student = getattr(self, name)
      needed = stages if student.decodes else ("s",)
      own = {stage: _take(stages[stage], nodes) for stage in needed}
      heard = {"switch": _take(switch, nodes), "audio": _take(audio, nodes)}
      maps.append(student(stages=own, size=frames.shape[3:5], train=self._trains(name, train), **heard))
    return jnp.concatenate(maps, axis=1)


def split(variables: Mapping[str, Any], student: str) -> dict[str, Any]:
  """Returns one student's variables, as `Student` has them, from those of `Students`."""
  return {
    collection: {**{part: parts[part] for part in COMMON if part in parts}, **parts.get(student, {})}
    for collection, parts in variables.items()
  }


def join(variables: Mapping[str, Any]) -> dict[str, Any]:
  """Returns one network's variables in the layout of `Students`: the common parts once, the others in each student."""
  joined = {}
  for collection, parts in variables.items():
    own = {part: x for part, x in parts.items() if part not in COMMON}
    joined[collection] = {part: x for part, x in parts.items() if part in COMMON} | dict.fromkeys(NODES, own)
  return joined


def _take(x: jax.Array, nodes: tuple[int, ...]) -> jax.Array:
  """Takes nodes of (b, n, …) by slices, as the gradient of a gather is a scatter, which is slow on accelerators."""
  return jnp.stack([x[:, node] for node in nodes], axis=1)
