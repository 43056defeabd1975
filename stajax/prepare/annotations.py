"""What viewers looked at in every frame of a video, by a table or by files, one for each frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stajax.eyetracking import StavisError, read_density, read_fixations
from stajax.prepare.constant_rate import ShownFrames
from stajax.prepare.fixations import Annotation, FixationTable


class Annotations(Protocol):
  """The annotations of a video."""

  def files(self) -> list[Path]:
    """Returns the files that they are made of."""
    ...

  def identity(self) -> dict[str, Any]:
    """Returns what they depend on beside the files, as JSON values."""
    ...

  def read(self, frames: ShownFrames, notes: list[str]) -> Iterator[Annotation | None]:
    """Yields the annotation of each frame, or None if it has none; `notes` receives a line for what is left out.

    Raises:
      ListingError: They cannot be read at all.
    """
    ...


@dataclass(frozen=True)
class TableAnnotations:
  """Annotations by a table of fixations, see `stajax.prepare.fixations`.

  Attributes:
    path: The table.
    sigma: The standard deviation of the Gaussian around each fixation, as a part of the picture's width.
    first_frame: The number that the table gives the first frame.
  """

  path: Path
  sigma: float
  first_frame: int

  def files(self) -> list[Path]:
    """Returns the table's path."""
    return [self.path]

  def identity(self) -> dict[str, Any]:
    """Returns the kind of the annotations, and how the table is read."""
    return {"annotations": "TableAnnotations", "sigma": self.sigma, "first_frame": self.first_frame}

  def read(self, frames: ShownFrames, notes: list[str]) -> Iterator[Annotation | None]:
    """Yields the annotation of each frame; raises ListingError at once for a table that cannot be used."""
    table = FixationTable(self.path, frames, self.sigma, self.first_frame, notes)
    return map(table.frame, range(len(frames)))


@dataclass(frozen=True)
class FileAnnotations:
  """Annotations by files, one for each frame, by the number of the frame in the media file; the first is 1.

  Attributes:
    fixations: MATLAB files, or images.
    densities: Images.
    variable: The name of the variable in the MATLAB files.
  """

  fixations: Mapping[int, Path]
  densities: Mapping[int, Path]
  variable: str

  def files(self) -> list[Path]:
    """Returns the paths of all files."""
    return [*self.fixations.values(), *self.densities.values()]

  def identity(self) -> dict[str, Any]:
    """Returns the kind of the annotations."""
    return {"annotations": "FileAnnotations", "sigma": None, "first_frame": None}

  def read(self, frames: ShownFrames, notes: list[str]) -> Iterator[Annotation | None]:
    """Yields the annotation of each frame; one that cannot be read is left out."""
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
