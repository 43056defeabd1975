"""Downloads published weights from their publishers: whole, checked, and moved into place at the end.

A connection that breaks is resumed where it broke, and no file may be larger than its known limit. `pooch`, the usual
library for this, does neither, which is why `requests` is used directly.
"""

import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from stajax import runtime, screen
from stajax.files import atomic_file
from stajax.weights.convert import digest

_CHUNK = 1 << 16
"""The most bytes that a broken connection can lose."""
_TIMEOUT = (20, 60)
"""The seconds to wait for a connection, and for more bytes."""
_BUSY = (429, 500, 502, 503, 504)
_BROKEN = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError, requests.Timeout)
"""What a connection that breaks raises."""


class FetchError(ValueError):
  """A file could not be downloaded; one line that names the address."""


@dataclass(frozen=True)
class Publication:
  """A file that somebody publishes.

  Attributes:
    address: The address of the file.
    limit: The most bytes that it can have.
    sha256: The hexadecimal digits that its SHA-256 begins with; empty if the publisher states none.
  """

  address: str
  limit: int
  sha256: str = ""

  @property
  def name(self) -> str:
    """The name of the file."""
    return PurePosixPath(urlsplit(self.address).path).name


_VGGSOUND = "http://www.robots.ox.ac.uk/~vgg/data/vggsound/models"
PUBLICATIONS = {
  # It has 553,433,881 bytes. The publisher states the first 8 digits, in the name; the others come from the file.
  "vgg16": Publication(
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    600_000_000,
    "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
  ),
  # The parameters have 45 and 55 MB; an optimiser's state can be a few times as large.
  "vggsound-average": Publication(f"{_VGGSOUND}/H.pth.tar", 500_000_000),
  "vggsound-netvlad": Publication(f"{_VGGSOUND}/I.pth.tar", 500_000_000),
}
"""What can be downloaded, by our names."""


def fetch(publication: Publication, folder: Path, tries: int = 5, wait: float = 1.0) -> tuple[Path, str]:
  """Downloads a file, unless it is there already. A connection that breaks is resumed where it broke.

  Args:
    publication: What to download.
    folder: Where the file goes, under the publisher's name; it is made if it is missing.
    tries: The total number of connections that may be opened.
    wait: The seconds to wait before the second try; the time doubles with each later one.

  Returns:
    The file and its SHA-256.

  Raises:
    FetchError: The file is not available, too large, cut off, or not the right one; nothing is left behind.
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
  """Writes the whole file, in as many pieces as it takes connections."""
  retry_if_busy = HTTPAdapter(
    max_retries=urllib3.Retry(
      connect=0, read=0, status=tries - 1, status_forcelist=_BUSY, backoff_factor=wait, raise_on_status=False
    )
  )
  with requests.Session() as session, open(partial, "wb") as file:
    session.mount("http://", retry_if_busy)
    session.mount("https://", retry_if_busy)
    download = _Download(publication, session, file)
    for attempt in range(1, tries + 1):
      try:
        download.resume()
        return
      except _BROKEN as error:
        if attempt == tries:
          broke = f"the connection broke {file.tell()} bytes in" if file.tell() else "no connection"
          raise FetchError(f"{publication.address}: {broke} ({_reason(error)})") from None
        again = f"trying again ({attempt + 1} of {tries})"
        screen.say(f"note: {publication.address}: {_reason(error)}; {again}", is_about_a_fault=True)
      except requests.RequestException as error:
        raise FetchError(f"{publication.address}: {_reason(error)}") from None
      time.sleep(wait * 2 ** (attempt - 1))


@dataclass
class _Download:
  """A file that is written in pieces, one for each connection.

  Attributes:
    publication: What is downloaded.
    session: Opens the connections.
    file: The file, at its end.
    version: The server's name for the version of the file, empty if it has not sent one.
  """

  publication: Publication
  session: requests.Session
  file: BinaryIO
  version: str = ""

  def resume(self) -> None:
    """Opens a connection and writes what it sends: from where the file ends if the server can, else from the start."""
    start, headers = self.file.tell(), {"Accept-Encoding": "identity"}
    if start and self.version:
      headers |= {"Range": f"bytes={start}-", "If-Range": self.version}
    with self.session.get(self.publication.address, headers=headers, stream=True, timeout=_TIMEOUT) as response:
      content_range = response.headers.get("Content-Range", "")
      if response.status_code == HTTPStatus.OK:
        start = 0
        self.file.seek(0)
        self.file.truncate()
      elif response.status_code != HTTPStatus.PARTIAL_CONTENT or not content_range.startswith(f"bytes {start}-"):
        said = f"{response.status_code} {response.reason}"
        raise FetchError(f"{self.publication.address}: the server says {said}, expected the file; was it moved?")
      self.version = response.headers.get("ETag", "")
      self._write(response, start)

  def _write(self, response: requests.Response, start: int) -> None:
    length = response.headers.get("Content-Length", "")
    total = start + int(length) if length.isdecimal() else None
    self._check_size(total or 0)
    scale = {"unit_scale": True, "unit_divisor": 1024}
    with runtime.progress(self.publication.name, total, "B", start, **scale) as bar:
      for chunk in response.iter_content(_CHUNK):
        self._check_size(self.file.tell() + len(chunk))
        self.file.write(chunk)
        bar.update(len(chunk))
    if total is not None and self.file.tell() < total:
      raise requests.exceptions.ChunkedEncodingError(f"{self.file.tell()} of {total} bytes")

  def _check_size(self, size: int) -> None:
    address, limit = self.publication.address, self.publication.limit
    if size > limit:
      raise FetchError(f"{address}: has more than {limit} bytes, the most that this file can have")


def _reason(error: BaseException) -> str:
  """Returns the first line of the innermost exception."""
  while inner := error.__cause__ or error.__context__:
    error = inner
  return f"{type(error).__name__}: {error}".splitlines()[0][:200]
