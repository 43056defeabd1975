"""Off-the-shelf taggers: the labels that they and the table give, and what is refused."""

import dataclasses
import functools
import json

import numpy as np
import pytest

from helpers import by_hand
from helpers.fake_records import NUM_FRAMES, fake_records
from helpers.random_variables import randomise
from helpers.runs import TRAINED, finish, make_run, train_all

pytest.importorskip("tensorflow")

from stajax import networks
from stajax.config import Config, ConfigError, Data, Hearing, Students
from stajax.data import class_scores
from stajax.data.class_scores import ClassScores
from stajax.data.shards import RecordError
from stajax.files import write_json
from stajax.nets.base import NetworkSizes
from stajax.nets.tagger import Tagger
from stajax.plan import per_network
from stajax.train import external_taggers
from stajax.train.network_batches import find_training_set
from stajax.train.stages.audio_switch import heard_tags, label_sounds
from stajax.train.stages.graph import make_graph
from stajax.train.stages.write_report import collect_facts
from stajax.train.training_data import UNLABELLED
from stajax.weights import store

CLASSES = ("Bell", "Church bell", "Drums", "Music", "Silence")


def test_scores_of_a_tags_classes_are_joined():
  scores = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.0, 0.25, 0.0]], np.float32)
  members = [np.array([0, 2]), np.array([], int), np.array([3])]
  sums, maxima = (external_taggers.confidences_in_tags(scores, members, combine) for combine in (np.add, np.maximum))
  np.testing.assert_allclose(sums, [[0.4, 0, 0.4], [0.75, 0, 0]], rtol=1e-6)
  np.testing.assert_allclose(maxima, [[0.3, 0, 0.4], [0.5, 0, 0]], rtol=1e-6)
  assert sums.dtype == np.float32


@pytest.fixture(scope="module")
def records(tmp_path_factory):
  """Six clips; the third has no sound, the fourth no tag; beside them the scores of a tagger with five classes."""
  records = fake_records(tmp_path_factory.mktemp("records") / "train", number=6)
  folder = records.path / class_scores.FOLDER
  folder.mkdir()
  scores = np.full((records.total_frames, len(CLASSES)), 0.1, np.float16)
  scores[:, 2] = 0.2  # drums everywhere
  frames = np.arange(records.total_frames)
  scores[frames % 2 == 0, 1] = 0.5  # church bells in every second frame
  scores[frames % 3 == 0, 4] = 0.75  # silence in every third
  np.save(folder / "scores.npy", scores)
  (folder / "classes.txt").write_text("\n".join(CLASSES))
  write_json(folder / "summary.json", {"sha256": "0", "clips": dict(zip(records.names, NUM_FRAMES))})
  return records


def open_run(workdir, records, **hearing):
  hearing = Hearing(**{"kind": "yamnet", **hearing})
  return make_run(workdir, records, Config(name="a", data=Data(path=str(records.path)), hearing=hearing, **train_all()))


def test_labels_by_the_table_that_is_made_and_edited(tmp_path, records, capsys):
  run = open_run(tmp_path, records)
  external_taggers.check(run)
  table = tmp_path / "tags.csv"
  assert table.read_text() == "tag,class\nbell,Bell\ndrum,Drums\nhorn,\n,Silence\n"
  message = capsys.readouterr().err
  assert message.startswith(f"{table}: tags not covered: horn (1 of 6 clips have one;") and message.count("\n") == 1
  assert str(records.path / "class_scores" / "classes.txt") in message
  table.write_text("tag,class\nbell,Church bell\nhorn,\ndrum,Drums\n,Silence\n")
  done = label_sounds(run)
  frames = np.arange(records.total_frames)
  clip = records.clip_of_frame
  bell = (frames % 2 == 0) & (frames % 3 != 0)
  drum = (frames % 2 != 0) & (frames % 3 != 0)
  expected = np.where(records.tags[clip, 0] > 0, bell, False) | np.where(records.tags[clip, 1] > 0, drum, False)
  expected = np.where(clip == 1, UNLABELLED, np.where(clip == 2, 0, expected))
  np.testing.assert_array_equal(run.data.table("tag_heard"), expected)
  labelled = 5 + 3 + 20 + 2
  assert (done["frames"], done["tag_heard"], done["judged"]) == (43, np.sum(expected == 1), labelled)
  assert done["by_tag"]["drum"] == [np.sum(expected[(clip == 0) | (clip == 5)] == 1), 7]
  assert "horn" not in done["by_tag"]
  assert done["says"] == (
    f"yamnet: its tag is heard in {np.sum(expected == 1)} of {labelled} frames with sound; tags not covered: horn"
  )
  summary = json.loads((run.workdir.table("tag_heard") / "summary.json").read_text())
  assert summary["tagger"] == "yamnet" and summary["sha256"] == "0"
  external_taggers.check(run)
  table.write_text("tag,class\nbell,Bell\n")
  with pytest.raises(ConfigError, match=r"tags\.csv: has changed since .*; use another --workdir"):
    external_taggers.check(run)


@pytest.mark.parametrize(
  ("own", "expected"),
  [([0, 0, 0], [[0, 0, 0], [0, 1, 0], [0, 0, 0]]), ([1, 0, 0], [[1, 0, 0], [1, 1, 0], [0, 0, 0]])],
)
def test_a_class_of_several_tags_says_something_only_for_those_of_the_clip(own, expected):
  """Any animal may bark, for the clip of a dog; in other clips a bark is nobody's, and only a moo is a cow's."""
  members = [np.array([0]), np.array([0, 1]), np.array([], int), np.array([2])]  # dog, cow, horn; speech is no tag
  tagger = external_taggers.ExternalTagger(
    lambda clip, device: np.zeros((1, 3)), members, np.maximum, np.array([1, 1, 0]), np.ones(1), {}, "", ""
  )
  scores = np.float32([[0.9, 0.1, 0.2], [0.9, 0.5, 0.2], [0.3, 0.3, 0.9]])  # animal, moo, speech
  assert heard_tags(tagger, scores, np.array(own), 0.5).tolist() == expected


def test_tags_without_a_class_of_their_own_are_named(tmp_path, records, capsys):
  run = open_run(tmp_path, records, teaches=True)
  (tmp_path / "tags.csv").write_text("tag,class\nbell,Bell\nbell,Music\ndrum,Music\nhorn,\n")
  external_taggers.check(run)
  message = capsys.readouterr().err
  assert message.endswith(
    "tags that share all their classes with other tags, and so are heard only in clips that have them: drum\n"
  )


def test_a_tagger_that_teaches_says_which_tags_it_hears_in_every_clip(tmp_path, records, monkeypatch):
  """The network that only hears learns this, and the switch from it and the clips' tags."""
  run = open_run(tmp_path, records, teaches=True)
  (tmp_path / "tags.csv").write_text("tag,class\nbell,Church bell\nhorn,\ndrum,Drums\n,Silence\n")
  label_sounds(run)
  frames, clip = np.arange(records.total_frames), records.clip_of_frame
  has_sound = records.has_sound[clip]
  bell, drum = ((frames % 2 == rest) & (frames % 3 != 0) & has_sound for rest in (0, 1))
  heard = np.stack([bell, drum, np.zeros_like(bell)], axis=1)
  np.testing.assert_array_equal(run.data.table("heard_tags"), heard)
  taught = find_training_set("tagger_0", run)
  np.testing.assert_array_equal(taught.epoch, np.flatnonzero(has_sound))
  np.testing.assert_array_equal(taught.labels, heard)
  labels, switch = run.data.table("tag_heard"), find_training_set("switch", run)
  np.testing.assert_array_equal(switch.labels, np.concatenate([records.tags[clip], heard], axis=1))
  belongs = (records.tags[clip] * heard).max(axis=1)
  np.testing.assert_array_equal(belongs[switch.epoch], labels[switch.epoch])
  students = Students(learn_from="teacher", teacher="somewhere")
  distilled = dataclasses.replace(run, config=run.config.model_copy(update={"students": students}))
  monkeypatch.setattr(run.data, "pseudo_fixations", lambda maps: None)
  student = find_training_set("sta", distilled)
  np.testing.assert_array_equal(student.labels[:, 0], labels > 0)
  assert student.switch is None
  np.testing.assert_array_equal(run.data.switch, labels > 0)


def test_a_given_table_is_used_and_one_that_covers_no_clip_is_refused(tmp_path, records):
  given = tmp_path / "given.csv"
  given.write_text("tag,class\nhorn,Music\n")
  run = open_run(tmp_path / "run", records, mapping=str(given))
  assert (
    external_taggers.open_external_tagger(run).has_class.tolist() == [False, False, True]
    and not (tmp_path / "run").exists()
  )
  given.write_text("tag,class\n,Silence\n")
  with pytest.raises(ConfigError, match=r"given\.csv: tags not covered: bell, drum, horn .* Add rows tag,class to it"):
    external_taggers.open_external_tagger(run)


def test_scores_of_other_records_are_refused(tmp_path, records):
  with pytest.raises(RecordError, match=r"class_scores: no such folder; .*--tagger FILE"):
    ClassScores.open(tmp_path)
  found = ClassScores.open(records.path)
  assert found.clip_scores("clip 2", 12).shape == (12, 5) and found.clip_scores("clip 2", 12).dtype == np.float32
  for name, number in (("clip 2", 11), ("clip 9", 2)):
    with pytest.raises(RecordError, match="scores of other records"):
      found.clip_scores(name, number)
  folder = tmp_path / class_scores.FOLDER
  folder.mkdir()
  for name in ("classes.txt", "summary.json", "scores.npy"):
    (folder / name).write_bytes((records.path / class_scores.FOLDER / name).read_bytes())
  for name, content in (("scores.npy", b"x"), ("classes.txt", b"Bell\n"), ("summary.json", b"[]")):
    before = (folder / name).read_bytes()
    (folder / name).write_bytes(content)
    with pytest.raises(RecordError, match="class_scores: not the scores of a tagger"):
      ClassScores.open(tmp_path)
    (folder / name).write_bytes(before)
  ClassScores.open(tmp_path)


def test_plan_and_report_say_what_there_is(tmp_path, records, monkeypatch):
  run = open_run(tmp_path, records)
  monkeypatch.setattr(per_network, "_plan_network", lambda network, inputs: {})
  assert set(per_network.plan_networks(run.config, 3)) == set(TRAINED) - {"tagger"}
  numbers = ("clips", "frames", "frames_without_target", "mean_area", "whole_frames", "tag_heard", "unlabelled")
  done = dict.fromkeys((*numbers, "clips_alone_in_tag", "seconds", "provenance"), 1) | {"says": "yamnet: heard"}
  finish(run, *(stage.name for stage in make_graph(run.config)), **done)
  facts = collect_facts(run)
  assert facts["Sound tagger"] == "yamnet: heard" and "Stage switch" in facts and "Stage tagger_0" not in facts


def test_clips_that_were_left_out_as_damaged_are_not_missed(tmp_path, records):
  view = records.without({"clip 0": "damaged", "clip 4": "damaged"})
  run = open_run(tmp_path, view)
  tagger, whole = external_taggers.open_external_tagger(run), ClassScores.open(records.path)
  bells = whole.clip_scores("clip 2", NUM_FRAMES[2])[:, 0]
  np.testing.assert_array_equal(tagger.confidences(tagger.scores(view.names.index("clip 2"), None))[:, 0], bells)
  assert len(tagger.can_label) == 4


def test_vggsounds_head_gives_probabilities(tmp_path, records, monkeypatch):
  monkeypatch.setattr(external_taggers, "NUM_CATEGORIES", 4)
  monkeypatch.setattr(external_taggers, "NetworkSizes", functools.partial(NetworkSizes, audio_width=0.01))
  tagger = Tagger(num_categories=4, sizes=NetworkSizes(audio_width=0.01, audio_pooling="average"))
  variables = randomise(networks.expected_variables(tagger, 0), 3)
  monkeypatch.setattr(external_taggers, "_AVERAGE", len(variables["params"]["classify"]["kernel"]))
  store.save(tmp_path / "h.safetensors", variables)
  (tmp_path / "stat.csv").write_text('horn,3\n"playing bells, bell",9\ndrum,1\nan anvil,7\n')
  files = {"weights": str(tmp_path / "h.safetensors"), "classes": str(tmp_path / "stat.csv")}
  run = open_run(tmp_path, records, kind="vggsound", **files)
  tagger = external_taggers.open_external_tagger(run)
  assert (tmp_path / "tags.csv").read_text() == 'tag,class\nbell,"playing bells, bell"\ndrum,drum\nhorn,horn\n'
  sounds = np.stack([sound for _, sound in run.data.clip(5).samples])
  audio = by_hand.resnet({kind: variables[kind]["sound"] for kind in variables}, sounds)
  logits = audio @ variables["params"]["classify"]["kernel"] + variables["params"]["classify"]["bias"]
  expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  np.testing.assert_allclose(
    tagger.confidences(tagger.scores(5, None))[:, :3], expected[:, [3, 1, 2]], rtol=1e-3, atol=1e-5
  )
  (tmp_path / "stat.csv").write_text("horn,3\n")
  with pytest.raises(ConfigError, match=r"stat\.csv: 1 categories, expected VGGSound's 4"):
    external_taggers.open_external_tagger(run)
