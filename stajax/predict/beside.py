"""Work that goes on in threads beside the one that computes maps: reading frames ahead, and drawing and encoding.

Decoders are other processes, and the network, the overlay and the encoder are computed in libraries, so threads use
several cores. The results are the same, and in the same order.
"""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from stajax.predict.outputs import Frame, Output

T = TypeVar("T")

FRAMES = 3
"""How many native frames wait to be drawn; one of 4K takes 25 MB."""


def read_ahead(items: Generator[T], count: int) -> Generator[T]:
  """Yields items that a thread reads, up to `count` (2 or more) ahead. It ends soon after the reader does.

  Raises:
    Exception: What reading them raises, in its turn.
  """
  ready: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(count)
  has_ended = threading.Event()

  def read() -> None:
    try:
      with contextlib.closing(items):
        for item in items:
          ready.put((True, item))
          if has_ended.is_set():
            return
      ready.put((False, None))
    except BaseException as error:
      ready.put((False, error))

  # A decoder that hangs must not keep the process from ending.
  threading.Thread(target=read, name="reader", daemon=True).start()
  try:
    while True:
      is_item, item = ready.get()
      if isinstance(item, BaseException):
        raise item
      if not is_item:
        return
      yield item  # pyright: ignore[reportReturnType]
  finally:
    has_ended.set()
    with contextlib.suppress(queue.Empty):
      while True:
        ready.get_nowait()


class Beside(Output):
  """Another output, which takes maps and frames in a thread of its own, in the same order.

  What it raises is raised here at one of the next frames, or in the end; it takes nothing after that.
  """

  def __init__(self, output: Output) -> None:
    self._output, self.needs_pictures = output, output.needs_pictures
    self._waiting: deque[Future[None]] = deque()
    self._has_failed = False

  @contextlib.contextmanager
  def opened(self) -> Generator[None]:
    """Prepares the output, and completes it when it has taken everything."""
    with self._output.opened(), ThreadPoolExecutor(1, "writer") as self._thread:
      try:
        yield
        self._wait(0)
      except BaseException:
        self._thread.shutdown(cancel_futures=True)
        raise

  def add_map(self, time: float, saliency: np.ndarray) -> None:
    """Gives a map to the output."""
    self._submit(self._output.add_map, time, saliency)

  def add_frame(self, frame: Frame) -> None:
    """Gives a frame to the output."""
    self._submit(self._output.add_frame, frame)

  def _submit(self, function: Callable[..., None], *arguments: Any) -> None:
    self._waiting.append(self._thread.submit(self._give, function, *arguments))
    self._wait(FRAMES)

  def _give(self, function: Callable[..., None], *arguments: Any) -> None:
    if self._has_failed:
      return
    try:
      function(*arguments)
    except BaseException:
      self._has_failed = True
      raise

  def _wait(self, count: int) -> None:
    """Waits until at most `count` maps and frames are left."""
    while len(self._waiting) > count:
      self._waiting.popleft().result()
