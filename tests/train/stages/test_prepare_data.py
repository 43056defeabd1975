"""Clips that cannot be learned from are refused in one line."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.fake_records import CATEGORIES, fake_clips, fake_records, stage
from helpers.runs import make_run

pytest.importorskip("tensorflow")

from stajax.config import Config, ConfigError, Data
from stajax.data.shards import RecordError, ShardReader
from stajax.prepare.assembly import assemble
from stajax.train.run import open_run
from stajax.train.stages.prepare_data import prepare_data
from stajax.train.training_data import assign_folds


def test_too_little_sound_is_one_line(tmp_path):
  def prepare(has_sound):
    rates, has_sound = np.full(6, 8.0), np.array(has_sound, bool)
    records = SimpleNamespace(
      path="data",
      tags=np.eye(6),
      rate=rates,
      has_sound=has_sound,
      num_clips=6,
      total_frames=43,
      provenance="test",
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


def write(path, categories=CATEGORIES, **changes):
  clips = [replace(clip, **changes) for clip in fake_clips()]
  assemble(*stage(path.parent.parent / "staging", clips), path, categories, {})


@pytest.mark.parametrize("categories", [(), CATEGORIES])
def test_clips_without_tags_are_one_line(tmp_path, categories):
  """Such are those of an eye-tracking tree."""
  write(tmp_path / "data" / "train", categories, tags=())
  run = open_run(Config(name="a", data=Data(path=str(tmp_path / "data"))), tmp_path / "run")
  with pytest.raises(RecordError, match="train: none of the 4 clips has a tag, expected clips with tags") as error:
    prepare_data(run)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["heldout", None])
def test_a_folder_without_training_clips_is_one_line(tmp_path, part):
  (tmp_path / "data").mkdir()
  if part:
    write(tmp_path / "data" / part)
  run = open_run(Config(name="a", data=Data(path=str(tmp_path / "data"))), tmp_path / "run")
  found = f"found only {part}" if part else "found no prepared clips"
  with pytest.raises(RecordError, match=f"train: no clips to learn from; {found}, expected") as error:
    prepare_data(run)
  assert "\n" not in str(error.value)


def test_a_set_of_no_clips_is_one_line(tmp_path, monkeypatch):
  write(tmp_path / "data" / "train")
  monkeypatch.setattr(ShardReader, "__len__", lambda _: 0)
  run = open_run(Config(name="a", data=Data(path=str(tmp_path / "data"))), tmp_path / "run")
  with pytest.raises(RecordError, match="train: has no clips"):
    prepare_data(run)
