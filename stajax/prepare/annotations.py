"""The annotations of a video's frames: where viewers looked, from a table of fixations or from files for each frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from stajax.eyetracking import StavisError, read_density, read_fixations
from stajax.media.file import MediaError
from stajax.media.limits import Failure, Limits, run_in_children
from stajax.media.video import probe_picture
from stajax.prepare.constant_rate import ShownFrames
from stajax.prepare.fixations import Annotation, FixationTable
from stajax.prepare.gaze_units import GazeUnits
from stajax.prepare.item_media import make_decoding
from stajax.prepare.listing import Listing, ListingError, Remark, display_path


@dataclass(frozen=True)
class TableAnnotations:
  """Annotations that are made from a table of fixations, see `stajax.prepare.fixations`.

  Attributes:
    path: The table.
    sigma: The standard deviation of the Gaussian around each fixation, as a fraction of the picture's width.
    first_frame: The number of the first frame in the table.
    units: What was stated about the units of the table.
  """

  path: Path
  sigma: float
  first_frame: int
  units: GazeUnits = field(default_factory=GazeUnits)

  def files(self) -> list[Path]:
    """Returns the files that the annotations are read from: the table."""
    return [self.path]

  def identity(self) -> dict[str, Any]:
    """Returns what the annotations depend on besides the files, as JSON values."""
    about = {"annotations": "TableAnnotations", "sigma": self.sigma, "first_frame": self.first_frame}
    return {**about, "units": asdict(self.units)}

  def read(self, frames: ShownFrames, notes: list[str]) -> Iterator[Annotation | None]:
    """Yields the annotation of each frame, or None for a frame without one.

    Args:
      frames: The frames of the video.
      notes: Receives a line for each kind of row that is left out.

    Raises:
      ListingError: The table cannot be used; this is raised at once, before the first frame.
    """
    table = FixationTable(self.path, frames, self.sigma, self.first_frame, self.units, notes)
    return map(table.frame, range(len(frames)))


def examine_tables(
  listing: Listing, annotations: Mapping[str, TableAnnotations], limits: Limits, processes: int
) -> Listing:
  """Returns the listing with a remark for each table whose units are doubtful, or that loses rows.

  Children with limits read the videos' properties, but decode only the first frame of each.

  Args:
    listing: The videos.
    annotations: The tables by the names of the clips.
    limits: The limits for a file.
    processes: The number of processes that read.
  """
  items = [item for item in listing.items if item.name in annotations]
  remarks: list[Remark] = []
  tasks = [(annotations[item.name], item.path, limits) for item in items]
  for index, found in run_in_children(examine_table, tasks, processes, limits):
    item = items[index]
    lines = [(item.path, found.reason)] if isinstance(found, Failure) else found
    remarks += [Remark("doubtful", display_path(path, listing.root), line) for path, line in lines]
  known = {(remark.file, remark.reason) for remark in listing.remarks}
  new = [remark for remark in remarks if (remark.file, remark.reason) not in known]
  return replace(listing, remarks=(*listing.remarks, *sorted(new, key=lambda remark: remark.file)))


def examine_table(table: TableAnnotations, video: Path, limits: Limits) -> list[tuple[Path, str]]:
  """Returns a line for each thing that is wrong or doubtful about a table, or its video, and the file it is about."""
  notes: list[str] = []
  try:
    info = probe_picture(video, make_decoding(limits))
    if info.duration is None:
      return []
    seconds, is_cut = min(info.duration, limits.max_seconds), info.duration > limits.max_seconds
    numbers = np.arange(max(1, round(seconds * info.rate)))
    frames = ShownFrames(info.rate, numbers, info.height, info.width, float(info.pixel_aspect), is_cut)
    table.read(frames, notes)
  except MediaError as error:
    return [(video, str(error).removeprefix(f"{video}: "))]
  except ListingError as error:
    notes.append(str(error).removeprefix(f"{table.path}: "))
  return [(table.path, note) for note in notes]


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


class Annotations(Protocol):
  """Where the annotations of a video's frames come from."""

  def files(self) -> list[Path]:
    """Returns the files that the annotations are read from."""
    ...

  def identity(self) -> dict[str, Any]:
    """Returns what the annotations depend on besides the files, as JSON values."""
    ...

  def read(self, frames: ShownFrames, notes: list[str]) -> Iterator[Annotation | None]:
    """Yields the annotation of each frame, or None for a frame without one; `notes` says what is left out."""
    ...
