"""The videos that the command's arguments name, and the names of their outputs."""

import contextlib
import glob
import itertools
from collections.abc import Iterable
from pathlib import Path

from stajax.files import find_visible_files
from stajax.hints import address_refusal, is_address
from stajax.predict.names import COPY_SUFFIXES, THUMBNAIL_SUFFIX, choose_names
from stajax.screen import counted

# Files that often lie beside videos in a folder. A file that is named as an argument is always tried.
SKIPPED_SUFFIXES = {
  *(".txt", ".md", ".log", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg"),
  *(".html", ".pdf", ".py", ".sh", ".npy", ".npz", ".mat", ".h5", ".hdf5", ".pkl", ".zip", ".tar", ".gz"),
  *(".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".svg", ".webp", ".srt", ".vtt", ".ass", ".m3u", ".m3u8"),
  *(".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus"),
  *COPY_SUFFIXES,
  THUMBNAIL_SUFFIX,
}


VIDEO_ENDINGS = (".overlay.mp4", ".encoded.mp4")
"""The endings of the videos that predictions write, which are no videos to predict."""


def find_videos(inputs: Iterable[Path], out: Path, recursive: bool = False) -> list[tuple[Path, str]]:
  """Returns video files and the names of their outputs, which keep the folders below the one that was searched.

  Folders are searched in sorted order, also through links to other folders; hidden files, videos that this program
  wrote and files with the suffix of another kind are left out. An input with wildcards stands for all that it fits.
  `stajax.predict.names` says how outputs are named.

  Args:
    inputs: Files, folders, or patterns such as `day*/*.mp4`, in which `**` stands for any folders.
    out: The folder for the outputs.
    recursive: Whether the folders in a folder are searched, too.

  Raises:
    FileNotFoundError: An input does not exist, or is a folder without videos.
    FileExistsError: A video would replace an input.
  """
  files: dict[Path, tuple[Path, Path]] = {}
  for given in inputs:
    for path, folder in _find_files(given, recursive):
      files.setdefault(path.resolve(), (path, folder))
  paths, folders = [path for path, _ in files.values()], [folder for _, folder in files.values()]
  named = list(zip(paths, choose_names(paths, out, folders), strict=True))
  for path, name in named:
    for ending in VIDEO_ENDINGS:
      if (written := out / f"{name}{ending}").resolve() in files:
        raise FileExistsError(f"{written}: is an input that an output of {path} would replace")
  return named


def _find_files(given: Path, recursive: bool) -> list[tuple[Path, Path]]:
  """Returns the files that an input names, each with its folder below the one that is searched."""
  if is_address(given):
    raise FileNotFoundError(address_refusal(given))
  if not given.exists() and glob.has_magic(str(given)):
    return _find_matches(given, recursive)
  if not given.exists():
    raise FileNotFoundError(f"{given}: no such file or folder")
  if not given.is_dir():
    return [(given, Path())]
  found = sorted(path for path in find_visible_files(given) if _may_be_video(path))
  kept = [path for path in found if recursive or path.parent == given]
  if not kept:
    raise FileNotFoundError(f"{given}: holds no videos{', but its folders do: see --recursive' if found else ''}")
  return [(path, path.parent.relative_to(given)) for path in kept]


def _find_matches(pattern: Path, recursive: bool) -> list[tuple[Path, Path]]:
  """Returns the files that a pattern fits, and those in the folders that it fits."""
  fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts))
  base = Path(*fixed)
  found: list[tuple[Path, Path]] = []
  for match in map(Path, sorted(glob.glob(str(pattern), recursive=True))):
    if not match.is_dir():
      found += [(match, match.parent.relative_to(base))] if _may_be_video(match) else []
    elif recursive or "**" not in pattern.parts:
      with contextlib.suppress(FileNotFoundError):  # not every folder that fits needs to hold videos
        found += [(path, match.relative_to(base) / folder) for path, folder in _find_files(match, recursive)]
  if not found:
    raise FileNotFoundError(f"{pattern}: fits no videos")
  return found


def describe_left_out(inputs: Iterable[Path], recursive: bool = False) -> list[str]:
  """Returns a line for all in folders that `find_videos` leaves out though it may be a video."""
  lines: list[str] = []
  for folder in (given for given in inputs if given.is_dir()):
    unread, deeper = list[Path](), 0
    for path in find_visible_files(folder, unread):
      if not recursive and path.parent != folder:
        deeper += _may_be_video(path)
      elif path.suffix.lower() in COPY_SUFFIXES:
        lines.append(f"{path} is a camera's small copy and left out")
      elif path.suffix.lower() not in SKIPPED_SUFFIXES and not path.exists():
        lines.append(f"{path} is a link that leads nowhere, left out")
    lines += [f"{path} cannot be read, left out" for path in unread]
    if deeper:
      lines.append(f"{folder}: {counted(deeper, 'video')} in its folders left out (see --recursive)")
  return lines


def _may_be_video(path: Path) -> bool:
  is_skipped = path.suffix.lower() in SKIPPED_SUFFIXES or path.name.endswith(VIDEO_ENDINGS)
  return not is_skipped and path.is_file()
