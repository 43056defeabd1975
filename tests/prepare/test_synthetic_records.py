"""Prepared synthetic clips: the same result after any interruption, and a tree with the same clips as the records."""

import csv
import os
import signal
import subprocess
import sys
import time
from typing import cast

import numpy as np
import pytest
from PIL import Image

from helpers.fake_records import contents

pytest.importorskip("tensorflow")

from stajax.data.records import Records
from stajax.eyetracking import read_tree
from stajax.media.spectrogram import log_spectrogram
from stajax.prepare import synthetic_records as module
from stajax.prepare.__main__ import main
from stajax.prepare.synthetic import CATEGORIES, Part, Settings, make_clip

ARGUMENTS = ["--clips", "5", "--heldout", "3", "--size", "32", "--seconds", "1", "--seed", "4"]


def prepare(out, *changes):
  return main(["synthetic", "--out", str(out), *ARGUMENTS, *changes])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  out = tmp_path_factory.mktemp("prepared") / "data"
  assert prepare(out, "--processes", "1") == 0
  return out


def test_records_are_the_rendered_clips(prepared):
  for part, num_clips in (("train", 5), ("heldout", 3)):
    records = Records.open(prepared / part)
    assert records.provenance == "synthetic" and records.categories == CATEGORIES
    assert (records.num_clips, records.side, records.summary["settings"]["seed"]) == (num_clips, 32, 4)
    for i, name in enumerate(records.names):
      clip = make_clip(4, int(name.split("_")[-1]), cast(Part, part), Settings(size=32, seconds=1.0))
      assert (clip.name, clip.flags, clip.rate) == (name, records.flags[i], records.rate[i])
      assert records.categories[int(records.tags[i].argmax())] == clip.tag and records.tags[i].sum() == 1
      difference = records.clip_frames(i).astype(int) - clip.frames
      assert difference.shape == (8, 32, 32, 3) and np.abs(difference).mean() < 4
      columns = log_spectrogram(clip.samples)
      np.testing.assert_array_equal(records.clip_columns(i), columns.astype(np.float16))
      np.testing.assert_allclose(records.sound_mean[i], columns.mean(), rtol=1e-4)
      np.testing.assert_allclose(records.sound_std[i], columns.std(), rtol=1e-4)


def test_the_tree_has_the_same_clips(prepared):
  records, tree = Records.open(prepared / "heldout"), prepared / "heldout_tree"
  videos = read_tree(tree).videos
  assert [video.name for video in videos] == list(records.names)
  with (tree / "clips.csv").open(newline="") as file:
    answers = list(csv.DictReader(file))
  for i, answer in enumerate(answers):
    assert answer["video"] == records.names[i]
    assert answer["tag"] == records.categories[int(records.tags[i].argmax())]
    assert tuple(answer["flags"].split()) == records.flags[i]
    folder = tree / "video_frames" / "synthetic" / answer["video"]
    frames = [np.asarray(Image.open(path)).astype(int) for path in sorted(folder.glob("img_*.jpg"))]
    assert np.abs(np.stack(frames) - records.clip_frames(i)).mean() < 8


def test_running_again_changes_nothing(prepared, monkeypatch, capsys):
  monkeypatch.setattr(module, "make_clip", None)
  before = contents(prepared)
  assert prepare(prepared) == 0
  assert "train 5 clips with 40 frames, 0 without sound, 0 skipped; held-out 3 clips" in capsys.readouterr().out
  assert contents(prepared) == before
  assert not list(prepared.glob(".*"))


def test_bad_arguments_are_refused_in_one_line(prepared, tmp_path, capsys):
  (tmp_path / "train").mkdir()
  for arguments, message in (
    (["synthetic", "--out", str(prepared), *ARGUMENTS, "--seed", "5"], "other settings (seed 4 there, 5 now)"),
    (["synthetic", "--out", str(tmp_path), *ARGUMENTS], "not something that this command made"),
    (["synthetic", "--out", str(tmp_path / "a"), "--clips", "0"], "number of clips is 0"),
    (["synthetic", "--out", str(tmp_path / "a"), "--size", "8"], "size >= 16"),
    (["nothing", "--out", str(tmp_path)], "unknown source 'nothing'; Known: ave, "),
    ([], "no source: expected one of ave, "),
  ):
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0]


@pytest.mark.parametrize("part", ["train", "heldout"])
def test_an_interrupted_run_continues(prepared, tmp_path, monkeypatch, part):
  rendered = []

  def render(seed, index, part, settings):
    if len(rendered) == fail_after:
      raise OSError("disk full")
    rendered.append((part, index))
    return make_clip(seed, index, part, settings)

  monkeypatch.setattr(module, "make_clip", render)
  fail_after = 2 if part == "train" else 6  # the first run stops among the clips of this part
  assert prepare(tmp_path, "--processes", "1") == 2
  fail_after = None
  assert prepare(tmp_path, "--processes", "1") == 0
  assert sorted(rendered) == [("heldout", i) for i in range(3)] + [("train", i) for i in range(5)]
  assert contents(tmp_path) == contents(prepared)


def test_a_killed_run_continues(prepared, tmp_path):
  command = [sys.executable, "-m", "stajax.prepare", "synthetic", "--out", str(tmp_path), *ARGUMENTS]
  process = subprocess.Popen([*command, "--processes", "2"], stderr=subprocess.DEVNULL, start_new_session=True)
  staging = tmp_path / ".train.staging"
  deadline = time.monotonic() + 100
  while not list(staging.glob("*.npz")) and process.poll() is None and time.monotonic() < deadline:
    time.sleep(0.002)
  process.kill()
  assert process.wait() == -signal.SIGKILL and list(staging.glob("*.npz"))
  while True:  # its workers end by themselves
    try:
      os.killpg(process.pid, 0)
    except ProcessLookupError:
      break
    assert time.monotonic() < deadline
    time.sleep(0.01)
  assert prepare(tmp_path, "--processes", "1") == 0
  assert contents(tmp_path) == contents(prepared)
