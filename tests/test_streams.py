"""Commands whose standard streams are closed, lead to nobody or to a full disk, and commands that are told to end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import ROOT

WORKING = """
import os, sys
from stajax import cli, screen

def command():
  with open(sys.argv[1], "wb") as file:
    if len(sys.argv) > 2:
      os.write(1, b"what a library prints")
      os.write(2, b"what a library prints")
    for number in range(3):
      screen.say(str(number) * 100_000)
      screen.say("a note", is_about_a_fault=True)
      file.write(b"x")
  return 5

sys.exit(cli.run("test", command))
"""

WAITING = """
import sys, time
from stajax import cli

def command():
  if sys.argv[1] == "loads":
    with cli.ended_by_interrupts("test"):
      print("begun", flush=True)
      time.sleep(60)
  try:
    print("begun", flush=True)
    time.sleep(60)
  finally:
    print("tidied")

sys.exit(cli.run("test", lambda: cli.run("test", command)))  # as `stajax VERB` does
"""


def start(program: str, *arguments: object, redirections: str = "") -> subprocess.Popen[str]:
  """Starts a program by a shell, which changes its streams."""
  command = [sys.executable, "-c", program, *map(str, arguments)]
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment, "text": True}
  return subprocess.Popen(["bash", "-c", f'exec "$@" {redirections}', "bash", *command], **pipes)


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&-", "2>&-"])
def test_closed_streams_end_nothing_and_write_into_no_file(tmp_path, closed):
  with start(WORKING, tmp_path / "file", "noise", redirections=closed) as process:
    process.communicate()
  assert process.returncode == 5 and (tmp_path / "file").read_bytes() == b"xxx"


def test_work_goes_on_when_nobody_reads(tmp_path):
  with start(WORKING, tmp_path / "file") as process:
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == "a note\n" * 3
  assert process.returncode == 5 and (tmp_path / "file").read_bytes() == b"xxx"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_output_on_a_full_disk_is_one_line(tmp_path):
  with start(WORKING, tmp_path / "file", redirections=">/dev/full") as process:
    _, error = process.communicate()
  assert (process.returncode, error) == (2, "test: cannot write to the standard output: No space left on device\n")


@pytest.mark.parametrize("how", ["works", "loads"])
def test_sigterm_is_one_line_and_a_code_of_its_own(how):
  with start(WAITING, how) as process:
    assert process.stdout and process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    output, error = process.communicate(timeout=50)
  assert process.returncode == 75 and len(error.splitlines()) == 1 and error.startswith("test: ended by SIGTERM")
  assert output == ("tidied\n" if how == "works" else "")
