"""Which files the command writes for a video: its options, and the outputs that they ask for."""

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stajax import hints
from stajax.maps.cropping import parse_aspect
from stajax.media.encoding import parse_encoding
from stajax.predict.crop import CropWindows
from stajax.predict.outputs import (
  FrameNumbers,
  FrameTable,
  MapImages,
  MapParts,
  Output,
  OverlayVideo,
  Provenance,
)
from stajax.predict.regions import BlockFiles, BoxLines, EncodedVideo
from stajax.report.overlay import Look

FORMATS = ("npz", "png", "mp4", "json", "csv")
ENDINGS = (
  *(r"maps-\d{3,}\.npz", r"maps", r"overlay\.mp4", r"csv"),
  *(r"roi\.jsonl", r"blocks\.(txt|bin)", r"blocks-\d{3,}\.npz", r"crop\.jsonl", r"encoded\.mp4"),
)
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

  roi: int | None = None
  """Write at most this many boxes of every frame, as JSON lines."""
  blocks: int | None = None
  """Write a weight for each block of this many pixels to a side, as text, npz and bytes for encoders."""
  crop: str | None = None
  """Write the windows of a crop to this shape, such as 9:16, as JSON lines."""
  encode: str | None = None
  """Write the video, cropped if --crop is given, with more bits where people look: crf=28, or with more settings
  crf=28,codec=x265,preset=slow,strength=12."""

  def __post_init__(self) -> None:
    for name, value, largest in (("roi", self.roi, 64), ("blocks", self.blocks, 1024)):
      if value is not None and not 1 <= value <= largest:
        raise ValueError(f"--{name} {value}: expected 1 to {largest}")
    if self.crop is not None:
      parse_aspect(self.crop)
    if self.encode is not None:
      parse_encoding(self.encode)
    unknown = [name for name in self.formats if name not in FORMATS]
    if unknown or not self.formats:
      found = unknown[0] if unknown else ""
      raise ValueError(f"--format {self.format}: found {found!r}, {hints.expected(found, FORMATS)}")
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
  formats, roi, blocks, encode = wanted.formats, wanted.roi, wanted.blocks, wanted.encode
  windows = None if wanted.crop is None else CropWindows(wanted.crop, provenance, folder / f"{name}.crop.jsonl")
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
  if roi is not None:
    chosen.append(BoxLines(folder / f"{name}.roi.jsonl", roi, provenance))
  if blocks is not None:
    chosen.append(BlockFiles(folder, name, blocks, provenance))
  if encode is not None:
    chosen.append(EncodedVideo(folder / f"{name}.encoded.mp4", parse_encoding(encode), provenance, windows))
  if windows is not None:  # completed before the video that is cropped
    chosen.append(windows)
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
