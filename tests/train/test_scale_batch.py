"""Larger batches: the linear rule with a warm-up, and as many examples as before."""

import pytest

from helpers.paths import CONFIGS
from stajax import config as configuration
from stajax.config import Config, ConfigError, Optimizer, Training
from stajax.train.optimizer import make_schedule
from stajax.train.scale_batch import scale_batches

NETWORKS = [name for name, field in Config.model_fields.items() if field.annotation is Training]


@pytest.mark.parametrize("name", ["ave", "vggsound"])
def test_the_paper_on_eight_devices(name):
  """All batches become multiples of eight, and every network sees as many examples at eight times the rate."""
  config = configuration.load(CONFIGS / f"{name}.py")
  scaled = scale_batches(config, 8)
  for field in NETWORKS:
    old, new = getattr(config, field), getattr(scaled, field)
    assert new.batch == 8 * old.batch and 0 <= new.batch * new.steps - old.batch * old.steps < new.batch
    rate = make_schedule(new.optimizer.learning_rate, new.steps, new.optimizer.warmup, new.optimizer.schedule)
    assert rate(0) == 0 and rate(new.steps) == pytest.approx(8 * old.optimizer.learning_rate)
    assert rate(new.steps // 40) == pytest.approx(4 * old.optimizer.learning_rate, rel=0.02)  # half of the warm-up
  changed = {line.split(":")[0].partition(".")[2] for line in configuration.differences(config, scaled)}
  assert changed == {"batch", "steps", "optimizer.learning_rate", "optimizer.warmup"}


def test_adam_follows_the_square_root_and_1_changes_nothing():
  config = Config(name="a", s=Training(optimizer=Optimizer(name="adam", learning_rate=1e-3, warmup=900)))
  assert scale_batches(config, 4).s.optimizer.learning_rate == pytest.approx(2e-3)
  assert scale_batches(config, 1) is config
  with pytest.raises(ConfigError, match="--scale-batch 0: expected at least 1"):
    scale_batches(config, 0)
