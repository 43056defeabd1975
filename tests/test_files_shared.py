"""Names that any file system takes, and locks that keep two runs apart, also after one of them is killed."""

import os
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from helpers.paths import ROOT
from stajax.files import atomic_folder, partial_path, write_text
from stajax.files.lock import exclusive
from stajax.files.names import comparable_name, shorten_name
from stajax.hints import address_refusal, is_address


def test_long_names_are_shortened_and_stay_different():
  names = ["a" * 244, "a" * 243 + "b", "é" * 122, "ж" * 100 + "я" * 20, "😀" * 61, "short"]
  shortened = [shorten_name(name) for name in names]
  assert len(set(shortened)) == len(names) and shortened[-1] == "short"
  assert all(len(os.fsencode(name)) <= 200 for name in shortened)
  assert all(name.startswith(before[:40]) for name, before in zip(shortened, names))


def test_files_with_the_longest_names_are_written_whole(tmp_path):
  path = tmp_path / ("n" * 251 + ".txt")
  write_text(path, "whole")
  with atomic_folder(tmp_path / ("f" * 255)) as folder:
    (folder / "a").touch()
  assert sorted(len(name) for name in os.listdir(tmp_path)) == [255, 255]
  assert partial_path(Path("a/b.json")) == Path("a/.b.json.partial")


def test_names_that_some_systems_take_for_one_are_comparable():
  nfc, nfd = (unicodedata.normalize(form, "Café Straße") for form in ("NFC", "NFD"))
  assert nfc != nfd and comparable_name(nfc) == comparable_name(nfd) == comparable_name("CAFÉ STRASSE")
  assert comparable_name("a") != comparable_name("b")


@pytest.mark.parametrize(
  "path, expected",
  [
    ("https://example.org/a.mp4", True),
    (Path("https://example.org/a.mp4"), True),
    ("gs://bucket/a", True),
    ("rtsp:/camera", True),
    ("C:/videos/a.mp4", False),
    ("a:b/c.mp4", False),
    ("./http:/a", False),
    ("videos/a.mp4", False),
  ],
)
def test_addresses_are_told_from_paths(path, expected):
  assert is_address(path) is expected
  if expected:
    whole = "https://example.org/a.mp4", "gs://bucket/a", "rtsp://camera"
    assert address_refusal(path).partition(": ")[0] in whole and "download it first" in address_refusal(path)


def test_a_lock_keeps_others_out_until_its_process_ends(tmp_path):
  lock = tmp_path / ".lock"
  program = f"""
import sys, time
from pathlib import Path
from stajax.files.lock import exclusive
with exclusive(Path({str(lock)!r})):
  print("held", flush=True)
  time.sleep(60)
"""
  holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT)
  try:
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    owner = rf"another run is writing here \(process {holder.pid} on .+\)"
    with pytest.raises(BlockingIOError, match=owner), exclusive(lock):
      raise AssertionError("two held the lock")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with exclusive(lock):
      assert lock.exists()
    assert not lock.exists()
  finally:
    holder.kill()
    holder.wait()


@pytest.mark.parametrize("name", [".a.json.partial", ".lock"])
def test_links_in_a_foreign_folder_overwrite_nothing(tmp_path, name):
  other = tmp_path / "other"
  other.write_text("precious")
  (tmp_path / name).symlink_to(other)
  if name == ".lock":
    with pytest.raises(OSError, match="symbolic link"), exclusive(tmp_path / name):
      pass
  else:
    write_text(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "new" and not (tmp_path / "a.json").is_symlink()
  assert other.read_text() == "precious"
