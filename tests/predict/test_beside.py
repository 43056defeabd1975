"""Tests of threads beside the one that computes maps: the same items in the same order, and errors in their turn."""

import contextlib
import threading

import numpy as np
import pytest

from stajax.predict.beside import FRAMES, Beside, read_ahead
from stajax.predict.outputs import Frame, Output


class Kept(Output):
  """Keeps what it is given; fails at one of the frames if it is asked to."""

  needs_pictures = True

  def __init__(self, failing: int = -1) -> None:
    self.given, self.state, self._failing, self.threads = [], "new", failing, set()
    self.may_go_on = threading.Event()
    self.may_go_on.set()

  @contextlib.contextmanager
  def opened(self):
    self.state = "open"
    try:
      yield
    except BaseException:
      self.state = "dropped"
      raise
    self.state = "complete"

  def add_map(self, time, saliency):
    self.given.append(time)

  def add_frame(self, frame):
    assert self.may_go_on.wait(30)
    self.threads.add(threading.current_thread().name)
    if frame.number == self._failing:
      raise OSError("the disk is full")
    self.given.append(frame.number)


def frame(number: int) -> Frame:
  return Frame(number, number / 10, None, np.zeros((2, 2), np.float32), (4, 4))


def test_items_are_read_ahead_in_order_and_errors_come_in_their_turn():
  read = []

  def items():
    for number in range(9):
      read.append(number)
      yield number
    raise ValueError("damaged")

  found = read_ahead(items(), 3)
  assert next(found) == 0
  assert [next(found) for _ in range(8)] == list(range(1, 9))
  with pytest.raises(ValueError, match="damaged"):
    next(found)
  assert list(read_ahead((number for number in ()), 3)) == []
  assert list(read_ahead((number for number in range(50)), 2)) == list(range(50))


def test_whoever_stops_reading_ends_the_source():
  closed, read = threading.Event(), []

  def items():
    try:
      for number in range(10**9):
        read.append(number)
        yield number
    finally:
      closed.set()

  found = read_ahead(items(), 4)
  assert next(found) == 0
  found.close()
  assert closed.wait(30) and len(read) < 10


def test_an_output_beside_takes_everything_in_order():
  output = Kept()
  beside = Beside(output)
  assert beside.needs_pictures
  with beside.opened():
    for number in range(20):
      beside.add_map(-float(number), np.zeros((2, 2)))
      beside.add_frame(frame(number))
  assert output.given == [x for number in range(20) for x in (-float(number), number)] and output.state == "complete"
  assert len(output.threads) == 1 and threading.current_thread().name not in output.threads


def test_an_output_that_is_late_is_waited_for():
  output = Kept()
  output.may_go_on.clear()
  beside = Beside(output)
  with beside.opened():
    for number in range(FRAMES):
      beside.add_frame(frame(number))
    assert output.given == []
    output.may_go_on.set()
  assert output.given == list(range(FRAMES))


@pytest.mark.parametrize("count", [2, 20])
def test_what_an_output_raises_is_raised_and_it_is_dropped(count):
  output = Kept(failing=1)
  beside, given = Beside(output), 0
  with pytest.raises(OSError, match="the disk is full"), beside.opened():
    for number in range(count):
      beside.add_frame(frame(number))
      given += 1
  assert output.state == "dropped" and output.given == [0] and given <= FRAMES + 2


def test_an_output_is_dropped_where_another_one_fails():
  output = Kept()
  beside = Beside(output)
  with pytest.raises(KeyboardInterrupt), beside.opened():
    beside.add_frame(frame(0))
    raise KeyboardInterrupt
  assert output.state == "dropped"
