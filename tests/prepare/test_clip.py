"""Clips of real media: their frames, sound, segments and notes, and the reasons why items are refused."""

import io
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.media_files import clicks, onsets, ramp, write_video
from stajax.media import isolated
from stajax.media.audio import audio_blocks
from stajax.media.file import MediaError
from stajax.media.limits import Limits
from stajax.media.spectrogram import log_spectrogram
from stajax.media.video import grid_frames
from stajax.prepare.clip import MediaSettings, prepare_clips
from stajax.prepare.clip_staging import PreparedClip
from stajax.prepare.listing import Item

SETTINGS = MediaSettings(rate=8.0, side=32)


def prepare(
  item: Item, settings: MediaSettings = SETTINGS, limits: Limits | None = None
) -> tuple[list[PreparedClip], list[str]]:
  notes: list[str] = []
  return list(prepare_clips(item, settings, limits or Limits(), notes)), notes


def one(item: Item, **changes) -> tuple[PreparedClip, list[str]]:
  (clip,), notes = prepare(item, **changes)
  return clip, notes


def levels(clip: PreparedClip) -> list[float]:
  """Returns the mean grey of each frame."""
  return [float(np.asarray(Image.open(io.BytesIO(jpeg))).mean()) for jpeg in clip.frames]


def sounding(columns: np.ndarray) -> list[float]:
  """Returns the seconds when bursts begin in a spectrogram (a burst of 10 ms is in up to four columns)."""
  loud = np.flatnonzero(columns.astype(np.float32).max(axis=0) > -9)
  return [float(column * 159 + 512) / 16000 for column in loud[np.diff(loud, prepend=-100) > 10]]


def test_a_clip_has_the_grid_frames_and_the_sound_of_its_file(tmp_path):
  path = write_video(tmp_path / "a.mp4", ramp(20), sound=clicks(2, [0.5]))
  clip, notes = one(Item("a", path, ("bell", "drum")))
  assert (clip.name, clip.tags, clip.flags, clip.rate, notes) == ("a", ("bell", "drum"), (), 8.0, [])
  assert (clip.width, clip.height, clip.duration) == (64, 48, 2.0)
  frames = [frame for _, frame in grid_frames(path, 8.0, 32)]
  assert len(clip.frames) == len(frames) == 16
  for jpeg, frame in zip(clip.frames, frames):
    image = Image.open(io.BytesIO(jpeg))
    assert image.format == "JPEG" and image.size == (32, 32)
    assert np.abs(np.asarray(image).astype(int) - frame).mean() < 2
  columns = log_spectrogram(np.concatenate(list(audio_blocks(path))))
  np.testing.assert_array_equal(clip.columns, columns.astype(np.float16))
  assert clip.sound_mean == pytest.approx(columns.mean(), rel=1e-5)
  assert clip.sound_std == pytest.approx(columns.std(), rel=1e-5)


def test_frames_are_chosen_by_time_and_shared_while_they_are_shown(tmp_path):
  times = [0, 0.3, 0.35, 1.0]
  clip, _ = one(Item("a", write_video(tmp_path / "a.mkv", ramp(4), times, codec="ffv1", pixels="bgr0")))
  assert levels(clip) == pytest.approx([20, 20, 20, 40, 40, 40, 40, 40, 50], abs=2)
  assert clip.frames[0] is clip.frames[2] and not clip.has_sound


def test_late_early_and_short_sound_is_in_sync(tmp_path):
  pcm = {"sound_codec": "pcm_s16le", "sound_rate": 16000}
  late = write_video(tmp_path / "late.mkv", ramp(20), sound=clicks(1, [0.5], 16000), sound_start=0.8, **pcm)
  assert sounding(one(Item("a", late))[0].columns) == pytest.approx([1.3], abs=0.04)
  moved = [1.25 + number / 10 for number in range(20)]
  early = write_video(tmp_path / "early.mkv", ramp(20), moved, sound=clicks(3, [1.0, 2.0], 16000), **pcm)
  assert sounding(one(Item("a", early))[0].columns) == pytest.approx([0.75], abs=0.04)
  short = write_video(tmp_path / "short.mkv", ramp(40), sound=clicks(1, [0.5], 16000), **pcm)
  clip, _ = one(Item("a", short))
  assert clip.columns.shape[1] == (4 * 16000 - 512) // 159 + 1  # silent up to the picture's end
  assert sounding(clip.columns) == pytest.approx([0.5], abs=0.04)
  assert (clip.columns[:, 110:] < -16).all()


def test_sound_beyond_the_picture_is_cut_but_counts_for_its_mean(tmp_path):
  wave = clicks(5, [0.5, 4.5], 16000)
  path = write_video(tmp_path / "a.mkv", ramp(10), sound=wave, sound_codec="pcm_s16le", sound_rate=16000)
  clip, _ = one(Item("a", path))
  assert clip.columns.shape[1] == (2 * 16000 - 512) // 159 + 1  # a second more than the picture
  assert clip.sound_mean == pytest.approx(log_spectrogram(np.concatenate(list(audio_blocks(path)))).mean(), rel=1e-6)


def test_silence_counts_as_no_sound(tmp_path):
  path = write_video(tmp_path / "a.mp4", ramp(10), sound=np.zeros((2, 44100)))
  clip, notes = one(Item("a", path))
  assert not clip.has_sound and clip.columns.shape == (257, 0) and (clip.sound_mean, clip.sound_std) == (0, 0)
  assert notes == ["sound: silent throughout, not used"]


def test_long_videos_become_segments_in_sync(tmp_path):
  times = [0.25, 1.1, 2.3, 3.05, 4.4, 5.3]
  wave = clicks(5.6, times, 16000)
  path = write_video(tmp_path / "a.mkv", ramp(56), sound=wave, sound_codec="pcm_s16le", sound_rate=16000)
  whole, _ = one(Item("a", path, ("bell",)))
  for segment, lengths in ((2.0, [16, 16, 13]), (2.5, [20, 25]), (4.0, [45])):
    clips, notes = prepare(Item("a", path, ("bell",)), replace(SETTINGS, segment=segment))
    assert [len(clip.frames) for clip in clips] == lengths and not notes
    assert [clip.name for clip in clips] == (["a"] if len(clips) == 1 else [f"a#{i:03d}" for i in range(len(clips))])
    assert [jpeg for clip in clips for jpeg in clip.frames] == whole.frames
    starts = np.cumsum([0, *lengths[:-1]]) / 8
    heard = [start + time for start, clip in zip(starts, clips) for time in sounding(clip.columns)]
    assert heard == pytest.approx(times, abs=0.04)
    assert {(clip.tags, clip.sound_mean, clip.sound_std) for clip in clips} == {
      (("bell",), whole.sound_mean, whole.sound_std)
    }


def test_a_long_clip_is_cut_with_a_note(tmp_path):
  wave = clicks(5, [0.5, 1.5, 2.5], 16000)
  path = write_video(tmp_path / "a.mkv", ramp(50), sound=wave, sound_codec="pcm_s16le", sound_rate=16000)
  clip, notes = one(Item("a", path), limits=Limits(max_seconds=2))
  assert (len(clip.frames), clip.duration, notes) == (16, 2.0, ["longer than 2 s, cut there"])
  assert sounding(clip.columns) == pytest.approx([0.5, 1.5], abs=0.04)
  clip, notes = one(Item("a", path), limits=Limits(max_seconds=5))
  assert len(clip.frames) == 40 and notes == []
  clip, notes = one(Item("a", path), limits=Limits(max_seconds=0.01))
  assert len(clip.frames) == 1 and notes[-1] == "longer than 0.01 s, cut there"


def test_exceeded_limits_and_missing_files_are_one_line(tmp_path):
  path = write_video(tmp_path / "a.mp4", ramp(4))
  size = path.stat().st_size
  for item, limits, message in (
    (Item("a", path), Limits(max_pixels=64 * 48 - 1), "picture of 64×48 pixels"),
    (Item("a", path), Limits(max_bytes=size - 1), f"has {size} bytes, at most {size - 1} are taken"),
    (Item("a", tmp_path / "b.mp4"), Limits(), "no such file"),
    (Item("a", tmp_path), Limits(), "is a folder"),
    (Item("a", tmp_path / "images", rate=8), Limits(), "no such folder"),
    (Item("a", tmp_path, rate=8), Limits(), "holds no numbered images"),
  ):
    with pytest.raises(MediaError, match=message) as error:
      prepare(item, limits=limits)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
  "name, value", [("rate", 0), ("rate", float("nan")), ("side", 8), ("side", 10**6), ("segment", 0.01)]
)
def test_settings_are_checked(name, value):
  with pytest.raises(ValueError, match=f"{name} is {value}"):
    MediaSettings(**{name: value})


def images(folder: Path, numbers: list[int], size: tuple[int, int] = (40, 30)) -> Path:
  """Writes grey images whose level is 10 times their number."""
  folder.mkdir()
  for number in numbers:
    Image.new("RGB", size, (10 * number,) * 3).save(folder / f"img_{number:05d}.png")
  return folder


@pytest.mark.parametrize(("kind", "rate"), [("wav", 16000), ("flac", 44100), ("ogg", 48000), ("mp3", 22050)])
def test_a_folder_of_images_is_a_video_with_a_sound_file(tmp_path, kind, rate):
  soundfile = pytest.importorskip("soundfile")
  folder = images(tmp_path / "images", list(range(1, 21)))
  soundfile.write(tmp_path / f"a.{kind}", clicks(2, [0.5, 1.25], rate)[0], rate)
  clip, notes = one(Item("a", folder, rate=10.0, sound_file=tmp_path / f"a.{kind}"))
  assert (clip.width, clip.height, clip.duration, notes) == (40, 30, 2.0, [])
  # At k / 8 s the image is number 1 + floor(10 k / 8).
  assert levels(clip) == pytest.approx([10 * (1 + 10 * k // 8) for k in range(16)], abs=1)
  assert sounding(clip.columns) == pytest.approx([0.5, 1.25], abs=0.04)
  slow, _ = one(Item("a", images(tmp_path / "slow", [1, 2]), rate=2.0))
  assert levels(slow) == pytest.approx([10] * 4 + [20] * 4, abs=1) and not slow.has_sound


def test_missing_and_damaged_images_are_noted(tmp_path):
  folder = images(tmp_path / "images", [1, 2, 4, 5, 6, 7, 8])
  (folder / "img_00001.png").write_bytes(b"no image")
  (folder / "img_00005.png").write_bytes((folder / "img_00005.png").read_bytes()[:40])
  (folder / "notes.txt").touch()
  clip, notes = one(Item("a", folder, rate=8.0, sound_file=tmp_path / "gone.wav"))
  assert levels(clip) == pytest.approx([20, 20, 20, 40, 40, 60, 70, 80], abs=1)
  assert notes == [
    "picture: 1 image missing, the one before is shown", "sound: no such file", "picture: 2 damaged images skipped"
  ]  # fmt: skip
  sparse = images(tmp_path / "sparse", [1, 6, 11])
  clip, notes = one(Item("a", sparse, rate=8.0))
  assert levels(clip) == pytest.approx([10, 60, 110], abs=1) and "shown one after the other" in notes[0]
  for path in folder.glob("*.png"):
    path.write_bytes(b"no image")
  with pytest.raises(MediaError, match="none of 7 images can be decoded"):
    prepare(Item("a", folder, rate=8.0))


def test_sounding_finds_the_onsets_of_the_samples(tmp_path):
  """Compares `sounding` with the samples that the spectrogram is made from."""
  samples = clicks(2, [0.5, 1.25], 16000)[0]
  assert sounding(log_spectrogram(samples)) == pytest.approx(onsets(samples), abs=0.04)


FAULTS = {
  "os.abort()": "the decoder crashed (signal 6)",
  "time.sleep(99)": "the decoder gave nothing for 2 s",
}


@pytest.mark.skipif(not isolated.IS_POSSIBLE, reason="this system cannot fork processes")
@pytest.mark.parametrize("fault, reason", FAULTS.items())
@pytest.mark.parametrize("kind", [None, "flac"])
def test_a_sound_decoder_that_crashes_or_hangs_costs_the_sound_only(tmp_path, monkeypatch, fault, reason, kind):
  path = write_video(tmp_path / "a.mp4", ramp(20), sound=clicks(2, [0.5]))
  sound_file = None if kind is None else tmp_path / f"a.{kind}"
  if sound_file is not None:
    pytest.importorskip("soundfile").write(sound_file, clicks(2, [0.5])[0], 16000)
  (tmp_path / "site").mkdir()
  # Python runs this when the process starts that decodes the sound.
  (tmp_path / "site" / "sitecustomize.py").write_text(
    "import os, time\nfrom stajax.media import audio, sound_files\n"
    f"audio.decode = sound_files.check_is_file = lambda *arguments: {fault}\n"
  )
  monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), *sys.path]))
  monkeypatch.setattr(isolated, "_current", None)
  clip, notes = one(Item("a", path, sound_file=sound_file), limits=Limits(time_limit=6))
  assert len(clip.frames) == 16 and levels(clip)[0] == pytest.approx(20, abs=2)
  assert not clip.has_sound and notes == [f"sound: {reason}"]
  isolated._server().close()
