"""SHA-256 digests of files, and manifests.

A manifest is a JSON file with the SHA-256 of files beside it and of its own content, so that damage to any is noticed.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stajax.files import FileError, find_visible_files, plain, read_json, write_json

_FILES, _DIGEST = "files", "digest"
"""The keys of a manifest: the SHA-256 of files by their names, and that of everything else in the manifest."""


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
    FileError: It cannot be read, it is damaged, or it names a file outside of the folder.
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
  if outside := [name for name in files if Path(name).is_absolute() or ".." in Path(name).parts]:
    raise FileError(f"{path}: {_FILES}: found {outside[0]!r}, expected files of the folder")
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
  with open(plain(path), "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_bytes(*parts: bytes) -> str:
  """Returns the SHA-256 of several byte strings joined together, in hexadecimal digits."""
  return hashlib.sha256(b"".join(parts)).hexdigest()


def sha256_of_json(value: Any) -> str:
  """Returns the SHA-256 of a JSON value, in hexadecimal digits; the order of a dictionary's keys does not matter."""
  return sha256_of_bytes(json.dumps(value, sort_keys=True).encode())
