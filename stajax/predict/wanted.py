"""Which files the command writes for a video: its options, and the outputs that they ask for."""

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stajax.predict.outputs import (
  FrameNumbers,
  FrameTable,
  MapImages,
  MapParts,
  Output,
  OverlayVideo,
  Provenance,
)
from stajax.report.overlay import Look

FORMATS = ("npz", "png", "mp4", "json", "csv")
ENDINGS = (r"maps-\d{3,}\.npz", r"maps", r"overlay\.mp4", r"csv")
"""The endings of all files and folders that are written beside the JSON file, as regular expressions."""


@dataclass(frozen=True)
class Wanted:
  """The files that are written for a video.

  Raises:
    ValueError: A value is not possible; one line.
  """

  format: str = "npz,mp4,json"
  """Among npz (maps), png (maps as images), mp4 (overlay), json (numbers of every frame) and csv (alike), with commas.
  There always is a JSON file, which says what was made; without json it has no frames."""
  overlay: bool = True
  """Write the overlay video, if mp4 is among the formats."""
  colormap: str = Look.colormap
  """The colours of the overlay: a colour map of Matplotlib."""
  opacity: float = Look.opacity
  """How opaque the overlay is where a map has its maximum, from 0 to 1."""
  scale: bool = Look.scale
  """Draw a scale of the colours at the right of the overlay."""

  def __post_init__(self) -> None:
    unknown = [name for name in self.formats if name not in FORMATS]
    if unknown or not self.formats:
      raise ValueError(f"--format {self.format}: expected {', '.join(FORMATS)}, joined by commas")
    _ = self.look

  @property
  def formats(self) -> list[str]:
    """The formats, one by one."""
    return [name.strip() for name in self.format.split(",") if name.strip()]

  @property
  def look(self) -> Look:
    """How the overlay is drawn."""
    return Look(self.colormap, self.opacity, self.scale)


USUAL = Wanted()


def make_outputs(folder: Path, name: str, provenance: Provenance, wanted: Wanted = USUAL) -> list[Output]:
  """Returns the outputs of a video in the order in which they are opened.

  They are completed in reverse order, so that the JSON file comes last and shows that everything is complete.

  Args:
    folder: The folder for the files, which exists.
    name: What the files' names begin with.
    provenance: What is predicted.
    wanted: The files that are written.
  """
  formats = wanted.formats
  rows: list[tuple[bool, Callable[[], Output]]] = [
    ("csv" in formats, lambda: FrameTable(folder / f"{name}.csv")),
    (
      "mp4" in formats and wanted.overlay,
      lambda: OverlayVideo(folder / f"{name}.overlay.mp4", provenance, wanted.look),
    ),
    ("png" in formats, lambda: MapImages(folder / f"{name}.maps")),
    ("npz" in formats, lambda: MapParts(folder, name, provenance)),
  ]
  chosen = [make() for is_chosen, make in rows if is_chosen]
  numbers = FrameNumbers(folder / f"{name}.json", provenance, "json" in formats)
  return [EarlierOutputs(folder, name), numbers, *chosen]


class EarlierOutputs(Output):
  """Removes whatever an earlier run left for the video, when the first map is there."""

  def __init__(self, folder: Path, name: str) -> None:
    self._folder, self._name = folder, name
    self._are_removed = False

  def add_map(self, time: float, saliency: np.ndarray) -> None:
    """Removes it before anything is written in its place."""
    if self._are_removed:
      return
    self._are_removed = True
    # The JSON file goes first, because it says that the others belong together.
    (self._folder / f"{self._name}.json").unlink(missing_ok=True)
    ours = re.compile(rf"{re.escape(self._name)}\.({'|'.join(ENDINGS)})")
    for path in self._folder.iterdir():
      if not ours.fullmatch(path.name):
        continue
      if path.is_dir():
        for image in path.glob("*.png"):
          image.unlink()
        with contextlib.suppress(OSError):  # it holds something else
          path.rmdir()
      else:
        path.unlink()
