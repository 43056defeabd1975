"""One folder a tag: ROOT/TAG/…/file."""

from __future__ import annotations

import os
from pathlib import Path

from stajax.prepare.layouts.names import clip_names
from stajax.prepare.listing import Item, Listing, ListingError, Remark, media_files, shown

LINK = "a link out of the folder"
PARTS = {"train", "val", "valid", "validation", "test"}


def read_folders(root: Path) -> Listing:
  """Lists media files in folders that are named after their tags; all are in the part `train`.

  Categories are the names of the folders that hold media files, sorted. Hidden files and folders are ignored.

  Raises:
    ListingError: not a folder, or there is no media file in its folders.
  """
  root = Path(root)
  if not root.is_dir():
    raise ListingError(f"{root}: {'is not a folder' if root.exists() else 'no such folder'}, expected one folder a tag")
  remarks: list[Remark] = []
  found: list[tuple[str, Path]] = []
  for entry in sorted(root.iterdir()):
    if entry.name.startswith("."):
      continue
    if not entry.is_dir():
      remarks.append(Remark("spare", shown(entry, root), "lies in no folder of a tag"))
      continue
    if not entry.resolve().is_relative_to(root.resolve()):
      remarks.append(Remark("spare", shown(entry, root), LINK))
      continue
    if not _is_text(entry.name):
      raise ListingError(f"{root}: the name of folder {entry.name!r} is not UTF-8, expected a tag")
    files = []
    for path in media_files(entry):
      if path.is_file():
        files.append(path)
      else:
        remarks.append(Remark("missing", shown(path, root), "a broken link, or no regular file"))
    if not files:
      remarks.append(Remark("dropped", shown(entry, root), "no media file is in this folder: no category"))
    found += [(entry.name, path) for path in files]
    remarks += _others(entry, files, root)
  categories = tuple(sorted({tag for tag, _ in found}))
  if not found:
    raise ListingError(f"{root}: no media file in its folders, expected ROOT/TAG/file")
  if set(categories) <= PARTS:
    remarks.append(Remark("doubtful", ".", f"the tags are {', '.join(categories)}: is this the folder above?"))
  names = clip_names([path.relative_to(root) for _, path in found])
  items = tuple(Item(name, path, (tag,)) for name, (tag, path) in zip(names, found))
  return Listing("folders", root, categories, items, (*remarks, *_twins(root, found)))


def _others(folder: Path, files: list[Path], root: Path) -> list[Remark]:
  """What lies in a tag's folder without being used."""
  used, remarks = set(files), []
  for parent, folders, names in os.walk(folder):
    folders[:] = sorted(name for name in folders if not name.startswith("."))
    for name in sorted(names):
      path = Path(parent, name)
      if not name.startswith(".") and path not in used and path.is_file():
        outside = not path.resolve().is_relative_to(folder.resolve())
        reason = LINK if outside else "not named as a media file"
        remarks.append(Remark("spare", shown(path, root), reason))
  return remarks


def _twins(root: Path, found: list[tuple[str, Path]]) -> list[Remark]:
  """Files of one name and size under two tags: a clip with both tags is two clips here."""
  first: dict[tuple[str, int], tuple[str, Path]] = {}
  remarks = []
  for tag, path in found:
    other_tag, other = first.setdefault((path.name, path.stat().st_size), (tag, path))
    if other_tag != tag:
      reason = f"has the name and size of {shown(other, root)}: a clip of several tags? (see `csv`)"
      remarks.append(Remark("doubtful", shown(path, root), reason))
  return remarks


def _is_text(name: str) -> bool:
  try:
    name.encode("utf-8")
  except UnicodeEncodeError:
    return False
  return True
