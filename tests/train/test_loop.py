"""The training loop, with batches from memory: resuming, logging, and stopping at a NaN."""

import os
import shutil
import signal
import sys
import types

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from helpers.small_network import SIZE, Small, make_batch, sgd, start
from stajax.report.log_lines import read_log
from stajax.signals import Terminated, ended_by_sigterm
from stajax.train import checkpoint, loop, step


class Crash(Exception):
  pass


def train(
  folder,
  steps=7,
  spoil=lambda number, batch: batch,
  asked=None,
  checkpoint_every=2,
  log_every=1,
  wrap=lambda step: step,
):
  network, update, mesh = Small(), sgd(), step.make_mesh()

  def batches(first, last):
    if asked is not None:
      asked.append((first, last))
    numbered = ((number, make_batch(number)) for number in range(first + 1, last + 1))
    return (batch if spoil is None else spoil(number, batch) for number, batch in numbered)

  job = loop.Job("small", folder, steps, 16, checkpoint_every, log_every)
  train_step = step.make_train_step(network, step.classification_loss(SIZE), update, mesh)
  clip_names = [f"clip {letter}" for letter in "abcdefghijklmnop"]
  return loop.train(job, start(network, mesh, update), wrap(train_step), batches, clip_names, mesh)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
  pytest.importorskip("tensorflow")  # writes the event files
  folder = tmp_path_factory.mktemp("uninterrupted")
  return folder, jax.device_get(train(folder))


def losses_of(folder):
  return [(line["step"], line["loss"], line["accuracy"]) for line in read_log(folder / "log.jsonl")]


def test_resuming_is_exact(uninterrupted, tmp_path):
  def crash(number, batch):
    if number == 6:
      raise Crash
    return batch

  with pytest.raises(Crash):
    train(tmp_path, spoil=crash)
  assert [line[0] for line in losses_of(tmp_path)] == [1, 2, 3, 4, 5]  # step 5 was done, but not saved
  with open(tmp_path / "log.jsonl", "a") as file:
    file.write('\0\0\0\n7\n{"step": 6, "lo')  # what a power failure and a killed process left
  asked = []
  state = jax.device_get(train(tmp_path, asked=asked))
  assert asked == [(4, 7)]
  jax.tree.map(np.testing.assert_array_equal, state, uninterrupted[1])
  assert losses_of(tmp_path) == losses_of(uninterrupted[0])
  assert [line[0] for line in losses_of(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]


def test_a_finished_training_is_not_repeated(uninterrupted):
  folder, state = uninterrupted
  asked = []
  again = jax.device_get(train(folder, asked=asked))
  assert not asked
  jax.tree.map(np.testing.assert_array_equal, again, state)
  assert list((folder / "tensorboard").iterdir())


@pytest.mark.parametrize("comes", ["before the last step", "while it is saved"])
def test_a_signal_at_the_last_step_ends_the_command(uninterrupted, tmp_path, monkeypatch, comes):
  """What comes after a network may take hours, and does not ask whether to go on."""

  def end(number, batch):
    if comes == "before the last step" and number == 7:
      os.kill(os.getpid(), signal.SIGTERM)
    return batch

  def save(name, step, *rest):
    real(name, step, *rest)
    if comes == "while it is saved" and step == 7:
      os.kill(os.getpid(), signal.SIGTERM)

  real = loop._save
  monkeypatch.setattr(loop, "_save", save)
  with ended_by_sigterm(), pytest.raises((loop.Stopped, Terminated)):
    train(tmp_path, spoil=end)
  asked = []
  again = jax.device_get(train(tmp_path, asked=asked))
  assert not asked
  jax.tree.map(np.testing.assert_array_equal, again, uninterrupted[1])


def test_log_lines_are_means(uninterrupted, tmp_path):
  train(tmp_path, log_every=3, checkpoint_every=6)
  each = np.array(losses_of(uninterrupted[0]))
  expected = [[6 if i else 3, *each[3 * i : 3 * i + 3, 1:].mean(axis=0)] for i in range(2)] + [each[6].tolist()]
  np.testing.assert_allclose(losses_of(tmp_path), expected, rtol=1e-5)


def test_a_nan_stops_the_training_with_stage_step_and_clips(uninterrupted, tmp_path):
  def spoil(number, batch):
    return {**batch, "tags": np.where(number == 4, np.nan, batch["tags"]).astype(np.float32),
            "clip": np.where(batch["clip"] % 2, 5, batch["clip"] % 4)}  # fmt: skip

  with pytest.raises(loop.TrainingError, match=r"^stage small: .* nan at step 4; clips: clip a, clip c, clip f$"):
    train(tmp_path, spoil=spoil, log_every=3, checkpoint_every=3)
  asked = []
  state = jax.device_get(train(tmp_path, asked=asked))  # the last good state was kept
  assert asked == [(3, 7)]
  jax.tree.map(np.testing.assert_array_equal, state, uninterrupted[1])


def test_another_environment_is_reported(uninterrupted, tmp_path, capsys, monkeypatch):
  train(tmp_path, steps=2)
  capsys.readouterr()
  real = checkpoint.environment()
  monkeypatch.setattr(checkpoint, "environment", lambda: {**real, "jax": "99.1", "cores": "3"})
  train(tmp_path, steps=2)
  lines = [line for line in capsys.readouterr().out.splitlines() if "resumes with" in line]
  assert [line.split(",")[0] for line in lines] == ["small: resumes with jax '99.1'", "small: resumes with cores '3'"]
  assert repr(real["jax"]) in lines[0] and "may differ" in lines[0]
  assert {"jax", "jaxlib", "xla_flags", "devices", "processor", "cores"} <= set(real)


class SpoiledStep:
  """A training step after which one number of the state is infinite, while the loss is not."""

  def __init__(self, train_step, at):
    self.train_step, self.at = train_step, at

  def lower(self, *arguments):
    compiled = self.train_step.lower(*arguments).compile()

    def call(state, batch):
      state, metrics = compiled(state, batch)
      if state.step == self.at:
        bias = state.params["classify"]["bias"]
        state.params["classify"]["bias"] = jax.device_put(bias.at[1].set(np.inf), bias.sharding)
      return state, metrics

    return types.SimpleNamespace(compile=lambda: call)


def test_a_state_that_is_not_finite_is_not_saved(tmp_path):
  with pytest.raises(loop.TrainingError) as error:
    train(tmp_path, wrap=lambda train_step: SpoiledStep(train_step, at=4))
  expected = "stage small: params['classify']['bias'] is not finite after step 4, which is not saved"
  assert str(error.value) == expected
  assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2"]


def damage(path, how):
  content = bytearray(path.read_bytes())
  if how == "flip":
    content[len(content) // 2] ^= 1
  path.write_bytes(b"" if how == "empty" else content[: len(content) // 2] if how == "cut" else content)


@pytest.mark.parametrize("how", ["flip", "cut", "empty"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(uninterrupted, tmp_path, capsys, how):
  """Every file of the last checkpoint is damaged in turn: either it does not matter, or it is said."""
  kept = uninterrupted[0] / "checkpoints"
  files = [path.relative_to(kept) for path in sorted((kept / "7").rglob("*")) if path.is_file()]
  update, mesh = sgd(), step.make_mesh()
  begun, num_said = start(Small(), mesh, update), 0
  for number, file in enumerate(files):
    folder = tmp_path / str(number)
    shutil.copytree(kept, folder)
    damage(folder / file, how)
    with checkpoint.Checkpoints(folder) as checkpoints:
      state, written_by, faults = checkpoints.restore(begun)
      assert written_by["jax"] == jax.__version__
      if not faults:
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), uninterrupted[1])
        continue
      num_said += 1
      assert int(state.step) == 6 and len(faults) == 1 and "checkpoint of step 7 cannot be used" in faults[0]
      assert "\n" not in faults[0] and (folder / "unreadable-7").is_dir()
      checkpoints.save(7, state)  # so that training goes on
  assert num_said >= 3


def test_a_failed_save_says_nothing_after_its_error(tmp_path, monkeypatch):
  """Arrays that are still being written report to a closed event loop; other errors are shown as before."""
  shown = []
  monkeypatch.setattr(sys, "unraisablehook", shown.append)
  errors = [RuntimeError("Event loop is closed"), RuntimeError("another")]
  lost = [types.SimpleNamespace(exc_type=type(error), exc_value=error) for error in errors]
  for _ in range(2):
    with checkpoint.Checkpoints(tmp_path):
      for one in lost:
        sys.unraisablehook(one)
  assert shown == [lost[1], lost[1]]


def test_without_a_readable_checkpoint_training_begins_again(uninterrupted, tmp_path, capsys):
  shutil.copytree(uninterrupted[0] / "checkpoints", tmp_path / "checkpoints")
  for path in (tmp_path / "checkpoints").rglob("*"):
    if path.is_file():
      damage(path, "cut")
  state = jax.device_get(train(tmp_path))
  jax.tree.map(np.testing.assert_array_equal, state, uninterrupted[1])
  lines = [line for line in capsys.readouterr().out.splitlines() if "cannot be used" in line]
  assert len(lines) == 2 and all(line.endswith("goes on from the beginning") for line in lines)


def test_saving_does_not_ask_whether_processes_have_to_end(tmp_path, monkeypatch):
  """JAX would agree on a number after this network's step, which the questions of `signals` may have passed."""
  asked = []
  monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda number: asked.append(number) or False)
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    for number in (1, 2):
      checkpoints.save(number, {"x": np.ones(3, np.float32)})
  assert asked == [] and sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit())[-1] == "2"
