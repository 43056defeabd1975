"""Several processes on this machine: one result, and one end for all if one of them fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from helpers import together
from helpers.paths import ROOT

pytest.importorskip("tensorflow")

from stajax.report.log_lines import read_log

LAUNCHER = ROOT / "launch" / "local_processes.sh"
STEPS = 7


@pytest.fixture
def launch(tmp_path):
  """Starts the launcher with a small training in place of that of the command; nothing of it outlives the test."""
  program = tmp_path / "bin" / "python"
  program.parent.mkdir()
  begin = 'if [[ $1 == -c ]]; then shift; set -- -c "$@"; else shift 3; set -- -m helpers.together "$@"; fi'
  program.write_text(f'#!/usr/bin/env bash\n{begin}\nexec {sys.executable} "$@"\n')
  program.chmod(0o755)
  started = []

  def start(processes, devices, *arguments):
    environment = {
      **os.environ,
      "PATH": f"{program.parent}:{os.environ['PATH']}",
      "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
      "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
      "STAJAX_PEER_SECONDS": "10",
    }
    command = [LAUNCHER, str(processes), str(tmp_path / "run"), str(STEPS), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started.append(subprocess.Popen(command, env=environment, **pipes, start_new_session=True))
    return started[-1]

  yield start
  for process in started:
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
      process.communicate()


def finish(process):
  """Returns the exit code, the lines of stderr without those of progress bars, and what processes it has left."""
  _, error = process.communicate(timeout=300)
  lines = [line for line in error.splitlines() if line.startswith(("toy", "Traceback", "launch"))]
  deadline = time.monotonic() + 20  # what was just killed takes a moment to end
  while (left := leftovers(process.pid)) and time.monotonic() < deadline:
    time.sleep(0.1)
  return process.returncode, lines, left


def leftovers(session):
  """Returns the processes of a session that still run."""
  found = []
  for path in Path("/proc").glob("[0-9]*/stat"):
    try:
      fields = path.read_text().rpartition(")")[2].split()
    except OSError:
      continue
    if int(fields[3]) == session and fields[0] != "Z":
      found.append(path.parent.name)
  return found


def losses(folder):
  return [(line["step"], line["loss"]) for line in read_log(folder / "log.jsonl")]


def check_result(state, folder, tmp_path):
  """Compares with a training in one process on one device."""
  expected = jax.device_get(together.train(tmp_path / "alone", STEPS, jax.devices()[:1]))
  np.testing.assert_allclose(losses(folder), losses(tmp_path / "alone"), rtol=1e-6)
  assert [step for step, _ in losses(folder)] == list(range(1, STEPS + 1))
  for part in ("params", "statistics"):
    vectors = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(getattr(s, part))]) for s in (state, expected)]
    assert np.linalg.norm(vectors[0] - vectors[1]) < 1e-6 * np.linalg.norm(vectors[1]), part


def test_a_killed_process_ends_all_and_another_number_of_devices_goes_on(launch, tmp_path):
  """Two processes with two devices each see the killed one's end; then eight devices of one process go on."""
  code, lines, left = finish(launch(2, 2, 1, 6, int(signal.SIGKILL)))
  assert code and not left
  assert len(lines) == 2 and "process 1: was ended by SIGKILL" in " ".join(lines)
  assert [step for step, _ in losses(tmp_path / "run")][:4] == [1, 2, 3, 4]
  state = jax.device_get(together.train(tmp_path / "run", STEPS))
  check_result(state, tmp_path / "run", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("what", ["error", int(signal.SIGKILL), int(signal.SIGSTOP)])
def test_what_happens_to_one_ends_all(launch, victim, what):
  code, lines, left = finish(launch(2, 1, victim, 4, what))
  assert code and not left and len(lines) == 2 and "Traceback" not in " ".join(lines), lines


@pytest.mark.slow
def test_two_processes_go_on_where_three_were_stopped(launch, tmp_path):
  """SIGTERM to the launcher lets all three save the same step."""
  running = launch(3, 1)
  while not losses(tmp_path / "run"):
    time.sleep(0.01)
  running.send_signal(signal.SIGTERM)
  code, _, left = finish(running)
  assert code in (0, 75) and not left
  assert finish(launch(2, 1)) == (0, [], [])
  check_result(jax.device_get(together.train(tmp_path / "run", STEPS)), tmp_path / "run", tmp_path)


def test_the_number_of_processes_is_checked(launch):
  for number in ("0", "-1", "two", "1.5"):
    code, lines, _ = finish(launch(number, 1))
    assert code == 2 and len(lines) == 1 and f"found '{number}'" in lines[0]
