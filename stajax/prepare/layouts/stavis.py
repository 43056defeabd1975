"""A tree of eye-tracking sets in the layout of STAViS, listed as clips without tags; each video is a folder of images.

`stajax.eyetracking` describes the layout and reads the annotations. This module only checks whether they exist.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from stajax.eyetracking import FRAME_SUFFIXES, find_lists, find_sound, read_fold_list
from stajax.files import folder_names, numbered_files
from stajax.prepare.listing import (
  Item,
  Kind,
  Listing,
  ListingError,
  Remark,
  display_path,
  find_missing_numbers,
  resolve_inside,
)
from stajax.prepare.video_tags import read_table as read_tag_table

TREES = ("video_frames", "video_audio", "annotations")


@dataclass(frozen=True)
class _Listed:
  """A video of the lists; `lists` has the file name of the list for every row that names the video."""

  name: str
  num_frames: int | None
  fps: float | None
  part: str
  lists: tuple[str, ...]


def read_stavis(
  root: Path,
  databases: Collection[str] = (),
  fps: float | None = None,
  split: int | None = None,
  tags: Path | None = None,
) -> Listing:
  """Lists the videos of a tree, each once, as `DATABASE/VIDEO`: in `test` if a test list names it, else in `train`.

  The frames per second are those of the lists; a database without lists is used as a whole if `fps` is given. A video
  without sound or annotations is listed too, with a remark.

  Args:
    root: The tree.
    databases: The names of the databases; all of them if it is empty.
    fps: The frames per second of videos that no list names, in databases without lists.
    split: The number of the only lists that are read; a list without a number belongs to every split. None: all lists.
    tags: A table of tags, see `stajax.prepare.video_tags`; then a video of `train` without a tag is dropped.

  Raises:
    ListingError: The root is not such a tree, a database is unknown, or no video can be used.
    StavisError: A list is malformed.
    TagTableError: The table is missing or in another form.
  """
  root = Path(root)
  if not (root / TREES[0]).is_dir():
    raise ListingError(f"{root}: not a tree in the STAViS layout: it has no folder {TREES[0]!r}")
  present = _databases(root)
  if missing := [name for name in databases if name not in present]:
    raise ListingError(f"{root}: no database {', '.join(missing)}; found {', '.join(present) or 'none'}")
  items: list[Item] = []
  remarks: list[Remark] = []
  for database in sorted(set(databases) or present):
    items += _Database(root, database, remarks, split).read(fps)
  if split is not None and not any(item.part == "train" or tags is None for item in items):
    raise ListingError(f"{root}: no list of split {split} has videos that networks could learn from")
  categories, items = ((), items) if tags is None else _with_tags(items, tags, remarks)
  if not items:
    first = f" ({remarks[0].file}: {remarks[0].reason})" if remarks else ""
    raise ListingError(f"{root}: has no video that can be used{first}")
  return Listing("stavis", root, categories, tuple(items), tuple(remarks))


def _with_tags(items: list[Item], table: Path, remarks: list[Remark]) -> tuple[tuple[str, ...], list[Item]]:
  """Returns all tags of a table, sorted, and the clips with theirs; nobody can learn from a clip without a tag."""
  named = {video: tuple(text.split("|")) for video, text in read_tag_table(table).items() if text}
  tagged = [replace(item, tags=named.get(item.name, named.get(item.name.partition("/")[2], ()))) for item in items]
  kept = [item for item in tagged if item.tags or item.part != "train"]
  for item in tagged:
    if not item.tags and item.part == "train":
      remarks.append(Remark("dropped", f"{TREES[0]}/{item.name}", f"{table.name} has no tag of this video"))
  return tuple(sorted({tag for item in kept for tag in item.tags})), kept


def _databases(root: Path) -> list[str]:
  """Returns the names of the databases that have videos, annotations or lists."""
  names = {name for tree in TREES for name in folder_names(root / tree)}
  for path in (root / "fold_lists").glob("*_fps.txt"):
    if match := re.fullmatch(r"(\w.*)_list_(?:train|test)(?:_\d+)?_fps\.txt", path.name):
      names.add(match[1])
  return sorted(names)


class _Database:
  """Lists the videos of one database, and adds remarks about them."""

  def __init__(self, root: Path, name: str, remarks: list[Remark], split: int | None = None) -> None:
    self._root, self._name, self._remarks, self._split = root, name, remarks, split

  def read(self, fps: float | None) -> list[Item]:
    listed = self._listed(fps)
    has_sound = bool(folder_names(self._root / "video_audio" / self._name))
    if not has_sound:
      self._remark("doubtful", f"video_audio/{self._name}", "no sound: all its videos are silent")
    items = [item for video in listed if (item := self._item(video, has_sound)) is not None]
    known = {video.name for video in listed}
    for tree in TREES:
      for name in folder_names(self._root / tree / self._name):
        if name not in known:
          self._remark("spare", f"{tree}/{self._name}/{name}", "no list names this video")
    return items

  def _listed(self, fps: float | None) -> list[_Listed]:
    rows: dict[str, list[tuple[str, str, int, float]]] = {}
    for part in ("test", "train"):
      lists = find_lists(self._root, self._name, part)
      if not lists and part == "test":  # train lists are optional
        self._remark("missing", f"fold_lists/{self._name}_list_test_1_fps.txt", "this database has no test list")
      for path in (path for number, path in lists.items() if self._split in (None, number) or not number):
        for name, num_frames, rate in read_fold_list(path):
          rows.setdefault(name, []).append((part, path.name, num_frames, rate))
    if rows:
      return [self._joined(name, named) for name, named in sorted(rows.items())]
    names = folder_names(self._root / "video_frames" / self._name) if self._split is None else []
    if self._split is not None:
      self._remark("dropped", f"fold_lists/{self._name}", f"this database has no list of split {self._split}")
    elif fps is None:
      reason = f"without a list their frames a second are not known (see --fps): none of {len(names)} videos is used"
      self._remark("dropped", f"video_frames/{self._name}", reason)
    return [_Listed(name, None, fps, "test", ()) for name in names]

  def _joined(self, name: str, rows: list[tuple[str, str, int, float]]) -> _Listed:
    _, first, num_frames, fps = rows[0]
    folder = f"video_frames/{self._name}/{name}"
    for _, path, other_frames, other_fps in rows[1:]:
      if (other_frames, other_fps) != (num_frames, fps):
        reason = f"{num_frames} frames at {fps:g} a second in {first}, {other_frames} at {other_fps:g} in {path}"
        self._remark("doubtful", folder, f"{reason}: the first counts")
    tests = [path for part, path, *_ in rows if part == "test"]
    if len(tests) > 1:
      self._remark("doubtful", folder, f"counts {len(tests)} times when scored: listed in {', '.join(tests)}")
    elif not tests and any(find_lists(self._root, self._name)):  # a single split leaves most videos out on purpose
      self._remark("doubtful", folder, "is never scored: no test list names it")
    part = "test" if tests else "train"
    return _Listed(name, num_frames, fps, part, tuple(path for _, path, *_ in rows))

  def _item(self, video: _Listed, has_sound: bool) -> Item | None:
    folder = f"video_frames/{self._name}/{video.name}"
    try:
      frames, images, sound_file = self._find_files(video.name)
    except UnicodeEncodeError:
      self._remark("dropped", folder, "its name is not UTF-8")
      return None
    except ListingError as error:
      self._remark("dropped", folder, str(error))
      return None
    numbers = [number for number in images if number >= 1]
    if not numbers:
      why = f"listed in {video.lists[0]}, " if video.lists else ""
      found = "holds no img_00001.jpg and so on" if frames.is_dir() else "no such folder"
      self._remark("missing", folder, why + found)
      return None
    num_frames = video.num_frames or numbers[-1]
    self._remark_missing(folder, "img_", numbers, num_frames, "the one before is shown")
    if numbers[-1] > num_frames:
      reason = f"{len(numbers)} images, {num_frames} are listed in {video.lists[0]}"
      self._remark("doubtful", folder, reason)
    self._check_annotations(video.name, num_frames)
    if has_sound and not sound_file.is_file():
      self._remark("missing", display_path(sound_file, self._root), "no such file: the video is silent")
    if video.fps is None:
      return None
    name, sound_file = f"{self._name}/{video.name}", sound_file if sound_file.is_file() else None
    return Item(name, frames, (), video.part, video.fps, sound_file)

  def _find_files(self, name: str) -> tuple[Path, dict[int, list[Path]], Path]:
    """Returns the folder of a video's frames, its images by number, and the path of its sound, which may not exist."""
    name.encode()
    frames = resolve_inside(self._root, "video_frames", self._name, name)
    sound_folder = resolve_inside(self._root, "video_audio", self._name, name)
    sound_file = find_sound(sound_folder, name) or sound_folder / f"{name}.wav"
    resolve_inside(self._root, *sound_file.relative_to(self._root).parts)
    images = numbered_files(frames, FRAME_SUFFIXES, "img_")
    for path in (path for paths in images.values() for path in paths if path.is_symlink()):
      resolve_inside(self._root, *path.relative_to(self._root).parts)
    return frames, images, sound_file

  def _check_annotations(self, name: str, num_frames: int) -> None:
    folder = f"annotations/{self._name}/{name}"
    path = self._root / folder
    if not path.is_dir():
      self._remark("missing", folder, "no such folder: the video cannot be scored")
      return
    fixations = numbered_files(path, (".mat",), "fixMap_")
    densities = numbered_files(path / "maps", FRAME_SUFFIXES, "eyeMap_")
    for files, prefix in ((fixations, "fixMap_"), (densities, "maps/eyeMap_")):
      self._remark_missing(folder, prefix, files, num_frames, "these frames are not scored")

  def _remark_missing(self, folder: str, prefix: str, numbers: Collection[int], num_frames: int, effect: str) -> None:
    missing, names = find_missing_numbers(numbers, num_frames, prefix + "{:05d}")
    if missing:
      self._remark("missing", folder, f"{missing} of {num_frames} files, {names}: {effect}")

  def _remark(self, kind: Kind, file: str, reason: str) -> None:
    self._remarks.append(Remark(kind, display_path(Path(file), self._root), reason))
