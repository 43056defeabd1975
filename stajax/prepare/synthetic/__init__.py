"""Synthetic clips with known answers: sounding objects among silent distractors, and viewers who look at them.

The embedded default of the project: everything can be run and judged with it where there is nothing else. It is hard in
the ways that the method is about (see `categories`), where viewers look is fixed by rule (see `viewers`), and scores on
it are scores on synthetic clips. Every function is pure: equal arguments give equal clips, in any order and process.
"""

from dataclasses import dataclass

import numpy as np

from stajax.prepare.synthetic.categories import CATEGORIES
from stajax.prepare.synthetic.render import render
from stajax.prepare.synthetic.scene import Part, Scene, Settings, make_scene
from stajax.prepare.synthetic.timbre import make_track
from stajax.prepare.synthetic.viewers import Viewing, make_viewing, true_density

__all__ = [
  "CATEGORIES",
  "Part",
  "Scene",
  "Settings",
  "SyntheticClip",
  "Viewing",
  "make_clip",
  "make_scene",
  "true_density",
  "view",
]


@dataclass(frozen=True)
class SyntheticClip:
  """A rendered clip.

  name: unique within its seed, and usable as a file name.
  tag: one of CATEGORIES.
  flags: subset of ("foreign", "repeat").
  rate: frames a second.
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
  flags = [flag for flag, value in (("foreign", scene.plan.foreign), ("repeat", scene.plan.repeat)) if value]
  return SyntheticClip(
    name=f"{part}_{index:05d}",
    tag=scene.plan.category.tag,
    flags=tuple(flags),
    rate=settings.rate,
    frames=render(scene),
    samples=make_track(scene),
  )


def view(seed: int, index: int, part: Part, settings: Settings) -> Viewing:
  """The sampled viewers of a held-out clip.

  Raises:
    ValueError: as `make_clip`, and where `part` is "train": training clips carry tags only.
  """
  if part != "heldout":
    raise ValueError(f"only clips of the part 'heldout' have viewers, not those of {part!r}")
  return make_viewing(make_scene(seed, index, part, settings))
