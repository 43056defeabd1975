"""The common parts of all layouts: paths that leave their root, media files, text files and missing numbers."""

import os
from pathlib import Path

import pytest

from stajax.prepare import listing
from stajax.prepare.listing import (
  Item,
  Listing,
  ListingError,
  check_category,
  check_file_name,
  find_media_files,
  find_missing_numbers,
  read_lines,
  resolve_inside,
)

LEADING_OUT = ["../a.mp4", "a/../../b.mp4", "/etc/passwd", "", ".", "a\0b"]
LEADING_OUT += ["C:\\a.mp4", "..\\a.mp4", "\\\\host\\a", "C:a"]


@pytest.mark.parametrize("name", LEADING_OUT)
def test_names_that_lead_out_are_refused(tmp_path, name):
  with pytest.raises(ListingError, match="is not a path inside this folder"):
    resolve_inside(tmp_path, name)
  with pytest.raises(ListingError, match=r"list\.txt, line 3: .* is not the name of a file"):
    check_file_name(name, "list.txt, line 3")


@pytest.mark.parametrize("name", ["a/b.mp4", "a\\b.mp4", "./a.mp4"])
def test_paths_are_not_file_names(tmp_path, name):
  resolve_inside(tmp_path, name)
  with pytest.raises(ListingError, match="is not the name of a file"):
    check_file_name(name, "list.txt, line 3")


@pytest.mark.parametrize("name", ["-aB_9", "a b.mp4", "ä…mp4", "...", "-"])
def test_file_names_are_accepted(tmp_path, name):
  assert check_file_name(name, "") == name and resolve_inside(tmp_path, name, "x") == tmp_path / name / "x"


def test_links_that_lead_out_are_refused(tmp_path):
  root, other = tmp_path / "root", tmp_path / "other"
  for folder in (root / "deep", other):
    folder.mkdir(parents=True)
    (folder / "a.mp4").touch()
  (root / "link").symlink_to(other)
  (root / "b.mp4").symlink_to(other / "a.mp4")
  (root / "c.mp4").symlink_to(root / "deep" / "a.mp4")
  (tmp_path / "root link").symlink_to(root)
  for names in (["link"], ["link", "a.mp4"], ["b.mp4"]):
    with pytest.raises(ListingError, match="leads out of"):
      resolve_inside(root, *names)
  assert resolve_inside(tmp_path / "root link", "c.mp4").name == "c.mp4"
  found = find_media_files(tmp_path / "root link")
  assert found == [tmp_path / "root link" / name for name in ("b.mp4", "c.mp4", "deep/a.mp4", "link/a.mp4")]


def test_files_that_cannot_be_read_as_text_are_named(tmp_path, monkeypatch):
  path = tmp_path / "list.txt"
  path.write_bytes("\ufeffä&b\r\nc\n".encode())
  assert read_lines(path) == ["ä&b", "c"]
  monkeypatch.setattr(listing, "MAX_TEXT_BYTES", 5)
  with pytest.raises(ListingError, match=r"list\.txt: has 11 bytes, expected text of at most 5"):
    read_lines(path)
  path.write_text("ä\nc", encoding="utf-16")
  monkeypatch.setattr(listing, "MAX_TEXT_BYTES", 8)
  assert read_lines(path) == ["ä", "c"]
  path.write_bytes("ä".encode("latin-1"))
  os.mkfifo(tmp_path / "pipe")
  for name, message in (("list.txt", "cannot be read"), ("no", "No such file"), ("pipe", "not a file"), ("", "a file")):
    with pytest.raises(ListingError, match=message):
      read_lines(tmp_path / name)


def test_missing_numbers_are_described():
  assert find_missing_numbers([1, 2, 3], 3) == (0, "")
  assert find_missing_numbers([5, 2, 0, 9, 2], 7) == (5, "00001, 00003 to 00004, 00006 to 00007")
  assert find_missing_numbers([], 10**12, "img_{}") == (10**12, "img_1 to img_1000000000000")
  count, words = find_missing_numbers(range(0, 100, 2), 99)
  assert count == 50 and words.startswith("00001, 00003, ") and words.endswith("00015, and 42 more such")


def test_a_listing_is_sorted_and_its_names_are_unique():
  items = (Item("b", Path("1")), Item("a", Path("2")), Item("b", Path("3"), part="test"))
  made = Listing("x", Path("root"), (), items)
  assert [item.path.name for item in made.items] == ["3", "2", "1"] and made.parts == ("test", "train")
  with pytest.raises(ListingError, match="root: 1 and 4 would both be the clip 'b'"):
    Listing("x", Path("root"), (), (*items, Item("b", Path("4"))))


def test_unknown_categories_are_answered_with_the_nearest():
  assert check_category("Cat", ("Dog", "Cat"), "x") == "Cat"
  with pytest.raises(ListingError, match=r"^a, line 2: 'cat' is not a category, the nearest is 'Cat'$"):
    check_category("cat", ("Dog", "Cat"), "a, line 2")
