"""Runs of frames from all over a video: they have the right frames, and most of the video is not decoded."""

import numpy as np
import pytest

from helpers.media_files import moving, write_video
from stajax.media import keyframes
from stajax.media.file import MediaError
from stajax.media.keyframes import sampled_runs
from stajax.media.video import native_frames


@pytest.mark.parametrize(
  "name, settings",
  [
    ("a.mp4", {"options": {"g": "24"}}),
    ("a.ts", {"options": {"g": "24", "bf": "3"}}),
    ("open.mkv", {"options": {"g": "24", "x264-params": "open-gop=1"}}),
    ("a.avi", {"codec": "mpeg4"}),
    ("a.mkv", {"codec": "ffv1", "pixels": "bgr0"}),  # nothing but keyframes
    ("late.mkv", {"options": {"g": "24"}, "times": [7 + n / 20 for n in range(700)]}),
  ],
)
def test_runs_have_the_frames_of_their_times(tmp_path, monkeypatch, name, settings):
  path, decoded = write_video(tmp_path / name, moving(700), rate=20, **settings), []
  decode = keyframes._RunDecoder.decode

  def count(self, packets, begun):
    decoded.append(len(packets))
    return decode(self, packets, begun)

  monkeypatch.setattr(keyframes._RunDecoder, "decode", count)
  found = sampled_runs(path, 8, 1 / 8, 24, seed=3)
  assert len(found) == 8 and sum(decoded) < 350, "most is not decoded"
  shown = list(native_frames(path, (24, 24)))
  times, at = np.array([time for time, _ in shown]), [time for time, _ in found]
  assert at == sorted(at) and at[-1] - at[0] > 15, "from all over the video"
  for middle, run in found:
    for time, frame in zip(middle + np.array([-1, 0, 1]) / 8, run, strict=True):
      expected = shown[np.searchsorted(times, time + 2e-3, "right") - 1][1]
      np.testing.assert_allclose(frame.astype(int), expected, atol=6)
  again = sampled_runs(path, 8, 1 / 8, 24, seed=3)
  assert [time for time, _ in again] == at
  assert [time for time, _ in sampled_runs(path, 8, 1 / 8, 24, seed=4)] != at


def test_runs_of_few_keyframes_and_of_damaged_files(tmp_path):
  path = write_video(tmp_path / "a.mp4", moving(30), rate=20, options={"g": "1000"})
  ((time, run),) = sampled_runs(path, 8, 1 / 8, 24, 0)
  assert time == pytest.approx(1 / 8) and len(run) == 3
  one = write_video(tmp_path / "one.mp4", moving(1))
  ((_, run),) = sampled_runs(one, 8, 1 / 8, 24, 0)
  assert len(run) == 3 and all(np.array_equal(frame, run[0]) for frame in run)
  content = write_video(tmp_path / "b.ts", moving(400), rate=20, options={"g": "24"}).read_bytes()
  (tmp_path / "cut.ts").write_bytes(content[: len(content) // 2] + bytes(range(256)) * 8)
  assert sampled_runs(tmp_path / "cut.ts", 8, 1 / 8, 24, 0)
  (tmp_path / "none.mp4").write_bytes(b"nothing")
  with pytest.raises(MediaError, match=r"none\.mp4"):
    sampled_runs(tmp_path / "none.mp4", 8, 1 / 8, 24, 0)
