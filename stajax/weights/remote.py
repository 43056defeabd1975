"""Brings models from elsewhere into the cache: a folder or a zip file at an address, or a repository of Hugging Face.

A model is downloaded once for each address. `model.json` names the SHA-256 of every other file, which is checked here
and whenever the model is loaded. An address may end in `#sha256=` and the digits of `model.json`, or of the zip file:
then the model is the one that somebody has in mind, whoever serves it.
"""

import importlib
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stajax import runtime
from stajax.files import FileError, atomic_folder
from stajax.files.manifest import check_digest, read_manifest, sha256_of_bytes
from stajax.weights.fetch import FetchError, Publication, fetch

MANIFEST, CARD = "model.json", "README.md"
HUB = "hf"
MAX_FILES, MAX_BYTES, MAX_TEXT = 64, 8_000_000_000, 1_000_000
"""The most files that a model may have, the most bytes of all of them, and of a text among them."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
_PIN = re.compile(r"sha256=([0-9a-f]{64})")
_REPOSITORY = re.compile(r"hf:/+([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)


def fetch_model(address: str) -> Path:
  """Returns the folder of a copy of a model, which is downloaded unless it is there.

  Args:
    address: `https://…` with a folder or a .zip file at the end; or `hf://owner/name`, with `@revision` or without.
      `http://…` only with `#sha256=…`. A single slash after the colon does, too, as paths have it.

  Raises:
    FetchError: The address is not possible, or what is there is not a whole model; one line.
  """
  address = re.sub(r":/+", "://", address, count=1)
  if address.startswith(f"{HUB}:"):
    return _from_hub(address)
  try:
    parts = urlsplit(address)
  except ValueError as error:
    raise FetchError(f"{address}: not an address ({error})") from None
  if "@" in parts.netloc:
    host = parts.netloc.rpartition("@")[2]  # what stands before it is not shown
    raise FetchError(f"{parts.scheme}://…@{host}: has a name or a password in it, which would be kept in outputs")
  pin = _PIN.fullmatch(parts.fragment)
  if parts.scheme not in ("https", "http") or not parts.netloc or (parts.fragment and not pin):
    raise FetchError(f"{address}: expected https://…, with #sha256=… of 64 digits or without, or hf://owner/name")
  if parts.scheme == "http" and not pin:
    raise FetchError(f"{address}: anybody on the way may change it, expected https://…, or #sha256=… at the end")
  folder = runtime.cache("models") / sha256_of_bytes(address.encode())[:16]
  if not (folder / MANIFEST).is_file():
    plain, sha256 = address.partition("#")[0], pin[1] if pin else ""
    with atomic_folder(folder) as partial:
      if parts.path.endswith(".zip"):
        _from_zip(plain, sha256, partial)
      else:
        _from_folder(plain.rstrip("/"), sha256, partial)
  return folder


def _from_folder(address: str, sha256: str, folder: Path) -> None:
  """Downloads a model folder whose files lie below an address."""
  fetch(Publication(f"{address}/{MANIFEST}", MAX_TEXT, sha256), folder)
  left = MAX_BYTES
  for name, digest in _files_of(folder, address).items():
    path, _ = fetch(Publication(f"{address}/{name}", left, digest), folder)
    left -= path.stat().st_size


def _from_zip(address: str, sha256: str, folder: Path) -> None:
  """Downloads a zip file with a model in it, at the top or in a folder, and unpacks the model's files."""
  archive = folder / ".zip"
  archive.mkdir()
  path, _ = fetch(Publication(address, MAX_BYTES, sha256), archive)
  try:
    with zipfile.ZipFile(path) as file:
      found = [info for info in file.infolist() if info.filename.split("/")[-1] == MANIFEST]
      if len(found) != 1:
        raise FetchError(f"{address}: has {len(found)} files {MANIFEST}, expected one model")
      root = found[0].filename.removesuffix(MANIFEST)
      _unpack(file, found[0], folder, MAX_TEXT, address)
      files = _files_of(folder, address)
      left = MAX_BYTES
      for name, digest in files.items():
        if f"{root}{name}" not in file.NameToInfo:
          raise FetchError(f"{address}: has no {name}, which its {MANIFEST} names")
        left -= _unpack(file, file.getinfo(f"{root}{name}"), folder, left, address)
        check_digest(folder / name, digest)
      if CARD not in files and f"{root}{CARD}" in file.NameToInfo:
        _unpack(file, file.getinfo(f"{root}{CARD}"), folder, MAX_TEXT, address)
  except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
    raise FetchError(f"{address}: a damaged zip file, or one of another kind ({error})") from None
  except FileError as error:
    raise FetchError(f"{address}: {error}") from None
  shutil.rmtree(archive)


def _unpack(file: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path, limit: int, address: str) -> int:
  """Writes a member of a zip file under its own name, without folders; returns its size in bytes."""
  if info.file_size > limit:
    raise FetchError(f"{address}: {info.filename} has {info.file_size} bytes, expected at most {limit}")
  with file.open(info) as source, open(folder / info.filename.split("/")[-1], "wb") as target:
    shutil.copyfileobj(source, target)  # a member ends where its header says
  return info.file_size


def _files_of(folder: Path, address: str) -> Mapping[str, str]:
  """Returns the SHA-256 of a model's files by their names, as its manifest says, after a check of the names."""
  try:
    _, files = read_manifest(folder / MANIFEST)
  except FileError as error:
    raise FetchError(f"{address}: {str(error).replace(str(folder / MANIFEST), MANIFEST)}") from None
  strange = [name for name in files if not _NAME.fullmatch(name) or name == MANIFEST]
  if not files or strange or len(files) > MAX_FILES:
    found = f"the name {strange[0]!r}" if strange else f"{len(files)} files"
    raise FetchError(f"{address}: its {MANIFEST} has {found}, expected 1 to {MAX_FILES} files with plain names")
  return files


def _from_hub(address: str) -> Path:
  """Returns a repository of Hugging Face in the cache of its own library."""
  found = _REPOSITORY.fullmatch(address)
  if found is None:
    raise FetchError(f"{address}: expected hf://owner/name, or hf://owner/name@revision")
  try:
    hub: Any = importlib.import_module("huggingface_hub")  # an extra, without which the rest is to pass checks of types
    errors: Any = importlib.import_module("huggingface_hub.errors")
  except ModuleNotFoundError:
    raise FetchError(f"{address}: needs the package huggingface_hub: pip install 'stajax[hub]'") from None
  wanted = [MANIFEST, CARD, "config.json", "*.safetensors"]
  try:
    folder = Path(hub.snapshot_download(found[1], revision=found[2], allow_patterns=wanted))
  except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError, ValueError) as error:
    raise FetchError(f"{address}: cannot be downloaded ({' '.join(str(error).split())[:200]})") from None
  if not (folder / MANIFEST).is_file():
    raise FetchError(f"{address}: has no {MANIFEST}, expected a model of stajax")
  for name, digest in _files_of(folder, address).items():
    try:
      check_digest(folder / name, digest)
    except FileError as error:
      raise FetchError(f"{address}: {error}") from None
  return folder
