"""Synthetic clips with known answers: sounding objects among silent rivals, and viewers who look at what sounds.

They are the project's embedded data, with which everything can be run and scored without any other data. They are hard
in the ways that the method addresses (see `categories`), and a rule fixes where viewers look (see `viewers`). Scores on
them are scores on synthetic clips only. Every function is pure: equal arguments give equal clips, in any order and
process.
"""

from dataclasses import dataclass

import numpy as np

from stajax.prepare.synthetic.categories import CATEGORIES
from stajax.prepare.synthetic.render import render
from stajax.prepare.synthetic.scene import Part, Scene, Settings, make_scene
from stajax.prepare.synthetic.timbre import make_track
from stajax.prepare.synthetic.viewers import Viewing, make_viewing

__all__ = [
  "CATEGORIES",
  "Part",
  "Scene",
  "Settings",
  "SyntheticClip",
  "Viewing",
  "draw_viewing",
  "make_clip",
  "make_scene",
]


@dataclass(frozen=True)
class SyntheticClip:
  """A rendered clip.

  Attributes:
    name: A name that is unique within its seed and can be used as a file name.
    tag: One of CATEGORIES.
    flags: Some of "foreign" and "repeat", and one of "rivals" and "no_rivals".
    rate: The frames per second.
    frames: (n, size, size, 3) uint8 RGB.
    samples: (round(seconds * 16000),) float32 mono at 16 kHz in [-1, 1].
  """

  name: str
  tag: str
  flags: tuple[str, ...]
  rate: float
  frames: np.ndarray
  samples: np.ndarray


def make_clip(seed: int, index: int, part: Part, settings: Settings) -> SyntheticClip:
  """Renders one clip.

  Raises:
    ValueError: `part` is neither "train" nor "heldout", or `seed` or `index` is negative.
  """
  scene = make_scene(seed, index, part, settings)
  plan = scene.plan
  flags = [flag for flag, value in (("foreign", plan.foreign), ("repeat", plan.repeat)) if value]
  flags.append("rivals" if plan.rivals else "no_rivals")
  return SyntheticClip(
    name=f"{part}_{index:05d}",
    tag=plan.category.tag,
    flags=tuple(flags),
    rate=settings.rate,
    frames=render(scene),
    samples=make_track(scene),
  )


def draw_viewing(seed: int, index: int, part: Part, settings: Settings) -> Viewing:
  """Draws the viewers of a held-out clip.

  Raises:
    ValueError: As for `make_clip`, or `part` is "train", because training clips have tags only.
  """
  if part != "heldout":
    raise ValueError(f"only clips of the part 'heldout' have viewers, not those of {part!r}")
  return make_viewing(make_scene(seed, index, part, settings))
