"""Procedural textures of bodies and backgrounds, outlines of bodies, and the patterns of the distinctive parts.

Textures are scalar fields in [0, 1] that later mix two colours. The held-out clips use other families than the training
clips. A texture reveals nothing about the tag; the pattern of the part is the look.
"""

from collections.abc import Callable, Sequence

import numpy as np

Texture = Callable[[np.random.Generator, int, int, float], np.ndarray]
"""Draws a texture (height, width) float64 in [0, 1] with random numbers, a height, a width and the size of features."""


def _upsample(values: np.ndarray, size: int) -> np.ndarray:
  """Interpolates the first axis linearly to `size` points."""
  position = np.linspace(0, values.shape[0] - 1, size)
  low = np.minimum(position.astype(int), values.shape[0] - 2)
  fraction = (position - low)[:, None]
  return values[low] * (1 - fraction) + values[low + 1] * fraction


def _stretch(field: np.ndarray) -> np.ndarray:
  low, high = field.min(), field.max()
  return (field - low) / max(high - low, 1e-9)


def _noise(rng: np.random.Generator, height: int, width: int, scale: float) -> np.ndarray:
  field = np.zeros((height, width))
  for octave in range(3):
    cell = scale / 2**octave
    grid = rng.random((int(height / cell) + 2, int(width / cell) + 2))
    field += _upsample(_upsample(grid, height).T, width).T / 2**octave
  return _stretch(field)


def _coordinates(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the pixel coordinates (height, width) along and across a random direction."""
  angle = rng.uniform(0, 2 * np.pi)
  y, x = np.arange(height)[:, None], np.arange(width)[None, :]
  return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def _stripes(rng: np.random.Generator, height: int, width: int, scale: float) -> np.ndarray:
  along, across = _coordinates(rng, height, width)
  bend = 0.8 * np.sin(across / (2 * scale) + rng.uniform(0, 2 * np.pi))
  return 0.5 + 0.5 * np.sin(2 * np.pi * along / scale + bend)


def _blobs(rng: np.random.Generator, height: int, width: int, scale: float) -> np.ndarray:
  count = int(1.5 * height * width / scale**2) + 3
  sigma = rng.uniform(0.25, 0.5, (count, 1)) * scale
  rows = np.exp(-0.5 * ((np.arange(height) - rng.uniform(0, height, (count, 1))) / sigma) ** 2)
  columns = np.exp(-0.5 * ((np.arange(width) - rng.uniform(0, width, (count, 1))) / sigma) ** 2)
  return np.minimum(rows.T @ columns, 1)


def _gradient(rng: np.random.Generator, height: int, width: int, scale: float) -> np.ndarray:
  along, _ = _coordinates(rng, height, width)
  return 0.8 * _stretch(along) + 0.2 * _noise(rng, height, width, 2 * scale)


def _cells(rng: np.random.Generator, height: int, width: int, scale: float) -> np.ndarray:
  count = min(int(height * width / scale**2) + 4, 48)
  rows = (np.arange(height)[None] - rng.uniform(0, height, (count, 1))) ** 2
  columns = (np.arange(width)[None] - rng.uniform(0, width, (count, 1))) ** 2
  nearest = np.argmin(rows[:, :, None] + columns[:, None, :], axis=0)
  return rng.random(count)[nearest]


def _weave(rng: np.random.Generator, height: int, width: int, scale: float) -> np.ndarray:
  along, across = _coordinates(rng, height, width)
  threads = np.tanh(3 * np.sin(2 * np.pi * along / scale)), np.tanh(3 * np.sin(2 * np.pi * across / scale))
  return 0.5 + 0.25 * threads[0] + 0.25 * threads[1]


def _ripples(rng: np.random.Generator, height: int, width: int, scale: float) -> np.ndarray:
  y, x = np.arange(height)[:, None], np.arange(width)[None, :]
  distance = np.hypot(x - rng.uniform(-0.5, 1.5) * width, y - rng.uniform(-0.5, 1.5) * height)
  return 0.5 + 0.5 * np.sin(2 * np.pi * distance / scale + rng.uniform(0, 2 * np.pi))


def _bricks(rng: np.random.Generator, height: int, width: int, scale: float) -> np.ndarray:
  along, across = _coordinates(rng, height, width)
  row = np.floor(across / (0.6 * scale))
  position = along / (1.4 * scale) + 0.5 * (row % 2)
  shade = rng.random((37, 41))[row.astype(int) % 37, np.floor(position).astype(int) % 41]
  joint = (across / (0.6 * scale) - row < 0.15) | (position - np.floor(position) < 0.08)
  return np.where(joint, 0, 0.4 + 0.6 * shade)


TRAIN_TEXTURES: dict[str, Texture] = {"noise": _noise, "stripes": _stripes, "blobs": _blobs, "gradient": _gradient}
HELDOUT_TEXTURES: dict[str, Texture] = {"cells": _cells, "weave": _weave, "ripples": _ripples, "bricks": _bricks}
TEXTURES: dict[str, Texture] = {**TRAIN_TEXTURES, **HELDOUT_TEXTURES}


def _polygon(sides: int) -> Callable[[np.ndarray], np.ndarray]:
  wedge = np.pi / sides
  # The constant gives every outline the area of the unit disc.
  area = np.sqrt(np.pi / (sides * np.tan(wedge)))
  return lambda angle: area / np.cos(np.mod(angle, 2 * wedge) - wedge)


# The distance of the rim from the centre in each direction, in mean radii.
OUTLINES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
  "disc": np.ones_like,
  "triangle": _polygon(3),
  "square": _polygon(4),
  "hexagon": _polygon(6),
  "flower": lambda angle: 1 + 0.14 * np.cos(5 * angle),
  "egg": lambda angle: 1 / np.sqrt((np.cos(angle) / 1.2) ** 2 + (np.sin(angle) * 1.2) ** 2),
  "bean": lambda angle: 1 + 0.15 * np.cos(angle) + 0.12 * np.sin(2 * angle),
}

_EDGE = 0.16  # the width of a soft edge in part radii, about one pixel in a frame of 128 pixels


def _soft(signed_distance: np.ndarray) -> np.ndarray:
  return np.clip(0.5 + signed_distance / _EDGE, 0, 1)


def _dots(x: np.ndarray, y: np.ndarray, places: Sequence[tuple[float, float]], radius: float) -> np.ndarray:
  return _soft(radius - np.min([np.hypot(x - px, y - py) for px, py in places], axis=0))


# The share of the light colour at (x, y) in the unit disc.
LOOKS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
  "cross": lambda x, y: _soft(0.25 - np.minimum(np.abs(x), np.abs(y))) * _soft(0.85 - np.maximum(np.abs(x), np.abs(y))),
  "ring": lambda x, y: _soft(0.22 - np.abs(np.hypot(x, y) - 0.64)),
  "quadrants": lambda x, y: (
    (0.5 + 0.5 * np.clip(x / 0.1, -1, 1) * np.clip(y / 0.1, -1, 1)) * _soft(0.9 - np.hypot(x, y))
  ),
  "bars": lambda x, y: _soft(0.23 - np.abs(np.abs(x) - 0.47)) * _soft(0.9 - np.hypot(x, y)),
  "trefoil": lambda x, y: _dots(x, y, [(0.55, 0.0), (-0.275, 0.476), (-0.275, -0.476)], 0.33),
  "halves": lambda x, y: _soft(x) * _soft(0.9 - np.hypot(x, y)),
}

# The parts of silent distractors, which are neither looks nor their inverses (a light spot on dark resembles a ring).
PLAIN_PARTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
  "plain": lambda x, y: _soft(0.8 - np.hypot(x, y)),
  "dark": lambda x, y: np.zeros_like(x),
}


def draw_part(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Returns the share of a part's light colour in [0, 1]; x and y are in part radii and have the same shape."""
  return (LOOKS.get(name) or PLAIN_PARTS[name])(x, y)
