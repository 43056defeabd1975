"""The annotations of a video's frames: where viewers looked, from a table of fixations or from files for each frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stajax.eyetracking import StavisError, read_density, read_fixations
from stajax.prepare.constant_rate import ShownFrames
from stajax.prepare.fixations import Annotation, FixationTable


@dataclass(frozen=True)
class TableAnnotations:
  """Annotations that are made from a table of fixations, see `stajax.prepare.fixations`.

  Attributes:
    path: The table.
    sigma: The standard deviation of the Gaussian around each fixation, as a fraction of the picture's width.
    first_frame: The number of the first frame in the table.
  """

  path: Path
  sigma: float
  first_frame: int

  def files(self) -> list[Path]:
    """Returns the files that the annotations are read from: the table."""
    return [self.path]

  def identity(self) -> dict[str, Any]:
    """Returns what the annotations depend on besides the files, as JSON values."""
    return {"annotations": "TableAnnotations", "sigma": self.sigma, "first_frame": self.first_frame}

  def read(self, frames: ShownFrames, notes: list[str]) -> Iterator[Annotation | None]:
    """Yields the annotation of each frame, or None for a frame without one.

    Args:
      frames: The frames of the video.
      notes: Receives a line for each kind of row that is left out.

    Raises:
      ListingError: The table cannot be used; this is raised at once, before the first frame.
    """
    table = FixationTable(self.path, frames, self.sigma, self.first_frame, notes)
    return map(table.frame, range(len(frames)))


@dataclass(frozen=True)
class FileAnnotations:
  """Annotations in files, one for each frame, by the number of the frame in the media file; the first frame is 1.

  Attributes:
    fixations: MATLAB files, or images.
    densities: Images.
    variable: The name of the variable in the MATLAB files.
  """

  fixations: Mapping[int, Path]
  densities: Mapping[int, Path]
  variable: str

  def files(self) -> list[Path]:
    """Returns the files that the annotations are read from."""
    return [*self.fixations.values(), *self.densities.values()]

  def identity(self) -> dict[str, Any]:
    """Returns what the annotations depend on besides the files, as JSON values."""
    return {"annotations": "FileAnnotations", "sigma": None, "first_frame": None}

  def read(self, frames: ShownFrames, notes: list[str]) -> Iterator[Annotation | None]:
    """Yields the annotation of each frame, or None for a frame without one; `notes` names those that cannot be read."""
    for number in frames.numbers.tolist():
      try:
        yield self._read_frame(number + 1)
      except StavisError as error:
        notes.append(f"annotation: frame {number + 1} left out ({error})")
        yield None

  def _read_frame(self, number: int) -> Annotation | None:
    if number not in self.fixations or number not in self.densities:
      return None
    path = self.fixations[number]
    density = read_density(self.densities[number])
    fixated = read_fixations(path, self.variable) if path.suffix.lower() == ".mat" else read_density(path) > 0
    if fixated.shape != density.shape:
      raise StavisError(f"{path}: size {fixated.shape}, expected {density.shape} as the map")
    return fixated, density


Annotations = TableAnnotations | FileAnnotations
