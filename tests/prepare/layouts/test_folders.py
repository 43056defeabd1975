"""The source `folders`: the clips that it lists, its remarks, and links that lead out of the folder."""

import os
from pathlib import Path

import pytest

from helpers.media_files import touch
from stajax.prepare.layouts.folders import read_folders
from stajax.prepare.listing import Item, ListingError, Remark


def files(root: Path, *names: str) -> Path:
  """Writes files with their own names as content, because nothing is decoded here."""
  for name in names:
    touch(root / name, name)
  return root


def test_folders_are_tags(tmp_path):
  root = files(
    tmp_path / "root", "horn/b.MP4", "horn/deep/er/a.webm", "church bell/x.mkv", "church bell/.x.mp4", ".git/a.mp4",
    "horn/.hidden/a.mp4", "church bell/x.avi", "horn/readme.txt", "list.csv", "empty/notes.md",
  )  # fmt: skip
  listing = read_folders(root)
  assert (listing.source, listing.categories, listing.parts) == ("folders", ("church bell", "horn"), ("train",))
  assert listing.items == (
    Item("church_bell_x.avi", root / "church bell" / "x.avi", ("church bell",)),
    Item("church_bell_x.mkv", root / "church bell" / "x.mkv", ("church bell",)),
    Item("horn_b", root / "horn" / "b.MP4", ("horn",)),
    Item("horn_deep_er_a", root / "horn" / "deep" / "er" / "a.webm", ("horn",)),
  )
  assert listing.remarks == (
    Remark("dropped", "empty", "no media file is in this folder: no category"),
    Remark("spare", "empty/notes.md", "not named as a media file"),
    Remark("spare", "horn/readme.txt", "not named as a media file"),
    Remark("spare", "list.csv", "lies in no folder of a tag"),
  )


def test_repeated_files_and_folders_named_as_parts_are_doubtful(tmp_path):
  listing = read_folders(files(tmp_path / "a", "dog/same.mp4", "cat/same.mp4", "cat/other.mp4"))
  (remark,) = listing.remarks
  assert (remark.kind, remark.file) == ("doubtful", "dog/same.mp4") and "cat/same.mp4" in remark.reason
  (remark,) = read_folders(files(tmp_path / "b", "train/1.mp4", "val/2.mp4")).remarks
  assert remark.kind == "doubtful" and "the tags are train, val" in remark.reason


def test_links_are_followed(tmp_path):
  files(tmp_path, "disk/s.mp4", "root/dog/a.mp4")
  root = tmp_path / "root"
  (root / "dog" / "s.mp4").symlink_to(tmp_path / "disk" / "s.mp4")
  (root / "dog" / "inside.mp4").symlink_to(root / "dog" / "a.mp4")
  (root / "dog" / "broken.mp4").symlink_to(root / "dog" / "gone.mp4")
  (root / "dog" / "linked").symlink_to(tmp_path / "disk")
  (root / "dog" / "round").symlink_to(root / "dog")
  (root / "cat").symlink_to(tmp_path / "disk")
  listing = read_folders(root)
  assert [item.name for item in listing.items] == ["cat_s", "dog_a", "dog_inside", "dog_linked_s", "dog_s"]
  assert Remark("missing", "dog/broken.mp4", "a broken link, or no regular file") in listing.remarks


@pytest.mark.parametrize("names, message", [((), "no such folder"), (("a.mp4", "tag/a.txt"), "no media file in its")])
def test_folders_without_clips_are_refused(tmp_path, names, message):
  with pytest.raises(ListingError, match=message):
    read_folders(files(tmp_path / "root", *names))


def test_file_names_need_not_be_utf8_but_tags_must(tmp_path):
  root = files(tmp_path / "root", "dog/a.mp4")
  for name in (b"dog/\xff.mp4", b"dog/\xfe.txt"):
    try:
      (root / os.fsdecode(name)).touch()
    except OSError:
      pytest.skip("this file system takes UTF-8 only")
  listing = read_folders(root)
  assert [item.name for item in listing.items] == ["dog__", "dog_a"]
  assert listing.remarks[0].file == "dog/\\udcfe.txt"
  (root / os.fsdecode(b"\xff")).mkdir()
  with pytest.raises(ListingError, match="is not UTF-8, expected a tag"):
    read_folders(root)


def test_folders_that_cannot_be_read_are_remarks(tmp_path, monkeypatch):
  root, scan = files(tmp_path / "root", "horn/b.mp4", "horn/closed/a.mp4"), os.scandir

  def guarded(path):
    if Path(path).name == "closed":
      raise PermissionError(13, "Permission denied", str(path))
    return scan(path)

  monkeypatch.setattr(os, "scandir", guarded)
  listing = read_folders(root)
  assert [item.name for item in listing.items] == ["horn_b"]
  assert listing.remarks[0] == Remark("missing", "horn/closed", "a folder that cannot be read")
