"""Child processes with limits: a task that hangs, dies or grows affects no other task."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from helpers.paths import ROOT

pytest.importorskip("pebble")

from stajax.media.limits import Failure, Limits, run_in_children

LIMITS = Limits(time_limit=1.5, memory=2**28)


def act(kind: str, value: int) -> int:
  """Does what a task of these tests asks for; a child runs it."""
  match kind:
    case "hang":
      time.sleep(1000)
    case "die":
      os.kill(os.getpid(), value)
    case "grow":
      return len(bytearray(value))
    case "fail":
      raise ValueError(f"no {value}")
    case "limits":
      return resource.getrlimit(resource.RLIMIT_CORE)[0]
  return 2 * value


def test_a_task_that_exceeds_a_limit_affects_no_other():
  tasks = [
    ("double", 1), ("die", signal.SIGSEGV), ("hang", 0), ("grow", 2**30), ("double", 2), ("grow", 2**26),
    ("die", signal.SIGKILL), ("limits", 0), ("double", 3),
  ]  # fmt: skip
  results = dict(run_in_children(act, tasks, 2, LIMITS))
  assert results == {
    0: 2, 1: Failure("the decoder crashed (signal 11)"), 2: Failure("took longer than 1.5 s"),
    3: Failure("needed more than 0.25 GiB of memory"), 4: 4, 5: 2**26,
    6: Failure("its process was killed, which systems do when they run out of memory"), 7: 0, 8: 6,
  }  # fmt: skip


def test_exceptions_reach_the_caller_and_few_tasks_are_taken_in_advance():
  taken = []

  def tasks():
    for number in range(100):
      taken.append(number)
      yield ("fail" if number == 3 else "double"), number

  finished = []
  with pytest.raises(ValueError, match="no 3"):
    for index, result in run_in_children(act, tasks(), 1, LIMITS):
      finished.append((index, result))
      assert len(taken) <= index + 3
  assert finished == [(0, 0), (1, 2), (2, 4)]


def test_without_limits_one_process_is_this_one():
  assert list(run_in_children(lambda value: value + os.getpid(), [(1,), (2,)], 1)) == [
    (0, 1 + os.getpid()), (1, 2 + os.getpid())
  ]  # fmt: skip


def test_leaving_early_ends_the_children():
  results = run_in_children(act, [("double", 1), ("hang", 0)], 1, Limits())
  assert next(results) == (0, 2)
  results.close()  # does not wait for the hanging one
  assert not multiprocessing.active_children()


def test_children_end_with_a_killed_parent(tmp_path):
  code = """
import sys
from tests.media.test_limits import act
from stajax.media.limits import Limits, run_in_children
if __name__ == "__main__":
  for _ in run_in_children(act, [("double", 1), ("hang", 0)], 1, Limits()):
    print("started", flush=True)
"""
  script = tmp_path / "parent.py"
  script.write_text(code)
  paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
  with subprocess.Popen(
    [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    start_new_session=True, env={**os.environ, "PYTHONPATH": paths},
  ) as parent:  # fmt: skip
    assert parent.stdout.readline() == "started\n"
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 100
    while True:
      try:
        os.killpg(parent.pid, 0)
      except ProcessLookupError:
        break
      assert time.monotonic() < deadline
      time.sleep(0.05)


@pytest.mark.parametrize("field", ["max_seconds", "max_pixels", "max_bytes", "time_limit", "memory"])
def test_limits_are_positive(field):
  with pytest.raises(ValueError, match=f"limit {field} is 0"):
    Limits(**{field: 0})
