"""The names of the outputs of videos: short enough for every file system, and never those of another video."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from stajax.files import comparable_name, shorten_name

COPY_SUFFIXES = {".lrv", ".lrf"}  # of small copies that cameras write beside the real files (GoPro, Insta360, DJI)
THUMBNAIL_SUFFIX = ".thm"  # of the pictures that GoPro and others write beside them
_ENDS = 2**20  # the bytes at both ends of a file that identify it, with its size


def choose_names(paths: Sequence[Path], out: Path) -> list[str]:
  """Returns what the names of each video's outputs begin with: usually its name without the suffix.

  A video keeps its suffix, and gets a number if that is not enough, if another video has the name: another one of these
  (a camera's small copy comes last), or one whose outputs an earlier run has left in the folder. Names that differ only
  in upper and lower case, or in how accents are encoded, count as equal, because they are one file on some systems.

  Args:
    paths: The videos.
    out: The folder for the outputs.
  """
  names, taken = dict[Path, str](), set[str]()
  for path in sorted(paths, key=lambda path: path.suffix.lower() in {*COPY_SUFFIXES, THUMBNAIL_SUFFIX}):
    number, name = 1, shorten_name(path.stem)
    while comparable_name(name) in taken or _is_of_another(out / f"{name}.json", path):
      number += 1
      name = shorten_name(path.name if number == 2 else f"{path.name}-{number - 1}")
    taken.add(comparable_name(name))
    names[path] = name
  return [names[path] for path in paths]


def identify(path: Path) -> str:
  """Returns an identity of a file: digests of its place and of its content; files are the same if either agrees.

  Raises:
    OSError: The file cannot be read.
  """
  with path.open("rb") as file:
    size = file.seek(0, 2)
    digest = hashlib.sha256(str(size).encode())
    for start in (0, max(_ENDS, size - _ENDS)):
      file.seek(start)
      digest.update(file.read(_ENDS))
  place = hashlib.sha256(str(path.resolve()).encode(errors="surrogateescape"))
  return f"{place.hexdigest()[:16]}-{digest.hexdigest()[:16]}"


def _is_of_another(numbers: Path, path: Path) -> bool:
  """Returns whether a file of numbers, which may not exist, is that of another video."""
  try:
    with numbers.open(encoding="utf-8", errors="replace") as file:
      start = file.read(2**16)
    found = re.search(r'"source": ("[^"]*")', start)
    if found is None:  # written by an older version, or no output of this program
      return False
    earlier, own = str(json.loads(found[1])).split("-"), identify(path).split("-")
  except (OSError, ValueError):
    return False
  return not any(a == b for a, b in zip(earlier, own))
