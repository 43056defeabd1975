"""What notebooks show: a progress bar, and a prediction as a strip of maps."""

import base64
import html
import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from stajax.report.overlay import heat_overlay

if TYPE_CHECKING:
  from stajax.predict.outputs import Provenance
  from stajax.predict.per_video import MapStream, TimedMap

_MAPS, _HEIGHT = 8, 96
"""The largest number of maps of a strip, and its height in pixels."""


def is_notebook() -> bool:
  """Returns whether this process is the kernel of a notebook."""
  return "ipykernel" in sys.modules


def with_progress(stream: "MapStream", shown: bool | None) -> Iterator["TimedMap"]:
  """Yields the maps of a stream under a progress bar; None: only in a notebook."""
  if not (is_notebook() if shown is None else shown):
    yield from stream
    return
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # without ipywidgets the bar is one of text
    from tqdm.auto import tqdm

  yield from tqdm(stream, stream.provenance.info.path.name, stream.expected_length, unit="map", leave=False)


def prediction_html(maps: np.ndarray, times: np.ndarray, provenance: "Provenance") -> str:
  """Returns a piece of a page that needs no other file: some maps (n, h, w), their times in seconds, what they are."""
  chosen = np.unique(np.linspace(0, len(times) - 1, _MAPS).round().astype(int))
  width, height = provenance.size
  ticks = "".join(
    f'<figure style="margin:0 2px 2px 0;display:inline-block"><img style="display:block" alt="map at {time:.2f} s" '
    f'src="{_picture(saliency, (max(1, round(_HEIGHT * width / height)), _HEIGHT))}"/>'
    f'<figcaption style="font-size:smaller">{time:.2f} s</figcaption></figure>'
    for time, saliency in zip(times[chosen].tolist(), maps[chosen], strict=True)
  )
  sound = "with sound" if provenance.has_sound else "without sound"
  about = f"{provenance.info.path.name}: {width}×{height}, {sound}; {len(maps)} maps, {provenance.rate:.6g} a second"
  model = f"the model “{provenance.model}”" if provenance.model else "a model"
  model += " that was trained on rendered clips" if provenance.trained_on == "synthetic" else ""
  return f"<div><div>{html.escape(f'{about}, by {model}')}</div>{ticks}</div>"


def _picture(saliency: np.ndarray, size: Sequence[int]) -> str:
  grey = np.full((size[1], size[0], 3), 32, np.uint8)
  file = io.BytesIO()
  Image.fromarray(heat_overlay(grey, saliency)).save(file, "PNG")
  return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
