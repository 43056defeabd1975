"""Clips as a model sees and hears them when a sense is taken away or given another video's sound.

A changed clip shares the encoded frames of the clip that it was made of; only sound is encoded anew.
"""

from dataclasses import dataclass, replace

import numpy as np

from stajax.inference.clip import Clip, Sample
from stajax.senses import OWN, Senses


@dataclass(frozen=True)
class Condition:
  """How maps are computed of a clip.

  Attributes:
    senses: What the networks are shown of it.
    always_heard: Whether the audio switch is forced to 1.
  """

  senses: Senses = OWN
  always_heard: bool = False


USUAL, ALWAYS_HEARD = Condition(), Condition(always_heard=True)


def apply(senses: Senses, clip: Clip) -> Clip:
  """Returns the clip as it is shown; its audio switch is on wherever there is sound.

  A sample without sound stays silent. For another sound the clip needs `Clip.other_sound`, unless it is silent.
  Companions are not the clip's but are chosen in `same_sample_groups`.
  """
  changed = replace(clip, is_still=clip.is_still or senses.motion == "none")
  if senses.sound != "own":
    changed = replace(changed, samples=_change_sound(senses, clip), sound=senses.sound)
  return changed.with_all_heard()


def _change_sound(senses: Senses, clip: Clip) -> list[Sample]:
  if senses.sound == "none" or not clip.has_sound.any():
    return [(frame, None) for frame, _ in clip.samples]
  return [
    (frame, None if own is None else other) for (frame, own), other in zip(clip.samples, clip.other_sound, strict=True)
  ]


def same_sample_groups(clip: Clip, num_nodes: int) -> np.ndarray:
  """Returns groups (n, num_nodes) of the clip's targets in which every companion is the target itself."""
  return np.asarray(clip.targets)[:, None].repeat(num_nodes, axis=1)
