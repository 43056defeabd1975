"""What signals raise reaches the command that they are to end, wherever they come."""

import os
import signal
import subprocess
import sys
import time

import jax
import pytest
from jax.experimental import multihost_utils

from helpers.paths import ROOT
from stajax import signals


@pytest.mark.parametrize("number, raised", [(signal.SIGTERM, signals.Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_signals_wait_for_the_end_of_a_block(number, raised):
  done = []
  with signals.ended_by_sigterm():
    before = signal.getsignal(number)
    with pytest.raises(raised), signals.deferred():
      os.kill(os.getpid(), number)
      time.sleep(0.01)
      done.append(True)
    assert done and signal.getsignal(number) is before


def test_a_signal_after_the_last_question_ends_the_command():
  with signals.ended_by_sigterm():
    with pytest.raises(signals.Terminated), signals.stops_by_itself():
      os.kill(os.getpid(), signal.SIGTERM)
      assert signals.should_stop()
    with pytest.raises(ValueError, match="its own"), signals.stops_by_itself():
      raise ValueError("its own")


LOSING = """
import gc, os, sys, time, weakref
from stajax import cli, signals

class Thing:
  pass

def lose(*_):
  if not sent:
    sent.append(True)
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(0.2)  # Python calls the handler here, and prints what it raises

def command():
  if sys.argv[2] == "collector":
    gc.callbacks.append(lose)
    gc.collect()
  else:
    thing = Thing()
    watch = weakref.ref(thing, lose)
    del thing
  time.sleep(60)
  return 0

sent = []
with signals.ended_by_sigterm():
  try:
    code = cli.run("test", command)
  except signals.Terminated as error:
    code = cli.fail("test", str(error), 75)
sys.exit(code)
"""


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
@pytest.mark.parametrize("where", ["collector", "reference"])
def test_a_signal_that_comes_in_a_callback_ends_the_command(number, code, where):
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  command = [sys.executable, "-c", LOSING, str(int(number)), where]
  done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50)
  assert done.returncode == code and len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize("before", [3, 2])
def test_a_signal_between_two_networks_stops_the_next_one_in_all_processes(monkeypatch, before):
  """It comes after all three steps of the first network, or so late that JAX names the last one of them."""
  agreed, last = [], []

  def reached(number):  # as JAX does: once, at the number after the last one
    last[:] = [number]
    return agreed == [number]

  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", reached)
  for name, value in (("_num_questions", 0), ("_is_agreed", False)):
    monkeypatch.setattr(signals, name, value)
  answers = []
  for _ in range(5):
    answers.append(signals.should_stop())
    if len(answers) == before:
      agreed[:] = [last[0] + 1]
  assert answers == [False] * before + [True] * (5 - before)
