"""Draws learning curves and gallery pictures as text to embed in an HTML page."""

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image, ImageDraw

from stajax.media.spectrogram import spectrogram_axes
from stajax.report.overlay import heat_overlay

SIDE = 256
"""The longer side of a gallery picture, in pixels."""
_JPEG_QUALITY = 82
MAX_POINTS = 200
"""The most points of a curve; longer logs are averaged."""
# Placeholders for the colours of the page's style sheet, which has a light and a dark theme.
_COLOURS = {"#010203": "currentColor", "#010204": "var(--accent)", "#010205": "var(--line)"}
_TEXT, _ACCENT, _LINE = _COLOURS
STYLE: dict[Any, Any] = {
  "svg.fonttype": "none",  # text stays text
  "font.size": 9,
  "text.color": _TEXT,
  "axes.labelcolor": _TEXT,
  "axes.edgecolor": _LINE,
  "xtick.color": _LINE,
  "ytick.color": _LINE,
  "xtick.labelcolor": _TEXT,
  "ytick.labelcolor": _TEXT,
  "grid.color": _LINE,
  "axes.spines.top": False,
  "axes.spines.right": False,
}


def is_curve(name: str) -> bool:
  """Returns whether a scalar of a log is drawn as a curve."""
  return name not in ("step", "examples_per_second")


def learning_curves(lines: Sequence[Mapping[str, float]], identifier: str, label: str) -> str:
  """Draws one stage's curves as an `<svg>`: the loss, and below it every other scalar of the log.

  Args:
    lines: The lines of the log, each with `step`. Values that are not finite are left out.
    identifier: Makes the ids inside the picture unique within a page; letters and digits.
    label: The text that screen readers say for the picture.
  """
  names = list(dict.fromkeys(["loss", *(name for line in lines for name in line if is_curve(name))]))
  with matplotlib.rc_context({**STYLE, "svg.hashsalt": identifier}):
    figure = Figure(figsize=(3.1, 2.9), layout="constrained")
    heights = [1.6, *[1] * (len(names) - 1)]
    rows = figure.subplots(len(names), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, name in zip(rows, names):
      _draw_curve(axes, lines, name)
    rows[-1].xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 2.5, 5, 10]))
    rows[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    rows[-1].set_xlim(left=0)
    rows[-1].set_xlabel("step")
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
  return inline(file.getvalue(), identifier, label)


def _draw_curve(axes: Axes, lines: Sequence[Mapping[str, float]], name: str) -> None:
  found = [(line["step"], line[name]) for line in lines if name in line and math.isfinite(line[name])]
  parts = np.array_split(np.array(found, np.float64).reshape(-1, 2), min(len(found), MAX_POINTS) or 1)
  steps, values = np.array([part.mean(axis=0) for part in parts if len(part)]).reshape(-1, 2).T
  axes.plot(steps, values, color=_ACCENT, linewidth=1.5, marker="o" if len(steps) == 1 else None, markersize=4)
  axes.set_title(name.replace("_", " "), loc="left", fontsize="medium", pad=3)
  axes.grid(axis="y", linewidth=0.6)
  axes.tick_params(length=0)
  if name == "accuracy":
    axes.set_ylim(-0.04, 1.04)
    axes.set_yticks([0, 0.5, 1])
  else:
    axes.yaxis.set_major_locator(MaxNLocator(3))


def inline(svg: str, identifier: str, label: str) -> str:
  """Returns Matplotlib's SVG without what only a separate file needs, with ids that are unique on the page."""
  svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
  svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{label}">', svg)
  svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL).replace("xlink:href", "href")
  svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{identifier}-", svg)
  for placeholder, colour in _COLOURS.items():
    svg = svg.replace(placeholder, colour)
  return svg


def picture(frame: np.ndarray) -> str:
  """Returns a frame (H, W, 3), uint8 RGB, as the data URI of a JPEG, enlarged or reduced to `SIDE`."""
  file = io.BytesIO()
  _resize_to(frame, SIDE).save(file, "JPEG", quality=_JPEG_QUALITY, optimize=True)
  return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def heat_picture(frame: np.ndarray, values: np.ndarray, fixations: np.ndarray | None = None) -> str:
  """Draws a map over its frame, and fixations as points; returns the data URI of a JPEG.

  Args:
    frame: The frame (H, W, 3), uint8 RGB.
    values: The map (h, w), not negative; it is drawn relative to its maximum.
    fixations: The fixated pixels, (H, W) bool.
  """
  peak = float(values.max(initial=0))
  level = values / peak if peak > 0 else np.zeros(values.shape)
  large = heat_overlay(np.asarray(_resize_to(frame, SIDE)), level)
  if fixations is None or not fixations.any():
    return picture(large)
  canvas = _resize_to(large, 2 * SIDE)  # drawn large and then reduced, for smooth points
  draw = ImageDraw.Draw(canvas)
  scale = np.array(canvas.size) / fixations.shape[::-1]
  for x, y in (np.argwhere(fixations)[:, ::-1] + 0.5) * scale:
    draw.circle((x, y), 8, fill="white", outline="black", width=2)
  return picture(np.asarray(canvas))


def spectrogram_picture(sound: np.ndarray) -> str:
  """Draws the second of sound around a frame, in decibels over time and frequency; returns the data URI of a JPEG.

  Args:
    sound: The log-spectrogram of `stajax.media.spectrogram`, (257, n), float.
  """
  import librosa.display  # imported late: only the extra `train` has it

  frequencies, times = spectrogram_axes(sound.shape[1])
  decibels = sound.astype(np.float32) * (10 / math.log(10))
  with matplotlib.rc_context({"font.size": 8}):
    figure = Figure(figsize=(SIDE / 100, SIDE / 100), dpi=100, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.subplots()
    middle = (times[0] + times[-1]) / 2
    librosa.display.specshow(
      decibels, x_coords=times - middle, y_coords=frequencies, x_axis="s", y_axis="linear", ax=axes, cmap="magma"
    )
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel("s from the frame")
    axes.set_ylabel("Hz")
    canvas.draw()
  return picture(np.asarray(canvas.buffer_rgba())[..., :3])


def _resize_to(frame: np.ndarray, side: int) -> Image.Image:
  """Resizes a frame so that its longer side has `side` pixels."""
  height, width = frame.shape[:2]
  scale = side / max(height, width)
  size = (max(1, round(width * scale)), max(1, round(height * scale)))
  return Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)
