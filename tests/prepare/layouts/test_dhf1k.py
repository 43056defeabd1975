"""The source `dhf1k`: its official parts, the annotation files of its videos, and missing and spare files."""

import shutil
from pathlib import Path

import pytest

from helpers.media_files import touch
from stajax.prepare.layouts.dhf1k import find_annotations, read_dhf1k
from stajax.prepare.listing import Item, ListingError


@pytest.fixture
def dhf1k(tmp_path) -> Path:
  """Three annotated videos, one of them with both kinds of fixation files, and some without annotations."""
  for name in ("001.AVI", "002.avi", "600.AVI", "601.mp4", "700.AVI", "701.AVI", "1000.AVI"):
    touch(tmp_path / "video" / name)
  for video in ("0001", "0002", "0601"):
    for number in range(1, 4):
      touch(tmp_path / "annotation" / video / "maps" / f"{number:04d}.png")
      touch(tmp_path / "annotation" / video / "fixation" / f"{number:04d}.png")
  for number in range(1, 3):
    touch(tmp_path / "annotation" / "0001" / "fixation" / "maps" / f"{number:04d}.mat")
  (tmp_path / "annotation" / "0002" / "fixation" / "0002.png").unlink()
  return tmp_path


def test_videos_are_in_the_official_parts(dhf1k):
  listing = read_dhf1k(dhf1k)
  assert {item.name: item.part for item in listing.items} == {
    "0001": "train", "0002": "train", "0600": "train", "0601": "val", "0700": "val", "0701": "test", "1000": "test"
  }  # fmt: skip
  assert listing.items[0] == Item("0701", dhf1k / "video" / "701.AVI", (), "test")
  above = dhf1k.parent / "above"
  shutil.copytree(dhf1k, above / "DHF1K")
  assert len(read_dhf1k(above).items) == 7


def test_missing_and_spare_files_are_named(dhf1k):
  for name in ("video/1001.AVI", "video/readme.mp4", "video/001.mp4", "annotation/1/maps/0001.png"):
    touch(dhf1k / name)
  listing = read_dhf1k(dhf1k)
  missing = {remark.file: remark.reason for remark in listing.remarks if remark.kind == "missing"}
  assert len([file for file in missing if file.startswith("video/")]) == 993
  assert missing["video/003.AVI"] == "of the part train" and missing["video/999.AVI"] == "of the part test"
  assert missing["annotation/0700"] == "no such folder: the video cannot be scored" and "annotation/0701" not in missing
  assert len([file for file in missing if file.startswith("annotation/")]) == 698
  assert missing["annotation/0002"] == "1 of 3 frames have no fixations or no map: 0002"
  spare = [remark.file for remark in listing.remarks if remark.kind == "spare"]
  assert spare == ["video/001.mp4", "video/1001.AVI", "video/readme.mp4", "annotation/1"]


def test_annotation_files_are_found_by_frame(dhf1k):
  found, other = find_annotations(dhf1k, "0001"), find_annotations(dhf1k, "0002")
  assert found is not None and other is not None
  fixation = dhf1k / "annotation" / "0001" / "fixation"
  expected = {1: fixation / "maps" / "0001.mat", 2: fixation / "maps" / "0002.mat", 3: fixation / "0003.png"}
  assert found.fixations == expected and list(found.densities) == [1, 2, 3]
  assert list(other.fixations) == [1, 3] and find_annotations(dhf1k, "0600") is None


def test_other_folders_are_refused(dhf1k):
  with pytest.raises(ListingError, match="has no folder 'video'"):
    read_dhf1k(dhf1k / "annotation")
  shutil.rmtree(dhf1k / "video")
  touch(dhf1k / "video" / "one.mp4")
  with pytest.raises(ListingError, match="no video in it is named by its number"):
    read_dhf1k(dhf1k)
