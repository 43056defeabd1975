"""What commands write to a screen or a file while they work."""

import os
import subprocess
import sys

from stajax import runtime


def test_progress_in_a_file_is_lines(monkeypatch, capsys):
  monkeypatch.setattr(runtime, "_SECONDS_A_LINE", 0.0)
  with runtime.progress("reading", 3, "clip", 1) as bar:
    bar.update()
    bar.update()
  written = capsys.readouterr().err
  assert "\r" not in written
  lines = written.splitlines()
  assert len(lines) > 1 and all(line.startswith("reading:") for line in lines)
  assert "3/3" in lines[-1]


def test_what_is_done_soon_has_no_line(capsys):
  for _ in runtime.progress("reading", 3, "clip", iterable=range(3)):
    pass
  assert capsys.readouterr().err == ""


def test_libraries_are_silent_for_a_while():
  code = """
import os, sys
from stajax.runtime import quiet_libraries
with quiet_libraries():
  os.write(2, b"from C++")
os.write(2, b"ours")
"""
  child = subprocess.run([sys.executable, "-c", code], capture_output=True, env=dict(os.environ))
  assert child.returncode == 0 and child.stderr == b"ours"
