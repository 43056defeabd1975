"""The common parts of data sets of tagged clips: rows that name clips by their files, and a folder of media files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stajax.prepare.listing import Item, Listing, ListingError, Remark, display_path, find_media_files

PARTS = ("test", "val", "train")  # a clip in several belongs to the first: no clip is both trained and tested on


@dataclass(frozen=True)
class Row:
  """A row of a list.

  Attributes:
    clip: The name of the clip.
    tag: Its category.
    part: One of `train`, `val` and `test`.
    at: The file and the line of the row.
  """

  clip: str
  tag: str
  part: str
  at: str


@dataclass
class TaggedClip:
  """A clip, as all its rows together describe it."""

  part: str
  at: str
  tags: list[str] = field(default_factory=list)


def learn_from(listing: Listing, parts: Sequence[str]) -> Listing:
  """Returns a listing whose clips of some parts are all in `train`; those of the other parts stay held out.

  Raises:
    ListingError: A part is unknown, or no clip would be in `train`.
  """
  if unknown := [part for part in parts if part not in PARTS]:
    raise ListingError(f"part {unknown[0]!r}: expected some of {', '.join(reversed(PARTS))}")
  items = tuple(replace(item, part="train") if item.part in parts else item for item in listing.items)
  if not any(item.part == "train" for item in items):
    raise ListingError(f"{listing.root}: no clip is in {', '.join(parts) or 'no part'}, so there is none to learn from")
  return replace(listing, items=items)


def join_rows(rows: Iterable[Row], several_tags: str = "") -> tuple[dict[str, TaggedClip], list[Remark]]:
  """Joins the rows of each clip, which gets all their tags, and the held-out one if they are of two parts.

  Args:
    rows: The rows in the order of their files; the tags keep this order.
    several_tags: The remark about a clip with several tags; without it there is none.

  Returns:
    The clips by name, and remarks about rows that repeat or contradict an earlier one.
  """
  clips: dict[str, TaggedClip] = {}
  remarks: list[Remark] = []
  for row in rows:
    clip = clips.setdefault(row.clip, TaggedClip(row.part, row.at))
    if row.part != clip.part:
      held_out, other = sorted((row.part, clip.part), key=PARTS.index)
      reason = f"{row.clip} is in {row.part}, but in {clip.part} by {clip.at}: in {held_out} only, never in {other}"
      remarks.append(Remark("doubtful", row.at, reason))
      clip.part = held_out
    elif row.tag in clip.tags:
      remarks.append(Remark("dropped", row.at, f"{row.clip} is {row.tag!r} already ({clip.at})"))
    elif clip.tags and several_tags:
      remarks.append(Remark("doubtful", row.at, f"{row.clip}: {several_tags} ({clip.at})"))
    if row.tag not in clip.tags:
      clip.tags.append(row.tag)
  return clips, remarks


class MediaIndex:
  """The media files under a folder by their names without suffixes; the folder is read only once.

  Attributes:
    folder: The folder.
  """

  def __init__(self, folder: Path) -> None:
    self.folder = folder
    self._paths: dict[str, list[Path]] = {}
    for path in find_media_files(folder):
      self._paths.setdefault(path.stem, []).append(path)
    for paths in self._paths.values():
      paths.sort(key=lambda path: (path.suffix != ".mp4", len(path.parts)))  # the published name comes first
    self._used: set[str] = set()

  def take(self, stems: Sequence[str]) -> Path | None:
    """Returns the file of the first of these names that exists, or None, and marks the name as used."""
    for stem in stems:
      if stem in self._paths:
        self._used.add(stem)
        return self._paths[stem][0]
    return None

  def spare(self, root: Path, lists: str) -> list[Remark]:
    """Returns remarks about the files that were never taken: files that no list names, and second files of a name.

    Args:
      root: The folder that file names in remarks are relative to.
      lists: The names of the lists.
    """
    remarks = []
    for stem, paths in self._paths.items():
      reason, left = f"no row of {lists} names it", paths
      if stem in self._used:
        left = paths[1:]
        reason = f"{display_path(paths[0], root)} is used instead" if left else ""
      remarks += [Remark("spare", display_path(path, root), reason) for path in left]
    return sorted(remarks, key=lambda remark: remark.file)


def find_clips(
  clips: dict[str, TaggedClip], index: MediaIndex, stems: Callable[[str], Sequence[str]], root: Path
) -> tuple[list[Item], list[Remark]]:
  """Returns the clips whose files exist, and a remark about each clip whose file is missing.

  Args:
    clips: The clips by their names.
    index: The media files.
    stems: A function that returns the names without suffix that a clip's file may have, the published one first.
    root: The folder that file names in remarks are relative to.
  """
  items, missing = [], []
  folder = display_path(index.folder, root)
  for name, clip in clips.items():
    path = index.take(stems(name))
    if path is None:
      expected = f"{folder}/{stems(name)[0]}.mp4".removeprefix("./")
      missing.append(Remark("missing", expected, f"{clip.part}, {', '.join(clip.tags)}: listed in {clip.at}"))
    else:
      items.append(Item(name, path, tuple(clip.tags), clip.part))
  return items, missing
