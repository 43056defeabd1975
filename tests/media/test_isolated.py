"""Decoding in other processes: the same results, and nothing that happens there ends this process."""

import contextlib
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from helpers.media_files import clicks, ramp, read_sound, write_video
from stajax.media import isolated, video
from stajax.media.file import MediaError

pytestmark = pytest.mark.skipif(not isolated.IS_POSSIBLE, reason="this system cannot fork processes")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  return write_video(tmp_path_factory.mktemp("media") / "a.mp4", ramp(30), sound=clicks(3, [0.5, 2.0]))


def living_children(server: int) -> list[int]:
  """Returns the process ids of a process's children that have not ended."""
  found = []
  for number in Path(f"/proc/{server}/task/{server}/children").read_text().split():
    with contextlib.suppress(OSError):
      if Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        found.append(int(number))
  return found


def test_children_give_what_this_process_gives(path):
  notes = []
  info = isolated.probe(path, notes)
  assert info == video.probe(path) and notes == []
  for (time_, frame), (expected_time, expected) in zip(
    isolated.native_frames(path), video.native_frames(path), strict=True
  ):
    assert time_ == expected_time
    np.testing.assert_array_equal(frame, expected)
  grid, expected_grid = list(isolated.grid_frames(path, 20.0, 16)), list(video.grid_frames(path, 20.0, 16))
  assert [time_ for time_, _ in grid] == [time_ for time_, _ in expected_grid]
  assert grid[0][1] is grid[1][1], "a frame that is shown twice is one array"
  np.testing.assert_array_equal(np.concatenate(list(isolated.audio_blocks(path))), read_sound(path))
  assert list(isolated.frame_times(path)) == list(video.frame_times(path))


def test_files_that_cannot_be_used_are_refused(tmp_path):
  (tmp_path / "b.mp4").write_text("not media")
  with pytest.raises(MediaError, match=r"b\.mp4: is not a media file"):
    isolated.probe(tmp_path / "b.mp4", [])
  with pytest.raises(MediaError, match=r"c\.mp4: no such file"):
    list(isolated.native_frames(tmp_path / "c.mp4"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="finds children where Linux lists them")
def test_crashes_and_hangs_are_named_and_leave_nothing_behind(path, monkeypatch):
  server = isolated._server().process.pid
  monkeypatch.setattr(isolated, "SILENCE", 2.0)
  for number, reason in ((signal.SIGABRT, r"crashed \(signal 6\)"), (signal.SIGSTOP, "gave nothing for 2 s")):
    frames = isolated.native_frames(path, (2000, 2000))  # so large that the child must wait for this process
    next(frames)
    (child,) = living_children(server)
    os.kill(child, number)
    assert len(list(isolated.frame_times(path))) == 30, "another child works"
    with pytest.raises(MediaError, match=rf"a\.mp4: the decoder {reason}"):
      list(frames)
  unfinished = isolated.native_frames(path, (2000, 2000))
  next(unfinished)
  unfinished.close()
  until = time.monotonic() + 30
  while living_children(server) and time.monotonic() < until:
    time.sleep(0.02)
  assert not living_children(server), "a child outlives its reader"
  assert isolated._server().process.pid == server, "one server is enough"


def test_memory_is_limited(path, monkeypatch):
  monkeypatch.setattr(isolated, "MEMORY", 2**24)
  with pytest.raises(MediaError, match=r"a\.mp4: .*(memory|crashed|decoded)"):
    list(isolated.native_frames(path, (8000, 8000)))


def test_a_server_that_ended_is_started_again(path):
  server = isolated._server().process
  server.kill()
  server.wait()
  assert isolated.probe(path, []).width == 64


def test_a_server_says_nothing_when_nobody_waits_for_its_answer(capfd):
  server = isolated._Server()
  server.control.sendall(pickle.dumps(("wait", 1)))
  server.close()
  assert server.process.wait(50) == 0 and capfd.readouterr().err == ""
