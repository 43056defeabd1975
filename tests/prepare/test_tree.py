"""Trees in the layout of STAViS: their frames, sound and annotations, resuming, and videos that cannot be used."""

import json
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.io.wavfile
from PIL import Image

from helpers.media_files import clicks, onsets, ramp, write_video
from stajax.eyetracking import StavisError, read_groups, read_tree
from stajax.files.lock import exclusive
from stajax.media.limits import Failure, Limits
from stajax.prepare import progress, tree_files
from stajax.prepare import tree as module
from stajax.prepare.__main__ import main
from stajax.prepare.layouts.stavis import read_stavis
from stajax.prepare.layouts.videos import read_videos
from stajax.prepare.listing import ListingError, Remark
from stajax.prepare.summary_text import describe_tree

PCM = {"sound_codec": "pcm_s16le", "sound_rate": 16000}


@pytest.fixture
def in_this_process(monkeypatch):
  """Does everything in this process, because starting child processes takes seconds."""

  def work(label, total, function, tasks, processes, limits):
    return enumerate([function(*arguments) for arguments in tasks])

  monkeypatch.setattr(progress, "work", work)


@pytest.fixture
def root(tmp_path) -> Path:
  """A video with a table and sound, one in a folder with a sound file, and a broken one."""
  root = tmp_path / "root"
  (root / "deep").mkdir(parents=True)
  write_video(root / "a.mkv", ramp(12), codec="ffv1", pixels="bgr0", sound=clicks(1.2, [0.5], 16000), **PCM)
  (root / "a.csv").write_text("frame,x,y\n0,10,20\n3,63,47\n3,0,0\n99,1,1\n")
  write_video(root / "deep" / "b c.mkv", ramp(8), codec="ffv1", pixels="bgr0", rate=25)
  scipy.io.wavfile.write(root / "deep" / "b c.wav", 16000, np.full(5000, 3000, np.int16))
  (root / "broken.mp4").write_text("no video")
  return root


def videos(root: Path, out: Path, *more: str) -> int:
  return main(["videos", "--root", str(root), "--out", str(out), "--processes", "1", *more])


def test_a_folder_becomes_a_tree(root, tmp_path, capsys):
  """In this test child processes do the work, as they do for users."""
  pytest.importorskip("pebble")
  assert videos(root, tmp_path / "tree", "--database", "own") == 1
  printed = capsys.readouterr().out
  assert "own, 2 videos with 20 frames, 2 of them annotated, 0 without sound, 1 skipped (first: broken.mp4: " in printed
  tree = read_tree(tmp_path / "tree")
  (video,) = tree.videos
  assert (video.database, video.name, video.fps, video.num_frames, video.entries) == ("own", "a", 10.0, 12, (0,))
  assert [reason for _, name, reason in tree.skipped if name == "deep_b_c"] and video.annotated == [0, 3]
  frames = [np.asarray(Image.open(path)).astype(int) for path in video.frame_paths]
  assert all(np.abs(frame - expected).max() <= 2 for frame, expected in zip(frames, ramp(12), strict=True))
  assert np.argwhere(video.fixations(0)).tolist() == [[20, 10]]
  assert np.argwhere(video.fixations(3)).tolist() == [[0, 0], [47, 63]]
  density = video.density(3).astype(int)
  assert density.shape == (48, 64) and min(density[0, 0], density[47, 63]) > 250 and density[24, 32] < 5
  rate, samples = scipy.io.wavfile.read(video.sound)
  assert (rate, samples.dtype) == (16000, np.int16) and onsets(samples / 32768) == pytest.approx([0.5], abs=0.005)
  summary = json.loads((tmp_path / "tree" / "own_summary.json").read_text())
  assert summary["notes"] == {"a": ["fixations: 1 of 4 rows outside of the 12 frames left out"]}
  assert summary["skipped"][0]["file"] == "broken.mp4" and str(root) not in json.dumps(summary)
  assert summary["limits"]["time_limit"] == 3600 and summary["remark_counts"] == {"missing": 2}
  listed = read_stavis(tmp_path / "tree")
  assert [(item.name, item.rate, item.sound_file is not None) for item in listed.items] == [
    ("own/a", 10.0, True), ("own/deep_b_c", 25.0, True)
  ]  # fmt: skip


def stamps(tree: Path) -> dict[str, int]:
  return {path.relative_to(tree).as_posix(): path.stat().st_ino for path in sorted(tree.rglob("img_00001.jpg"))}


def test_finished_videos_stay_and_changed_ones_are_done_again(root, tmp_path, in_this_process):
  tree = tmp_path / "tree"
  assert videos(root, tree) == 1
  before = stamps(tree)
  first, second = before
  assert videos(root, tree) == 1 and stamps(tree) == before
  assert videos(root, tree, "--sigma", "0.1") == 1
  assert stamps(tree)[first] != before[first] and stamps(tree)[second] == before[second]
  before = stamps(tree)
  shutil.rmtree((tree / second).parent)
  (root / "broken.mp4").unlink()
  write_video(root / "new.mkv", ramp(3), codec="ffv1", pixels="bgr0")
  assert videos(root, tree, "--sigma", "0.1") == 0
  after = stamps(tree)
  assert len(after) == 3 and after[first] == before[first] and (tree / second).is_file()
  (root / "new.mkv").unlink()
  assert videos(root, tree, "--sigma", "0.1") == 0
  names = (tree / "fold_lists" / "videos_list_test_fps.txt").read_text()
  assert names == "a 12 10\ndeep_b_c 8 25\n"  # the third stays, but is not listed
  assert videos(root, tree, "--database", "other") == 0
  assert [video.database for video in read_tree(tree).videos] == ["other", "videos"]


def test_a_stopped_run_continues(root, tmp_path, monkeypatch):
  done = []

  def work(label, total, function, tasks, processes, limits):
    for number, arguments in enumerate(tasks):
      if len(done) == stop_after:
        raise KeyboardInterrupt
      done.append(arguments[0].item.name)
      yield number, function(*arguments)

  monkeypatch.setattr(progress, "work", work)
  stop_after = 1
  assert videos(root, tmp_path / "tree") == 130
  assert not (tmp_path / "tree" / "fold_lists").exists()
  stop_after = None
  assert videos(root, tmp_path / "tree") == 1 and done == ["a", "broken", "deep_b_c"]


def test_a_killed_process_costs_its_video_only(root, tmp_path, monkeypatch, capsys):
  tree = tmp_path / "tree"

  def work(label, total, function, tasks, processes, limits):
    for number, arguments in enumerate(tasks):
      if arguments[0].item.name == "deep_b_c":
        (tree / ".incoming-videos-deep_b_c" / "video_frames").mkdir(parents=True)
        yield number, Failure("took longer than 1 s")
      else:
        yield number, function(*arguments)

  monkeypatch.setattr(progress, "work", work)
  assert videos(root, tree) == 1
  assert "deep/b c.mkv: took longer than 1 s" in capsys.readouterr().out
  assert not list(tree.glob(".incoming*"))
  monkeypatch.undo()
  monkeypatch.setattr(progress, "work", lambda *arguments: enumerate([arguments[2](*task) for task in arguments[3]]))
  assert videos(root, tree) == 1  # this video is tried again, the broken one is not
  assert len(read_stavis(tree).items) == 2


def test_without_tables_a_tree_has_no_annotations(root, tmp_path, in_this_process, capsys):
  (root / "a.csv").unlink()
  assert videos(root, tmp_path / "tree") == 1
  assert not (tmp_path / "tree" / "annotations").exists()
  with pytest.raises(StavisError, match="it has no folder 'annotations'"):
    read_tree(tmp_path / "tree")
  assert len(read_stavis(tmp_path / "tree").items) == 2
  assert main(["videos", "--root", str(root), "--check"]) == 0
  assert "doubtful .: no video has a table of fixations" in capsys.readouterr().out


def test_check_names_tables_and_sounds(root, tmp_path, capsys, monkeypatch):
  (root / "stray.tsv").write_text("frame\tx\ty\n")
  (root / "stray.wav").touch()
  (root / "deep" / "b c.flac").touch()
  (root / "a.tsv").touch()
  (root / "broken.csv").write_text("0,1,2\n")
  (tmp_path / "secret.csv").write_text("frame,x,y\n")
  (root / "deep" / "b c.csv").symlink_to(tmp_path / "secret.csv")

  def one_by_one(function, tasks, *_):
    return enumerate(function(*arguments) for arguments in tasks)

  monkeypatch.setattr("stajax.prepare.annotations.run_in_children", one_by_one)
  assert main(["videos", "--root", str(root), "--check", "--out", str(tmp_path / "tree")]) == 1
  lines = capsys.readouterr().out.splitlines()
  assert lines[:-2] == [
    "spare    deep/b c.flac: b c.wav is used instead",
    "spare    a.tsv: a.csv is used instead",
    "spare    deep/b c.csv: a link out of the folder",
    "doubtful broken.csv: the first line is '0, 1, 2', expected names of columns: x, y, and frame or time, "
    "with commas, semicolons or tabs between them",
    "missing  deep/b c.mkv: has no table of fixations: it can be predicted, but not scored",
    "spare    stray.wav: no video has this name",
    "spare    stray.tsv: no video has this name",
    "doubtful a.csv: fixations: 1 of 4 rows outside of the 12 frames left out",
    "doubtful broken.mp4: is not a media file that FFmpeg can read (Invalid data found when processing input)",
  ]
  assert lines[-2] == "test: 3 clips" and lines[-1].endswith("5 spare, 3 doubtful, 1 missing")
  assert not (tmp_path / "tree").exists()
  tables = tmp_path / "tables" / "deep"
  tables.mkdir(parents=True)
  (tables / "b c.csv").write_text("frame,x,y\n")
  listing, found = read_videos(root, tmp_path / "tables")
  assert found == {"deep_b_c": tables / "b c.csv"}
  assert Remark("missing", "a.mkv", "has no table of fixations: it can be predicted, but not scored") in listing.remarks


def test_files_that_are_not_used_are_counted(root, tmp_path):
  (root / "notes.xyz").touch()
  (root / "new\nline.xyz").touch()
  listing, _ = read_videos(root)
  assert Remark("spare", "notes.xyz", "not named as a media file") in listing.remarks
  assert Remark("spare", "new\\nline.xyz", "not named as a media file") in listing.remarks
  counts = dict.fromkeys(("videos", "frames", "annotated_frames", "videos_without_sound"), 1)
  result = describe_tree(tmp_path, listing, {"counts": counts, "notes": {}, "skipped": [], "database": "v"})
  assert result.text.endswith("0 skipped; in the source 2 missing, 2 spare (--check lists them)")


def test_bad_arguments_are_refused_in_one_line(root, tmp_path, in_this_process, capsys):
  (tmp_path / "empty").mkdir()
  shutil.copy(root / "broken.mp4", tmp_path / "only.mp4")
  out = ["--out", str(tmp_path / "tree")]
  for arguments, code, message in (
    (["--root", str(root)], 2, "expected --out DIR, or --check"),
    (["--root", str(root), *out, "--sigma", "0"], 2, "--sigma is 0.0, expected"),
    (["--root", str(root), *out, "--database", "../x"], 2, "database: '../x' is not the name"),
    (["--root", str(tmp_path / "empty"), "--check"], 2, "no video is in this folder"),
    (["--root", str(tmp_path / "none"), "--check"], 2, "no such folder"),
    (["--root", str(root), *out, "--max-bytes", "5"], 3, "none of 3 videos can be used (first: a.mkv"),
  ):
    assert main(["videos", *arguments]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0]


def test_a_bad_table_costs_its_video_and_a_bad_sound_is_left_out(root, tmp_path, in_this_process, capsys):
  (root / "a.csv").write_text("frame,x,y\n99,5,0\n")
  (root / "deep" / "b c.wav").write_text("no sound")
  assert videos(root, tmp_path / "tree") == 1
  assert "a.mkv: a.csv: none of its 1 rows is about a pixel of a frame" in capsys.readouterr().out
  summary = json.loads((tmp_path / "tree" / "videos_summary.json").read_text())
  assert "sound: is not a media file" in summary["notes"]["deep_b_c"][0]
  assert summary["counts"]["videos_without_sound"] == 1


def test_a_video_with_a_varying_rate_is_shown_at_a_constant_one(tmp_path, in_this_process):
  (tmp_path / "in").mkdir()
  times = [0, 0.1, 0.2, 0.5, 0.6]
  write_video(tmp_path / "in" / "a.mkv", ramp(5), times, codec="ffv1", pixels="bgr0")
  (tmp_path / "in" / "a.csv").write_text("frame,x,y\n2,5,6\n")
  assert videos(tmp_path / "in", tmp_path / "tree", "--max-seconds", "0.55") == 0
  (video,) = read_tree(tmp_path / "tree").videos
  levels = [int(np.asarray(Image.open(path))[24, 32, 0]) for path in video.frame_paths]
  np.testing.assert_allclose(levels, [20, 30, 40, 40, 40, 50], atol=2)
  assert video.fps == pytest.approx(10) and video.annotated == [2, 3, 4] and video.sound is None


def test_wav_files_equal_those_of_scipy(tmp_path):
  samples = np.sin(np.arange(5000) / 7) * 1.1
  tree_files.write_video(tmp_path, "Tiny", "a", ramp(2), (block for block in np.split(samples, 5)), None)
  scaled = np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)
  scipy.io.wavfile.write(tmp_path / "expected.wav", 16000, scaled)
  path = tmp_path / "video_audio" / "Tiny" / "a" / "a.wav"
  assert path.read_bytes() == (tmp_path / "expected.wav").read_bytes()


@pytest.fixture
def dhf1k(tmp_path) -> Path:
  """Two annotated videos and one without annotations."""
  root = tmp_path / "DHF1K"
  (root / "video").mkdir(parents=True)
  rng = np.random.default_rng(0)
  for name in ("001", "601", "602"):
    write_video(root / "video" / f"{name}.AVI", ramp(4), codec="mjpeg", pixels="yuvj420p", rate=30)
  for video in ("0001", "0601"):
    folder = root / "annotation" / video
    for kind in ("maps", "fixation/maps"):
      (folder / kind).mkdir(parents=True)
    for number in range(1, 6):  # one more than there are frames
      Image.fromarray(np.full((48, 64), 10 * number, np.uint8)).save(folder / "maps" / f"{number:04d}.png")
      fixated = (rng.random((48, 64)) < 0.01) * np.uint8(255)
      Image.fromarray(fixated).save(folder / "fixation" / f"{number:04d}.png")
      scipy.io.savemat(folder / "fixation" / "maps" / f"{number:04d}.mat", {"I": fixated // 255})
  shutil.rmtree(root / "annotation" / "0601" / "fixation" / "maps")
  (root / "annotation" / "0601" / "maps" / "0002.png").write_bytes(b"no image")
  return root


def test_dhf1k_becomes_a_tree(dhf1k, tmp_path, in_this_process, capsys):
  tree = tmp_path / "tree"
  assert main(["dhf1k", "--root", str(tmp_path), "--tree", str(tree)]) == 0
  assert "DHF1K, 2 videos with 8 frames, 7 of them annotated, 2 without sound, 0 skipped" in capsys.readouterr().out
  one, other = read_tree(tree).videos
  assert (one.name, one.fps, one.num_frames) == ("0001", 30.0, 4)
  assert (one.annotated, other.annotated) == ([0, 1, 2, 3], [0, 2, 3])
  for video in (one, other):
    for frame in video.annotated:
      expected = np.asarray(Image.open(dhf1k / "annotation" / video.name / "fixation" / f"{frame + 1:04d}.png")) > 0
      np.testing.assert_array_equal(video.fixations(frame), expected)
      assert np.abs(video.density(frame).astype(int) - 10 * (frame + 1)).max() <= 1
  assert read_groups(tree) == {"DHF1K/train": ["0001"], "DHF1K/val": ["0601"]}
  (note,) = json.loads((tree / "DHF1K_summary.json").read_text())["notes"]["0601"]
  assert "annotation: frame 2 left out" in note and "0002.png: cannot be read as an image" in note


def test_trees_refuse_names_that_are_paths(root, tmp_path):
  listing, _ = read_videos(root)
  with pytest.raises(ListingError, match="database: 'a/b' is not the name of a file"):
    module.prepare_tree(listing, {}, tmp_path / "tree", "a/b", Limits())


def test_tables_are_found_however_accents_are_encoded_and_names_may_be_long(tmp_path, in_this_process):
  root = tmp_path / "root"
  root.mkdir()
  nfc, nfd = (unicodedata.normalize(form, "é" * 40) for form in ("NFC", "NFD"))
  write_video(root / "a.mkv", ramp(3), codec="ffv1", pixels="bgr0")
  os.replace(root / "a.mkv", root / f"{nfc}.mkv")
  (root / f"{nfd}.csv").write_text("frame,x,y\n0,10,20\n")
  listing, tables = read_videos(root)
  assert [item.name for item in listing.items] == list(tables) == [nfc]
  long = "n" * 244
  os.replace(root / f"{nfc}.mkv", root / f"{long}.mkv")
  assert videos(root, tmp_path / "tree", "--database", "d" * 60) == 0
  (video,) = read_tree(tmp_path / "tree", need_annotations=False).videos
  assert video.name.startswith("n" * 150) and video.num_frames == 3


def test_two_runs_do_not_write_into_one_tree(root, tmp_path, in_this_process, capsys):
  (tmp_path / "tree").mkdir()
  with exclusive(tmp_path / "tree" / ".videos.lock"):
    assert videos(root, tmp_path / "tree") == 2
  assert "another run is writing here" in capsys.readouterr().err and not list((tmp_path / "tree").iterdir())
  assert videos(root, root / "a.csv") == 2
  assert "a.csv is a file, expected a folder" in capsys.readouterr().err
