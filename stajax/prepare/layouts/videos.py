"""A folder of videos with optional tables of fixations: ROOT/…/name.mp4, ROOT/…/name.csv."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from unicodedata import normalize

from stajax.eyetracking import SOUND_SUFFIXES
from stajax.files import find_visible_files
from stajax.prepare.fixations import SUFFIXES, read_header
from stajax.prepare.layouts.names import name_clips
from stajax.prepare.listing import (
  MEDIA_SUFFIXES,
  Item,
  Listing,
  ListingError,
  Remark,
  check_folder,
  display_path,
  find_media_files,
  resolve_inside,
  spare_files,
  unread_remarks,
)

PART = "test"  # videos with viewers are not trained on


def read_videos(root: Path, tables: Path | None = None) -> tuple[Listing, dict[str, Path]]:
  """Lists all videos under a folder, with the tables and sound files that have their names.

  Args:
    root: The folder with the videos; beside each, optionally, its sound as name.wav, name.flac or name.mp3.
    tables: The folder with the table of `root/a/name.mp4` as `a/name.csv`; by default `root`.

  Returns:
    The videos, and the table of each clip that has one.

  Raises:
    ListingError: The root is not a folder, or there is no video in it.
  """
  root, tables = Path(root), Path(tables or root)
  check_folder(root, "that of the videos")
  check_folder(tables, "that of the tables")
  unread: list[Path] = []
  paths = find_media_files(root, unread)
  if not paths:
    raise ListingError(f"{root}: no video is in this folder")
  remarks = unread_remarks(unread, root)
  # A file that ends in `.ogg` may be a video too, and is taken for one.
  sounds = _FilesByStem(root, [suffix for suffix in SOUND_SUFFIXES if suffix not in MEDIA_SUFFIXES], remarks)
  tables_by_stem = _FilesByStem(tables, SUFFIXES, remarks)
  names = name_clips([path.relative_to(root) for path in paths])
  items, found = [], {}
  for name, path in zip(names, paths):
    stem = normalize("NFC", path.relative_to(root).with_suffix("").as_posix())
    items.append(Item(name, path, (), PART, None, sounds.take(stem)))
    if (table := tables_by_stem.take(stem)) is not None:
      found[name] = table
      try:
        read_header(table)
      except ListingError as error:
        remarks.append(Remark("doubtful", display_path(table, root), str(error).removeprefix(f"{table}: ")))
  if not found:
    reason = "no video has a table of fixations: the tree can be predicted, but not scored"
    remarks.append(Remark("doubtful", display_path(tables, root), reason))
  for item in items if found else ():
    if item.name not in found:
      reason = "has no table of fixations: it can be predicted, but not scored"
      remarks.append(Remark("missing", display_path(item.path, root), reason))
  remarks += sounds.spare("no video has this name") + tables_by_stem.spare("no video has this name")
  others = (path for path in find_visible_files(root) if path.suffix.lower() in {*SUFFIXES, *SOUND_SUFFIXES})
  remarks += spare_files(root, {*paths, *others}, root)
  return Listing("videos", root, (), tuple(items), tuple(remarks)), found


class _FilesByStem:
  """The files with some suffixes under a folder, by their paths without suffixes; earlier suffixes take precedence."""

  def __init__(self, folder: Path, suffixes: Sequence[str], remarks: list[Remark]) -> None:
    self._folder = folder
    self._paths: dict[str, Path] = {}
    self._used: set[str] = set()
    found = (path for path in find_visible_files(folder) if path.suffix.lower() in suffixes)
    for _, paths in groupby(found, key=lambda path: path.parent):
      for path in sorted(paths, key=lambda path: suffixes.index(path.suffix.lower())):
        self._add(path, remarks)

  def _add(self, path: Path, remarks: list[Remark]) -> None:
    relative = path.relative_to(self._folder)
    stem = normalize("NFC", relative.with_suffix("").as_posix())
    try:
      resolve_inside(self._folder, *relative.parts)
    except ListingError:
      remarks.append(Remark("spare", display_path(path, self._folder), "a link out of the folder"))
      return
    if stem in self._paths:
      remarks.append(Remark("spare", display_path(path, self._folder), f"{self._paths[stem].name} is used instead"))
    else:
      self._paths[stem] = path

  def take(self, stem: str) -> Path | None:
    """Returns the file of a name, or None, and marks the name as used."""
    path = self._paths.get(stem)
    if path is not None:
      self._used.add(stem)
    return path

  def spare(self, reason: str) -> list[Remark]:
    """Returns a remark for each file that was never taken."""
    left = [path for stem, path in self._paths.items() if stem not in self._used]
    return [Remark("spare", display_path(path, self._folder), reason) for path in left]
