"""Reading files, finding them, and writing files and folders that appear whole or not at all.

A file or folder gets its name only when it is complete. Until then it is a hidden one in the same place whose name ends
in `.partial`. A process that is killed leaves at most such a partial file or folder behind.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stajax.files.names import shorten_name


class FileError(ValueError):
  """A file is damaged, or is not what was written there; one line that names it."""


def partial_path(path: Path, token: str = "") -> Path:
  """Returns the name that a file or folder has until it is complete; different tokens give different names."""
  return path.with_name(f".{shorten_name(path.name)}.{token}{'.' if token else ''}partial")


@contextlib.contextmanager
def atomic_file(path: str | Path, shared: bool = False) -> Iterator[Path]:
  """Yields the name of a file to write, which replaces `path` when the block ends without an exception.

  After an exception `path` is as it was before. The content reaches the disk before the file gets its name.

  Args:
    path: The file to write, in an existing folder.
    shared: Whether other processes may write the same file at the same time; the last one to finish wins.

  Raises:
    OSError: There is no such folder, or `path` is a folder or a device, which a file must not replace; it is named.
  """
  path = plain(path)
  if path.is_dir():
    raise IsADirectoryError(errno.EISDIR, "is a folder, expected a file", str(path))
  if not path.parent.is_dir():
    raise FileNotFoundError(errno.ENOENT, "no such folder", str(path.parent))
  # Unshared files get no unique name, because nobody would ever remove what killed processes leave behind.
  partial = partial_path(path, uuid.uuid4().hex if shared else "")
  partial.unlink(missing_ok=True)  # it may be a link, put into a foreign folder to have another file overwritten
  try:
    with _named(path):
      yield partial
      put_in_place(partial, path)
  finally:
    partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
  """Yields an empty folder to fill, which replaces `path` when the block ends without an exception.

  After an exception `path` is as it was before, and nothing of the new folder remains. Makes the folder above `path`.
  """
  path = Path(path)
  make_folder(path.parent)
  partial = partial_path(path)
  shutil.rmtree(partial, ignore_errors=True)  # a process that was killed may have left it
  partial.mkdir()
  try:
    with _named(path):
      yield partial
      put_in_place(partial, path)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
  """Adds the path to errors that name no file, as that of a full disk."""
  try:
    yield
  except OSError as error:
    if error.errno is not None and error.filename is None:
      error.filename = str(path)
    raise


def put_in_place(partial: Path, path: Path) -> None:
  """Gives a complete file or folder its name, in place of what is there.

  All of it reaches the disk before, and the name afterwards, so that a power failure leaves nothing empty or missing.
  """
  paths = [partial, *partial.rglob("*")] if partial.is_dir() else [partial]
  if len(paths) == 1:
    sync(partial)
  else:
    with ThreadPoolExecutor(32) as pool:  # one after the other, small files take 5 ms each
      list(pool.map(sync, paths))
  old = partial_path(path, "old")
  if partial.is_dir() and path.is_dir():
    shutil.rmtree(old, ignore_errors=True)
    os.replace(path, old)
  os.replace(partial, path)
  sync(path.parent)
  shutil.rmtree(old, ignore_errors=True)


def make_folder(path: str | Path) -> None:
  """Makes a folder and those above it, where they are missing; their names reach the disk."""
  path = Path(path)
  missing = [folder for folder in (path, *path.parents) if not folder.exists()]
  path.mkdir(parents=True, exist_ok=True)
  for folder in missing:
    sync(folder.parent)


def sync(path: str | Path) -> None:
  """Waits until a file's content, or a folder's list of names, is on the disk."""
  try:
    file = os.open(path, os.O_RDONLY)
  except PermissionError:  # Windows does not open folders
    if os.path.isdir(path):
      return
    raise
  try:
    os.fsync(file)
  except OSError as error:
    if error.errno != errno.EINVAL:  # some network file systems cannot sync folders
      raise
  finally:
    os.close(file)


def write_bytes(path: str | Path, content: bytes, shared: bool = False) -> None:
  """Writes a file atomically; see `atomic_file` for the arguments."""
  with atomic_file(path, shared) as partial:
    partial.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
  """Writes a text file atomically, in UTF-8. Makes its folder if it is missing."""
  make_folder(Path(path).parent)
  write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any, shared: bool = False) -> None:
  """Writes a JSON file atomically, in UTF-8; see `atomic_file` for the arguments. Makes its folder if it is missing."""
  make_folder(Path(path).parent)
  text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
  # Names of files need not be UTF-8; characters that cannot be encoded become JSON escapes.
  write_bytes(path, text.encode(errors="backslashreplace"), shared)


def read_json(path: str | Path) -> Any:
  """Reads a JSON file.

  Raises:
    FileError: It cannot be read, or is not JSON, or is nested too deeply.
  """
  try:
    return json.loads(read_bytes(path))
  except OSError as error:
    raise FileError(f"{path}: {error.strerror or error}") from None
  except (ValueError, RecursionError) as error:
    raise FileError(f"{path}: not JSON ({error})") from None


def read_bytes(path: str | Path) -> bytes:
  """Returns a file's content; raises OSError if it cannot be read, or is a pipe or a device, which may never end."""
  return plain(path).read_bytes()


def plain(path: str | Path) -> Path:
  """Returns a path; raises OSError if it leads to a pipe or a device."""
  if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
    raise OSError(errno.EINVAL, "is a pipe or a device, expected a file", str(path))
  return Path(path)


def find_visible_files(folder: Path, unread: list[Path] | None = None) -> Iterator[Path]:
  """Yields the files under a folder, sorted within each folder, without hidden files and folders.

  Links to folders are entered, because large sets often lie on several disks; a folder that is reached again, as by a
  link to a folder above it, is not. `unread` receives the folders that cannot be read.
  """
  entered, failed = {os.path.realpath(folder)}, [] if unread is None else unread
  for parent, folders, files in os.walk(folder, onerror=lambda e: failed.append(Path(e.filename)), followlinks=True):
    kept: list[str] = []
    # A folder is entered where it lies rather than by a link.
    for name in sorted(folders, key=lambda name: (os.path.islink(os.path.join(parent, name)), name)):
      real = os.path.realpath(os.path.join(parent, name))
      if not name.startswith(".") and real not in entered:
        entered.add(real)
        kept.append(name)
    folders[:] = sorted(kept)
    yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def folder_names(folder: Path) -> list[str]:
  """Returns the names of the folders in a folder, sorted, without hidden ones; none if it is missing."""
  paths = folder.iterdir() if folder.is_dir() else ()
  return sorted(path.name for path in paths if path.is_dir() and not path.name.startswith("."))


def numbered_files(folder: Path, suffixes: Collection[str], prefix: str = "") -> dict[int, list[Path]]:
  """Returns the files of a folder by number, in order; none if the folder is missing. Hidden files are left out.

  A file's number is the last (at most 12) digits of its name. Suffixes are in lower case; names begin with `prefix`.
  """
  found: dict[int, list[Path]] = {}
  for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
    stem, suffix = os.path.splitext(name)
    digits = re.search(r"(\d{1,12})\D*$", stem)
    if digits and suffix.lower() in suffixes and name.startswith(prefix) and not name.startswith("."):
      found.setdefault(int(digits[1]), []).append(folder / name)
  return dict(sorted(found.items()))
