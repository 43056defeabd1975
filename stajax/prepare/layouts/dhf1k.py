"""DHF1K (Wang et al. 2018): 1,000 videos without sound, seen by 17 viewers.

video/001.AVI … 1000.AVI                    600 to train, 100 to validate, 300 to test
annotation/0001/maps/0001.png               the grey density of every frame
annotation/0001/fixation/0001.png           the fixated pixels, or
annotation/0001/fixation/maps/0001.mat      the same: variable I
"""

from __future__ import annotations

import re
from pathlib import Path

from stajax.files import numbered_files
from stajax.prepare.annotations import FileAnnotations
from stajax.prepare.listing import (
  Item,
  Listing,
  ListingError,
  Remark,
  display_path,
  find_media_files,
  find_missing_numbers,
  resolve_inside,
)

PARTS = {"train": range(1, 601), "val": range(601, 701), "test": range(701, 1001)}
NUM_VIDEOS = 1000
VARIABLE = "I"  # the variable in the MATLAB files


def read_dhf1k(root: Path) -> Listing:
  """Lists the videos, named by their number (`0001`), in the official parts.

  The annotations of the test part are not published; remarks name the missing ones of the other parts.

  Args:
    root: The folder with `video` and `annotation`, or the one above it.

  Raises:
    ListingError: There is no folder `video`, or it has no numbered video.
  """
  base = _base_folder(root)
  remarks: list[Remark] = []
  found = _numbered_videos(base, remarks)
  if not found:
    raise ListingError(f"{base / 'video'}: no video in it is named by its number, expected 001.AVI and so on")
  items = []
  for part, numbers in PARTS.items():
    for number in numbers:
      if number in found:
        items.append(Item(f"{number:04d}", found[number], (), part))
      else:
        remarks.append(Remark("missing", f"video/{number:03d}.AVI", f"of the part {part}"))
      if part != "test":
        remarks += _check_annotations(base, number)
  known = {f"{number:04d}" for number in range(1, NUM_VIDEOS + 1)}
  folder = base / "annotation"
  for path in sorted(folder.iterdir()) if folder.is_dir() else ():
    if path.name not in known and not path.name.startswith("."):
      remarks.append(Remark("spare", display_path(path, base), f"is not named by a number from 0001 to {NUM_VIDEOS}"))
  return Listing("dhf1k", base, (), tuple(items), tuple(remarks))


def _numbered_videos(base: Path, remarks: list[Remark]) -> dict[int, Path]:
  """Returns the numbered videos by their numbers, and adds a remark about every other video."""
  found: dict[int, Path] = {}
  for path in find_media_files(resolve_inside(base, "video")):
    name = display_path(path, base)
    if not re.fullmatch(r"\d{1,9}", path.stem) or not 1 <= int(path.stem) <= NUM_VIDEOS:
      remarks.append(Remark("spare", name, f"is not named by a number from 1 to {NUM_VIDEOS}"))
    elif (number := int(path.stem)) in found:
      remarks.append(Remark("spare", name, f"{display_path(found[number], base)} is used instead"))
    else:
      found[number] = path
  return found


def _base_folder(root: Path) -> Path:
  """Returns the folder that holds `video`, either the given one or one in it; raises ListingError if there is none."""
  root = Path(root)
  for base in (root, root / "DHF1K"):
    if (base / "video").is_dir():
      return base if base == root else resolve_inside(root, "DHF1K")
  raise ListingError(f"{root}: has no folder 'video', expected that of DHF1K")


def read_annotations(listing: Listing) -> dict[str, FileAnnotations]:
  """Returns the annotations of those listed videos that have some, by the names of the videos."""
  found = ((item.name, find_annotations(listing.root, item.name)) for item in listing.items)
  return {name: files for name, files in found if files is not None}


def find_annotations(base: Path, name: str) -> FileAnnotations | None:
  """Returns the annotation files of a video, or None if no frame has any.

  Raises:
    ListingError: A link leads out of the folder.
  """
  folder = resolve_inside(base, "annotation", name)
  densities = _first(numbered_files(folder / "maps", (".png",)))
  images = _first(numbered_files(folder / "fixation", (".png",)))
  matrices = _first(numbered_files(folder / "fixation" / "maps", (".mat",)))
  fixations = {number: path for number, path in {**images, **matrices}.items() if number in densities}
  for path in (path for files in (fixations, densities) for path in files.values() if path.is_symlink()):
    resolve_inside(base, *path.relative_to(base).parts)
  return FileAnnotations(fixations, densities, VARIABLE) if fixations else None


def _check_annotations(base: Path, number: int) -> list[Remark]:
  """Returns remarks about the missing annotations of a video."""
  name = f"{number:04d}"
  folder = f"annotation/{name}"
  if not (base / folder).is_dir():
    return [Remark("missing", folder, "no such folder: the video cannot be scored")]
  try:
    files = find_annotations(base, name)
  except ListingError as error:
    return [Remark("dropped", folder, str(error))]
  if files is None:
    expected = "maps/0001.png and fixation/0001.png or fixation/maps/0001.mat"
    return [Remark("missing", folder, f"no frame has both {expected}")]
  missing, names = find_missing_numbers(files.fixations, max(files.densities), "{:04d}")
  reason = f"{missing} of {max(files.densities)} frames have no fixations or no map: {names}"
  return [Remark("missing", folder, reason)] if missing else []


def _first(files: dict[int, list[Path]]) -> dict[int, Path]:
  return {number: paths[0] for number, paths in files.items() if number >= 1}
