"""The names of the outputs of videos: short enough for every file system, and never those of another video."""

import errno
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stajax.files.names import comparable_name, shorten_name

COPY_SUFFIXES = {".lrv", ".lrf"}  # of small copies that cameras write beside the real files (GoPro, Insta360, DJI)
THUMBNAIL_SUFFIX = ".thm"  # of the pictures that GoPro and others write beside them
FRAMES = ', "frames": ['
"""What stands in a JSON file before the list of frames, and after everything that tells what the file is."""
_WORDS = {"made_with": "the model"}
"""What messages call a setting, where that is not its own name."""
_ENDS = 2**20  # the bytes at both ends of a file that identify it, with its size


def choose_names(paths: Sequence[Path], out: Path, folders: Sequence[Path] | None = None) -> list[str]:
  """Returns what the names of each video's outputs begin with: usually its folder and its name without the suffix.

  A video keeps its suffix, and gets a number if that is not enough, if another video has the name: another one of these
  (a camera's small copy comes last), or one whose outputs an earlier run has left in the folder. Names that differ only
  in upper and lower case, or in how accents are encoded, count as equal, because they are one file on some systems.

  Args:
    paths: The videos.
    out: The folder for the outputs.
    folders: The folder in `out` for the outputs of each video; by default all are in `out` itself.

  Returns:
    Names such as "day1/walk", with slashes.
  """
  names, taken = dict[int, str](), set[str]()
  order = sorted(range(len(paths)), key=lambda i: paths[i].suffix.lower() in {*COPY_SUFFIXES, THUMBNAIL_SUFFIX})
  for i in order:
    path, folder = paths[i], "" if folders is None else folders[i].as_posix()
    prefix = "" if folder in ("", ".") else f"{folder}/"
    stem = path.name if path.stem in (".", "..") else path.stem  # which would lead out of the folder
    number, name = 1, prefix + shorten_name(stem)
    while comparable_name(name) in taken or _is_of_another(out / f"{name}.json", path):
      number += 1
      name = prefix + shorten_name(path.name if number == 2 else f"{path.name}-{number - 1}")
    taken.add(comparable_name(name))
    names[i] = name
  return [names[i] for i in range(len(paths))]


def identify(path: Path) -> str:
  """Returns an identity of a file: digests of its place and of its content; files are the same if either agrees.

  Raises:
    OSError: The file cannot be read, or is no regular file: reading a pipe would not end.
  """
  if not path.is_file():
    raise FileNotFoundError(errno.ENOENT, "no regular file", str(path))
  with path.open("rb") as file:
    size = file.seek(0, 2)
    digest = hashlib.sha256(str(size).encode())
    for start in (0, max(_ENDS, size - _ENDS)):
      file.seek(start)
      digest.update(file.read(_ENDS))
  place = hashlib.sha256(str(path.resolve()).encode(errors="surrogateescape"))
  return f"{place.hexdigest()[:16]}-{digest.hexdigest()[:16]}"


def read_header(numbers: Path) -> dict[str, Any]:
  """Returns the fields that the JSON file of a prediction begins with, before its long list; {} if there are none."""
  try:
    with numbers.open(encoding="utf-8", errors="replace") as file:
      start = file.read(2**16)
    return dict(json.loads(start.partition(FRAMES)[0] + "}"))
  except (OSError, ValueError, TypeError, RecursionError):
    return {}


def is_done(out: Path, name: str, settings: Mapping[str, Any]) -> bool:
  """Returns whether the outputs of a video are complete; `name` is that of `choose_names`.

  Args:
    out: The folder for the outputs.
    name: The name that they begin with.
    settings: What they are to be made with, as flat values for JSON.

  Raises:
    FileExistsError: They were made with other settings; one line.
  """
  path = out / f"{name}.json"
  if not path.exists():
    return False
  made: dict[str, Any] = read_header(path).get("settings") or {}
  if not made:
    raise FileExistsError(f"{path}: does not say how it was made; expected --overwrite or another --out")
  differing = [key for key in settings if made.get(key) != settings[key]]
  if differing:
    both = "; ".join(
      f"{_WORDS.get(key, key)} {_shown(made.get(key))} there, {_shown(settings[key])} now" for key in differing[:3]
    )
    raise FileExistsError(f"{path}: was made with other settings ({both}); expected --overwrite or another --out")
  return True


def _shown(value: Any) -> str:
  """Returns a setting as a message shows it; of the SHA-256 that stands for a model, only the beginning."""
  text = "not given" if value is None else str(value)
  return f"{text[:12]}…" if len(text) == 64 else text


def is_same(identity: str, path: Path) -> bool:
  """Returns whether an identity is that of a file; raises OSError if the file cannot be read."""
  return any(a == b for a, b in zip(identity.split("-"), identify(path).split("-"), strict=False))


def _is_of_another(numbers: Path, path: Path) -> bool:
  """Returns whether a file of numbers, which may not exist, is that of another video."""
  source = read_header(numbers).get("source")
  try:
    return isinstance(source, str) and source != "" and not is_same(source, path)
  except OSError:
    return False
