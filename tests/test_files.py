"""Atomic writing: files and folders appear whole or not at all, and replace what was there before."""

import hashlib
import json
import os

import pytest

from stajax import files


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
  assert files.sha256_of_file(tmp_path / "file") == files.sha256_of_bytes(b"frame ", b"by frame") == expected
  assert files.sha256_of_json({"a": 1, "b": 2}) == files.sha256_of_json({"b": 2, "a": 1})
