"""The frames of a video at a constant rate: each frame once, or those that a viewer sees if the rate varies."""

from dataclasses import replace
from pathlib import Path

import pytest

from helpers.media_files import ramp, write_video
from stajax.media.limits import Limits
from stajax.media.video import probe
from stajax.prepare.constant_rate import ShownFrames, choose_frames


def shown(path: Path, rate: float, max_seconds: float = 99) -> tuple[ShownFrames, list[str]]:
  """Returns the shown frames of a video that states a rate, and the notes about them."""
  notes: list[str] = []
  return choose_frames(replace(probe(path), rate=rate), Limits(max_seconds=max_seconds), notes), notes


@pytest.mark.parametrize("rate", [24, 25, 30])
def test_a_constant_rate_shows_every_frame_once(tmp_path, rate):
  path = write_video(tmp_path / "a.mkv", ramp(40), rate=rate, codec="ffv1", pixels="bgr0")  # times in milliseconds
  frames, notes = shown(path, float(rate))
  assert frames.rate == rate and frames.numbers.tolist() == list(range(40)) and not notes
  frames, _ = shown(path, 1000.0)  # a file may state any rate
  assert frames.rate == pytest.approx(rate, rel=1e-3) and len(frames) == 40
  frames, notes = shown(path, float(rate), max_seconds=1.0)
  assert len(frames) == rate and notes == ["longer than 1 s, cut there"]


def test_a_varying_rate_shows_the_last_frame_that_is_not_later(tmp_path):
  times = [0, 0.1, 0.2, 0.5, 0.6, 1.0, 1.05, 1.1]
  path = write_video(tmp_path / "a.mkv", ramp(8), times, codec="ffv1", pixels="bgr0")
  frames, notes = shown(path, 10.0)
  assert frames.rate == pytest.approx(10) and frames.numbers.tolist() == [0, 1, 2, 2, 2, 3, 4, 4, 4, 4, 5, 7]
  assert notes == ["picture: its rate varies, shown at 10 frames a second: 8 frames become 12"]
  one, _ = shown(write_video(tmp_path / "one.mkv", ramp(1), codec="ffv1", pixels="bgr0"), 10.0)
  assert one.rate == 10 and one.numbers.tolist() == [0]
