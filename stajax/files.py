"""Writing files and folders that appear whole or not at all, names of files, locks, SHA-256 digests, finding files.

A manifest is a JSON file with the SHA-256 of files beside it and of its own content, so that damage to any is noticed.
A file or folder gets its name only when it is complete. Until then it is a hidden one in the same place whose name ends
in `.partial`. A process that is killed leaves at most such a partial file or folder behind.
"""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import platform
import re
import shutil
import unicodedata
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

LONGEST_NAME = 200  # bytes; file systems take 255, and what is written gets suffixes, also while it is incomplete
_FORMULAS = ("=", "+", "-", "@")  # how a text begins that a spreadsheet takes for one
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?")
_FILES, _DIGEST = "files", "digest"
"""The keys of a manifest: the SHA-256 of files by their names, and that of everything else in the manifest."""


class FileError(ValueError):
  """A file is damaged, or is not what was written there; one line that names it."""


def partial_path(path: Path, token: str = "") -> Path:
  """Returns the name that a file or folder has until it is complete; different tokens give different names."""
  return path.with_name(f".{shorten_name(path.name)}.{token}{'.' if token else ''}partial")


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


@contextlib.contextmanager
def atomic_file(path: str | Path, shared: bool = False) -> Iterator[Path]:
  """Yields the name of a file to write, which replaces `path` when the block ends without an exception.

  After an exception `path` is as it was before. The content reaches the disk before the file gets its name.

  Args:
    path: The file to write, in an existing folder.
    shared: Whether other processes may write the same file at the same time; the last one to finish wins.

  Raises:
    FileNotFoundError: There is no such folder; the message names it.
  """
  path = Path(path)
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
  return _plain(path).read_bytes()


def write_manifest(path: str | Path, about: Mapping[str, Any], files: Mapping[str, str]) -> None:
  """Writes a manifest atomically.

  Args:
    path: The file.
    about: What it says besides, as JSON values.
    files: The SHA-256 of files by their names; see `digests`.
  """
  content: dict[str, Any] = json.loads(json.dumps({**about, _FILES: files}))
  write_json(path, {**content, _DIGEST: sha256_of_json(content)})


def read_manifest(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
  """Reads a manifest, or what was written in its place before there were manifests, which names no files.

  Returns:
    What it says, and the SHA-256 of files by their names.

  Raises:
    FileError: It cannot be read, or it is damaged.
  """
  about = read_json(path)
  if not isinstance(about, dict):
    raise FileError(f"{path}: found {type(about).__name__}, expected an object")
  content: dict[str, Any] = about
  if _FILES not in content and _DIGEST not in content:
    return content, {}
  digest = content.pop(_DIGEST, None)
  if digest != sha256_of_json(content):
    raise FileError(f"{path}: damaged or changed, its SHA-256 is not the one in it")
  files = content.pop(_FILES, {})
  if not isinstance(files, dict):
    raise FileError(f"{path}: {_FILES}: found {type(files).__name__}, expected an object")
  return content, {str(name): str(sha256) for name, sha256 in files.items()}


def digests(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
  """Returns the SHA-256 of files, and of all files in folders, by their names in `folder`; what is missing is left out.

  Hidden files are not among them.
  """
  found: list[Path] = []
  for path in paths:
    found += find_visible_files(path) if path.is_dir() else [path] if path.exists() else []
  return {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in found}


def check_digest(path: Path, expected: str, content: bytes | None = None) -> None:
  """Checks that a file is the one whose SHA-256 was written down.

  Args:
    path: The file.
    expected: The SHA-256.
    content: The content of the file, if it has been read already.

  Raises:
    FileError: It is another one, or cannot be read.
  """
  try:
    found = sha256_of_file(path) if content is None else sha256_of_bytes(content)
  except OSError as error:
    raise FileError(f"{path}: {error.strerror or error}") from None
  if found != expected:
    raise FileError(f"{path}: damaged or changed: its SHA-256 is {found[:12]}…, expected {expected[:12]}…")


def sha256_of_file(path: str | Path) -> str:
  """Returns the SHA-256 of a file's content, in hexadecimal digits; raises OSError if the file cannot be read."""
  with open(_plain(path), "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(path: str | Path) -> Path:
  """Returns a path; raises OSError if it leads to a pipe or a device."""
  if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
    raise OSError(errno.EINVAL, "is a pipe or a device, expected a file", str(path))
  return Path(path)


def sha256_of_bytes(*parts: bytes) -> str:
  """Returns the SHA-256 of several byte strings joined together, in hexadecimal digits."""
  return hashlib.sha256(b"".join(parts)).hexdigest()


def sha256_of_json(value: Any) -> str:
  """Returns the SHA-256 of a JSON value, in hexadecimal digits; the order of a dictionary's keys does not matter."""
  return sha256_of_bytes(json.dumps(value, sort_keys=True).encode())


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


def shorten_name(name: str, longest: int = LONGEST_NAME) -> str:
  """Returns a name of a file; if it has more than `longest` bytes, its beginning and a digest of all of it."""
  encoded = os.fsencode(name)
  if len(encoded) <= longest:
    return name
  start = encoded[: longest - 9].decode(errors="ignore")  # a character may not be cut
  return f"{start}~{sha256_of_bytes(encoded)[:8]}"


def printable(text: str) -> str:
  """Returns a text in which characters that steer a terminal, and those that cannot be encoded, are escapes."""
  return "".join(x if x.isprintable() or x in "\n\t" else x.encode("unicode_escape").decode() for x in text)


def csv_text(rows: Iterable[Iterable[object]]) -> str:
  """Returns rows as comma-separated values that a spreadsheet only shows.

  A text that it would take for a formula gets a quotation mark before it, as spreadsheets themselves do it; characters
  that steer terminals become escapes. `csv_name` gives the text back.
  """
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
  return text.getvalue()


def _cell(value: object) -> object:
  if not isinstance(value, str):
    return value
  cell = printable(value.replace("\n", "\\n").replace("\t", "\\t"))
  is_formula = cell.removeprefix("'").startswith(_FORMULAS) and not _NUMBER.fullmatch(cell)
  return f"'{cell}" if is_formula else cell


def csv_name(cell: str) -> str:
  """Returns the name for which `csv_text` wrote a cell."""
  return cell[1:] if cell.startswith("'") and cell[1:].removeprefix("'").startswith(_FORMULAS) else cell


def comparable_name(name: str) -> str:
  """Returns a form of a name that is the same for all names that some file systems take for one.

  They ignore whether letters are large or small, and whether accents are characters of their own (NFC and NFD).
  """
  return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
  """Keeps other processes that ask for the same lock file out while the block runs.

  The lock ends with the process, however it ends. Where the system or the disk has no such locks, nothing is kept out.

  Args:
    path: The lock file, in an existing folder; it is removed afterwards.

  Raises:
    BlockingIOError: Another process holds the lock; a line that names it and the folder.
  """
  try:
    import fcntl
  except ImportError:  # Windows
    yield
    return
  while True:
    try:
      file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)  # its content is overwritten
    except OSError as error:
      if error.errno not in (errno.EACCES, errno.EROFS, errno.EPERM):
        raise
      yield  # nobody can write here, so nobody has to be kept out
      return
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      owner = printable(os.read(file, 200).decode(errors="replace")) or "another process"
      os.close(file)
      raise BlockingIOError(errno.EAGAIN, f"another run is writing here ({owner})", str(path.parent)) from None
    except OSError:  # this disk has no locks
      break
    if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
      break
    os.close(file)  # whoever held the lock has just removed this file
  try:
    with contextlib.suppress(OSError):  # on a full disk nobody is told, but is kept out
      os.ftruncate(file, 0)
      os.pwrite(file, f"process {os.getpid()} on {platform.node()}".encode(), 0)
    yield
  finally:
    path.unlink(missing_ok=True)
    os.close(file)
