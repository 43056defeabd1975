"""The videos that the page holds: their files in a temporary folder, their place in line, and what is made of them.

Nothing on the disk has a name that somebody else chose. The folder is removed at the end; those of processes that were
killed are removed when the next one starts.
"""

import contextlib
import importlib.util
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stajax import cli, screen
from stajax.demo.analysis import Analysis, analyse
from stajax.demo.files import Order, clean_title, make_file, title_stem
from stajax.demo.jobs import Line, PageJob
from stajax.demo.limits import Refused, UploadLimits
from stajax.files.lock import exclusive
from stajax.media.file import MediaError
from stajax.predict.api import SaliencyModel

PROGRAM = "stajax demo"
PREFIX = "stajax-demo-"
_LOCK = "lock"
_RESERVE = 2**28
"""The bytes that stay free on the disk."""


@dataclass
class MadeFile:
  """A file that was ordered; `path` is there when its job is done."""

  id: str
  order: Order
  job: PageJob
  path: Path | None = None


@dataclass
class HeldVideo:
  """A video, its job, and what was found.

  Attributes:
    id: A random name.
    title: What its owner calls it.
    size: Its bytes.
    folder: The folder of all its files.
    path: The file.
    job: The computation of its maps.
    found: Its maps, when the job is done.
    files: What was ordered of it, by random names.
  """

  id: str
  title: str
  size: int
  folder: Path
  path: Path
  job: PageJob
  found: Analysis | None = None
  files: dict[str, MadeFile] = field(default_factory=dict[str, MadeFile])

  def fields(self) -> dict[str, Any]:
    """Returns what the page shows of it in its list, as values for JSON."""
    return {"id": self.id, "title": self.title, "bytes": self.size, **_stands(self.job),
            "files": [self._file_fields(file) for file in self.files.values()]}  # fmt: skip

  def _file_fields(self, file: MadeFile) -> dict[str, Any]:
    path = file.path if file.job.state == "done" else None
    made = {} if path is None else {"name": self.name_of(path), "bytes": path.stat().st_size}
    return {"id": file.id, "order": file.order.model_dump(), **_stands(file.job), **made}

  def name_of(self, path: Path) -> str:
    """Returns the name under which a file is downloaded."""
    return title_stem(self.title) + "." + path.name.partition(".")[2]

  def close(self) -> None:
    """Cancels what is being done, and removes all files."""
    for job in (self.job, *(file.job for file in self.files.values())):
      job.cancel()
    shutil.rmtree(self.folder, ignore_errors=True)


def _stands(job: PageJob) -> dict[str, Any]:
  return {"state": job.state, "progress": round(job.progress, 3), "message": job.message}


class Store:
  """The videos of one server, the oldest first.

  Args:
    model: What computes the maps.
    folder: An existing folder of its own.
    limits: What it takes.
  """

  def __init__(self, model: SaliencyModel, folder: Path, limits: UploadLimits) -> None:
    self.limits, self._model, self._folder = limits, model, folder
    self._videos: dict[str, HeldVideo] = {}
    self._lock = threading.Lock()
    # Files are made beside the maps of other videos, because somebody is waiting for them.
    self._line, self._file_line = Line("maps"), Line("files")

  def videos(self) -> list[HeldVideo]:
    """Returns all videos, the oldest first."""
    with self._lock:
      return list(self._videos.values())

  def get(self, identity: str) -> HeldVideo:
    """Returns a video; raises KeyError if there is none of this name."""
    with self._lock:
      return self._videos[identity]

  def make_room(self, size: int | None) -> None:
    """Finds out whether a video can be taken, and removes the oldest one that is done if there are many.

    Args:
      size: Its bytes; None where nobody said.

    Raises:
      Refused: It cannot.
    """
    self.limits.check_bytes(size or 0)
    if shutil.disk_usage(self._folder).free < 2 * (size or 0) + _RESERVE:
      raise Refused("There is too little space left on the disk for this file.")
    with self._lock:
      over = [video for video in self._videos.values() if video.job.is_over]
      is_full = len(self._videos) >= self.limits.keep
      if is_full and not over:
        raise Refused(f"{self.limits.keep} videos are waiting. Please try again when one of them is done.")
    if is_full:
      self.remove(over[0].id)

  @contextlib.contextmanager
  def place(self, name: str) -> Generator[Path]:
    """Yields a new file to write a video to, which is held if the block ends without an exception.

    Args:
      name: What the video is called; it decides nothing but the kind that FFmpeg tries first.
    """
    identity, title = secrets.token_urlsafe(12), clean_title(name)
    folder = self._folder / identity
    folder.mkdir()
    suffix = Path(title).suffix.lower()
    path = folder / f"upload{suffix if suffix[1:].isascii() and suffix[1:].isalnum() and len(suffix) < 8 else ''}"
    try:
      yield path
    except BaseException:
      shutil.rmtree(folder, ignore_errors=True)
      raise
    job = PageJob(lambda job: self._analyse(identity, job), lambda error: in_words(error, path, title))
    video = HeldVideo(identity, title, path.stat().st_size, folder, path, job)
    with self._lock:
      self._videos[identity] = video
    self._line.add(job)

  def _analyse(self, identity: str, job: PageJob) -> None:
    video = self.get(identity)
    arguments = video.path, video.title, video.folder, self.limits
    try:
      video.found = analyse(self._model, *arguments, job.advance)
    finally:
      if video.found is None:  # nothing is left to be shown
        shutil.rmtree(video.folder, ignore_errors=True)

  def order(self, video: HeldVideo, order: Order) -> MadeFile:
    """Lets a file be made, in place of an earlier one of its kind; one that was made alike is given again."""
    with self._lock:
      for file in list(video.files.values()):
        if file.order == order and file.job.state in ("waiting", "running", "done"):
          return file
        if file.order.kind == order.kind:
          file.job.cancel()
          video.files.pop(file.id)
          shutil.rmtree(video.folder / file.id, ignore_errors=True)
      identity = secrets.token_urlsafe(12)
      file = MadeFile(identity, order, PageJob(lambda job: make(job), lambda e: in_words(e, video.path, video.title)))
      video.files[identity] = file

    def make(job: PageJob) -> None:
      assert video.found is not None, "only a video that is done has files"
      folder = video.folder / identity
      folder.mkdir()
      try:
        file.path = make_file(video.found, order, folder, job.advance)
      finally:
        if file.path is None or identity not in video.files:
          shutil.rmtree(folder, ignore_errors=True)

    self._file_line.add(file.job)
    return file

  def remove(self, identity: str) -> None:
    """Cancels whatever is done for a video and removes it; raises KeyError if there is none of this name."""
    with self._lock:
      video = self._videos.pop(identity)
    video.close()

  def close(self) -> None:
    """Ends everything; the folder is removed by whoever made it."""
    for line in (self._line, self._file_line):
      line.close(10)
    for video in self.videos():
      self.remove(video.id)


def in_words(error: Exception, path: Path, title: str) -> str:
  """Returns what people are told about an error; one that nobody expected is reported on the terminal, too."""
  if isinstance(error, Refused):
    return str(error)
  text = screen.one_line(error).replace(f"{path}: ", "").replace(str(path), title)
  if isinstance(error, MediaError):
    return next((words for known, words in _WORDS.items() if known in text), f"This file cannot be used: {text}")
  if isinstance(error, OSError | MemoryError):
    return f"This machine could not do it: {text}"
  cli.report(PROGRAM, error)
  return "Something unexpected happened. The terminal in which `stajax demo` runs says more."


_WORDS = {
  "is empty": "This file is empty.",
  "is not a media file": "This is not a video that can be read. It may be damaged, or a file of another kind.",
  "has no video stream": "This file has no moving picture.",
  "no frame could be decoded": "None of the frames of this video can be read. It may be damaged.",
}
"""What people are told of usual errors, by a part of their messages."""


@contextlib.contextmanager
def temporary_folder() -> Generator[Path]:
  """Yields a new folder that nobody else can read, and removes it; so it does with those that killed processes left."""
  # Without locks, as on Windows, nobody knows which folders are in use.
  has_locks = importlib.util.find_spec("fcntl") is not None
  for old in Path(tempfile.gettempdir()).glob(f"{PREFIX}*" if has_locks else ""):
    if old.is_symlink() or not old.is_dir() or (hasattr(os, "getuid") and old.stat().st_uid != os.getuid()):
      continue
    with contextlib.suppress(OSError), exclusive(old / _LOCK):  # one that is in use is locked
      shutil.rmtree(old, ignore_errors=True)
  folder = Path(tempfile.mkdtemp(prefix=PREFIX))
  try:
    with exclusive(folder / _LOCK):
      yield folder
  finally:
    shutil.rmtree(folder, ignore_errors=True)
