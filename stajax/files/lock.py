"""Locks, so that two runs do not write into one folder."""

import contextlib
import errno
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from stajax.files.names import printable


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
