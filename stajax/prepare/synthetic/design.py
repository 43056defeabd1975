"""The appearance of an object: what its body and its distinctive part look like.

Lengths are fractions of the frame's side, (x, y) with x to the right and y down; angles are radians.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from stajax.prepare.synthetic.textures import HELDOUT_TEXTURES, OUTLINES, TRAIN_TEXTURES

T = TypeVar("T")

PART_DIAMETER = (0.085, 0.11)


@dataclass(frozen=True)
class Design:
  """The appearance of an object.

  Attributes:
    outline: The name of the body's outline.
    diameter: The diameter of the body.
    texture: The family of the body's texture.
    texture_scale: The size of the texture's features in body diameters.
    texture_seed: The seed of the texture.
    colours: (4, 3) RGB in [0, 1]: two colours of the body, the light and the dark colour of the part.
    part: A look, the plain part of a distractor, or None.
    part_diameter: The diameter of the part.
    part_offset: (2,) The vector from the body's centre to the part's centre, at angle 0 and scale 1.
    part_angle: The angle of the part's pattern.
  """

  outline: str
  diameter: float
  texture: str
  texture_scale: float
  texture_seed: int
  colours: np.ndarray
  part: str | None
  part_diameter: float
  part_offset: np.ndarray
  part_angle: float


def pick(rng: np.random.Generator, names: Iterable[T]) -> T:
  """Draws one of the names, all equally likely."""
  choices = list(names)
  return choices[rng.integers(len(choices))]


def draw_colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> np.ndarray:
  """Draws a colour of any hue, (3,) RGB in [0, 1]."""
  hue, s, v = rng.uniform(0, 6), rng.uniform(*saturation), rng.uniform(*value)
  distance = np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3)
  return v * (1 - s + s * np.clip(distance - 1, 0, 1))


def draw_design(rng: np.random.Generator, part: str, look: str | None, diameter: tuple[float, float]) -> Design:
  """Draws the appearance of an object.

  Args:
    rng: The random numbers.
    part: The part of the clips, `train` or `heldout`, which have different textures.
    look: The pattern of its distinctive part; None for an object without one.
    diameter: The range of the body's diameter.
  """
  outline = pick(rng, OUTLINES)
  across = rng.uniform(*diameter)
  direction = rng.uniform(0, 2 * np.pi)
  rim = 0.5 * across * OUTLINES[outline](np.array([direction]))[0]
  return Design(
    outline=outline,
    diameter=across,
    texture=pick(rng, TRAIN_TEXTURES if part == "train" else HELDOUT_TEXTURES),
    texture_scale=rng.uniform(0.25, 0.6),
    texture_seed=int(rng.integers(2**31)),
    colours=np.stack(
      [
        draw_colour(rng, (0.2, 0.9), (0.3, 0.8)),
        draw_colour(rng, (0.2, 0.9), (0.3, 0.8)),
        draw_colour(rng, (0.0, 0.35), (0.92, 1.0)),
        draw_colour(rng, (0.3, 1.0), (0.05, 0.2)),
      ]
    ),
    part=look,
    part_diameter=rng.uniform(*PART_DIAMETER),
    part_offset=rng.uniform(0.75, 1.0) * rim * np.array([np.cos(direction), np.sin(direction)]),
    part_angle=rng.uniform(0, 2 * np.pi),
  )
