"""Eye-tracking sets in the layout of STAViS, read and written. Needs no TensorFlow.

  video_frames/<database>/<video>/img_00001.jpg          1-based, every frame
  video_audio/<database>/<video>/<video>.wav             may be missing
  annotations/<database>/<video>/fixMap_00001.mat        variable eyeMap (H, W), 0 or 1
  annotations/<database>/<video>/maps/eyeMap_00001.jpg   grey density (H, W)
  fold_lists/<database>_list_test_{1,2,3}_fps.txt        rows "name frames fps"; or one <database>_list_test_fps.txt

Database names are arbitrary. Frame indices in this package are 0-based: index 0 is file number 1.
"""

import io
import json
import math
import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.io
import scipy.sparse
from PIL import Image

PROTOCOLS = ("stavis",)
MAX_PIXELS = 8192 * 8192
MAX_MAT_BYTES = 64 * 2**20
GROUPS_FILE = "groups.json"  # named subsets of videos that are scored by themselves
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
NUMERIC_CLASSES = {"logical", "double", "single", "sparse"} | {f"{s}int{b}" for s in ("", "u") for b in (8, 16, 32, 64)}


class StavisError(ValueError):
  """A tree, list or file that is not in the STAViS layout; the message is one line that names it."""


@dataclass(frozen=True)
class StavisVideo:
  """One video of a tree.

  Attributes:
    fps: frames a second, from the fold list; None where no list names the video.
    num_frames: of the fold list, or fewer where frame images are missing at the end.
    entries: the split of every test list row that names the video (0: the database has one list without a number).
    frame_paths: one image a frame; empty if the tree was read without frames.
    fixation_paths, density_paths: by 0-based frame; frames without annotation are missing.
    wav: the sound, or None.
  """

  database: str
  name: str
  fps: float | None
  num_frames: int
  entries: tuple[int, ...]
  frame_paths: tuple[Path, ...] = field(repr=False)
  fixation_paths: dict[int, Path] = field(repr=False)
  density_paths: dict[int, Path] = field(repr=False)
  wav: Path | None = None
  list_hint: str = field(default="", repr=False)

  @property
  def has_wav(self) -> bool:
    return self.wav is not None

  @property
  def annotated(self) -> list[int]:
    """Frames (0-based, ascending) that have both fixations and density."""
    return sorted(self.fixation_paths.keys() & self.density_paths.keys())

  def rate(self) -> float:
    """Frames a second; raises StavisError where no fold list gives it."""
    if self.fps is None:
      raise StavisError(f"{self.database}/{self.name}: its frames a second are not known: expected {self.list_hint}")
    return self.fps

  @property
  def times(self) -> np.ndarray:
    """(num_frames,) float64, seconds."""
    return np.arange(self.num_frames) / self.rate()

  def fixations(self, i: int) -> np.ndarray:
    """(H, W) bool of 0-based frame i."""
    return read_fixations(self.fixation_paths[i])

  def density(self, i: int) -> np.ndarray:
    """(H, W) uint8 of 0-based frame i."""
    return read_density(self.density_paths[i])

  def union_of_fixations(self) -> np.ndarray:
    """(H, W) bool: pixels fixated in any frame."""
    union = None
    for i in sorted(self.fixation_paths):
      fixations = self.fixations(i)
      if union is not None and union.shape != fixations.shape:
        raise StavisError(f"{self.fixation_paths[i]}: size {fixations.shape}, expected {union.shape} as before")
      union = fixations if union is None else union | fixations
    return union


@dataclass(frozen=True)
class StavisTree:
  """What `read_tree` found. `skipped` has (database, video, reason); `notes` are lines for people."""

  root: Path
  videos: tuple[StavisVideo, ...]
  skipped: tuple[tuple[str, str, str], ...]
  notes: tuple[str, ...]
  fold_lists: tuple[Path, ...]


def parse_data(data: str) -> Path:
  """`stavis:ROOT` → ROOT; a bare ROOT that is a tree in the STAViS layout is taken too. Raises StavisError."""
  name, separator, root = data.partition(":")
  if separator and name in PROTOCOLS and root:
    return Path(root)
  if (Path(data) / "annotations").is_dir():
    return Path(data)
  raise StavisError(f"--data {data}: expected NAME:ROOT with NAME one of {', '.join(PROTOCOLS)}")


def read_tree(
  root: Path,
  databases: Collection[str] | None = None,
  need_frames: bool = True,
  need_annotations: bool = True,
) -> StavisTree:
  """Lists the test videos of a tree in the STAViS layout.

  Args:
    databases: names; None takes every folder of `annotations`, or of `video_frames` where no annotations are needed.
    need_frames: whether a video without frame images is skipped (maps can be scored without them).
    need_annotations: whether a video without annotations is skipped (it can be predicted without them).

  Raises:
    StavisError: not such a tree, an unknown database, or a malformed fold list.
  """
  root = Path(root)
  part = "annotations" if need_annotations else "video_frames"
  folder = root / part
  if not folder.is_dir():
    raise StavisError(f"{root}: not a tree in the STAViS layout: it has no folder '{part}'")
  present = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
  missing = [name for name in databases or () if name not in present]
  if missing:
    raise StavisError(f"{folder}: no database {', '.join(missing)}; found {', '.join(present) or 'none'}")
  videos: list[StavisVideo] = []
  skipped: list[tuple[str, str, str]] = []
  notes: list[str] = []
  fold_lists: list[Path] = []
  for database in present if not databases else sorted(set(databases)):
    lists = find_lists(root, database)
    fold_lists += lists.values()
    rows = [(split, *row) for split, path in lists.items() for row in read_fold_list(path)]
    hint = str(root / "fold_lists" / f"{database}_list_test_1_fps.txt")
    if not lists:
      names = sorted(path.name for path in (folder / database).iterdir() if path.is_dir())
      rows = [(0, name, None, None) for name in names if not name.startswith(".")]
      notes.append(f"{database}: no fold list ({hint}): all {len(rows)} videos are used once")
    entries: dict[str, list] = {}
    for row in rows:
      entries.setdefault(row[1], []).append(row)
    for name, named in entries.items():
      try:
        splits = tuple(sorted(row[0] for row in named))
        needs = (need_frames, need_annotations)
        video, video_notes = _find_video(root, database, name, named[0][2], named[0][3], splits, *needs, hint)
      except StavisError as error:
        skipped.append((database, name, str(error)))
        continue
      videos.append(video)
      notes += video_notes
  return StavisTree(root, tuple(videos), tuple(skipped), tuple(notes), tuple(fold_lists))


def find_lists(root: Path, database: str, part: Literal["test", "train"] = "test") -> dict[int, Path]:
  """The lists of a database by split number; {0: path} for a single list without a number."""
  folder = Path(root) / "fold_lists"
  pattern = re.compile(re.escape(database) + rf"_list_{part}_(\d+)_fps\.txt")
  names = sorted(os.listdir(folder)) if folder.is_dir() else []
  numbered = {int(match[1]): folder / name for name in names if (match := pattern.fullmatch(name))}
  if numbered:
    return dict(sorted(numbered.items()))
  single = folder / f"{database}_list_{part}_fps.txt"
  return {0: single} if single.is_file() else {}


def read_fold_list(path: Path) -> list[tuple[str, int, float]]:
  """The rows (name, frames, fps) of a fold list, in its order; a video listed twice appears twice.

  Raises:
    StavisError: a row that is not "name frames fps", or a name that is not a plain folder name.
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
      name, num_frames, fps = line.strip().rsplit(maxsplit=2)
      row = (name, int(num_frames), float(fps))
    except ValueError:
      row = ("", 0, 0.0)
    name, num_frames, fps = row
    if num_frames < 1 or not (0 < fps < math.inf):
      raise StavisError(f"{path}: line {number}: found {line.strip()[:80]!r}, expected 'name frames fps'")
    if Path(name).name != name or "\\" in name or name in (".", ".."):
      raise StavisError(f"{path}: line {number}: {name!r} is not the name of a folder")
    rows.append(row)
  return rows


def read_groups(root: Path) -> dict[str, list[str]]:
  """Reads the named subsets of a tree's videos, `<database>/<subset>` → video names; empty where the tree has none.

  Raises:
    StavisError: The file is not JSON, or has another form.
  """
  path = Path(root) / GROUPS_FILE
  if not path.is_file():
    return {}
  try:
    groups = json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise StavisError(f"{path}: not JSON: {error}") from error
  if not isinstance(groups, dict) or not all(
    isinstance(videos, list) and all(isinstance(video, str) for video in videos) for videos in groups.values()
  ):
    raise StavisError(f"{path}: expected {{'database/subset': ['video', …]}}")
  return groups


def numbered_files(folder: Path, suffixes: Collection[str], prefix: str = "") -> dict[int, list[Path]]:
  """Files of a folder by number: the last digits of the name before its suffix. Not by directory order."""
  found: dict[int, list[Path]] = {}
  if not folder.is_dir():
    return found
  for name in sorted(os.listdir(folder)):
    stem, suffix = os.path.splitext(name)
    digits = re.search(r"(\d{1,12})\D*$", stem)
    if digits and suffix.lower() in suffixes and name.startswith(prefix) and not name.startswith("."):
      found.setdefault(int(digits[1]), []).append(folder / name)
  return dict(sorted(found.items()))


def read_fixations(path: Path, variable: str = "eyeMap") -> np.ndarray:
  """(H, W) bool of a fixMap file: its variable > 0.

  Raises:
    StavisError: not a MATLAB file of version 4 to 7.2, no numeric 2-D variable, or one that is too large.
  """
  try:
    if path.stat().st_size > MAX_MAT_BYTES:
      raise StavisError(f"{path}: {path.stat().st_size} bytes, expected at most {MAX_MAT_BYTES}")
    content = io.BytesIO(path.read_bytes())
    shapes = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(content)}
    if variable not in shapes:
      raise StavisError(f"{path}: found {sorted(shapes) or 'no variables'}, expected a variable {variable!r}")
    shape, kind = shapes[variable]
    if len(shape) != 2 or not 0 < math.prod(shape) <= MAX_PIXELS or kind not in NUMERIC_CLASSES:
      raise StavisError(f"{path}: {variable} is {kind} {shape}, expected numbers (H, W), at most {MAX_PIXELS} pixels")
    content.seek(0)
    eye_map = scipy.io.loadmat(content, variable_names=[variable])[variable]
  except StavisError:
    raise
  except NotImplementedError as error:
    raise StavisError(f"{path}: a MATLAB 7.3 (HDF5) file, expected version 7 or older (save with -v7)") from error
  except Exception as error:  # SciPy raises many kinds on damaged files
    raise StavisError(f"{path}: cannot be read as a MATLAB file: {_one_line(error)}") from error
  return np.asarray(eye_map.todense() if scipy.sparse.issparse(eye_map) else eye_map) > 0


def read_density(path: Path) -> np.ndarray:
  """(H, W) uint8 of a grey density image; raises StavisError."""
  try:
    with Image.open(path) as image:
      if image.width * image.height > MAX_PIXELS:
        raise StavisError(f"{path}: {image.width}x{image.height}, expected at most {MAX_PIXELS} pixels")
      return np.asarray(image.convert("L"))
  except StavisError:
    raise
  except Exception as error:  # Pillow raises many kinds on damaged files
    raise StavisError(f"{path}: cannot be read as an image: {_one_line(error)}") from error


def _find_video(
  root: Path,
  database: str,
  name: str,
  num_frames: int | None,
  fps: float | None,
  entries: tuple[int, ...],
  need_frames: bool,
  need_annotations: bool,
  list_hint: str,
) -> tuple[StavisVideo, list[str]]:
  annotations = root / "annotations" / database / name
  if need_annotations and not annotations.is_dir():
    raise StavisError(f"{annotations}: no such folder")
  fixations = _by_frame(numbered_files(annotations, (".mat",), "fixMap_"))
  densities = _by_frame(numbered_files(annotations / "maps", FRAME_SUFFIXES, "eyeMap_"))
  if need_annotations and not fixations.keys() & densities.keys():
    raise StavisError(f"{annotations}: no frame with both fixMap_%05d.mat and maps/eyeMap_%05d.jpg")
  notes = []
  folder = root / "video_frames" / database / name
  frames = _by_frame(numbered_files(folder, FRAME_SUFFIXES, "img_")) if need_frames else {}
  listed = num_frames or max(frames or fixations, default=0) + 1
  num_frames = listed
  if need_frames:
    num_frames = next((i for i in range(listed) if i not in frames), listed)
    if num_frames == 0:
      raise StavisError(f"{folder / 'img_00001.jpg'}: no such file")
    if num_frames < listed:
      missing = f"img_{num_frames + 1:05d}.jpg is missing"
      notes.append(f"{database}/{name}: {listed} frames are listed, but {missing}: the first {num_frames} are used")
  wav = root / "video_audio" / database / name / f"{name}.wav"
  video = StavisVideo(
    database=database,
    name=name,
    fps=fps,
    num_frames=num_frames,
    entries=entries,
    frame_paths=tuple(frames[i] for i in range(num_frames)) if need_frames else (),
    # The union of fixations is over all listed frames, as STAViS takes it.
    fixation_paths={i: path for i, path in fixations.items() if i < listed},
    density_paths={i: path for i, path in densities.items() if i < listed},
    wav=wav if wav.is_file() else None,
    list_hint=list_hint,
  )
  unannotated = num_frames - sum(i < num_frames for i in video.annotated)
  if unannotated and need_annotations:
    notes.append(f"{database}/{name}: {unannotated} of {num_frames} frames have no fixations or no density")
  return video, notes


def _by_frame(files: dict[int, list[Path]]) -> dict[int, Path]:
  return {number - 1: paths[0] for number, paths in files.items() if number >= 1}


def _one_line(error: BaseException) -> str:
  return (" ".join(str(error).split()) or type(error).__name__)[:200]
