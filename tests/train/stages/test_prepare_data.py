"""Clips that cannot be learned from are refused in one line."""

from types import SimpleNamespace

import numpy as np
import pytest

from helpers.fake_records import fake_records
from helpers.runs import make_run

pytest.importorskip("tensorflow")

from stajax.config import ConfigError
from stajax.data.shards import RecordError
from stajax.train.stages.prepare_data import prepare_data
from stajax.train.training_data import assign_folds


def test_too_little_sound_is_one_line(tmp_path):
  def prepare(has_sound):
    rates, has_sound = np.full(6, 8.0), np.array(has_sound, bool)
    records = SimpleNamespace(
      path="data", rate=rates, has_sound=has_sound, num_clips=6, total_frames=43, provenance="test"
    )
    return prepare_data(make_run(tmp_path, records))

  fold = assign_folds(6, 0)
  for has_sound in (np.zeros(6), fold == 1):
    with pytest.raises(RecordError, match=rf"data: {int(np.sum(has_sound))} of 6 clips have sound, too few"):
      prepare(has_sound)
  assert prepare(fold != 1)["clips"] == 6


def test_another_rate_is_one_line(tmp_path):
  run = make_run(tmp_path, fake_records(tmp_path / "train", number=6))
  with pytest.raises(ConfigError, match=r"clips have .* frames a second, data\.rate is 8\.0"):
    prepare_data(run)
