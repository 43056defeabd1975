"""What each network learns from: the folds of the taggers, and the tables and maps that stages made."""

import numpy as np
import pytest

from helpers.fake_records import fake_records
from helpers.runs import make_run, set_table, train_all

pytest.importorskip("tensorflow")

from stajax import networks
from stajax.config import Config
from stajax.data.map_set import MapWriter
from stajax.networks import TAGGERS
from stajax.train.network_batches import find_training_set
from stajax.train.training_data import assign_folds


@pytest.fixture(scope="module")
def records(tmp_path_factory):
  """Six clips; the third has no sound, the fourth no tag and the second no other clip of its tag."""
  return fake_records(tmp_path_factory.mktemp("records") / "train", number=6)


def test_folds_are_thirds_of_the_clips():
  for clips in (3, 10, 400):
    sizes = np.bincount(assign_folds(clips, 0), minlength=3)
    assert sizes.sum() == clips and sizes.max() - sizes.min() <= 1
  assert (assign_folds(400, 0) == assign_folds(400, 0)).all()
  assert (assign_folds(400, 0) != assign_folds(400, 1)).any()


@pytest.mark.parametrize("tagger", TAGGERS)
def test_a_tagger_learns_from_the_other_folds(tmp_path, records, tagger):
  frames = find_training_set(tagger, make_run(tmp_path, records)).epoch
  fold = assign_folds(6, 0)
  expected = [clip for clip in range(6) if fold[clip] != TAGGERS.index(tagger) and records.has_sound[clip]]
  assert sorted(set(records.clip_of_frame[frames])) == expected
  assert len(frames) == len(set(frames)) == sum(records.num_frames[clip] for clip in expected)


def test_what_networks_learn_from(tmp_path, records):
  tables = {
    "tag_heard": (np.arange(43) % 3 == 0).astype(np.uint8),
    "boxes": np.tile(np.array([0, 0, 1, 1], np.float32), (43, 1)),
  }

  def learned(name, always_heard=False, **changes):
    run = make_run(tmp_path, records, Config(name="a", **train_all(), **changes))
    for table, values in tables.items():
      set_table(run, table, values)
    return find_training_set(name, run, always_heard)

  def found(name, **how):
    made = learned(name, **how)
    return {field for field in ("labels", "switch", "boxes", "maps") if getattr(made, field) is not None}

  switch = learned("switch")
  assert found("switch") == {"labels"}
  np.testing.assert_array_equal(switch.labels, tables["tag_heard"][:, None])
  assert switch.labels.dtype == np.float32
  np.testing.assert_array_equal(switch.epoch, np.flatnonzero(records.has_sound[records.clip_of_frame]))
  for name in ("s_coarse", "st_coarse", "s_plus_cross", "st_plus_short"):
    assert found(name) == set()
    np.testing.assert_array_equal(learned(name).epoch, np.arange(43))
  assert found("s") == found("st") == {"boxes"} and found("sa") == {"switch", "boxes"}
  maps = tmp_path / "maps" / "scam_plus"
  maps.parent.mkdir()
  writer = MapWriter(maps, records)
  for clip, count in enumerate(records.num_frames):
    writer.write(clip, np.zeros((count, 4, 4), np.uint8), np.full(count, clip != 4, np.float32))
  writer.finish({})
  for name in (*networks.STUDENTS, "students"):
    assert found(name) == {"switch", "maps"}
    np.testing.assert_array_equal(learned(name).epoch, np.flatnonzero(records.clip_of_frame != 4))
  for name in ("sa_coarse", "sa_plus_long", "sa_plus_cross"):
    assert found(name) == {"switch"} and found(name, always_heard=True) == set()
    np.testing.assert_array_equal(learned(name).switch, tables["tag_heard"] > 0)
  assert found("st_plus_short", plus_crops=True) == {"boxes"}
  assert found("sa_plus_long", plus_crops=True) == {"switch", "boxes"}
