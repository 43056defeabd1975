"""Renders the pixels of a synthetic clip: sprites are made once and pasted into a drifting background in every frame.

Legend: n frames, h w pixels.
"""

import math

import numpy as np

from stajax.prepare.synthetic.design import Design, draw_colour
from stajax.prepare.synthetic.scene import Scene, make_generator
from stajax.prepare.synthetic.textures import OUTLINES, TEXTURES, draw_part

_SPRITE_DETAIL = 1.5  # sprite pixels per frame pixel
_CLUTTER = (4, 10)  # the range of the number of pieces in the background; each is at most 7% of the frame wide


def _mix(share: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Mixes two colours (3,) by the shares (h, w) of the second one; returns (h, w, 3)."""
  return first + share[..., None] * (second - first)


def make_sprite(design: Design, size: int) -> np.ndarray:
  """Draws an object at angle 0 and scale 1 around its body's centre.

  Returns:
    (m, m, 4) float32, RGB times alpha and alpha in [0, 1], `_SPRITE_DETAIL` sprite pixels to a pixel of a frame of
    side `size`; the outermost pixels are transparent.
  """
  radius, part_radius = 0.5 * design.diameter, 0.5 * design.part_diameter
  outline = OUTLINES[design.outline]
  reach = radius * outline(np.linspace(0, 2 * np.pi, 73)).max()
  if design.part is not None:
    reach = max(reach, math.hypot(*design.part_offset) + part_radius)
  pixel = 1 / (size * _SPRITE_DETAIL)
  half = math.ceil(reach / pixel) + 2
  steps = np.arange(-half, half + 1) * pixel
  y, x = steps[:, None], steps[None, :]
  rim = radius * outline(np.arctan2(y, x))
  alpha = np.clip(0.5 + (rim - np.hypot(x, y)) / (1.5 * pixel), 0, 1)
  rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(design.texture_seed)))
  field = TEXTURES[design.texture](rng, steps.size, steps.size, design.texture_scale * design.diameter / pixel)
  colour = _mix(field, design.colours[0], design.colours[1])
  if design.part is not None:
    u, v = (x - design.part_offset[0]) / part_radius, (y - design.part_offset[1]) / part_radius
    cosine, sine = math.cos(design.part_angle), math.sin(design.part_angle)
    light = draw_part(design.part, cosine * u + sine * v, cosine * v - sine * u)
    cover = np.clip(0.5 + (1 - np.hypot(u, v)) * part_radius / (1.5 * pixel), 0, 1)
    colour += cover[..., None] * (_mix(light, design.colours[3], design.colours[2]) - colour)
    alpha = np.maximum(alpha, cover)
  return np.concatenate([colour * alpha[..., None], alpha[..., None]], axis=-1).astype(np.float32)


def paste(canvas: np.ndarray, sprite: np.ndarray, centre: np.ndarray, angle: float, scale: float) -> None:
  """Draws a sprite into `canvas` (h, w, 3) float32 in place, turned, scaled and sampled bilinearly.

  Only the pixels under the sprite are touched, however large the canvas is.
  """
  height, width = canvas.shape[:2]
  half = (sprite.shape[0] - 1) / 2
  centre_x, centre_y = centre[0] * width - 0.5, centre[1] * height - 0.5
  reach = half * scale / _SPRITE_DETAIL * (abs(math.cos(angle)) + abs(math.sin(angle)))
  left, right = max(math.ceil(centre_x - reach), 0), min(math.floor(centre_x + reach) + 1, width)
  top, bottom = max(math.ceil(centre_y - reach), 0), min(math.floor(centre_y + reach) + 1, height)
  if left >= right or top >= bottom:
    return
  detail = _SPRITE_DETAIL / scale
  cosine, sine = detail * math.cos(angle), detail * math.sin(angle)
  x = np.arange(left, right, dtype=np.float32) - np.float32(centre_x)
  y = (np.arange(top, bottom, dtype=np.float32) - np.float32(centre_y))[:, None]
  # The sprite's border is transparent, so that coordinates outside can be clipped to it.
  last = np.float32(2 * half - 1.001)
  column = np.clip(np.float32(cosine) * x + np.float32(sine) * y + np.float32(half), 0, last)
  row = np.clip(np.float32(cosine) * y - np.float32(sine) * x + np.float32(half), 0, last)
  low_column, low_row = column.astype(np.int32), row.astype(np.int32)
  right_share, low_share = (column - low_column)[..., None], (row - low_row)[..., None]
  pixels = sprite.reshape(-1, 4)
  start = low_row * sprite.shape[1] + low_column
  upper, lower = np.take(pixels, start, axis=0), np.take(pixels, start + sprite.shape[1], axis=0)
  upper += right_share * (np.take(pixels, start + 1, axis=0) - upper)
  lower += right_share * (np.take(pixels, start + sprite.shape[1] + 1, axis=0) - lower)
  upper += low_share * (lower - upper)
  region = canvas[top:bottom, left:right]
  region *= 1 - upper[..., 3:]
  region += upper[..., :3]


def _make_background(scene: Scene, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the whole texture of the background (h, w, 3) float32, and each frame's corner in it, (n, 2) pixels."""
  rng = make_generator(scene.seed, scene.index, scene.part, "pixels")
  background = scene.background
  times = np.arange(scene.settings.num_frames)[:, None] / scene.settings.rate
  # The path turns back after half a frame, so that long clips need no larger texture.
  path = background.velocity * size * times
  path = size / 2 - np.abs(np.mod(path, size) - size / 2)
  height, width = (size + 2 + math.ceil(reach) for reach in path.max(axis=0)[::-1])
  field = TEXTURES[background.texture](rng, height, width, background.texture_scale * size)
  pixels = _mix(field, background.colours[0], background.colours[1]).astype(np.float32)
  for _ in range(rng.integers(*_CLUTTER, endpoint=True)):
    across, down = (int(side) for side in rng.integers(2, max(3, int(0.07 * size)), 2, endpoint=True))
    x, y = int(rng.integers(0, width - across)), int(rng.integers(0, height - down))
    piece = pixels[y : y + down, x : x + across]
    piece += np.float32(0.6) * (draw_colour(rng, (0.0, 0.8), (0.25, 0.85)).astype(np.float32) - piece)
  return pixels, path


def render(scene: Scene) -> np.ndarray:
  """Returns the clip's frames, (n, size, size, 3) uint8."""
  size, num_frames = scene.settings.size, scene.settings.num_frames
  pixels, corners = _make_background(scene, size)
  sprites: dict[int, np.ndarray] = {}
  things = scene.things
  for thing in things:
    if id(thing.design) not in sprites:
      sprites[id(thing.design)] = make_sprite(thing.design, size)
  frames = np.empty((num_frames, size, size, 3), np.uint8)
  for frame in range(num_frames):
    column, row = (int(corner) for corner in corners[frame])
    right_share, low_share = (np.float32(share) for share in corners[frame] - (column, row))
    window = pixels[row : row + size + 1, column : column + size + 1]
    across = window[:, :-1] + right_share * (window[:, 1:] - window[:, :-1])
    canvas = across[:-1] + low_share * (across[1:] - across[:-1])
    for thing in things:
      if thing.drawn[frame]:
        paste(canvas, sprites[id(thing.design)], thing.centre[frame], thing.angle[frame], thing.scale[frame])
    canvas *= 255
    canvas += 0.5
    frames[frame] = np.clip(canvas, 0, 255, out=canvas)
  return frames
