"""Writing files and folders that appear whole or not at all, names of files, locks, SHA-256 digests, finding files.

A file or folder gets its name only when it is complete. Until then it is a hidden one in the same place whose name ends
in `.partial`. A process that is killed leaves at most such a partial file or folder behind.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import unicodedata
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

LONGEST_NAME = 200  # bytes; file systems take 255, and what is written gets suffixes, also while it is incomplete


def partial_path(path: Path, token: str = "") -> Path:
  """Returns the name that a file or folder has until it is complete; different tokens give different names."""
  return path.with_name(f".{shorten_name(path.name)}.{token}{'.' if token else ''}partial")


def find_visible_files(folder: Path) -> Iterator[Path]:
  """Yields the files under a folder, sorted within each folder, without hidden files and folders.

  Links to folders are entered, because large sets often lie on several disks; a folder that is reached again, as by a
  link to a folder above it, is not.
  """
  entered = {os.path.realpath(folder)}
  for parent, folders, files in os.walk(folder, followlinks=True):
    kept: list[str] = []
    # A folder is entered where it lies rather than by a link.
    for name in sorted(folders, key=lambda name: (os.path.islink(os.path.join(parent, name)), name)):
      real = os.path.realpath(os.path.join(parent, name))
      if not name.startswith(".") and real not in entered:
        entered.add(real)
        kept.append(name)
    folders[:] = sorted(kept)
    yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


@contextlib.contextmanager
def atomic_file(path: str | Path, shared: bool = False) -> Iterator[Path]:
  """Yields the name of a file to write, which replaces `path` when the block ends without an exception.

  After an exception `path` is as it was before, and nothing of the new file remains. The content reaches the disk
  before the file gets its name, so that a machine that fails cannot leave an empty one.

  Args:
    path: The file to write, in an existing folder.
    shared: Whether other processes may write the same file at the same time; the last one to finish wins.

  Raises:
    FileNotFoundError: There is no such folder; the message names it.
  """
  path = Path(path)
  if not path.parent.is_dir():
    raise FileNotFoundError(errno.ENOENT, "no such folder", str(path.parent))
  # Unshared files get no unique name, because nobody would ever remove what killed processes leave behind. Process ids
  # would not be unique either, because hosts that share a disk may have the same ones.
  partial = partial_path(path, uuid.uuid4().hex if shared else "")
  try:
    yield partial
    with open(partial, "rb+") as file:
      os.fsync(file.fileno())
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
  """Yields an empty folder to fill, which replaces `path` when the block ends without an exception.

  After an exception `path` is as it was before, and nothing of the new folder remains. Makes the folder that `path` is
  in if it is missing.
  """
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = partial_path(path)
  shutil.rmtree(partial, ignore_errors=True)  # a process that was killed may have left it
  partial.mkdir()
  try:
    yield partial
    shutil.rmtree(path, ignore_errors=True)
    os.replace(partial, path)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def write_bytes(path: str | Path, content: bytes, shared: bool = False) -> None:
  """Writes a file atomically; see `atomic_file` for the arguments."""
  with atomic_file(path, shared) as partial:
    partial.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
  """Writes a text file atomically, in UTF-8. Makes its folder if it is missing."""
  Path(path).parent.mkdir(parents=True, exist_ok=True)
  write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any, shared: bool = False) -> None:
  """Writes a JSON file atomically, in UTF-8; see `atomic_file` for the arguments. Makes its folder if it is missing."""
  Path(path).parent.mkdir(parents=True, exist_ok=True)
  text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
  # Names of files need not be UTF-8; characters that cannot be encoded become JSON escapes.
  write_bytes(path, text.encode(errors="backslashreplace"), shared)


def sha256_of_file(path: str | Path) -> str:
  """Returns the SHA-256 of a file's content, in hexadecimal digits; raises OSError if the file cannot be read."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_bytes(*parts: bytes) -> str:
  """Returns the SHA-256 of several byte strings joined together, in hexadecimal digits."""
  digest = hashlib.sha256()
  for part in parts:
    digest.update(part)
  return digest.hexdigest()


def sha256_of_json(value: Any) -> str:
  """Returns the SHA-256 of a JSON value, in hexadecimal digits; the order of a dictionary's keys does not matter."""
  return sha256_of_bytes(json.dumps(value, sort_keys=True).encode())


def folder_names(folder: Path) -> list[str]:
  """Returns the names of the folders in a folder, sorted, without hidden ones; none if it is missing."""
  paths = folder.iterdir() if folder.is_dir() else ()
  return sorted(path.name for path in paths if path.is_dir() and not path.name.startswith("."))


def numbered_files(folder: Path, suffixes: Collection[str], prefix: str = "") -> dict[int, list[Path]]:
  """Returns the files of a folder by number, in order; none if the folder is missing. Hidden files are left out.

  A file's number is made of the last digits of its name before the suffix, at most 12 of them.

  Args:
    folder: The folder.
    suffixes: The suffixes that files may have, in lower case.
    prefix: The text that their names begin with.
  """
  found: dict[int, list[Path]] = {}
  for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
    stem, suffix = os.path.splitext(name)
    digits = re.search(r"(\d{1,12})\D*$", stem)
    if digits and suffix.lower() in suffixes and name.startswith(prefix) and not name.startswith("."):
      found.setdefault(int(digits[1]), []).append(folder / name)
  return dict(sorted(found.items()))


def shorten_name(name: str, longest: int = LONGEST_NAME) -> str:
  """Returns a name of a file; if it is too long, its beginning and a digest of all of it.

  Args:
    name: The name, without what is added to it later.
    longest: The largest number of bytes.
  """
  encoded = os.fsencode(name)
  if len(encoded) <= longest:
    return name
  start = encoded[: longest - 9].decode(errors="ignore")  # a character may not be cut
  return f"{start}~{sha256_of_bytes(encoded)[:8]}"


def comparable_name(name: str) -> str:
  """Returns a form of a name that is the same for all names that some file systems take for one.

  They ignore whether letters are large or small, and whether accents are characters of their own (NFC and NFD).
  """
  return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_address(path: str | Path) -> bool:
  """Returns whether a path is the address of something on another machine, such as https://example.org/a.mp4."""
  return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)) is not None and not Path(path).exists()


def address_refusal(path: str | Path) -> str:
  """Returns a line that says that an address was given where a local file or folder is expected."""
  address = re.sub(r":/+", "://", str(path), count=1)  # a `Path` keeps one slash
  return f"{address}: is an address, expected a local file or folder: download it first"


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
  """Keeps other processes that ask for the same lock file out while the block runs.

  The lock ends with the process, however it ends. Where the system or the disk has no such locks, nothing is kept out.

  Args:
    path: The lock file, in an existing folder; it is removed afterwards.

  Raises:
    BlockingIOError: Another process holds the lock; a line that names the file.
  """
  try:
    import fcntl
  except ImportError:  # Windows
    yield
    return
  while True:
    try:
      file = os.open(path, os.O_CREAT | os.O_RDWR)
    except OSError as error:
      if error.errno not in (errno.EACCES, errno.EROFS, errno.EPERM):
        raise
      yield  # nobody can write here, so nobody has to be kept out
      return
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      os.close(file)
      raise BlockingIOError(errno.EAGAIN, "another run is writing here", str(path.parent)) from None
    except OSError:  # this disk has no locks
      break
    if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
      break
    os.close(file)  # whoever held the lock has just removed this file
  try:
    yield
  finally:
    path.unlink(missing_ok=True)
    os.close(file)
