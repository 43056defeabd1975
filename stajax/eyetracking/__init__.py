"""Reads trees of eye-tracking sets in the layout of STAViS, without TensorFlow.

  video_frames/<database>/<video>/img_00001.jpg          1-based, every frame
  video_audio/<database>/<video>/<video>.wav             or .flac, .ogg, .mp3; may be missing
  annotations/<database>/<video>/fixMap_00001.mat        variable eyeMap (H, W), 0 or 1
  annotations/<database>/<video>/maps/eyeMap_00001.jpg   grey density (H, W); png may have 16 bits
  fold_lists/<database>_list_test_{1,2,3}_fps.txt        rows "name frames fps"; or one <database>_list_test_fps.txt

Database names are arbitrary. Frame indices in this package are 0-based: index 0 is file number 1.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from stajax.eyetracking.mat_file import read_matrix
from stajax.eyetracking.spelling import find_name
from stajax.files import FileError, folder_names, numbered_files, read_json
from stajax.hints import address_refusal, is_address, nearest

AVIMOS, AVIMOS_SPLIT = "avimos", "TrainTestSplit.json"
LAYOUTS = ("stavis", AVIMOS)
"""What may stand before the root of a tree. Both are trees in the STAViS layout, which `prepare avimos` writes."""
MAX_PIXELS = 2**25
MAX_FRAMES = 10_000_000
MAX_RATE = 1000.0
GROUPS_FILE = "groups.json"  # names subsets of videos that are scored separately
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
"""The suffixes of sound files in lower case; of several files of one name, the first kind is used."""


class StavisError(ValueError):
  """A tree, list or file is not in the STAViS layout; the message is one line that names it."""


@dataclass(frozen=True)
class StavisVideo:
  """One video of a tree.

  Attributes:
    database: The name of its database.
    name: Its own name.
    fps: The frames per second in the fold list; None if no list names the video.
    num_frames: The number of frames in the fold list, or fewer if frame images are missing at the end.
    entries: The split of every row of a test list that names the video; 0 if the database has one list without a
      number.
    frame_paths: One image for each frame; empty if the tree was read without frames.
    fixation_paths: The file with the fixations of each 0-based frame; frames without annotation have none.
    density_paths: The file with the density of each 0-based frame, likewise.
    sound: The file with the sound, or None.
    list_hint: The fold list that would have `fps`, for messages.
  """

  database: str
  name: str
  fps: float | None
  num_frames: int
  entries: tuple[int, ...]
  frame_paths: tuple[Path, ...] = field(repr=False)
  fixation_paths: dict[int, Path] = field(repr=False)
  density_paths: dict[int, Path] = field(repr=False)
  sound: Path | None = None
  list_hint: str = field(default="", repr=False)

  @property
  def annotated(self) -> list[int]:
    """The frames (0-based, ascending) that have both fixations and density."""
    return sorted(self.fixation_paths.keys() & self.density_paths.keys())

  def rate(self) -> float:
    """Returns the number of frames per second; raises StavisError if no fold list has it."""
    if self.fps is None:
      raise StavisError(f"{self.database}/{self.name}: its frames a second are not known: expected {self.list_hint}")
    return self.fps

  def fixations(self, i: int) -> np.ndarray:
    """Returns the fixations (H, W) bool of 0-based frame i."""
    return read_fixations(self.fixation_paths[i])

  def density(self, i: int) -> np.ndarray:
    """Returns the density (H, W) of 0-based frame i, uint8 or uint16."""
    return read_density(self.density_paths[i])


@dataclass(frozen=True)
class StavisTree:
  """The test videos of a tree.

  Attributes:
    root: The folder of the tree.
    videos: The test videos.
    skipped: The database, the name and a reason for each video that cannot be used.
    notes: Lines for the user about missing lists and files.
    fold_lists: The lists that were read.
  """

  root: Path
  videos: tuple[StavisVideo, ...]
  skipped: tuple[tuple[str, str, str], ...]
  notes: tuple[str, ...]
  fold_lists: tuple[Path, ...]


def parse_data(data: str) -> Path:
  """Returns ROOT of `stavis:ROOT` or `avimos:ROOT`, or a bare ROOT that is a tree in the STAViS layout.

  Raises:
    StavisError: It is in another form, or names the challenge's own folders in place of the tree made of them.
  """
  name, separator, root = data.partition(":")
  if separator and name in LAYOUTS and root:
    if is_address(root):
      raise StavisError(f"data {name}:{address_refusal(root)}")
    if name == AVIMOS and not (Path(root) / "video_frames").is_dir() and (Path(root) / AVIMOS_SPLIT).is_file():
      how = f"expected the tree of `stajax prepare avimos --root {root} --out TREE`"
      raise StavisError(f"data {data}: these are the files of the challenge, {how}")
    return Path(root)
  if (Path(data) / "annotations").is_dir():
    return Path(data)
  expected = f"NAME:ROOT with NAME one of {', '.join(LAYOUTS)}, or a folder that has a folder annotations"
  raise StavisError(f"data {data}: expected {expected}{nearest(name, LAYOUTS) if separator else ''}")


def is_avimos(data: str) -> bool:
  """Returns whether a data set is named as `avimos:ROOT`: scored and submitted as that challenge does."""
  return data.startswith(f"{AVIMOS}:")


def read_tree(
  root: Path,
  databases: Collection[str] | None = None,
  need_frames: bool = True,
  need_annotations: bool = True,
) -> StavisTree:
  """Lists the test videos of a tree in the STAViS layout.

  Args:
    root: The folder of the tree.
    databases: The names of the databases to read; None for every folder of `annotations`, or of `video_frames` if no
      annotations are needed.
    need_frames: Whether a video without frame images is skipped (maps can be scored without them).
    need_annotations: Whether a video without annotations is skipped (it can be predicted without them).

  Raises:
    StavisError: This is not such a tree, a database is unknown, or a fold list is malformed.
  """
  root = Path(root)
  part = "annotations" if need_annotations else "video_frames"
  folder = root / part
  if not folder.is_dir():
    raise StavisError(f"{root}: not a tree in the STAViS layout: it has no folder '{part}'")
  present = folder_names(folder)
  missing = [name for name in databases or () if name not in present]
  if missing:
    found = f"found {', '.join(present) or 'none'};{nearest(missing[0], present)}".rstrip(";")
    raise StavisError(f"{folder}: no database {', '.join(missing)}; {found}")
  reader = _TreeReader(root, folder, need_frames, need_annotations)
  for database in sorted(set(databases)) if databases else present:
    reader.read_database(database)
  return reader.tree()


@dataclass(frozen=True)
class _Listed:
  """What the test lists of a database state about a video; without a list, frames and rate are unknown."""

  name: str
  num_frames: int | None
  fps: float | None
  entries: tuple[int, ...]
  list_hint: str


class _TreeReader:
  """Collects the videos of a tree, database after database."""

  def __init__(self, root: Path, folder: Path, need_frames: bool, need_annotations: bool) -> None:
    self._root, self._folder = root, folder
    self._need_frames, self._need_annotations = need_frames, need_annotations
    self._videos: list[StavisVideo] = []
    self._skipped: list[tuple[str, str, str]] = []
    self._notes: list[str] = []
    self._fold_lists: list[Path] = []

  def tree(self) -> StavisTree:
    return StavisTree(
      self._root, tuple(self._videos), tuple(self._skipped), tuple(self._notes), tuple(self._fold_lists)
    )

  def read_database(self, database: str) -> None:
    for listed in self._list(database):
      try:
        self._videos.append(self._find_video(database, listed))
      except StavisError as error:
        self._skipped.append((database, listed.name, str(error)))

  def _list(self, database: str) -> list[_Listed]:
    """Returns the videos in a database's test lists or, without a list, in its folder."""
    lists = find_lists(self._root, database)
    self._fold_lists += lists.values()
    hint = str(self._root / "fold_lists" / f"{database}_list_test_1_fps.txt")
    if not lists:
      names = folder_names(self._folder / database)
      self._notes.append(f"{database}: no fold list ({hint}): all {len(names)} videos are used once")
      return [_Listed(name, None, None, (0,), hint) for name in names]
    rows: dict[str, list[tuple[int, int, float]]] = {}
    for split, path in lists.items():
      for name, num_frames, fps in read_fold_list(path):
        rows.setdefault(name, []).append((split, num_frames, fps))
    return [
      _Listed(name, *named[0][1:], tuple(sorted(split for split, _, _ in named)), hint) for name, named in rows.items()
    ]

  def _find_video(self, database: str, listed: _Listed) -> StavisVideo:
    fixations, densities = self._find_annotations(database, listed.name)
    folder = self._folder_of("video_frames", database, listed.name)
    frames = _by_frame(numbered_files(folder, FRAME_SUFFIXES, "img_")) if self._need_frames else {}
    count = listed.num_frames or max(frames or fixations, default=0) + 1
    if count > MAX_FRAMES:
      raise StavisError(f"{database}/{listed.name}: a file for frame {count}, expected at most {MAX_FRAMES}")
    num_frames = self._count_frames(folder, frames, count) if self._need_frames else count
    video = StavisVideo(
      database=database,
      name=listed.name,
      fps=listed.fps,
      num_frames=num_frames,
      entries=listed.entries,
      frame_paths=tuple(frames[i] for i in range(num_frames)) if self._need_frames else (),
      # As in STAViS, the union of fixations is taken over all listed frames.
      fixation_paths={i: path for i, path in fixations.items() if i < count},
      density_paths={i: path for i, path in densities.items() if i < count},
      sound=find_sound(self._folder_of("video_audio", database, listed.name), listed.name),
      list_hint=listed.list_hint,
    )
    unannotated = num_frames - sum(i < num_frames for i in video.annotated)
    if unannotated and self._need_annotations:
      reason = f"{unannotated} of {num_frames} frames have no fixations or no density"
      self._notes.append(f"{database}/{listed.name}: {reason}")
    return video

  def _folder_of(self, part: str, database: str, name: str) -> Path:
    return (parent := self._root / part / database) / find_name(parent, name)

  def _find_annotations(self, database: str, name: str) -> tuple[dict[int, Path], dict[int, Path]]:
    """Returns the files of fixations and of densities by 0-based frame."""
    folder = self._folder_of("annotations", database, name)
    if self._need_annotations and not folder.is_dir():
      raise StavisError(f"{folder}: no such folder")
    fixations = _by_frame(numbered_files(folder, (".mat",), "fixMap_"))
    densities = _by_frame(numbered_files(folder / "maps", FRAME_SUFFIXES, "eyeMap_"))
    if self._need_annotations and not fixations.keys() & densities.keys():
      raise StavisError(f"{folder}: no frame with both fixMap_%05d.mat and maps/eyeMap_%05d.jpg")
    return fixations, densities

  def _count_frames(self, folder: Path, frames: dict[int, Path], count: int) -> int:
    """Returns the number of listed frames before the first missing one."""
    found = next((i for i in range(count) if i not in frames), count)
    if found == 0:
      raise StavisError(f"{folder / 'img_00001.jpg'}: no such file")
    if found < count:
      missing = f"img_{found + 1:05d}.jpg is missing"
      video = f"{folder.parent.name}/{folder.name}"
      self._notes.append(f"{video}: {count} frames are listed, but {missing}: the first {found} are used")
    return found


def find_sound(folder: Path, name: str) -> Path | None:
  """Returns the sound file in a folder with a given name and one of `SOUND_SUFFIXES`, or None."""
  paths = (folder / find_name(folder, f"{name}{suffix}") for suffix in SOUND_SUFFIXES)
  return next((path for path in paths if path.is_file()), None)


def find_lists(root: Path, database: str, part: Literal["test", "train"] = "test") -> dict[int, Path]:
  """Returns the lists of a database by split number; {0: path} for a single list without a number."""
  folder = Path(root) / "fold_lists"
  pattern = re.compile(re.escape(database) + rf"_list_{part}_(\d+)_fps\.txt")
  names = sorted(os.listdir(folder)) if folder.is_dir() else []
  numbered = {int(match[1]): folder / name for name in names if (match := pattern.fullmatch(name))}
  if numbered:
    return dict(sorted(numbered.items()))
  single = folder / f"{database}_list_{part}_fps.txt"
  return {0: single} if single.is_file() else {}


def read_fold_list(path: Path) -> list[tuple[str, int, float]]:
  """Returns the rows (name, frames, fps) of a fold list, in order; a video that is listed twice appears twice.

  Raises:
    StavisError: A row is not "name frames fps", or a name is not a plain folder name.
  """
  try:
    lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise StavisError(f"{path}: cannot be read as a fold list: {_one_line(error)}") from error
  rows = []
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    try:
      name, *numbers = line.strip().rsplit(maxsplit=2)
      num_frames, fps = int(numbers[0]), float(numbers[1])
    except (ValueError, IndexError):
      name, num_frames, fps = "", 0, 0.0
    if num_frames < 1 or not (0 < fps < math.inf):
      raise StavisError(f"{path}: line {number}: found {line.strip()[:80]!r}, expected 'name frames fps'")
    if num_frames > MAX_FRAMES or fps > MAX_RATE:
      most = f"at most {MAX_FRAMES} frames, {MAX_RATE:g} a second"
      raise StavisError(f"{path}: line {number}: found {line.strip()[:80]!r}, expected {most}")
    if Path(name).name != name or "\\" in name or name in (".", ".."):
      raise StavisError(f"{path}: line {number}: {name!r} is not the name of a folder")
    rows.append((name, num_frames, fps))
  return rows


def read_groups(root: Path) -> dict[str, list[str]]:
  """Reads the named subsets of a tree's videos, `<database>/<subset>` → video names; empty if the tree has none.

  Raises:
    StavisError: The file is not JSON, or is in another form.
  """
  path = Path(root) / GROUPS_FILE
  if not path.is_file():
    return {}
  try:
    groups = read_json(path)
  except FileError as error:
    raise StavisError(str(error)) from None
  if not isinstance(groups, dict) or not all(
    isinstance(videos, list) and all(isinstance(video, str) for video in videos) for videos in groups.values()
  ):
    raise StavisError(f"{path}: expected {{'database/subset': ['video', …]}}")
  return groups


def read_fixations(path: Path, variable: str = "eyeMap") -> np.ndarray:
  """Returns where the variable of a fixMap file is above 0, (H, W) bool; raises StavisError as `read_eye_map` does."""
  return read_eye_map(path, variable) > 0


def read_eye_map(path: Path, variable: str = "eyeMap") -> np.ndarray:
  """Returns the variable of a fixMap file, (H, W) numbers: 0 or 1, or how often a pixel is fixated.

  Raises:
    StavisError: It is not a MATLAB file of version 4 to 7.2, or its variable is not numeric, not 2-D or too large.
  """
  try:
    return read_matrix(path, variable, MAX_PIXELS)
  except NotImplementedError as error:
    raise StavisError(f"{path}: a MATLAB 7.3 (HDF5) file, expected version 7 or older (save with -v7)") from error
  except Exception as error:  # SciPy raises many kinds of errors for damaged files
    raise StavisError(f"{path}: cannot be read as a MATLAB file: {_one_line(error)}") from error


def open_image(path: Path) -> Image.Image:
  """Opens an image, which is not decoded yet.

  Raises:
    StavisError: It is larger than `MAX_PIXELS`.
    OSError, ValueError: It is not an image.
  """
  image = Image.open(path)
  if image.width * image.height > MAX_PIXELS:
    image.close()
    raise StavisError(f"{path}: {image.width}x{image.height}, expected at most {MAX_PIXELS} pixels")
  return image


def read_density(path: Path) -> np.ndarray:
  """Returns a grey density image, (H, W) uint8 or, of 16 bits, uint16; raises StavisError if it cannot be read."""
  try:
    with open_image(path) as image:
      return np.asarray(image if image.mode == "I;16" else image.convert("L"))
  except StavisError:
    raise
  except Exception as error:  # Pillow raises many kinds of errors for damaged files
    raise StavisError(f"{path}: cannot be read as an image: {_one_line(error)}") from error


def _by_frame(files: dict[int, list[Path]]) -> dict[int, Path]:
  return {number - 1: paths[0] for number, paths in files.items() if number >= 1}


def _one_line(error: BaseException) -> str:
  return (" ".join(str(error).split()) or type(error).__name__)[:200]
