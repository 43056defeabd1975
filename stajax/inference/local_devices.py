"""The work of inference on all accelerators of a process: each device takes the next item when it is free for one.

Every item is computed by one device, with the same programs as on a machine that has one, so that results are the same
bit for bit. Each device has a thread, which also does the host's part, and networks of its own.
"""

# pyright: reportUnknownMemberType=false
# JAX annotates its functions in part.

import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import jax

Item = TypeVar("Item")
Result = TypeVar("Result")

Device = Any  # JAX does not say what its devices are to type checkers
"""A `jax.Device`, or None for the one that JAX takes by default."""
Work = Callable[[Device, Iterator[Item]], Iterator[Result]]
"""Computes, on a device, the results of the items that it is given one by one."""


def local_devices(num_items: int | None = None) -> list[Device]:
  """Returns the devices of this process, at most as many as there are items; the first one is JAX's default."""
  return [None, *jax.local_devices()[1 : None if num_items is None else max(num_items, 1)]]


def on_local_devices(items: Sequence[Item], work: Work[Item, Result], threads: int = 1) -> Iterator[Result]:
  """Runs work on all devices of this process at the same time, and yields the results as they come.

  With one device and one thread everything happens in the caller's thread, and results come in the order of the items.

  Args:
    items: What is worked on; a device is given the next item when it asks for it.
    work: The work. It may return several results for an item, or none.
    threads: How many items each device works on at the same time.

  Raises:
    Whatever the work raises first; the other devices then stop after the items that they have.
  """
  devices = (local_devices(len(items)) * threads)[: max(len(items), 1)]
  if len(devices) == 1:
    yield from work(None, iter(items))
    return
  yield from _Dealer(items, work, devices).results()


class OfThread(Generic[Result]):
  """A value for each thread that asks for it, made on a device that no other thread has, while there are enough.

  Args:
    make: A function of a device that makes the value.
    devices: The devices in the order in which threads get them.
  """

  def __init__(self, make: Callable[[Device], Result], devices: Sequence[Device]) -> None:
    self._make, self._devices = make, itertools.cycle(devices)
    self._lock, self._local = threading.Lock(), threading.local()

  def get(self) -> Result:
    """Returns this thread's value."""
    if not hasattr(self._local, "value"):
      with self._lock:
        device = next(self._devices)
      self._local.value = self._make(device)
    found: Result = self._local.value
    return found


class _Ended:
  """Says that a thread has ended, and why if it failed."""

  def __init__(self, error: BaseException | None) -> None:
    self.error = error


class _Dealer(Generic[Item, Result]):
  """Deals items to a thread for each of the devices, which may be there several times; see `on_local_devices`."""

  def __init__(self, items: Sequence[Item], work: Work[Item, Result], devices: Sequence[Device]) -> None:
    self._items: Iterator[Item] = iter(items)
    self._lock, self._is_stopped = threading.Lock(), threading.Event()
    # Results may be large: a device waits where they are not taken as fast as they are made.
    self._results: queue.Queue[Result | _Ended] = queue.Queue(maxsize=len(devices))
    self._threads = [
      threading.Thread(target=self._run, args=(work, device), name=f"device {i}", daemon=True)
      for i, device in enumerate(devices)
    ]

  def results(self) -> Iterator[Result]:
    """Yields the results of all threads; waits for the threads, also if it is left early."""
    for thread in self._threads:
      thread.start()
    try:
      num_running = len(self._threads)
      while num_running:
        found = self._results.get()
        if isinstance(found, _Ended):
          num_running -= 1
          if found.error is not None:
            raise found.error
        else:
          yield found
    finally:
      self._is_stopped.set()
      while any(thread.is_alive() for thread in self._threads):
        with contextlib.suppress(queue.Empty):
          self._results.get(timeout=0.05)  # makes room for threads that wait for it

  def _run(self, work: Work[Item, Result], device: Device) -> None:
    error = None
    try:
      for result in work(device, self._take()):
        self._results.put(result)
    except BaseException as found:  # it is raised where the results are taken
      error = found
    self._results.put(_Ended(error))

  def _take(self) -> Iterator[Item]:
    while not self._is_stopped.is_set():
      with self._lock:
        found = list(itertools.islice(self._items, 1))
      if not found:
        return
      yield found[0]
