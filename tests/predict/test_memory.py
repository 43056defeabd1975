"""Tests that `stajax predict` takes no more memory for an hour of video than for a minute. This takes minutes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.media_files import clicks, write_video
from helpers.tiny import CATEGORIES, PLUS_CONFIG, SIZE, SMALL, write_model
from stajax import networks

pytestmark = pytest.mark.slow

RATE, SOUND_RATE = 2, 8000
STATUS = Path("/proc/self/status")
# The peak is not read from `ru_maxrss`, which a child inherits from the process that starts it.
CHILD = """
import pathlib, sys
from stajax.predict.__main__ import main
code = main(sys.argv[1:])
print(*(line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
sys.exit(code)
"""


@pytest.mark.skipif(not STATUS.is_file(), reason="reads a process's peak memory where Linux has it")
def test_an_hour_takes_the_memory_of_a_minute(tmp_path, random_variables, one_device):
  """Predicts with sound, all three students and the overlay, in child processes, so that each has a peak of its own."""
  variables = {}
  # The encoders are different, because equal ones are shared, but in short videos only.
  for seed, name in enumerate((networks.SWITCH, *networks.STUDENTS)):
    network = networks.make_network(name, PLUS_CONFIG, len(CATEGORIES))
    variables[name] = random_variables(network, SMALL if "plus" in name else SIZE, seed)
  folder = write_model(tmp_path, variables)

  def peak(minutes):
    count = 60 * RATE * minutes
    frames = np.random.default_rng(0).integers(0, 256, (8, 48, 64, 3), np.uint8)
    sound = clicks(60 * minutes, np.arange(0.5, 60 * minutes, 7), SOUND_RATE)
    moving = np.broadcast_to(frames, (count // 8, *frames.shape)).reshape(count, *frames.shape[1:])
    # A keyframe every half a minute, so that even a minute has companions from all over the video.
    path = write_video(tmp_path / f"{minutes}.mp4", moving, rate=RATE, sound=sound, sound_rate=SOUND_RATE,
                       options={"g": str(30 * RATE)})  # fmt: skip
    command = [sys.executable, "-c", CHILD, str(path), "--model", str(folder), "--out", str(tmp_path / "out")]
    # What malloc keeps for each of many threads depends on chance, so there is one arena.
    settings = {"MALLOC_ARENA_MAX": "1", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    done = subprocess.run(command, env={**one_device, **settings}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f" {240 * minutes} maps in " in done.stdout
    return int(done.stdout.split()[-2]) / 2**10

  # The first run fills the cache of compiled programs, because compiling takes more memory than loading.
  peak(6)
  minute, six, hour = peak(1), peak(6), peak(60)
  print(f"peak memory of predict: {minute:.0f} MiB for a minute, {six:.0f} for six, {hour:.0f} for an hour")
  assert hour < 1.1 * minute
