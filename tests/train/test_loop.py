"""The training loop, with batches from memory: resuming, logging, and stopping at a NaN."""

import jax
import numpy as np
import pytest

from helpers.small_network import SIZE, Small, make_batch, sgd, start
from stajax.train import checkpoint, logs, loop, step


class Crash(Exception):
  pass


def train(folder, steps=7, spoil=lambda number, batch: batch, asked=None, checkpoint_every=2, log_every=1):
  network, update, mesh = Small(), sgd(), step.make_mesh()

  def batches(first, last):
    if asked is not None:
      asked.append((first, last))
    return (spoil(number, make_batch(number)) for number in range(first + 1, last + 1))

  job = loop.Job("small", folder, steps, 16, checkpoint_every, log_every)
  train_step = step.make_train_step(network, step.classification_loss(SIZE), update, mesh)
  clip_names = [f"clip {letter}" for letter in "abcdefghijklmnop"]
  return loop.train(job, start(network, mesh, update), train_step, batches, clip_names, mesh)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
  pytest.importorskip("tensorflow")  # writes the event files
  folder = tmp_path_factory.mktemp("uninterrupted")
  return folder, jax.device_get(train(folder))


def losses_of(folder):
  return [(line["step"], line["loss"], line["accuracy"]) for line in logs.read_log(folder / "log.jsonl")]


def test_resuming_is_exact(uninterrupted, tmp_path):
  def crash(number, batch):
    if number == 6:
      raise Crash
    return batch

  with pytest.raises(Crash):
    train(tmp_path, spoil=crash)
  assert [line[0] for line in losses_of(tmp_path)] == [1, 2, 3, 4, 5]  # step 5 was done, but not saved
  with open(tmp_path / "log.jsonl", "a") as file:
    file.write('{"step": 6, "lo')  # a line that a killed process left
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
