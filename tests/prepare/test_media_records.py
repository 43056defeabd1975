"""Prepared media files: their records, reasons for skipped files, resuming, and finished sets that stay unchanged."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.fake_records import contents
from helpers.media_files import clicks, ramp, write_video

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("pebble")

import tensorflow_datasets as tfds

from stajax.data.records import Records
from stajax.media.limits import Failure, Limits
from stajax.prepare.__main__ import main
from stajax.prepare.assembly import assemble
from stajax.prepare.clip import MediaSettings, prepare_clips
from stajax.prepare.clip_staging import ClipStaging
from stajax.prepare.layouts.folders import read_folders
from stajax.prepare.listing import Item, Listing, Remark
from stajax.prepare.media_records import collect_outcomes, prepare
from stajax.prepare.media_tasks import Outcome, plan_tasks, read_outcome, stage

SETTINGS = MediaSettings(side=32)
ARGUMENTS = ["--side", "32", "--processes", "2"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
  """Clips of two tags, one of them without sound, a damaged file that can be decoded, and three that cannot."""
  root = tmp_path_factory.mktemp("tree") / "root"
  for tag in ("bell", "drum"):
    (root / tag).mkdir(parents=True)
  write_video(root / "bell" / "a.mp4", ramp(12), sound=clicks(1.2, [0.5]))
  write_video(root / "bell" / "b.mkv", ramp(8), codec="ffv1", pixels="bgr0")
  write_video(root / "drum" / "c.mp4", ramp(4), sound=np.zeros((1, 17640)))
  noise = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), np.uint8)
  whole = write_video(root / "drum" / "whole.mkv", noise, codec="mjpeg", pixels="yuvj420p").read_bytes()
  (root / "drum" / "whole.mkv").unlink()
  (root / "drum" / "half.mkv").write_bytes(whole[: len(whole) // 2])
  (root / "drum" / "empty.mp4").touch()
  (root / "drum" / "text.avi").write_text("no video")
  (root / "drum" / "sound.ogg").write_bytes(sound_only(root / "drum" / "sound.mkv"))
  (root / "drum" / "notes.txt").touch()
  return root


def sound_only(path: Path) -> bytes:
  """Returns the content of a media file without a picture."""
  import av

  with av.open(str(path), "w", format="matroska") as container:
    stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
    frame = av.AudioFrame.from_ndarray(np.ones((1, 1600), np.int16), format="s16", layout="mono")
    frame.sample_rate = 16000
    container.mux(stream.encode(frame))
  content = path.read_bytes()
  path.unlink()
  return content


@pytest.fixture(scope="module")
def prepared(tree, tmp_path_factory) -> Path:
  out = tmp_path_factory.mktemp("prepared") / "out"
  assert main(["folders", "--root", str(tree), "--out", str(out), *ARGUMENTS]) == 1
  return out


def test_records_have_the_clips_and_the_summary_explains_skipped_files(tree, prepared):
  records = Records.open(prepared / "train")
  assert records.names == ("bell_a", "bell_b", "drum_c", "drum_half") and records.categories == ("bell", "drum")
  assert records.tags.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
  assert records.has_sound.tolist() == [True, False, False, False]
  for i, path in enumerate(("bell/a.mp4", "bell/b.mkv", "drum/c.mp4", "drum/half.mkv")):
    (clip,) = prepare_clips(Item("x", tree / path), SETTINGS, Limits(), [])
    assert [clip.frames[k] for k in range(len(clip.frames))] == jpegs(prepared, i)
    np.testing.assert_array_equal(records.clip_columns(i), clip.columns)
    assert (records.width[i], records.height[i], records.duration[i]) == (64, 48, clip.duration)
  summary = records.summary
  assert summary["skipped"] == [
    {"file": "drum/empty.mp4", "reason": "is empty, expected a media file"},
    {"file": "drum/sound.ogg", "reason": "has no video stream"},
    {"file": "drum/text.avi", "reason": summary["skipped"][2]["reason"]},
  ]
  assert "is not a media file that FFmpeg can read" in summary["skipped"][2]["reason"]
  assert summary["notes"] == {"drum_c": ["sound: silent throughout, not used"], **noted(summary, "drum_half")}
  assert summary["remarks"] == [{"kind": "spare", "file": "drum/notes.txt", "reason": "not named as a media file"}]
  assert summary["remark_counts"] == {"spare": 1}
  assert (summary["source"], summary["provenance"]) == ("folders", "folders")
  assert summary["limits"] == {
    "max_seconds": 3600, "max_pixels": 2**25, "max_bytes": 2**34, "time_limit": 300, "memory": 2**32,
    "sound": None,
  }  # fmt: skip
  assert str(tree) not in json.dumps(summary)
  assert sorted(path.name for path in prepared.iterdir()) == ["train"]


def noted(summary: dict, name: str) -> dict:
  """Returns the notes about a truncated file, if FFmpeg has noticed it."""
  return {name: summary["notes"][name]} if name in summary["notes"] else {}


def jpegs(prepared: Path, clip: int) -> list[bytes]:
  """Returns the stored JPEG files of a clip, as TFDS itself reads them."""
  builder: Any = tfds.builder_from_directory(next((prepared / "train" / "frames").iterdir()))
  source = builder.as_data_source("data", decoders={"image": tfds.decode.SkipDecoding()})
  records = Records.open(prepared / "train")
  first, number = int(records.first_frame[clip]), int(records.num_frames[clip])
  return [source[i]["image"] for i in range(first, first + number)]


def test_a_finished_set_is_kept_and_other_settings_or_files_are_refused(tree, prepared, tmp_path, capsys):
  before = contents(prepared)
  command = ["folders", "--root", str(tree), "--out", str(prepared), *ARGUMENTS]
  assert main(command) == 1  # some files failed, as before
  printed = capsys.readouterr()
  assert "folders, train 4 clips with 27 frames, 3 without sound, 3 skipped (first: drum/empty.mp4" in printed.out
  assert not printed.err and contents(prepared) == before
  other = shutil.copytree(tree, tmp_path / "other")
  (other / "bell" / "b.mkv").unlink()
  for arguments, message in (
    ([*command, "--rate", "4"], "made with other settings (rate 8.0 there, 4.0 now)"),
    ([*command, "--max-seconds", "1"], "max_seconds 3600.0 there, 1.0 now"),
    (["folders", "--root", str(other), "--out", str(prepared), *ARGUMENTS], "files 7, SHA-256"),
    (["folders", "--root", str(tree)], "expected --out DIR, or --check"),
    (["folders", "--root", str(tree / "none"), "--out", str(tmp_path)], "no such folder"),
    (["folders", "--root", str(tree), "--out", str(tmp_path / "a"), "--memory-gib", "0"], "limit memory is 0"),
    (["folders", "--root", str(tree), "--out", str(tmp_path / "a"), "--side", "8"], "side is 8 pixels"),
  ):
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0]
  assert contents(prepared) == before
  unusable = ["folders", "--root", str(tree), "--out", str(tmp_path / "a"), "--max-bytes", "1"]
  assert main(unusable) == 3 and "none of 7 files can be used (first: bell/a.mp4: has " in capsys.readouterr().err
  assert main([*command, "--time-limit", "200"]) == 1  # the clips do not depend on this limit


def test_check_writes_nothing(tree, capsys, tmp_path):
  assert main(["folders", "--root", str(tree), "--check", "--out", str(tmp_path / "out")]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == "spare    drum/notes.txt: not named as a media file"
  assert lines[1:4] == ["train: 7 clips", "       2 bell", "       5 drum"]
  assert lines[4].endswith("folders, 7 clips, 2 categories; 1 spare") and not (tmp_path / "out").exists()


def test_a_killed_run_continues_to_the_same_bytes(tmp_path):
  root = tmp_path / "root" / "tag"
  root.mkdir(parents=True)
  for number in range(5):
    write_video(root / f"{number}.mkv", ramp(40, 240, 320), codec="mjpeg", pixels="yuvj420p")
  (root / "4.mkv").write_bytes((root / "4.mkv").read_bytes()[:100])
  arguments = ["folders", "--root", str(root.parent), "--side", "256", "--processes", "1", "--out"]
  staging = tmp_path / "out" / ".train.staging"
  command = [sys.executable, "-m", "stajax.prepare", *arguments, str(tmp_path / "out")]
  with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
    while len(list(staging.glob("*.npz"))) < 3 and process.poll() is None:
      time.sleep(0.002)
    process.kill()
  assert process.returncode == -signal.SIGKILL
  assert 3 <= len(list(staging.glob("*.npz"))) < 9  # two files for each clip, one for the damaged file
  assert main([*arguments, str(tmp_path / "out")]) == 1
  # The same without an interruption, in this process.
  listing, settings, limits = read_folders(root.parent), MediaSettings(side=256), Limits()
  whole = ClipStaging(tmp_path / "whole.staging")
  tasks = plan_tasks(listing, "train", whole.folder, settings, limits)
  outcomes = [stage(task, settings, limits) for task in tasks]
  keys, summary = collect_outcomes(listing, tasks, outcomes, settings, limits)
  assemble(whole, keys, tmp_path / "whole", listing.categories, summary)
  assert contents(tmp_path / "out" / "train") == contents(tmp_path / "whole")
  assert sorted(os.listdir(tmp_path / "out")) == ["train"] and summary["skipped"][0]["file"] == "tag/4.mkv"


def test_an_interrupted_command_says_that_it_can_continue(tree, tmp_path, capsys, monkeypatch):
  def interrupted(*arguments):
    raise KeyboardInterrupt

  monkeypatch.setattr("stajax.prepare.media_records.prepare", interrupted)
  assert main(["folders", "--root", str(tree), "--out", str(tmp_path)]) == 130
  assert capsys.readouterr().err == "stajax prepare: interrupted; the same command goes on from here\n"


def test_staging_keeps_the_outcomes_of_unchanged_files(tree, tmp_path):
  root = shutil.copytree(tree, tmp_path / "root")
  names = ("bell/a.mp4", "drum/empty.mp4", "drum/gone.mp4")
  listing = Listing("test", root, ("bell",), tuple(Item(f"{i}", root / name) for i, name in enumerate(names)))
  staging = ClipStaging(tmp_path / "staging")
  tasks = plan_tasks(listing, "train", staging.folder, SETTINGS, Limits())
  assert [task.file for task in tasks] == list(names) and len({task.key for task in tasks}) == 3
  outcomes = [stage(task, SETTINGS, Limits()) for task in tasks]
  assert outcomes[0].clips == (("0", f"{tasks[0].key}-000"),)
  assert outcomes[1] == Outcome(reason="is empty, expected a media file")
  assert outcomes[2] == Outcome(reason="no such file")
  assert [read_outcome(task) for task in tasks] == outcomes
  keys, summary = collect_outcomes(listing, tasks, [*outcomes[:2], Failure("took longer than 1 s")], SETTINGS, Limits())
  assert keys == [f"{tasks[0].key}-000"]
  assert summary["skipped"][1] == {"file": "drum/gone.mp4", "reason": "took longer than 1 s"}
  staging.path(keys[0]).unlink()
  assert read_outcome(tasks[0]) is None
  os.utime(root / "bell" / "a.mp4", ns=(1, 1))
  changed = plan_tasks(listing, "train", staging.folder, SETTINGS, Limits())
  assert [new.key == old.key for new, old in zip(changed, tasks)] == [False, True, True]
  for settings, limits in ((MediaSettings(side=64), Limits()), (SETTINGS, Limits(max_pixels=99))):
    assert not {task.key for task in plan_tasks(listing, "train", staging.folder, settings, limits)} & {
      task.key for task in tasks
    }
  assert plan_tasks(listing, "train", staging.folder, SETTINGS, Limits(time_limit=9)) == changed


def test_parts_are_separate_sets_and_segments_separate_clips(tree, tmp_path):
  items = (
    Item("a", tree / "bell" / "a.mp4", ("bell", "drum"), "val"),
    Item("a", tree / "bell" / "b.mkv", ("bell",), "train"),
    Item("b", tree / "bell" / "a.mp4", (), "train"),
    Item("bad", tree / "drum" / "empty.mp4", (), "test"),
  )
  listing = Listing("test", tree, ("bell", "drum"), items, (Remark("doubtful", "x", "y"),))
  settings = MediaSettings(side=32, segment=0.5)
  with pytest.raises(ValueError, match=r"test: none of 1 files can be used \(first: drum/empty.mp4: is empty"):
    prepare(listing, tmp_path, settings)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["train", "val"]
  train, val = Records.open(tmp_path / "train"), Records.open(tmp_path / "val")
  assert train.names == ("a#000", "a#001", "b#000", "b#001", "b#002")
  assert train.num_frames.tolist() == [4, 3, 4, 4, 2]
  assert val.names == ("a#000", "a#001", "a#002") and val.tags.tolist() == [[1, 1]] * 3
  assert train.summary["settings"]["segment"] == 0.5 and train.summary["remark_counts"] == {"doubtful": 1}
  again = prepare(Listing("test", tree, ("bell", "drum"), items[:3]), tmp_path, settings)
  assert {part: summary["counts"]["clips"] for part, summary in again.items()} == {"train": 5, "val": 3}
  with pytest.raises(ValueError, match="there is no clip to prepare"):
    prepare(Listing("test", tree, (), ()), tmp_path, settings)
