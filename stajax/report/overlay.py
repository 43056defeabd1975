"""Draws saliency, a scale, and a line of text, over a frame."""

import functools
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stajax.hints import nearest

FLOOR = 0.3
"""Where a map is below this part of its range, the frame stays as it is."""
CAPTION_MARGIN = 4


@dataclass(frozen=True)
class Look:
  """How maps are drawn.

  Attributes:
    colormap: A colour map of Matplotlib. The usual one, from cyan to magenta, is hardly found in what cameras see.
    opacity: How opaque the maximum is, in [0, 1]; below it the opacity falls to 0 at `FLOOR`.
    scale: Whether a scale of the colours is drawn at the right.

  Raises:
    ValueError: There is no such colour map or opacity; one line.
  """

  colormap: str = "cool"
  opacity: float = 0.75
  scale: bool = False

  def __post_init__(self) -> None:
    if not 0 <= self.opacity <= 1:
      raise ValueError(f"opacity {self.opacity:g}: expected 0 to 1")
    if self.colormap != Look.colormap:  # loading Matplotlib takes a tenth of prediction's start-up
      import matplotlib

      if self.colormap not in matplotlib.colormaps:
        like = nearest(self.colormap, matplotlib.colormaps)
        usual = "expected one of Matplotlib's, such as cool, turbo, viridis or gray"
        raise ValueError(f"colormap {self.colormap}: {usual}" + (f";{like}" if like else ""))


USUAL = Look()


def heat_overlay(frame: np.ndarray, saliency: np.ndarray, look: Look = USUAL) -> np.ndarray:
  """Draws a map over a frame. The more salient a place, the more opaque its colour; the rest stays as it is.

  Args:
    frame: The frame (H, W, 3), uint8 RGB.
    saliency: The map (h, w), float in [0, 1], of any size; it is resized bilinearly.
    look: How it is drawn.

  Returns:
    The drawn frame (H, W, 3), uint8.
  """
  level = Image.fromarray(np.round(np.clip(saliency, 0, 1) * 255).astype(np.uint8))
  colours, opacity = palette(look.colormap, look.opacity)
  drawn = frame.copy()
  if (seen := level.point(opacity).getbbox()) is not None:  # most of a frame stays as it is
    rows, columns = (_drawn_span(frame.shape[i], level.size[1 - i], seen[1 - i], seen[3 - i]) for i in (0, 1))
    (top, bottom), (left, right) = rows, columns
    x, y = level.width / frame.shape[1], level.height / frame.shape[0]
    box = (left * x, top * y, right * x, bottom * y)
    heat = level.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box)
    mask = heat.point(opacity)
    heat.putpalette(colours)
    below = Image.fromarray(frame[top:bottom, left:right])
    drawn[top:bottom, left:right] = Image.composite(heat.convert("RGB"), below, mask)
  if look.scale:
    patch = _scale_patch(look.colormap, max(24, frame.shape[0] // 4))[: frame.shape[0], -frame.shape[1] :]
    top = (frame.shape[0] - len(patch)) // 2
    drawn[top : top + len(patch), frame.shape[1] - patch.shape[1] :] = patch
  return drawn


def _drawn_span(length: int, map_length: int, first: int, end: int) -> tuple[int, int]:
  """Returns the first pixel along a side of a frame, and the one after the last, that a span of the map changes.

  A pixel of the map reaches as far as its neighbour's centre, and at least one pixel of the frame.
  """
  scale = length / map_length
  reach = max(scale, 1.0)
  return max(math.floor(first * scale - reach), 0), min(math.ceil(end * scale + reach), length)


def caption(frame: np.ndarray, text: str) -> np.ndarray:
  """Returns a copy of a frame (H, W, 3), uint8, with a line of text at its lower left, cut where it is too long."""
  patch = _text_patch(text, max(10, frame.shape[0] // 30))[: frame.shape[0], : frame.shape[1]]
  frame = frame.copy()
  frame[frame.shape[0] - patch.shape[0] :, : patch.shape[1]] = patch
  return frame


@functools.cache
def palette(colormap: str, opacity: float) -> tuple[bytes, list[int]]:
  """Returns how 256 levels of a map are drawn: their colours as RGB bytes, and their opacities from 0 to 255."""
  import matplotlib  # imported late: loading it is a tenth of prediction's start-up

  levels = np.clip((np.linspace(0, 1, 256) - FLOOR) / (1 - FLOOR), 0, 1)
  colours = matplotlib.colormaps[colormap](levels)[:, :3]
  opacities = np.round(opacity * levels**0.75 * 255).astype(int)
  return np.round(colours * 255).astype(np.uint8).tobytes(), opacities.tolist()


@functools.cache
def _scale_patch(colormap: str, height: int) -> np.ndarray:
  """Draws a bar of the colours from `FLOOR` to the maximum, with both values beside it."""
  colours = np.frombuffer(palette(colormap, 1.0)[0], np.uint8).reshape(256, 3)
  levels = np.linspace(255, 255 * FLOOR, height).round().astype(int)
  bar = np.broadcast_to(colours[levels][:, None], (height, max(6, height // 12), 3))
  high, low = (_text_patch(text, max(8, height // 9)) for text in ("1.0", f"{FLOOR:.1f}"))
  patch = np.zeros((height, max(high.shape[1], low.shape[1]) + bar.shape[1], 3), np.uint8)
  patch[: len(high), : high.shape[1]], patch[height - len(low) :, : low.shape[1]] = high, low
  patch[:, -bar.shape[1] :] = bar
  return patch


@functools.cache
def _text_patch(text: str, size: int) -> np.ndarray:
  font = ImageFont.load_default(size)
  left, top, right, bottom = (round(side) for side in font.getbbox(text))
  image = Image.new("RGB", (right - left + 2 * CAPTION_MARGIN, bottom - top + 2 * CAPTION_MARGIN), (0, 0, 0))
  ImageDraw.Draw(image).text((CAPTION_MARGIN - left, CAPTION_MARGIN - top), text, (255, 255, 255), font)
  return np.asarray(image)
