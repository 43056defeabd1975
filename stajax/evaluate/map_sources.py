"""Finds the maps of a video that somebody else made: numbered files, an npz file of arrays, or a grey video.

  DIR[/<db>]/<video>/…                                      numbered png, jpg or npy files, see `map_files`
  DIR[/<db>]/<video>.npz or <video>.maps-000.npz, …         `maps` (n, h, w), and `times` in seconds as predict writes
  DIR[/<db>]/<video>.mp4 (mkv, mov, avi, webm)              one grey frame for each frame

Folders come first, then npz files, then videos; of several, a note says which is read.
"""

import contextlib
import itertools
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from unicodedata import normalize

import numpy as np

from stajax.evaluate.map_files import find_maps, folder_names_of, read_map
from stajax.eyetracking import MAX_PIXELS, StavisError, StavisVideo
from stajax.eyetracking.spelling import find_name
from stajax.media import isolated
from stajax.media.file import MediaError
from stajax.screen import counted

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm")
_KINDS = ("folder", "npz", "video")


@dataclass(frozen=True)
class MapSource:
  """The maps of one video.

  Attributes:
    frames: The 0-based frames that have a map; None if only reading tells.
    read: Yields (frame, map (h, w), a name for messages) for those of the given frames that have a map, ascending.
  """

  frames: Collection[int] | None
  read: Callable[[Sequence[int]], Iterator[tuple[int, np.ndarray, str]]]


def find_source(root: Path, video: StavisVideo, notes: list[str]) -> MapSource:
  """Returns the maps of a video in the folder `root`; `notes` gets lines about what is left out.

  Raises:
    StavisError: There are none, or they are in another form.
  """
  places = [root / name for name in folder_names_of(video.database)] + [root]
  found = [each for place in places for each in sources_in(place, video.name)]
  if not found:
    others = ", ".join(str(place / video.name) for place in places[1:])
    raise StavisError(
      f"{places[0] / video.name}: no such folder of maps (nor {others}, nor an npz file or a video of that name)"
    )
  found.sort(key=lambda each: _KINDS.index(_kind(each[0])))  # stable: of one kind, the place that is looked at first
  paths = found[0]
  if beside := [str(each[0]) for each in found[1:]]:
    notes.append(f"{paths[0]} is read; {', '.join(beside)} of the same video is not")
  if _kind(paths[0]) == "npz":
    return _npz_source(paths, video, notes)
  if _kind(paths[0]) == "video":
    return MapSource(None, lambda frames: _read_video(paths[0], frames, video, notes))
  files, lines = find_maps(paths[0], video.num_frames)
  notes.extend(lines)
  return MapSource(files.keys(), lambda frames: ((i, read_map(files[i]), str(files[i])) for i in frames if i in files))


def _kind(path: Path) -> str:
  return "folder" if path.is_dir() else "npz" if path.suffix == ".npz" else "video"


def sources_in(place: Path, name: str) -> list[list[Path]]:
  """Returns what a folder has for a video: its folder, its npz file, the parts of a prediction, and videos."""
  names = [name, f"{name}.npz", *(f"{name}{suffix}" for suffix in VIDEO_SUFFIXES)]
  folder, npz, *videos = (place / find_name(place, each) for each in names)
  pattern = re.compile(re.escape(normalize("NFC", name)) + r"\.maps-\d+\.npz")
  parts = [path for path in place.iterdir() if pattern.fullmatch(normalize("NFC", path.name))] if place.is_dir() else []
  found = [[folder]] if folder.is_dir() else []
  return [*found, *([path] for path in (npz, *videos) if path.is_file()), *([sorted(parts)] if parts else [])]


def _npz_source(paths: Sequence[Path], video: StavisVideo, notes: list[str]) -> MapSource:
  where: dict[int, tuple[Path, int]] = {}
  first, doubled = 0, 0
  for path in paths:
    with _open_npz(path) as maps:
      number = maps.shape[0]
      frames = range(first, first + number)
      if maps.times is not None:
        frames = _frames_at(maps.times, video, path, number)
    for k, i in enumerate(frames):
      if i in where:
        doubled += 1
      elif i < video.num_frames:
        where[i] = path, k
    first += number
  if first - doubled > len(where):
    notes.append(f"{paths[0]}: {counted(first - doubled - len(where), 'map')} past frame {video.num_frames} ignored")
  if doubled:
    notes.append(f"{paths[0]}: {counted(doubled, 'map')} ignored, of frames that have one already")
  return MapSource(where.keys(), lambda frames: _read_npz(where, frames))


@dataclass(frozen=True)
class _NpzMaps:
  """The maps in an npz file that is open, one of them in memory at a time.

  Attributes:
    file: The array in the archive, as a file.
    start: Where its numbers begin.
    shape: (n, h, w).
    dtype: The kind of its numbers.
    times: What the array `times` holds, None if there is none.
  """

  file: IO[bytes]
  start: int
  shape: tuple[int, int, int]
  dtype: np.dtype
  times: np.ndarray | None

  def __getitem__(self, k: int) -> np.ndarray:
    """Returns a map (h, w); raises ValueError if the file ends before it."""
    size = self.shape[1] * self.shape[2] * self.dtype.itemsize
    self.file.seek(self.start + k * size)
    return np.frombuffer(self.file.read(size), self.dtype).reshape(self.shape[1:])


@contextlib.contextmanager
def _open_npz(path: Path) -> Iterator[_NpzMaps]:
  try:
    with zipfile.ZipFile(path) as archive, archive.open("maps.npy") as file:
      read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
      shape, by_columns, dtype = read[np.lib.format.read_magic(file)](file)
      if len(shape) != 3 or dtype.kind not in "buif" or not 0 < shape[1] * shape[2] <= MAX_PIXELS:
        expected = f"expected real numbers (n, h, w), at most {MAX_PIXELS} pixels a map"
        raise StavisError(f"{path}: found maps {shape} of kind {dtype.kind}, {expected}")
      if by_columns:
        raise StavisError(f"{path}: found maps in the order of Fortran, expected numpy.ascontiguousarray(maps)")
      times = np.load(path, allow_pickle=False)["times"] if "times.npy" in archive.namelist() else None
      yield _NpzMaps(file, file.tell(), shape, dtype, times)
  except StavisError:
    raise
  except Exception as error:  # NumPy and zipfile raise many kinds on damaged files
    raise StavisError(f"{path}: cannot be read as maps: {' '.join(str(error).split())[:200]}") from error


def _frames_at(times: np.ndarray, video: StavisVideo, path: Path, number: int) -> list[int]:
  """Returns the frame that is shown at each time."""
  if times.shape != (number,) or times.dtype.kind != "f" or not np.isfinite(times).all() or times.min(initial=0) < 0:
    raise StavisError(f"{path}: found times {times.dtype} {times.shape}, expected {number} seconds")
  return np.round(times * video.rate()).astype(int).tolist()


def _read_npz(where: dict[int, tuple[Path, int]], frames: Sequence[int]) -> Iterator[tuple[int, np.ndarray, str]]:
  present = [(i, *where[i]) for i in frames if i in where]
  for path, of_path in itertools.groupby(present, key=lambda each: each[1]):
    with _open_npz(path) as maps:
      for i, _, k in of_path:
        yield i, maps[k], f"{path}, map {k}"


def _read_video(
  path: Path, frames: Sequence[int], video: StavisVideo, notes: list[str]
) -> Iterator[tuple[int, np.ndarray, str]]:
  wanted, number = set(frames), 0
  try:
    for number, values in enumerate(isolated.grey_frames(path), start=1):
      if number - 1 in wanted:
        yield number - 1, values, f"{path}, frame {number}"
  except MediaError as error:
    raise StavisError(str(error)) from error
  if number != video.num_frames:
    notes.append(f"{path}: {counted(number, 'frame')}, but the video has {video.num_frames}")
