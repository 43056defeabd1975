"""What viewers looked at in every frame of a video: by a table, or by files, one a frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stajax.eyetracking import StavisError, read_density, read_fixations
from stajax.prepare.fixations import Annotation, FixationTable, Shown


@dataclass(frozen=True)
class TableAnnotations:
  """Annotations by a table of fixations, see `stajax.prepare.fixations`.

  Attributes:
    path: of the table.
    sigma: of the Gaussian around each fixation, as a part of the picture's width.
    first_frame: number that the table gives the first frame.
  """

  path: Path
  sigma: float
  first_frame: int

  def files(self) -> list[Path]:
    """What the annotations are made of."""
    return [self.path]

  def read(self, frames: Shown, notes: list[str]) -> Callable[[int], Annotation | None]:
    """The annotation of each frame, 0 the first."""
    return FixationTable(self.path, frames, self.sigma, self.first_frame, notes).frame


@dataclass(frozen=True)
class FileAnnotations:
  """Annotations of files, one a frame, by the number of the frame in the media file, 1 the first.

  Attributes:
    fixations: MATLAB files, or images.
    densities: images.
    variable: of the MATLAB files.
  """

  fixations: Mapping[int, Path]
  densities: Mapping[int, Path]
  variable: str

  def files(self) -> list[Path]:
    """What the annotations are made of."""
    return [*self.fixations.values(), *self.densities.values()]

  def read(self, frames: Shown, notes: list[str]) -> Callable[[int], Annotation | None]:
    """The annotation of each frame, 0 the first; one that cannot be read is left out."""

    def annotation(frame: int) -> Annotation | None:
      number = int(frames.numbers[frame]) + 1
      if number not in self.fixations or number not in self.densities:
        return None
      path = self.fixations[number]
      try:
        density = read_density(self.densities[number])
        fixated = read_fixations(path, self.variable) if path.suffix.lower() == ".mat" else read_density(path) > 0
        if fixated.shape != density.shape:
          raise StavisError(f"{path}: size {fixated.shape}, expected {density.shape} as the map")
      except StavisError as error:
        notes.append(f"annotation: frame {number} left out ({error})")
        return None
      return fixated, density

    return annotation


Annotations = TableAnnotations | FileAnnotations
