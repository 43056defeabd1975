"""Atomic writing: files and folders appear whole or not at all, and replace what was there before."""

import csv
import errno
import hashlib
import json
import os

import pytest

from stajax import files
from stajax.files import manifest, names


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_is_replaced_when_it_is_complete(tmp_path, shared):
  path = tmp_path / "folder" / "file.txt"
  path.parent.mkdir()
  with files.atomic_file(path, shared) as partial:
    partial.write_text("new")
    assert not path.exists() and partial.parent == path.parent
  assert path.read_text() == "new" and os.listdir(path.parent) == ["file.txt"]
  with files.atomic_file(path, shared) as partial:
    partial.write_text("newer")
    assert path.read_text() == "new"
  assert path.read_text() == "newer" and os.listdir(path.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_file_stays_as_it_was_after_an_exception(tmp_path, error):
  path = tmp_path / "file.txt"
  path.write_text("old")
  with pytest.raises(error), files.atomic_file(path) as partial:
    partial.write_text("half of the n")
    raise error
  assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.txt"]


def test_a_full_disk_is_said_with_the_file(tmp_path):
  for atomic in (files.atomic_file, files.atomic_folder):
    with pytest.raises(OSError, match=r"No space left on device: '.*/a'$"), atomic(tmp_path / "a"):
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("shared", [False, True])
def test_a_missing_folder_is_named(tmp_path, shared):
  for folder in (tmp_path / "nowhere" / "to be found", tmp_path / "file"):
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError) as error, files.atomic_file(folder / "a.npz", shared):
      pass
    assert str(error.value) == f"[Errno 2] no such folder: '{folder}'"


def test_partial_files_of_killed_processes_are_replaced(tmp_path):
  files.partial_path(tmp_path / "file.txt").write_text("half of a file that was longer than the new one")
  files.write_text(tmp_path / "file.txt", "new")
  assert (tmp_path / "file.txt").read_text() == "new" and os.listdir(tmp_path) == ["file.txt"]


def test_processes_that_share_a_file_do_not_share_its_partial_one(tmp_path):
  with (
    files.atomic_file(tmp_path / "file", shared=True) as first,
    files.atomic_file(tmp_path / "file", shared=True) as second,
  ):
    assert first != second
    first.write_text("first")
    second.write_text("second")
  assert (tmp_path / "file").read_text() == "first" and os.listdir(tmp_path) == ["file"]


def test_a_folder_is_replaced_when_it_is_complete(tmp_path):
  path = tmp_path / "model"
  path.mkdir()
  (path / "old").touch()
  files.partial_path(path).mkdir()
  (files.partial_path(path) / "broken").touch()
  with files.atomic_folder(path) as partial:
    assert os.listdir(partial) == [] and os.listdir(path) == ["old"]
    (partial / "new").touch()
  assert os.listdir(path) == ["new"] and os.listdir(tmp_path) == ["model"]
  with pytest.raises(OSError, match="full"), files.atomic_folder(path) as partial:
    (partial / "newer").touch()
    raise OSError("the disk is full")
  assert os.listdir(path) == ["new"] and os.listdir(tmp_path) == ["model"]


def test_json_files_may_have_names_that_are_not_utf8(tmp_path):
  value = {"name": "Žluťoučký", "file": os.fsdecode(b"clip\xff.mp4")}
  files.write_json(tmp_path / "new" / "value.json", value)
  content = (tmp_path / "new" / "value.json").read_bytes()
  assert json.loads(content) == value and "Žluťoučký".encode() in content and content.endswith(b"}\n")


def test_digests_are_those_of_hashlib(tmp_path):
  (tmp_path / "file").write_bytes(b"frame by frame")
  expected = hashlib.sha256(b"frame by frame").hexdigest()
  assert manifest.sha256_of_file(tmp_path / "file") == manifest.sha256_of_bytes(b"frame ", b"by frame") == expected
  assert manifest.sha256_of_json({"a": 1, "b": 2}) == manifest.sha256_of_json({"b": 2, "a": 1})


def test_a_file_reaches_the_disk_before_its_name_and_the_name_afterwards(tmp_path, monkeypatch):
  """What was not synced when the power fails is lost, so everything is synced in this order."""
  events, real = [], os.fsync

  def fsync(number):
    events.append(os.path.relpath(os.readlink(f"/proc/self/fd/{number}"), tmp_path))
    real(number)

  replace = os.replace
  monkeypatch.setattr(os, "fsync", fsync)
  monkeypatch.setattr(os, "replace", lambda a, b: (events.append("named"), replace(a, b)))
  files.write_text(tmp_path / "a.txt", "new")
  assert events == [".a.txt.partial", "named", "."]
  events.clear()
  with files.atomic_folder(tmp_path / "model") as partial:
    (partial / "deep").mkdir()
    (partial / "deep" / "x").write_text("x")
  assert set(events[:-2]) == {".model.partial", ".model.partial/deep", ".model.partial/deep/x"}
  assert events[-2:] == ["named", "."]
  events.clear()
  files.write_text(tmp_path / "new" / "deep" / "b.txt", "new")  # the names of new folders, too
  assert set(events[:2]) == {".", "new"} and events[2:] == ["new/deep/.b.txt.partial", "named", "new/deep"]


def test_manifests_know_their_files_and_themselves(tmp_path):
  (tmp_path / "deep").mkdir()
  for name in ("a", "deep/b"):
    (tmp_path / name).write_text(name)
  path = tmp_path / "done.json"
  digests = manifest.digests(tmp_path, [tmp_path / "a", tmp_path / "deep", tmp_path / "missing"])
  assert digests == {name: hashlib.sha256(name.encode()).hexdigest() for name in ("a", "deep/b")}
  manifest.write_manifest(path, {"x": 0.1, "y": {"é": [1, None]}}, digests)
  assert manifest.read_manifest(path) == ({"x": 0.1, "y": {"é": [1, None]}}, digests)
  text = path.read_text()
  for changed in (text.replace("0.1", "0.2"), text.replace('"x"', '"z"'), text.replace('"digest"', '"digesu"')):
    path.write_text(changed)
    with pytest.raises(files.FileError, match=r"done\.json: damaged or changed"):
      manifest.read_manifest(path)
  path.write_text('{"x": 1}')  # as it was before there were manifests
  assert manifest.read_manifest(path) == ({"x": 1}, {})
  with pytest.raises(files.FileError, match=r"a: damaged or changed"):
    manifest.check_digest(tmp_path / "a", digests["deep/b"])


@pytest.mark.parametrize("name", ["/etc/passwd", "../evil", "deep/../../evil"])
def test_a_manifest_names_only_files_of_its_folder(tmp_path, name):
  manifest.write_manifest(tmp_path / "model.json", {}, {name: "0" * 64})
  with pytest.raises(files.FileError, match=r"model\.json: files: found .*, expected files of the folder"):
    manifest.read_manifest(tmp_path / "model.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff\xfe\x00", b"1" * 5000])
def test_what_is_not_json_is_one_line(tmp_path, content):
  (tmp_path / "x.json").write_bytes(content)
  with pytest.raises(files.FileError) as error:
    files.read_json(tmp_path / "x.json")
  assert str(error.value).startswith(f"{tmp_path / 'x.json'}: not JSON (") and "\n" not in str(error.value)


NAMES = ["=1+1", "+x", "-x", "@SUM(A1)", "'=x", "'", "plain", "a,b", 'say "x"', "Žluťoučký", "", "1e5", "-0.25"]


def test_cells_are_not_run_by_spreadsheets_and_can_be_read_again(tmp_path):
  text = names.csv_text([[name, 0.5, -3] for name in NAMES])
  rows = list(csv.reader(text.splitlines()))
  assert [names.csv_name(row[0]) for row in rows] == NAMES and all(row[1:] == ["0.5", "-3"] for row in rows)
  assert not [row[0] for row in rows if row[0][:1] in "=+@" and row[0]]
  assert [row[0] for row in rows if row[0].startswith("-")] == ["-0.25"]  # a number stays one
  assert "\x1b" not in names.csv_text([["\x1b[2Jx\r\ny"]]) and names.csv_text([["a\nb"]]) == "a\\nb\n"


def test_names_cannot_steer_a_terminal():
  assert names.printable("a\x1b[2J\x07\x9b\u202eb\r\n\tü€") == "a\\x1b[2J\\x07\\x9b\\u202eb\\r\n\tü€"


def test_pipes_and_devices_are_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / "pipe")
  (tmp_path / "device").symlink_to("/dev/zero")
  for path in (tmp_path / "pipe", tmp_path / "device"):
    with pytest.raises(files.FileError, match=rf"^{path}: is a pipe or a device, expected a file$"):
      files.read_json(path)
    with pytest.raises(files.FileError, match="is a pipe or a device"):
      manifest.check_digest(path, "0" * 64)


def test_a_manifest_with_another_kind_of_list_is_refused(tmp_path):
  content = {"files": ["a"]}
  files.write_json(tmp_path / "done.json", content | {"digest": manifest.sha256_of_json(content)})
  with pytest.raises(files.FileError, match=r"done\.json: files: found list, expected an object$"):
    manifest.read_manifest(tmp_path / "done.json")


def test_a_file_replaces_neither_a_device_nor_a_folder(tmp_path):
  pipe, link = tmp_path / "pipe", tmp_path / "link"
  os.mkfifo(pipe)
  link.symlink_to(pipe)
  for path, found in (
    (pipe, "a pipe or a device"),
    (link, "a pipe or a device"),
    (tmp_path, "a folder"),
    ("", "a folder"),
  ):
    with pytest.raises(OSError, match=f"is {found}, expected a file"):
      files.write_bytes(path, b"x")
  assert pipe.is_fifo() and link.is_symlink() and len(list(tmp_path.iterdir())) == 2
