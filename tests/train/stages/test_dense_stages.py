"""Dense stages on many devices and in many processes have the results of one device, bit for bit."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from helpers import tiny
from helpers.runs import finish, make_run, set_table

pytest.importorskip("tensorflow")

from helpers import dense_stages
from stajax import signals
from stajax.data.records import Records
from stajax.networks import COARSE
from stajax.train.loop import Stopped
from stajax.train.stages import clip_by_clip
from stajax.train.stages.clip_by_clip import make_table
from stajax.train.stages.pseudo_fixations import find_boxes

small_programs = tiny.small_programs
PROGRAM = Path(dense_stages.__file__)


@pytest.fixture(scope="module")
def made(tmp_path_factory, small_programs):
  """A folder with the records."""
  folder = tmp_path_factory.mktemp("made")
  dense_stages.make_records(folder)
  return folder


def open_records(folder):
  return Records.open(folder / "train")


def assert_equal(found, expected):
  assert found.keys() == expected.keys()
  for name, values in expected.items():
    np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert values.std() > 0.01, name


def test_stages_call_every_device_and_have_the_results_of_one(made, tmp_path, monkeypatch):
  """Eight clips on eight devices: the three coarse networks run once on each."""
  devices, found = jax.local_devices(), {}
  dense_stages.make_workdir(tmp_path / "run", COARSE)
  for number in (8, 1):
    shutil.copytree(tmp_path / "run", tmp_path / str(number))
    with monkeypatch.context() as patch:
      patch.setattr(jax, "local_devices", lambda number=number: devices[:number])
      launched = tiny.count_devices(patch)
      run = make_run(tmp_path / str(number), open_records(made), tiny.CONFIG)
      set_table(run, "tag_heard", np.ones(run.data.records.total_frames, np.uint8))
      finish(run, "tag_heard")
      find_boxes(run)
    finish(run, "scam_coarse")
    found[number] = dense_stages.results(run)
    assert launched == dict.fromkeys(devices[:number], len(COARSE) * 8 // number)
  np.testing.assert_array_equal(found[8]["scam_coarse"], found[1]["scam_coarse"])
  assert found[1]["scam_coarse"].std() > 0.01


def test_clips_of_a_stopped_run_are_kept_in_another_number_of_processes(made, tmp_path, monkeypatch):
  """Three processes share the clips, one after the other here. A run of two is stopped, and three do the rest."""
  records, computed = open_records(made), []
  monkeypatch.setattr(clip_by_clip.multihost_utils, "sync_global_devices", lambda name: None)
  monkeypatch.setattr(clip_by_clip.multihost_utils, "reached_preemption_sync_point", lambda number: False)

  def start(index, count, fail_at=None):
    """Runs one process; process 0 has to come last, since it puts the table together."""
    run = make_run(tmp_path / "run", records, tiny.CONFIG)

    def compute(clip, trained):
      if clip == fail_at:
        raise KeyboardInterrupt
      computed.append((index, clip))
      return np.full(int(records.num_frames[clip]), clip, np.uint8)

    with monkeypatch.context() as patch:
      patch.setattr(jax, "process_index", lambda: index)
      patch.setattr(jax, "process_count", lambda: count)
      patch.setattr(jax, "local_devices", lambda: [jax.devices()[0]])
      try:
        return make_table(run, "table", compute, "a table", {"made": "here"})
      except KeyboardInterrupt:
        return None
      except Exception as error:  # the table is not there before process 0 has written it
        assert index != 0, error

  start(1, 2, fail_at=5)
  assert computed == [(1, 1), (1, 3)]
  for index in (2, 1, 0):
    values = start(index, 3)
  assert sorted(clip for _, clip in computed) == list(range(8))
  assert [each for each in computed[2:] if each[1] % 3 != each[0]] == []
  np.testing.assert_array_equal(values, records.clip_of_frame)


def test_sigterm_ends_a_stage_of_several_processes_between_two_clips(made, tmp_path, monkeypatch):
  """JAX names a number that all have yet to reach, and they must have asked equally often before they go on."""
  records, asked, computed = open_records(made), [], []
  monkeypatch.setattr(clip_by_clip.multihost_utils, "sync_global_devices", lambda name: None)
  monkeypatch.setattr(jax, "process_count", lambda: 3)
  monkeypatch.setattr(jax, "local_devices", lambda: [jax.devices()[0]])

  def start(index, stops_after=None):
    def reached(number):
      asked.append(number)
      return len(asked) == stops_after

    def compute(clip, trained):
      computed.append(clip)
      return np.zeros(int(records.num_frames[clip]), np.uint8)

    for part in (asked, computed):
      part.clear()
    monkeypatch.setattr(signals, "_is_agreed", False)
    monkeypatch.setattr(clip_by_clip.multihost_utils, "reached_preemption_sync_point", reached)
    monkeypatch.setattr(jax, "process_index", lambda: index)
    run = make_run(tmp_path / "run", records, tiny.CONFIG)
    make_table(run, "table", compute, "a table", {"made": "here"})

  with pytest.raises(Stopped, match=r"^a table: stopped between two clips"):
    start(1, stops_after=1)
  assert computed == [1]
  for index, clips in ((1, [4, 7]), (2, [2, 5]), (0, [0, 3, 6])):  # three clips, and two of eight for the last one
    with contextlib.suppress(OSError, ValueError):  # the table is not there before process 0 has written it
      start(index)
    assert computed == clips and len(asked) == 3


def run_processes(folder, processes, devices, die_after=None):
  """Runs all dense stages in processes of some devices each; one may kill itself. Returns what they print."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
  if processes > 1:
    environment |= {"JAX_NUM_PROCESSES": str(processes), "JAX_COORDINATOR_ADDRESS": address}
  started = []
  for index in range(processes):
    own = {**environment, "JAX_PROCESS_ID": str(index)}
    if index == processes - 1 and die_after is not None:
      own["DIE_AFTER"] = str(die_after)
    command = [sys.executable, str(PROGRAM), str(folder)]
    started.append(subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
  if die_after is not None:
    assert started[-1].wait(600) == -signal.SIGKILL
    for process in started[:-1]:
      process.kill()
    for process in started:
      process.communicate()
    return []
  ended = [process.communicate(timeout=900) for process in started]
  assert all(process.returncode == 0 for process in started), ended
  return [out.splitlines()[-1] for out, _ in ended]


@pytest.mark.slow
def test_pseudo_fixations_are_the_same_in_any_number_of_processes(made, tmp_path):
  """One process with one device and with eight, two with one and with two; and a killed run that is gone on with."""
  dense_stages.make_workdir(made / "run")
  found = {}
  for processes, devices in ((1, 1), (1, 8), (2, 1), (2, 2)):
    folder = tmp_path / f"{processes}x{devices}"
    shutil.copytree(made, folder)
    printed = run_processes(folder, processes, devices)
    assert [line.count("cpu:") for line in printed] == [devices] * processes
    found[folder.name] = dense_stages.results(make_run(folder / "run", open_records(folder), tiny.CONFIG))
  shutil.copytree(made, tmp_path / "killed")
  run_processes(tmp_path / "killed", 2, 2, die_after=14)  # in the last stage
  run_processes(tmp_path / "killed", 1, 3)
  run = make_run(tmp_path / "killed" / "run", open_records(tmp_path / "killed"), tiny.CONFIG)
  found["killed"] = dense_stages.results(run)
  for name in found:
    assert_equal(found[name], found["1x1"])
