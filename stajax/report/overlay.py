"""Draws saliency, and a line of text, over a frame."""

import functools

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MAX_OPACITY = 0.7
CAPTION_MARGIN = 4


def heat_overlay(frame: np.ndarray, saliency: np.ndarray) -> np.ndarray:
  """Draws a map over a frame. The more salient a place, the more opaque its colour; the rest stays visible.

  Args:
    frame: The frame (H, W, 3), uint8 RGB.
    saliency: The map (h, w), float in [0, 1], of any size; it is resized bilinearly.

  Returns:
    The drawn frame (H, W, 3), uint8.
  """
  level = Image.fromarray(np.round(np.clip(saliency, 0, 1) * 255).astype(np.uint8))
  level = level.resize((frame.shape[1], frame.shape[0]), Image.Resampling.BILINEAR)
  colours, opacity = _palette()
  mask = level.point(opacity)
  level.putpalette(colours)
  return np.asarray(Image.composite(level.convert("RGB"), Image.fromarray(frame), mask))


def caption(frame: np.ndarray, text: str) -> np.ndarray:
  """Returns a copy of a frame (H, W, 3), uint8, with a line of text at its lower left, cut where it is too long."""
  patch = _caption_patch(text, max(10, frame.shape[0] // 30))[: frame.shape[0], : frame.shape[1]]
  frame = frame.copy()
  frame[frame.shape[0] - patch.shape[0] :, : patch.shape[1]] = patch
  return frame


@functools.cache
def _palette() -> tuple[bytes, list[int]]:
  """Returns the colour (RGB) and the opacity, both from 0 to 255, of each of 256 levels."""
  import matplotlib  # imported late: loading it is a tenth of prediction's start-up

  levels = np.linspace(0, 1, 256)
  # The dark end of the colour map would only darken the frame.
  colours = matplotlib.colormaps["inferno"](0.25 + 0.75 * levels)[:, :3]
  opacity = np.round(MAX_OPACITY * levels**0.75 * 255).astype(int)
  return np.round(colours * 255).astype(np.uint8).tobytes(), opacity.tolist()


@functools.cache
def _caption_patch(text: str, size: int) -> np.ndarray:
  font = ImageFont.load_default(size)
  left, top, right, bottom = (round(side) for side in font.getbbox(text))
  image = Image.new("RGB", (right - left + 2 * CAPTION_MARGIN, bottom - top + 2 * CAPTION_MARGIN), (0, 0, 0))
  ImageDraw.Draw(image).text((CAPTION_MARGIN - left, CAPTION_MARGIN - top), text, (255, 255, 255), font)
  return np.asarray(image)
