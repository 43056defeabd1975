"""The command of every source: its help, and its messages about misspelled or missing options."""

import pytest

from stajax.prepare.__main__ import main
from stajax.prepare.sources import SOURCES


@pytest.mark.parametrize("source", [source for source in SOURCES if source != "gaze"])  # which has no processes
def test_every_source_suggests_the_nearest_option(source, capsys):
  needed = {"synthetic": "--out", "csv": "--table"}.get(source, "--root")
  for arguments, message in (
    ([needed, "x", "--proceses", "2"], "unknown option --proceses; did you mean `--processes`?"),
    ([], f"Missing from stajax prepare {source}: {needed} PATH "),
    ([needed, "x", "--processes", "two"], "Error parsing --processes"),
  ):
    with pytest.raises(SystemExit) as stop:
      main([source, *arguments])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and line.startswith("stajax prepare: ") and message in line
    assert line.endswith(f"(see `stajax prepare {source} --help`)")


@pytest.mark.parametrize("source", ["", *SOURCES])
def test_help_names_the_command(source, capsys):
  if not source:
    assert main(["--help"]) == 0
  else:
    with pytest.raises(SystemExit) as stop:
      main([source, "--help"])
    assert not stop.value.code
  text = capsys.readouterr().out
  assert (f"usage: stajax prepare {source} " if source else "stajax prepare SOURCE --help") in text


def test_a_misspelled_source_is_answered_with_the_nearest(capsys):
  assert main(["foldres", "--root", "x"]) == 2
  assert "unknown source 'foldres'; did you mean `folders`?" in capsys.readouterr().err
