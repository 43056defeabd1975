"""Work that is done one piece after the other in a thread, so that the page can show how far it is and cancel it."""

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Literal

State = Literal["waiting", "running", "done", "failed", "cancelled"]


class Cancelled(Exception):
  """A job was cancelled, and stops here."""


class PageJob:
  """A piece of work.

  Attributes:
    state: How it stands.
    progress: The part of it that is done, in [0, 1].
    message: What went wrong, in words for people; "" if nothing did.

  Args:
    work: Does it. It calls `advance` of the job now and then.
    describe: Returns in words for people what an exception of the work means.
  """

  def __init__(self, work: Callable[["PageJob"], None], describe: Callable[[Exception], str]) -> None:
    self.state: State = "waiting"
    self.progress, self.message = 0.0, ""
    self._work, self._describe = work, describe
    self._is_wanted, self._lock = True, threading.Lock()

  @property
  def is_over(self) -> bool:
    """Whether nothing more happens to it."""
    return self.state in ("done", "failed", "cancelled")

  def advance(self, progress: float) -> None:
    """Says how much is done; raises Cancelled if the rest is not wanted any more."""
    if not self._is_wanted:
      raise Cancelled
    self.progress = min(max(progress, self.progress), 1.0)

  def cancel(self) -> None:
    """Stops the job at its next call of `advance`, or before it begins."""
    with self._lock:
      self._is_wanted = False
      if self.state == "waiting":
        self.state = "cancelled"

  def run(self) -> None:
    """Does the work, unless it was cancelled before."""
    with self._lock:
      if self.state != "waiting":
        return
      self.state = "running"
    try:
      self._work(self)
    except Cancelled:
      self.state = "cancelled"
    except Exception as error:  # of FFmpeg, XLA or the disk: it costs this job and none of the others
      self.message = self._describe(error)
      self.state = "failed"
    else:
      self.progress, self.state = 1.0, "done"


class Line:
  """Jobs that stand in line: a thread does one after the other.

  Args:
    name: The thread's name.
  """

  def __init__(self, name: str) -> None:
    self._jobs: queue.Queue[PageJob | None] = queue.Queue()
    self._current: PageJob | None = None
    self._thread = threading.Thread(target=self._work, name=name, daemon=True)
    self._thread.start()

  def add(self, job: PageJob) -> None:
    """Puts a job at the end of the line."""
    self._jobs.put(job)

  def close(self, seconds: float) -> None:
    """Cancels all jobs, and waits for the current one for some seconds at most."""
    with contextlib.suppress(queue.Empty):
      while True:
        if job := self._jobs.get_nowait():
          job.cancel()
    self._jobs.put(None)
    if current := self._current:
      current.cancel()
    self._thread.join(seconds)

  def _work(self) -> None:
    while job := self._jobs.get():
      self._current = job
      job.run()
      self._current = job = None  # what a finished job holds is not kept
