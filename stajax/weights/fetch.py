"""Downloads of published weights from their publishers' addresses: whole, checked, and moved into place at the end."""

import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from tqdm import tqdm

from stajax.files import atomic_file
from stajax.weights.convert import digest

_CHUNK = 1 << 16  # what a broken connection loses at most
_TIMEOUT = (20, 60)
"""Seconds until there is a connection, and until more bytes come."""
_BUSY = (429, 500, 502, 503, 504)


class FetchError(ValueError):
  """A file that could not be had; one line that names the address."""


@dataclass(frozen=True)
class Publication:
  """A file that somebody publishes.

  Attributes:
    address: of the file.
    limit: bytes that it cannot have more of.
    sha256: hexadecimal digits that the file's begins with; empty where the publisher tells none.
  """

  address: str
  limit: int
  sha256: str = ""

  @property
  def name(self) -> str:
    return PurePosixPath(urlsplit(self.address).path).name


_VGGSOUND = "http://www.robots.ox.ac.uk/~vgg/data/vggsound/models"
PUBLICATIONS = {
  # Of 553,433,881 bytes. The publisher tells the first 8 digits, in the name; the others are what it is known to have.
  "vgg16": Publication(
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    600_000_000,
    "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
  ),
  # Parameters are 45 and 55 MB; an optimiser's state can be some times as much.
  "vggsound-average": Publication(f"{_VGGSOUND}/H.pth.tar", 500_000_000),
  "vggsound-netvlad": Publication(f"{_VGGSOUND}/I.pth.tar", 500_000_000),
}


def fetch(publication: Publication, folder: Path, tries: int = 5, wait: float = 1.0) -> tuple[Path, str]:
  """Downloads a file, or finds it downloaded; a connection that breaks is taken up where it broke.

  Args:
    folder: where it goes, under the publisher's name; made if it is missing.
    tries: how often in all a connection may fail.
    wait: seconds before the second try, doubled for each later one.

  Returns:
    The file and its SHA-256.

  Raises:
    FetchError: not to be had, too large, cut off, or not the file that it should be; nothing is left behind.
  """
  target = folder / publication.name
  if target.is_file():
    return target, _verify(target, publication, str(target))
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as partial:
      _download(publication, partial, tries, wait)
      sha256 = _verify(partial, publication, publication.address)
  except OSError as error:
    raise FetchError(f"{publication.address}: cannot be written to {target} ({error.strerror or error})") from None
  return target, sha256


def _verify(path: Path, publication: Publication, name: str) -> str:
  sha256 = digest(path)
  if not sha256.startswith(publication.sha256):
    raise FetchError(f"{name}: has SHA-256 {sha256}, expected {publication.sha256}: damaged or another file")
  return sha256


def _download(publication: Publication, partial: Path, tries: int, wait: float) -> None:
  """Writes the whole file, in as many pieces as connections last."""
  busy = urllib3.Retry(
    connect=0, read=0, status=tries - 1, status_forcelist=_BUSY, backoff_factor=wait, raise_on_status=False
  )
  with requests.Session() as session, open(partial, "wb") as file:
    session.mount("http://", HTTPAdapter(max_retries=busy))
    session.mount("https://", HTTPAdapter(max_retries=busy))
    download = _Download(publication, session, file)
    for attempt in range(1, tries + 1):
      try:
        download.go_on()
        break
      except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError, requests.Timeout) as error:
        if attempt == tries:
          broke = f"the connection broke {file.tell()} bytes in" if file.tell() else "no connection"
          raise FetchError(f"{publication.address}: {broke} ({_reason(error)})") from None
      except requests.RequestException as error:
        raise FetchError(f"{publication.address}: {_reason(error)}") from None
      time.sleep(wait * 2 ** (attempt - 1))


class _Download:
  """A file that is written while its connections last."""

  def __init__(self, publication: Publication, session: requests.Session, file: BinaryIO) -> None:
    self.publication = publication
    self.session = session
    self.file = file
    self.version = ""  # of the file as the server has it

  def go_on(self) -> None:
    """Opens a connection and writes what it gives, from where the file ends if the server can, else from the start."""
    have, headers = self.file.tell(), {"Accept-Encoding": "identity"}
    if have and self.version:
      headers |= {"Range": f"bytes={have}-", "If-Range": self.version}
    with self.session.get(self.publication.address, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
      match answer.status_code:
        case HTTPStatus.OK:
          have = 0
          self.file.seek(0)
          self.file.truncate()
        case HTTPStatus.PARTIAL_CONTENT if answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
          pass
        case status:
          said = f"{status} {answer.reason}"
          raise FetchError(f"{self.publication.address}: the server says {said}, expected the file; was it moved?")
      self.version = answer.headers.get("ETag", "")
      self._write(answer, have)

  def _write(self, answer: requests.Response, have: int) -> None:
    length = answer.headers.get("Content-Length", "")
    total = have + int(length) if length.isdecimal() else None
    _check_size(self.publication, total or 0)
    sizes = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
    with tqdm(desc=self.publication.name, total=total, initial=have, dynamic_ncols=True, **sizes) as bar:
      for chunk in answer.iter_content(_CHUNK):
        _check_size(self.publication, self.file.tell() + len(chunk))
        self.file.write(chunk)
        bar.update(len(chunk))
    if total is not None and self.file.tell() < total:
      raise requests.exceptions.ChunkedEncodingError(f"{self.file.tell()} of {total} bytes")


def _check_size(publication: Publication, size: int) -> None:
  if size > publication.limit:
    raise FetchError(f"{publication.address}: has more than {publication.limit} bytes, which the file cannot have")


def _reason(error: Exception) -> str:
  """The innermost exception's first line."""
  while inner := error.__cause__ or error.__context__:
    error = inner
  return f"{type(error).__name__}: {error}".splitlines()[0][:200]
