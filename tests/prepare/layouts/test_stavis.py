"""The source `stavis`: the videos that it lists, and its remarks about incomplete trees."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.media_files import ramp, touch
from helpers.paths import SHARED
from stajax.eyetracking import StavisError
from stajax.prepare.__main__ import main
from stajax.prepare.layouts.stavis import read_stavis
from stajax.prepare.listing import Item, ListingError, Remark
from stajax.prepare.tree_files import write_video


def make_video(root: Path, database: str, video: str, count: int = 3, wav: bool = True, annotated: bool = True) -> None:
  """Writes a video of empty files, because nothing is decoded here."""
  for number in range(1, count + 1):
    touch(root / "video_frames" / database / video / f"img_{number:05d}.jpg")
    if annotated:
      touch(root / "annotations" / database / video / f"fixMap_{number:05d}.mat")
      touch(root / "annotations" / database / video / "maps" / f"eyeMap_{number:05d}.jpg")
  if wav:
    touch(root / "video_audio" / database / video / f"{video}.wav")


def write_list(root: Path, name: str, rows: list[str]) -> None:
  (root / "fold_lists").mkdir(parents=True, exist_ok=True)
  (root / "fold_lists" / f"{name}_fps.txt").write_text("".join(f"{row}\n" for row in rows))


@pytest.fixture
def tree(tmp_path) -> Path:
  """A tree with AVAD in three splits and DIEM in one."""
  for video in ("V3_Speech3", "V28_Dog1", "V26_Piano2"):
    make_video(tmp_path, "AVAD", video)
  make_video(tmp_path, "DIEM", "one_minute", 4)
  make_video(tmp_path, "DIEM", "training")
  write_list(tmp_path, "AVAD_list_test_1", ["V3_Speech3 3 25"])
  write_list(tmp_path, "AVAD_list_test_2", ["V26_Piano2 3 29.97"])
  write_list(tmp_path, "AVAD_list_train_1", ["V28_Dog1 3 25", "V26_Piano2 3 29.97"])
  write_list(tmp_path, "DIEM_list_test", ["one_minute 4 30"])
  write_list(tmp_path, "DIEM_list_train", ["training 3 30"])
  return tmp_path


def test_sound_of_every_kind_is_found_and_wav_comes_first(tree):
  folder = tree / "video_audio" / "DIEM" / "one_minute"
  for kind in ("wav", "flac", "ogg", "mp3"):
    touch(folder / f"one_minute.{kind}")
  touch(folder / "another.flac")
  for kind in ("wav", "flac", "ogg", "mp3"):
    item = next(item for item in read_stavis(tree).items if item.name == "DIEM/one_minute")
    assert item.sound_file == folder / f"one_minute.{kind}"
    (folder / f"one_minute.{kind}").unlink()
  assert next(item for item in read_stavis(tree).items if item.name == "DIEM/one_minute").sound_file is None


def test_videos_are_listed_once_with_their_rate(tree):
  listing = read_stavis(tree)
  assert (listing.source, listing.categories) == ("stavis", ())
  frames, sound = tree / "video_frames", tree / "video_audio"
  assert listing.items == (
    Item("AVAD/V26_Piano2", frames / "AVAD/V26_Piano2", (), "test", 29.97, sound / "AVAD/V26_Piano2/V26_Piano2.wav"),
    Item("AVAD/V3_Speech3", frames / "AVAD/V3_Speech3", (), "test", 25.0, sound / "AVAD/V3_Speech3/V3_Speech3.wav"),
    Item("DIEM/one_minute", frames / "DIEM/one_minute", (), "test", 30.0, sound / "DIEM/one_minute/one_minute.wav"),
    Item("AVAD/V28_Dog1", frames / "AVAD/V28_Dog1", (), "train", 25.0, sound / "AVAD/V28_Dog1/V28_Dog1.wav"),
    Item("DIEM/training", frames / "DIEM/training", (), "train", 30.0, sound / "DIEM/training/training.wav"),
  )  # fmt: skip
  # A single split leaves most videos out on purpose; three splits do so by accident.
  assert listing.remarks == (
    Remark("doubtful", "video_frames/AVAD/V28_Dog1", "is never scored: no test list names it"),
  )
  assert [item.name for item in read_stavis(tree, ["DIEM"]).items] == ["DIEM/one_minute", "DIEM/training"]


def test_a_video_listed_twice_is_one_clip_that_counts_twice(tree):
  write_list(tree, "AVAD_list_test_1", ["V3_Speech3 3 25", "V3_Speech3 3 25"])
  write_list(tree, "AVAD_list_test_3", ["V3_Speech3 3 25", "V26_Piano2 3 30"])
  listing = read_stavis(tree)
  assert [item.name for item in listing.items if item.part == "test"][:2] == ["AVAD/V26_Piano2", "AVAD/V3_Speech3"]
  reasons = {remark.file: remark.reason for remark in listing.remarks[::-1]}
  first, third = "AVAD_list_test_1_fps.txt", "AVAD_list_test_3_fps.txt"
  assert reasons["video_frames/AVAD/V3_Speech3"] == (f"counts 3 times when scored: listed in {first}, {first}, {third}")
  assert "3 frames at 29.97 a second in AVAD_list_test_2_fps.txt, 3 at 30" in (reasons["video_frames/AVAD/V26_Piano2"])


def test_missing_and_spare_files_are_named(tree):
  (tree / "video_frames/DIEM/one_minute/img_00002.jpg").unlink()
  (tree / "annotations/DIEM/one_minute/fixMap_00001.mat").unlink()
  (tree / "annotations/DIEM/one_minute/maps/eyeMap_00003.jpg").unlink()
  (tree / "annotations/DIEM/one_minute/maps/eyeMap_00004.jpg").unlink()
  (tree / "video_audio/AVAD/V3_Speech3/V3_Speech3.wav").unlink()
  shutil.rmtree(tree / "annotations/AVAD/V26_Piano2")
  shutil.rmtree(tree / "video_frames/AVAD/V28_Dog1")
  touch(tree / "video_frames/DIEM/training/img_00004.jpg")
  make_video(tree, "AVAD", "in no list")
  write_list(tree, "AVAD_list_test_3", ["nowhere 3 25"])
  listing = read_stavis(tree)
  assert [item.name for item in listing.items] == [
    "AVAD/V26_Piano2", "AVAD/V3_Speech3", "DIEM/one_minute", "DIEM/training"
  ]  # fmt: skip
  assert next(item for item in listing.items if item.name == "AVAD/V3_Speech3").sound_file is None
  found = {(remark.kind, remark.file, remark.reason) for remark in listing.remarks}
  assert found >= {
    ("missing", "video_frames/DIEM/one_minute", "1 of 4 files, img_00002: the one before is shown"),
    ("missing", "annotations/DIEM/one_minute", "1 of 4 files, fixMap_00001: these frames are not scored"),
    ("missing", "annotations/DIEM/one_minute",
     "2 of 4 files, maps/eyeMap_00003 to maps/eyeMap_00004: these frames are not scored"),
    ("missing", "video_audio/AVAD/V3_Speech3/V3_Speech3.wav", "no such file: the video is silent"),
    ("missing", "annotations/AVAD/V26_Piano2", "no such folder: the video cannot be scored"),
    ("missing", "video_frames/AVAD/V28_Dog1", "listed in AVAD_list_train_1_fps.txt, no such folder"),
    ("missing", "video_frames/AVAD/nowhere", "listed in AVAD_list_test_3_fps.txt, no such folder"),
    ("doubtful", "video_frames/DIEM/training", "4 images, 3 are listed in DIEM_list_train_fps.txt"),
    ("spare", "video_frames/AVAD/in no list", "no list names this video"),
    ("spare", "annotations/AVAD/in no list", "no list names this video"),
    ("spare", "video_audio/AVAD/in no list", "no list names this video"),
  }  # fmt: skip


def test_databases_without_lists_need_a_rate(tree):
  make_video(tree, "Mine", "a", wav=False)
  listing = read_stavis(tree)
  assert not [item for item in listing.items if item.name.startswith("Mine")]
  found = {remark.file: (remark.kind, remark.reason) for remark in listing.remarks}
  assert found["fold_lists/Mine_list_test_1_fps.txt"] == ("missing", "this database has no test list")
  assert found["video_frames/Mine"][0] == "dropped" and "see --fps" in found["video_frames/Mine"][1]
  assert found["video_audio/Mine"] == ("doubtful", "no sound: all its videos are silent")
  with pytest.raises(ListingError, match="has no video that can be used"):
    read_stavis(tree, ["Mine"])
  (item,) = read_stavis(tree, ["Mine"], fps=8.0).items
  assert (item.name, item.part, item.rate, item.sound_file) == ("Mine/a", "test", 8.0, None)


def test_wrong_trees_and_lists_are_refused(tree):
  with pytest.raises(ListingError, match="it has no folder 'video_frames'"):
    read_stavis(tree / "fold_lists")
  with pytest.raises(ListingError, match="no database SumMe; found AVAD, DIEM"):
    read_stavis(tree, ["SumMe"])
  write_list(tree, "AVAD_list_test_1", ["../DIEM/one_minute 3 25"])
  with pytest.raises(StavisError, match="is not the name of a folder"):
    read_stavis(tree)
  write_list(tree, "AVAD_list_test_1", [f"V3_Speech3 {10**7} 25"])  # this must not take memory for every frame
  assert (
    "9999997 of 10000000 files" in {r.file: r.reason for r in read_stavis(tree).remarks}["video_frames/AVAD/V3_Speech3"]
  )


def test_links_that_lead_out_are_dropped(tree, tmp_path_factory):
  secret = tmp_path_factory.mktemp("secret")
  touch(secret / "img_00001.jpg")
  shutil.rmtree(tree / "video_frames/AVAD/V3_Speech3")
  (tree / "video_frames/AVAD/V3_Speech3").symlink_to(secret)
  (tree / "video_frames/DIEM/one_minute/img_00002.jpg").unlink()
  (tree / "video_frames/DIEM/one_minute/img_00002.jpg").symlink_to(secret / "img_00001.jpg")
  listing = read_stavis(tree)
  assert [item.name for item in listing.items if item.part == "test"] == ["AVAD/V26_Piano2"]
  dropped = [(remark.file, "leads out of" in remark.reason) for remark in listing.remarks if remark.kind == "dropped"]
  assert dropped == [("video_frames/AVAD/V3_Speech3", True), ("video_frames/DIEM/one_minute", True)]


def test_a_real_tree_is_listed():
  root = SHARED / "data" / "fixations"
  if not root.is_dir():
    pytest.skip("shared/data/fixations is not there")
  listing = read_stavis(root)
  names = ["BlowingBubbles", "Cactus", "FourPeople", "Keiba", "Kimono", "PartyScene", "PeopleOnStreet", "Tennis"]
  assert [item.name for item in listing.items] == [f"HEVC/{name}" for name in names]
  assert {(item.part, item.rate, item.sound_file) for item in listing.items} == {("test", 10.0, None)}
  assert listing.remarks == (Remark("doubtful", "video_audio/HEVC", "no sound: all its videos are silent"),)


def test_a_tree_becomes_records(tmp_path, capsys):
  tfds = pytest.importorskip("tensorflow_datasets")
  pytest.importorskip("pebble")
  from stajax.data.records import Records

  root = tmp_path / "tree"
  sound = np.sin(np.arange(16000) / 10)
  write_video(root, "Tiny", "a", ramp(10), sound, [None] * 10)
  write_video(root, "Tiny", "b", ramp(10), None, None)
  write_list(root, "Tiny_list_test_1", ["b 10 10", "a 10 10"])
  command = ["stavis", "--root", str(root), "--side", "32", "--processes", "1"]
  assert main([*command, "--check"]) == 1  # because annotations are missing
  assert "missing  annotations/Tiny/b: no such folder: the video cannot be scored" in capsys.readouterr().out
  assert main([*command, "--out", str(tmp_path / "out")]) == 0
  records = Records.open(tmp_path / "out" / "test")
  assert records.names == ("Tiny/a", "Tiny/b") and records.tags.shape == (2, 0) and records.categories == ()
  assert records.num_frames.tolist() == [8, 8] and records.has_sound.tolist() == [True, False]
  levels = records.clip_frames(0)[:, 16, 16, 0].astype(int)
  # Grid time k / 8 shows image floor(10 k / 8), whose level is 20 + 10 times that.
  np.testing.assert_allclose(levels, [20, 30, 40, 50, 70, 80, 90, 100], atol=3)
  builder = tfds.builder_from_directory(next((tmp_path / "out" / "test" / "clips").iterdir()))
  assert [clip["tags"] for clip in builder.as_data_source(split="data")] == [[], []]
