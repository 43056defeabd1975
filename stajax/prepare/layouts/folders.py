"""A folder of media files for each tag: ROOT/TAG/…/file."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

from stajax.prepare.layouts.names import name_clips
from stajax.prepare.listing import (
  Item,
  Listing,
  ListingError,
  Remark,
  check_folder,
  display_path,
  find_media_files,
  spare_files,
  unread_remarks,
)

PARTS = {"train", "val", "valid", "validation", "test"}


def read_folders(root: Path) -> Listing:
  """Lists media files in folders that are named after their tags; all of them are in the part `train`.

  The categories are the names of the folders that hold media files, sorted. Hidden files and folders are ignored.

  Raises:
    ListingError: The root is not a folder, or there is no media file in its folders.
  """
  root = Path(root)
  check_folder(root, "one with a folder for each tag")
  remarks: list[Remark] = []
  found: list[tuple[str, Path]] = []
  for entry in sorted(root.iterdir()):
    if not entry.name.startswith("."):
      found += [(normalize("NFC", entry.name), path) for path in _files_of_tag(entry, root, remarks)]
  categories = tuple(sorted({tag for tag, _ in found}))
  if not found:
    raise ListingError(f"{root}: no media file in its folders, expected ROOT/TAG/file")
  if set(categories) <= PARTS:
    remarks.append(Remark("doubtful", ".", f"the tags are {', '.join(categories)}: is this the folder above?"))
  names = name_clips([path.relative_to(root) for _, path in found])
  items = tuple(Item(name, path, (tag,)) for name, (tag, path) in zip(names, found))
  return Listing("folders", root, categories, items, (*remarks, *_find_twins(root, found)))


def _files_of_tag(entry: Path, root: Path, remarks: list[Remark]) -> list[Path]:
  """Returns the media files of a tag's folder, and adds remarks about everything else."""
  if not entry.is_dir():
    remarks.append(Remark("spare", display_path(entry, root), "lies in no folder of a tag"))
    return []
  try:
    entry.name.encode()
  except UnicodeEncodeError:
    raise ListingError(f"{root}: the name of folder {entry.name!r} is not UTF-8, expected a tag") from None
  files = []
  unread: list[Path] = []
  for path in find_media_files(entry, unread):
    if path.is_file():
      files.append(path)
    else:
      remarks.append(Remark("missing", display_path(path, root), "a broken link, or no regular file"))
  if not files:
    remarks.append(Remark("dropped", display_path(entry, root), "no media file is in this folder: no category"))
  remarks += unread_remarks(unread, root) + spare_files(entry, set(files), root)
  return files


def _find_twins(root: Path, found: list[tuple[str, Path]]) -> list[Remark]:
  """Returns a remark for each file that has the name and size of one under another tag, since both become clips."""
  first: dict[tuple[str, int], tuple[str, Path]] = {}
  remarks = []
  for tag, path in found:
    other_tag, other = first.setdefault((path.name, path.stat().st_size), (tag, path))
    if other_tag != tag:
      reason = f"has the name and size of {display_path(other, root)}: a clip of several tags? (see `csv`)"
      remarks.append(Remark("doubtful", display_path(path, root), reason))
  return remarks
