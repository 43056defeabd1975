"""Validation clips: which ones are chosen, that no network learns from them, and their metrics."""

import jax
import numpy as np
import pytest

from helpers.fake_records import fake_records
from helpers.runs import finish, make_run
from helpers.tiny import CONFIG

pytest.importorskip("tensorflow")

from stajax import networks
from stajax.config import Training
from stajax.data import batches
from stajax.train import train_network, validation


@pytest.mark.parametrize("share", [0.1, 0.34, 0.5, 0.9])
def test_a_part_of_every_tag_and_never_all_of_it(share):
  rng = np.random.default_rng(0)
  for seed in range(30):
    tags = rng.random((20, 5)) < 0.25  # several tags, none, and tags of one clip or of none
    chosen = validation.choose_clips(tags, share, seed)
    np.testing.assert_array_equal(chosen, validation.choose_clips(tags, share, seed))
    assert not chosen[~tags.any(axis=1)].any()
    for has in tags.T:
      assert not has.any() or (has & ~chosen).any()
  single = np.eye(4, dtype=int)[np.arange(12) % 4]
  counts = single[validation.choose_clips(single, share, 1)].sum(axis=0)
  np.testing.assert_array_equal(counts, min(max(1, round(3 * share)), 2))
  assert not validation.choose_clips(single, 0, 1).any()


SHARE = 0.34


@pytest.fixture
def open_run(tmp_path):
  """A function that returns a run with a share of the clips for validation."""
  records, training = fake_records(tmp_path / "train", number=6), Training(steps=2, batch=8, size=32)

  def make(share):
    data = CONFIG.data.model_copy(update={"left_out": share})
    config = CONFIG.model_copy(update={"s_coarse": training, "s_plus": training, "data": data})
    return make_run(tmp_path, records, config)

  return make


@pytest.mark.parametrize("name", ["s_coarse", pytest.param("s_plus_cross", marks=pytest.mark.slow)])
def test_networks_see_them_only_to_be_evaluated(open_run, monkeypatch, name):
  seen, inner = [], batches.make_batches

  def spy(*arguments, **keywords):
    for batch in inner(*arguments, **keywords):
      seen.append(batch["clip"])
      yield batch

  monkeypatch.setattr(batches, "make_batches", spy)
  run = open_run(SHARE)
  is_validation = validation.choose_clips(run.data.records.tags, SHARE, run.config.seed)
  about = train_network.train(name, run)
  assert about["left_out"]["clips"] == is_validation.sum() > 0
  assert not is_validation[np.concatenate(seen[:2])].any(), "no target and no companion is learned from"
  targets = np.concatenate(seen[2:])[:, 0]
  assert is_validation[targets].all() and set(targets) == set(np.flatnonzero(is_validation))


def test_their_metrics_are_what_inference_finds(open_run):
  run = open_run(SHARE)
  records, done = run.data.records, train_network.train("s_coarse", run)
  finish(run, "s_coarse", **done)
  about = done["left_out"]
  frames, losses = [], []
  for clip in np.flatnonzero(run.data.is_validation):
    confidences = run.trained.dense("s_coarse").run(run.data.clip(clip), (0,)).confidences.astype(np.float64)
    tags = records.tags[clip] > 0
    frames.append(tags[confidences.argmax(axis=1)])
    losses.append(-np.where(tags, np.log(confidences), np.log(1 - confidences)).mean(axis=1))
  found = np.concatenate(frames)
  # The last batch may have some frames once more.
  repeated = -len(found) % 8
  assert abs(about["accuracy"] - found.mean()) <= repeated / len(found)
  assert about["loss"] == pytest.approx(np.concatenate(losses).mean(), rel=0.02)
  assert set(about) == {"clips", "loss", "accuracy"} and jax.process_count() == 1


def test_without_any_nothing_is_said(open_run):
  run = open_run(0.0)
  assert "left_out" not in train_network.train("s_coarse", run)
  assert networks.training_of("s_coarse", run.config).steps == 2
