"""The labels of the audio switch and its values: which tagger labels a clip, and what counts as heard."""

import json

import numpy as np
import pytest

from helpers.fake_records import fake_records
from helpers.runs import finish, make_run, set_table, train_all

pytest.importorskip("tensorflow")

from stajax.config import Config
from stajax.networks import SWITCH, TAGGERS
from stajax.train.network_batches import find_training_set
from stajax.train.stages import audio_switch
from stajax.train.training_data import UNLABELLED


@pytest.fixture(scope="module")
def records(tmp_path_factory):
  """Six clips; the third has no sound, the fourth no tag and the second no other clip of its tag."""
  return fake_records(tmp_path_factory.mktemp("records") / "train", number=6)


def test_every_clip_is_labelled_by_the_tagger_that_has_not_learned_from_it(tmp_path, records):
  labelled_by = {}

  def tagger(name):
    def confidences(clip):
      (found,) = [i for i in range(6) if np.array_equal(clip.samples[0][0], records.clip_frames(i)[0])]
      labelled_by[found] = name
      return np.eye(3)[np.arange(len(clip)) % 3] * 0.5 + 0.1

    return confidences

  run = make_run(tmp_path, records)
  run.trained.tagger = tagger
  finish(run, *TAGGERS)
  done = audio_switch.label_sounds(run)
  for clip, name in labelled_by.items():
    assert clip not in records.clip_of_frame[find_training_set(name, run).epoch]
  assert set(labelled_by) == {0, 1, 3, 4, 5}  # no tagger is asked about the clip without sound
  labels = run.data.table("tag_heard")
  expected = [
    clip != 2 and bool(records.tags[clip, frame % 3]) for clip in range(6) for frame in range(records.num_frames[clip])
  ]
  np.testing.assert_array_equal(labels, expected)
  assert done == {"frames": 43, "tag_heard": sum(expected), "unlabelled": 0} and labels.dtype == np.uint8
  summary = json.loads((run.workdir.table("tag_heard") / "summary.json").read_text())
  assert summary["sha256"] == {name: name for name in TAGGERS}
  labelled_by.clear()
  again = make_run(tmp_path, records)
  again.trained.tagger = tagger
  assert audio_switch.label_sounds(again) == done and not labelled_by  # as if killed before done.json was written


def test_a_tag_is_heard_where_it_is_the_loudest():
  confidences = np.array([[0.5, 0.4, 0.5], [0.0, 0.0, 0.0], [0.2, 0.3, 0.6]])
  for tags, share, expected in (([0], 1, [1, 0, 0]), ([1], 0.8, [1, 0, 0]), ([0, 1], 0.5, [1, 0, 1]), ([], 1, [0] * 3)):
    assert audio_switch.is_tag_heard(confidences, tags, share).tolist() == expected


def test_a_tag_that_sounds_much_like_the_top_one_is_heard(tmp_path, records):
  """With a share of 0.5 a tag needs half of the highest confidence; a clip without tags is never heard."""
  confidences = np.float32([0.8, 0.4, 0.39])
  for share, heard_tags in ((1.0, [0]), (0.5, [0, 1]), (0.48, [0, 1, 2])):
    run = make_run(tmp_path / str(share), records, Config(name="a", heard_share=share, **train_all()))
    run.trained.tagger = lambda name: lambda clip: np.tile(confidences, (len(clip), 1))
    finish(run, *TAGGERS)
    audio_switch.label_sounds(run)
    expected = records.tags[:, heard_tags].any(axis=1) & records.has_sound
    np.testing.assert_array_equal(run.data.table("tag_heard"), np.repeat(expected, records.num_frames))


def test_what_is_unlabelled_is_not_learned_from_and_is_heard(tmp_path, records):
  run = make_run(tmp_path, records)
  set_table(run, "tag_heard", np.where(records.clip_of_frame == 1, UNLABELLED, 0))
  learned = find_training_set(SWITCH, run)
  assert set(records.clip_of_frame[learned.epoch]) == {0, 3, 4, 5}
  assert set(learned.labels[learned.epoch, 0]) == {0}
  np.testing.assert_array_equal(run.data.switch, records.clip_of_frame == 1)
