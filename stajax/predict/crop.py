"""The path of a crop, as an output of a prediction."""

import contextlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stajax.files import write_text
from stajax.maps.cropping import CropPath, parse_aspect, window_size
from stajax.predict.outputs import Frame, Output, Provenance


class Crop(NamedTuple):
  """The windows of a crop.

  Attributes:
    times: (n,) float64, seconds, of every native frame.
    windows: (n, 4) int32, x, y, width and height in pixels.
  """

  times: np.ndarray
  windows: np.ndarray


class CropWindows(Output):
  """Follows what people look at with a window of a shape such as "9:16", and writes JSON lines if it has a path.

  Attributes:
    window: The (width, height) of all windows, in pixels.
    found: The windows, when the output is complete.

  Raises:
    ValueError: The shape is of another form.
  """

  needs_pictures = True
  found: Crop

  def __init__(self, aspect: str, provenance: Provenance, path: Path | None = None) -> None:
    info = provenance.info
    self.window = window_size(provenance.size, parse_aspect(aspect), info.pixel_aspect)
    self._collected, self._path = CropPath(provenance.size, self.window), path
    self._times: list[float] = []

  @contextlib.contextmanager
  def opened(self) -> Generator[None]:
    """Finds the path when the block ends."""
    yield
    self.found = Crop(np.array(self._times), self._collected.windows())
    if self._path is not None:
      rows = zip(self._times, self.found.windows.tolist(), strict=True)
      lines = [json.dumps({"t": round(time, 6), "x": x, "y": y, "w": w, "h": h}) for time, (x, y, w, h) in rows]
      write_text(self._path, "".join(f"{line}\n" for line in lines))

  def add_frame(self, frame: Frame) -> None:
    """Collects what the path depends on."""
    assert frame.picture is not None
    self._collected.add(frame.time, frame.picture, frame.saliency)
    self._times.append(frame.time)
