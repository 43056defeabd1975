"""What data sets of tagged clips have in common: rows that name clips by their files' names, and a folder of files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stajax.prepare.listing import Item, Remark, display_path, find_media_files

PARTS = ("test", "val", "train")  # a clip in several is taken for the first: no clip is both trained and tested on


@dataclass(frozen=True)
class Row:
  """A row of a list.

  Attributes:
    clip: The name of the clip.
    tag: Its category.
    part: One of `train`, `val` and `test`.
    at: The file and the line.
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


def join_rows(rows: Iterable[Row], several_tags: str = "") -> tuple[dict[str, TaggedClip], list[Remark]]:
  """Joins the rows of each clip: it has all their tags, and of two parts the one that is held out.

  Args:
    rows: The rows in the order of their files, which the tags keep.
    several_tags: What is doubtful about a clip with several tags; nothing if it is empty.

  Returns:
    Clips by name, and remarks about rows that say nothing new, or something else than an earlier one.
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
  """The media files under a folder by their names without suffix; the folder is read only once.

  Attributes:
    folder: The folder.
  """

  def __init__(self, folder: Path) -> None:
    self.folder = folder
    self._paths: dict[str, list[Path]] = {}
    for path in find_media_files(folder):
      self._paths.setdefault(path.stem, []).append(path)
    for paths in self._paths.values():
      paths.sort(key=lambda path: (path.suffix != ".mp4", len(path.parts)))  # the published one first
    self._used: set[str] = set()

  def take(self, stems: Sequence[str]) -> Path | None:
    """Returns the file of the first of these names that exists; None where none does."""
    for stem in stems:
      if stem in self._paths:
        self._used.add(stem)
        return self._paths[stem][0]
    return None

  def spare(self, root: Path, lists: str) -> list[Remark]:
    """Returns remarks about what was never taken: files that no list names, and second files of one name.

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
  """Returns the clips whose files exist, and a remark for each other one.

  Args:
    clips: The clips by their names.
    index: The media files.
    stems: Gives the names without suffix that a clip's file may have, the published one first.
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
