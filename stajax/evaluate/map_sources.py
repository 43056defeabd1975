"""Finds the maps of a video that somebody else made: numbered files, an npz file of arrays, or a grey video.

  DIR[/<db>]/<video>/…                                      numbered png, jpg or npy files, see `map_files`
  DIR[/<db>]/<video>.npz or <video>.maps-000.npz, …         `maps` (n, h, w), and `times` in seconds as predict writes
  DIR[/<db>]/<video>.mp4 (mkv, mov, avi, webm)              one grey frame for each frame

Folders are looked for first, then npz files, then videos.
"""

import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stajax.evaluate.map_files import find_maps, folder_names_of, read_map
from stajax.eyetracking import MAX_PIXELS, StavisError, StavisVideo
from stajax.media import isolated
from stajax.media.file import MediaError

_MAX_NPZ_BYTES = 2**32
VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm")


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
  if not any((place / video.name).is_dir() for place in places):
    for place in places:
      if arrays := _npz_files(place, video.name):
        return _npz_source(arrays, video, notes)
      for suffix in VIDEO_SUFFIXES:
        if (path := place / f"{video.name}{suffix}").is_file():
          return MapSource(None, lambda frames, path=path: _read_video(path, frames, video, notes))
  files, found = find_maps(root, video.database, video.name, video.num_frames)
  notes.extend(found)
  return MapSource(files.keys(), lambda frames: ((i, read_map(files[i]), str(files[i])) for i in frames if i in files))


def _npz_files(place: Path, name: str) -> list[Path]:
  if (single := place / f"{name}.npz").is_file():
    return [single]
  pattern = re.compile(re.escape(name) + r"\.maps-\d+\.npz")
  return sorted(path for path in place.iterdir() if pattern.fullmatch(path.name)) if place.is_dir() else []


def _npz_source(paths: Sequence[Path], video: StavisVideo, notes: list[str]) -> MapSource:
  where: dict[int, tuple[Path, int]] = {}
  first, doubled = 0, 0
  for path in paths:
    with _open_npz(path) as arrays:
      number = len(arrays["maps"])
      frames = range(first, first + number)
      if "times" in arrays:
        frames = _frames_at(arrays["times"], video, path, number)
    for k, i in enumerate(frames):
      if i in where:
        doubled += 1
      elif i < video.num_frames:
        where[i] = path, k
    first += number
  if first - doubled > len(where):
    notes.append(f"{paths[0]}: {first - doubled - len(where)} maps past frame {video.num_frames} are ignored")
  if doubled:
    notes.append(f"{paths[0]}: {doubled} maps belong to a frame that has one already and are ignored")
  return MapSource(where.keys(), lambda frames: _read_npz(where, frames))


def _open_npz(path: Path) -> "np.lib.npyio.NpzFile":
  try:
    with zipfile.ZipFile(path) as archive:
      size = sum(info.file_size for info in archive.infolist())
    if size > _MAX_NPZ_BYTES:
      raise ValueError(f"{size} bytes of arrays, expected at most {_MAX_NPZ_BYTES}: divide them among several files")
    arrays = np.load(path, allow_pickle=False)
    shape, kind = arrays["maps"].shape, arrays["maps"].dtype.kind
  except Exception as error:  # NumPy and zipfile raise many kinds on damaged files
    raise StavisError(f"{path}: cannot be read as maps: {' '.join(str(error).split())[:200]}") from error
  if len(shape) != 3 or kind not in "buif" or shape[1] * shape[2] > MAX_PIXELS:
    expected = f"expected real numbers (n, h, w), at most {MAX_PIXELS} pixels a map"
    raise StavisError(f"{path}: found maps {shape} of kind {kind}, {expected}")
  return arrays


def _frames_at(times: np.ndarray, video: StavisVideo, path: Path, number: int) -> list[int]:
  """Returns the frame that is shown at each time."""
  if times.shape != (number,) or times.dtype.kind != "f" or not np.isfinite(times).all() or times.min(initial=0) < 0:
    raise StavisError(f"{path}: found times {times.dtype} {times.shape}, expected {number} seconds")
  return np.round(times * video.rate()).astype(int).tolist()


def _read_npz(where: dict[int, tuple[Path, int]], frames: Sequence[int]) -> Iterator[tuple[int, np.ndarray, str]]:
  opened, maps = None, np.empty(0)
  for i in frames:
    if i in where:
      path, k = where[i]
      if path != opened:
        with _open_npz(path) as arrays:
          opened, maps = path, arrays["maps"]
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
    notes.append(f"{path}: {number} frames, but the video has {video.num_frames}")
