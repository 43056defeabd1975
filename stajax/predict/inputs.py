"""The videos that the command's arguments name, and the names of their outputs."""

from collections.abc import Iterable
from pathlib import Path

from stajax.files import address_refusal, find_visible_files, is_address
from stajax.predict.names import COPY_SUFFIXES, THUMBNAIL_SUFFIX, choose_names

# Files that often lie beside videos in a folder. A file that is named as an argument is always tried.
SKIPPED_SUFFIXES = {
  *(".txt", ".md", ".log", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg"),
  *(".html", ".pdf", ".py", ".sh", ".npy", ".npz", ".mat", ".h5", ".hdf5", ".pkl", ".zip", ".tar", ".gz"),
  *(".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".svg", ".webp", ".srt", ".vtt", ".ass", ".m3u", ".m3u8"),
  *(".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus"),
  *COPY_SUFFIXES,
  THUMBNAIL_SUFFIX,
}


def find_videos(inputs: Iterable[Path], out: Path) -> list[tuple[Path, str]]:
  """Returns video files and the names of their outputs.

  Folders are searched in sorted order, also through links to other folders; hidden files, overlays and files with the
  suffix of another kind are left out.
  `stajax.predict.names` says how outputs are named.

  Raises:
    FileNotFoundError: An input does not exist, or is a folder without videos.
    FileExistsError: An overlay would replace an input.
  """
  files = _find_files(inputs)
  paths = list(files.values())
  named = list(zip(paths, choose_names(paths, out)))
  for path, name in named:
    overlay = out / f"{name}.overlay.mp4"
    if overlay.resolve() in files:
      raise FileExistsError(f"{overlay}: is an input that the overlay of {path} would replace")
  return named


def _find_files(inputs: Iterable[Path]) -> dict[Path, Path]:
  """Returns the files as they were given, by their resolved paths."""
  files: dict[Path, Path] = {}
  for given in inputs:
    if is_address(given):
      raise FileNotFoundError(address_refusal(given))
    if not given.exists():
      raise FileNotFoundError(f"{given}: no such file or folder")
    found = [given] if not given.is_dir() else sorted(path for path in find_visible_files(given) if _may_be_video(path))
    if not found:
      raise FileNotFoundError(f"{given}: holds no videos")
    files |= {path.resolve(): path for path in found if path.resolve() not in files}
  return files


def find_copies(inputs: Iterable[Path]) -> list[Path]:
  """Returns the small copies that cameras wrote into folders, which `find_videos` leaves out."""
  folders = [given for given in inputs if given.is_dir()]
  return [path for folder in folders for path in find_visible_files(folder) if path.suffix.lower() in COPY_SUFFIXES]


def _may_be_video(path: Path) -> bool:
  is_skipped = path.suffix.lower() in SKIPPED_SUFFIXES or path.name.endswith(".overlay.mp4")
  return not is_skipped and path.is_file()
