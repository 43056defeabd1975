"""Clips that no network learns from: which, that none is learned from, and what is said of them."""

import jax
import numpy as np
import pytest

from helpers.fake_records import fake_records
from helpers.tiny import CONFIG

pytest.importorskip("tensorflow")

from stajax import networks
from stajax.config import Training
from stajax.data import batches
from stajax.train import train_network, validation
from stajax.train.workdir import Run


@pytest.mark.parametrize("share", [0.1, 0.34, 0.5, 0.9])
def test_a_part_of_every_tag_and_never_all_of_it(share):
  rng = np.random.default_rng(0)
  for seed in range(30):
    tags = rng.random((20, 5)) < 0.25  # several tags, none, and tags of one clip or of none
    chosen = validation.choose(tags, share, seed)
    np.testing.assert_array_equal(chosen, validation.choose(tags, share, seed))
    assert not chosen[~tags.any(axis=1)].any()
    for has in tags.T:
      assert not has.any() or (has & ~chosen).any()
  single = np.eye(4, dtype=int)[np.arange(12) % 4]
  counts = single[validation.choose(single, share, 1)].sum(axis=0)
  np.testing.assert_array_equal(counts, min(max(1, round(3 * share)), 2))
  assert not validation.choose(single, 0, 1).any()


@pytest.fixture
def run(tmp_path):
  training = Training(steps=2, batch=8, size=32)
  made = Run(CONFIG.model_copy(update={"s_coarse": training, "s_plus": training}), tmp_path)
  made.records = fake_records(tmp_path / "train", number=6)
  made.config = made.config.model_copy(update={"data": made.config.data.model_copy(update={"left_out": 0.34})})
  return made


def test_networks_see_them_only_to_be_judged(run, monkeypatch):
  seen, inner = [], batches.batches

  def spy(*arguments, **keywords):
    for batch in inner(*arguments, **keywords):
      seen.append(batch["clip"])
      yield batch

  monkeypatch.setattr(batches, "batches", spy)
  apart = validation.choose(run.records.tags, 0.34, run.config.seed)
  for name in ("s_coarse", "s_plus_cross"):
    seen.clear()
    about = train_network.train(name, run)
    assert about["left_out"]["clips"] == apart.sum() > 0
    assert not apart[np.concatenate(seen[:2])].any(), "no target and no companion is learned from"
    targets = np.concatenate(seen[2:])[:, 0]
    assert apart[targets].all() and set(targets) == set(np.flatnonzero(apart))


def test_what_is_said_of_them_is_what_inference_finds(run):
  about = train_network.train("s_coarse", run)["left_out"]
  frames, losses = [], []
  for clip in np.flatnonzero(validation.choose(run.records.tags, 0.34, run.config.seed)):
    confidences = run.dense("s_coarse").run(run.training_clip(clip), (0,)).confidences.astype(np.float64)
    tags = run.records.tags[clip] > 0
    frames.append(tags[confidences.argmax(axis=1)])
    losses.append(-np.where(tags, np.log(confidences), np.log(1 - confidences)).mean(axis=1))
  found = np.concatenate(frames)
  # The last batch may have some frames once more.
  repeated = -len(found) % 8
  assert abs(about["accuracy"] - found.mean()) <= repeated / len(found)
  assert about["loss"] == pytest.approx(np.concatenate(losses).mean(), rel=0.02)
  assert set(about) == {"clips", "loss", "accuracy"} and jax.process_count() == 1


def test_without_any_nothing_is_said(run):
  run.config = CONFIG.model_copy(update={"s_coarse": run.config.s_coarse})
  assert "left_out" not in train_network.train("s_coarse", run)
  assert networks.training_of("s_coarse", run.config).steps == 2
