"""Results that a device is still computing, so that it need not wait for the host."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Result = TypeVar("Result")

Pending = Callable[[], Result]
"""A function that waits for what was started, and returns its result."""


def finish_in_turn(pending: Iterable[Pending[Result]]) -> Iterator[Result]:
  """Yields the results in order. Each is waited for only after the next one has been started."""
  waiting = None
  for started in pending:
    if waiting is not None:
      yield waiting()
    waiting = started
  if waiting is not None:
    yield waiting()
