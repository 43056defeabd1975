"""What commands write to a screen or a file while they work, and where their cache is."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("given, folder", [("", "home/.cache"), ("cache", "home/.cache"), ("/caches", "/caches")])
def test_a_cache_that_is_no_absolute_path_counts_as_none(monkeypatch, given, folder):
  monkeypatch.setenv("XDG_CACHE_HOME", given)
  monkeypatch.setenv("HOME", "home")
  assert runtime.cache("compiled") == Path(folder, "stajax", "compiled")


def test_without_a_home_only_what_needs_a_cache_is_refused(monkeypatch, capsys, tmp_path):
  def no_home():
    raise RuntimeError("Could not determine home directory.")

  monkeypatch.setattr(Path, "home", no_home)
  monkeypatch.setattr(os, "environ", {"XDG_CACHE_HOME": ""})
  with pytest.raises(FileNotFoundError, match=r"^no home folder for a cache, expected one in HOME"):
    runtime.cache("weights")
  (tmp_path / "file").touch()
  for given in ("", str(tmp_path / "file")):
    monkeypatch.setattr(os, "environ", {"XDG_CACHE_HOME": given})
    runtime.configure()
    runtime.configure()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == ""
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(OSError, match=r"no home folder|Not a directory"):
      runtime.compiled_programs()


def test_on_a_full_disk_one_note_says_that_programs_are_not_kept(monkeypatch, capsys, tmp_path):
  monkeypatch.setattr(os, "environ", {"XDG_CACHE_HOME": str(tmp_path)})
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
  runtime.configure()
  assert os.environ["JAX_COMPILATION_CACHE_DIR"] == ""
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("note: compiled programs are not kept for the next run: ") and "No space left" in line
