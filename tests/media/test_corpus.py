"""A table of media situations: each file is shown and heard at its right times, upright, and so is its overlay."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from helpers.media_files import onsets, read_sound
from helpers.media_situations import CORPUS, describe
from stajax.media.file import MediaError
from stajax.media.video import native_frames, probe
from stajax.media.video_writer import VideoWriter

SYNC = 0.04  # seconds
PAGE = Path(__file__).parents[2] / "docs" / "situations.md"


def flashes(frames):
  """Returns when frames turn white."""
  white = [frame.mean() > 120 for _, frame in frames]
  return [time for (time, _), now, before in zip(frames, white, [False, *white]) if now and not before]


def beeps(path, notes=None):
  samples = read_sound(path, notes)
  loudest = np.abs(samples).max(initial=0)
  return onsets(samples * (0.8 / loudest)) if loudest > 0.02 else []


def test_the_corpus_is_large_enough():
  assert len(CORPUS) >= 60


@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not here")
def test_the_documentation_has_all_situations():
  rows = [line.split("|")[1:3] for line in PAGE.read_text().splitlines() if line.startswith("| ")]
  found = {cells[0].strip(): cells[1].strip() for cells in rows}
  assert {name: describe(situation) for name, situation in CORPUS.items()}.items() <= found.items()


@pytest.mark.parametrize("name", CORPUS)
def test_files_are_shown_and_heard_at_their_times(tmp_path, name):
  situation = CORPUS[name]
  path = tmp_path / f"a{situation.suffix}"
  try:
    situation.write(path)
  except (ValueError, LookupError) as error:  # this FFmpeg was built without a codec
    pytest.skip(f"cannot be written here: {error}")
  if situation.refused is not None:
    with pytest.raises(MediaError, match=rf"a\{situation.suffix}: .*") as refusal:
      probe(path)
    assert situation.refused in str(refusal.value) and "\n" not in str(refusal.value)
    return
  notes: list[str] = []
  info, frames = probe(path), list(native_frames(path, notes=notes))
  heard = beeps(path, notes)
  if situation.times is not None:
    np.testing.assert_allclose([time for time, _ in frames], situation.times, atol=2e-3)
  if situation.corner is not None:
    _, frame = frames[0]
    bright = frame.mean(2) > 120
    centre = [bright.any(1 - axis).nonzero()[0].mean() / frame.shape[axis] for axis in (0, 1)]
    assert tuple(int(place > 0.5) for place in centre) == situation.corner
  _, first = frames[0]
  if situation.size is not None:
    assert (info.width, info.height) == (first.shape[1], first.shape[0]) == situation.size
  if situation.colour is not None:
    assert first[first.shape[0] // 2, first.shape[1] // 2].tolist() == pytest.approx(situation.colour, abs=3)
  if situation.duration is not None:
    assert info.duration == pytest.approx(situation.duration, abs=0.06)
  shown = flashes(frames)
  assert shown == pytest.approx(situation.flashes, abs=situation.slack)
  if situation.is_silent:
    expected = []
  elif situation.beeps is None:
    expected = shown  # in sync
  else:
    expected = situation.beeps
  assert heard == pytest.approx(expected, abs=SYNC)
  assert all(situation.notes and situation.notes in note for note in notes) and bool(notes) == bool(situation.notes)

  with VideoWriter(tmp_path / "overlay.mp4", info, notes) as writer:
    for time, frame in frames:
      writer.write(time, frame)
  drawn = list(native_frames(tmp_path / "overlay.mp4"))
  assert [time for time, _ in drawn] == pytest.approx([time for time, _ in frames], abs=1e-3)
  assert flashes(drawn) == pytest.approx(shown, abs=1e-3)
  assert beeps(tmp_path / "overlay.mp4") == pytest.approx(expected, abs=SYNC)
  assert probe(tmp_path / "overlay.mp4").duration == pytest.approx(info.duration, abs=0.06)


UNLIKE_FFMPEG = {
  "ts, two recordings": "ffmpeg shows the second 0.05 s later than it sounds",
  "ts, three recordings": "as two recordings",
  "ts, joined after a gap of 20 s": "as two recordings",
  "mkv, a clock that starts again": "ffmpeg lets it run on in steps of one tick",
  "mkv, two files joined": "as a clock that starts again",
  "webm, two files joined": "as a clock that starts again",
  "h264, no container": "ffmpeg does not apply the rate of the stream",
  "mp4, cut off": "two frames behind a damaged packet are lost where several threads decode",
  "ts, radio before television": "ffmpeg takes the sound of another program",
  "ts, sound in another program only": "as radio before television",
  "mkv, a comment before the sound": "ffmpeg takes the comment",
}
REFUSED = re.compile("no picture|only a cover|empty|text|an index alone|a playlist|pixels wide")
"""Files without a picture, or that are refused."""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_ffmpeg_makes_the_same_of_a_file(tmp_path):
  different = set()
  for k, (name, situation) in enumerate(CORPUS.items()):
    if REFUSED.search(name):
      continue
    path, made = tmp_path / f"{k}{situation.suffix}", tmp_path / f"{k}_made.mkv"
    situation.write(path)
    codecs = ["-c:v", "ffv1", "-c:a", "pcm_s16le", "-fps_mode", "passthrough"]
    subprocess.run(["ffmpeg", "-v", "fatal", "-i", path, *codecs, made], check=True, stdin=subprocess.DEVNULL)
    frames, expected = list(native_frames(path, (8, 8))), list(native_frames(made, (8, 8)))
    is_in_step = flashes(frames) == pytest.approx(flashes(expected), abs=SYNC)
    if len(frames) != len(expected) or not is_in_step or beeps(path) != pytest.approx(beeps(made), abs=SYNC):
      different.add(name)
  assert different == set(UNLIKE_FFMPEG)
