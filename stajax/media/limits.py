"""Limits for media files, and child processes that keep them.

A media file can hang its decoder, crash it, or ask for any amount of memory. Therefore a child process works on each
file. A child that takes too long, grows too large or dies costs only its own file, whose failure names the reason.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from stajax.runtime import hidden_interrupts, limit_memory

T = TypeVar("T")

FILES_PER_CHILD = 500  # a fresh child then replaces it, because libraries that leak would fill its memory


@dataclass(frozen=True)
class Limits:
  """The limits for one media file.

  Attributes:
    max_seconds: The duration at which longer clips are cut.
    max_pixels: The largest number of pixels of a picture.
    max_bytes: The largest size of a file, or of all images of a folder together.
    time_limit: The number of seconds that a child process may work on a file.
    sound: The number of the sound stream that is heard, counted from 1; None for the usual one.
    memory: The number of bytes by which the address space of a child process may grow (enforced on Linux only).
  """

  max_seconds: float = 3600.0
  max_pixels: int = 2**25
  max_bytes: int = 2**34
  time_limit: float = 300.0
  memory: int = 2**32
  sound: int | None = None

  def __post_init__(self) -> None:
    for name, value in vars(self).items():
      if value is not None and not value > 0:
        raise ValueError(f"limit {name} is {value}, expected more than 0")


@dataclass(frozen=True)
class Failure:
  """A task failed because a limit ended it or its process died; `reason` explains it in a few words."""

  reason: str


def run_in_children(
  function: Callable[..., T], tasks: Iterable[tuple[Any, ...]], processes: int, limits: Limits | None = None
) -> Iterator[tuple[int, T | Failure]]:
  """Calls a function for every task in child processes, and yields each result when it is finished.

  Args:
    function: A function of a module; children load the module before their memory is limited.
    tasks: The arguments of each call; only a few tasks are taken in advance.
    processes: The number of processes that work at the same time.
    limits: Limits on time and memory; without them, a single process is this one.

  Yields:
    The number of the task, and what the function returned or a `Failure`.

  Raises:
    Exception: Any exception that the function raised.
    OSError: The children cannot work.
  """
  if limits is None and processes <= 1:
    for index, arguments in enumerate(tasks):
      yield index, function(*arguments)
    return
  from pebble import ProcessPool  # only the extra `train` installs it

  pool = ProcessPool(
    processes,
    max_tasks=FILES_PER_CHILD,
    context=multiprocessing.get_context("spawn"),  # a fork of a process that runs threads may hang
    initializer=_begin,
    initargs=(function, None if limits is None else limits.memory),
  )
  waiting, running = enumerate(tasks), dict[Future, int]()
  try:
    while True:
      for index, arguments in islice(waiting, 2 * processes - len(running)):
        with hidden_interrupts():  # the first task starts the processes
          future = pool.schedule(function, args=arguments, timeout=None if limits is None else limits.time_limit)
        running[future] = index
      if not running:
        break
      for future in sorted(wait(running, return_when=FIRST_COMPLETED).done, key=running.__getitem__):
        yield running.pop(future), _result(future, limits)
    pool.close()
  except BrokenProcessPool as error:
    pool.stop()
    raise OSError("the processes that do the work cannot start, or were killed; the same command goes on") from error
  except BaseException:
    pool.stop()
    raise
  finally:
    pool.join()


def _result(future: Future, limits: Limits | None) -> Any:
  from pebble import ProcessExpired

  try:
    return future.result()
  except ProcessExpired as error:
    if error.exitcode == -signal.SIGKILL:
      return Failure("its process was killed, which systems do when they run out of memory")
    name = f"signal {-error.exitcode}" if error.exitcode < 0 else f"exit code {error.exitcode}"
    return Failure(f"the decoder crashed ({name})")
  except MemoryError:
    if limits is None:
      raise
    return Failure(f"needed more than {limits.memory / 2**30:g} GiB of memory")
  except TimeoutError:
    if limits is None:
      raise
    return Failure(f"took longer than {limits.time_limit:g} s")


def _begin(function: Callable[..., Any], memory: int | None) -> None:
  """Prepares a child, which loaded everything that the function needs when it received the function."""
  _end_with_parent()
  if memory is not None:
    limit_memory(memory)


def _end_with_parent() -> None:
  """Ends this process when its parent ends; otherwise it would wait for work forever."""
  parent = multiprocessing.parent_process()
  assert parent is not None

  def wait_for_parent() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=wait_for_parent, daemon=True).start()
