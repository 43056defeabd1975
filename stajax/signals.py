"""Signals that end a command: what they raise, and loops that take care of them."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from typing import Any

from stajax.runtime.processes import is_worker

_num_questions = 0
"""How often `should_stop` was asked, the same in all processes."""
_is_agreed = False
"""Whether all processes have agreed to end; JAX says so only once, which may be after the last step of a network."""


def should_stop() -> bool:
  """Returns whether training has to end after a step, the same in all processes, since one has received SIGTERM."""
  global _num_questions, _is_agreed
  import jax
  from jax.experimental import multihost_utils

  # JAX agrees on a number after the last one that it was given, so numbers must never begin again, as steps do for
  # each network: a signal between two networks would be forgotten.
  _num_questions += 1
  if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(_num_questions):
    _is_agreed = True
  return _is_asked or _is_agreed


class Terminated(BaseException):
  """This process has received SIGTERM; one line. Nothing but the command itself may catch it."""


_ENDED = "ended by SIGTERM; what is finished is kept, and the same command goes on from there"
_is_asked = False
"""Whether SIGTERM came while a loop takes care of it."""
_takes_care = False
_leave: Callable[[str], None] | None = None
"""What ends the process at once, where an exception would do harm."""


@contextlib.contextmanager
def ended_by_sigterm() -> Generator[None]:
  """Lets SIGTERM raise `Terminated` in the block, or, inside of `stops_by_itself`, only make `should_stop` true.

  A second SIGTERM always raises. Nothing changes where SIGTERM does something else already, as inside of another such
  block, and in one of several processes that train together, where JAX takes it.
  """
  global _is_asked

  def end(_number: int, _frame: Any) -> None:
    global _is_asked
    if _leave is not None:
      _leave(_ENDED)
    elif _takes_care and not _is_asked:
      _is_asked = True
    else:
      raise Terminated(_ENDED)

  in_main_thread = threading.current_thread() is threading.main_thread()  # others cannot take signals
  if is_worker() or not in_main_thread or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
    yield
    return
  before = signal.signal(signal.SIGTERM, end)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)
    _is_asked = False


@contextlib.contextmanager
def stops_by_itself() -> Generator[None]:
  """Says that the block asks `should_stop` every now and then, saves, and ends.

  Raises:
    Terminated: SIGTERM came after the block had asked for the last time, and the block has ended as if it had not.
  """
  global _takes_care
  _takes_care = True
  try:
    yield
  finally:
    _takes_care = False
  if _is_asked:
    raise Terminated(_ENDED)


@contextlib.contextmanager
def ended_at_once(leave: Callable[[str], None]) -> Generator[None]:
  """Lets SIGTERM, where `ended_by_sigterm` takes it, call a function that ends the process, given what it is to say."""
  global _leave
  before, _leave = _leave, leave
  try:
    yield
  finally:
    _leave = before


@contextlib.contextmanager
def deferred() -> Generator[None]:
  """Lets SIGINT and SIGTERM wait for the end of the block, if Python handles them.

  For blocks in which a library would turn what they raise into an error of its own.
  """
  came: list[int] = []
  handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
  if threading.current_thread() is not threading.main_thread():
    handlers = {}
  handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
  for number in handlers:
    signal.signal(number, lambda number, _: came.append(number))
  try:
    yield
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)
    if came:
      signal.raise_signal(came[0])


_AGAIN_AFTER = 0.05  # seconds


@contextlib.contextmanager
def repeat_lost_signals() -> Generator[None]:
  """Sends SIGINT and SIGTERM again, in the block, where what they raised was lost.

  Python prints what is raised in some callbacks, such as finalizers and those of its garbage collector, and goes on.
  """
  before, numbers = sys.unraisablehook, {KeyboardInterrupt: signal.SIGINT, Terminated: signal.SIGTERM}

  def hear(lost: Any) -> None:
    number = numbers.get(lost.exc_type)
    if number is None:
      before(lost)
      return
    # Later, because the callback has not ended yet.
    again = threading.Timer(_AGAIN_AFTER, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()

  sys.unraisablehook = hear
  try:
    yield
  finally:
    if sys.unraisablehook is hear:  # nobody hears by it besides
      sys.unraisablehook = before
