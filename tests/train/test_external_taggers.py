"""Off-the-shelf taggers: tables of tags and classes, what is judged by them, and YAMNet on real sound."""

import csv
import json

import numpy as np
import pytest

from helpers.fake_records import CATEGORIES, NUM_FRAMES, fake_records
from helpers.paths import CONFIGS
from helpers.random_variables import randomise

pytest.importorskip("tensorflow")

from helpers import by_hand
from stajax import networks
from stajax.config import Config, ConfigError, Data, Hearing, Training
from stajax.data import class_scores
from stajax.data.class_scores import ClassScores
from stajax.data.shards import RecordError
from stajax.files import write_json
from stajax.nets.tagger import Tagger
from stajax.plan import __main__ as plan
from stajax.prepare.layouts import ave
from stajax.train import external_taggers, report, stages, train_network
from stajax.train.train_network import Variant
from stajax.train.workdir import NOT_JUDGED, Run
from stajax.weights import store

CLASSES = ("Bell", "Church bell", "Drums", "Music", "Silence")
TRAINED = [name for name, info in Config.model_fields.items() if info.annotation is Training]
TABLES = CONFIGS / "tags"


# Tables.


def test_guesses_are_classes_of_the_same_name():
  classes = ("Violin, fiddle", "Frying (food)", "Dog", "Canidae, dogs, wolves", "Drum kit", "Glass", "Silence")
  tags = ("Violins", "fiddle", "frying_food", "frying", "dog", "DRUM-KIT", "drum", "glas")
  assert external_taggers.guess(tags, classes) == [
    ("Violins", "Violin, fiddle"),
    ("fiddle", "Violin, fiddle"),
    ("frying_food", "Frying (food)"),
    ("frying", "Frying (food)"),
    ("dog", "Dog"),
    ("dog", "Canidae, dogs, wolves"),
    ("DRUM-KIT", "Drum kit"),
    ("drum", ""),
    ("glas", ""),
    ("", "Silence"),
  ]
  assert external_taggers.guess(("silence", "a"), ("a", "Silence")) == [("silence", "Silence"), ("a", "a")]


def test_a_table_is_read_as_it_is_written(tmp_path):
  path, tags = tmp_path / "folder" / "tags.csv", ("a, b", 'say "c"', "ü")
  classes = ("one, two", "three", "four")
  external_taggers.write_table(
    path, [("a, b", "one, two"), ("a, b", "four"), ('say "c"', ""), ("ü", "four"), ("", "three")]
  )
  members, text = external_taggers.read_table(path, tags, classes)
  assert [member.tolist() for member in members] == [[0, 2], [], [2], [1]]
  assert text == path.read_text() and text.startswith('tag,class\n"a, b","one, two"\n')
  path.write_bytes(b"\xef\xbb\xbftag, class\r\n\r\n  " + 'ü ,"one, two"\r\n\r\n'.encode())  # of a spreadsheet
  assert [member.tolist() for member in external_taggers.read_table(path, tags, classes)[0]] == [[], [], [0], []]


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", ": is empty, expected tag,class"),
    ("bell,Bell\n", ", line 1: found 'bell,Bell', expected tag,class"),
    ("tag,class\nbell,Bell\nbel,Bell\n", ", line 3: 'bel' is not a tag of the clips, the nearest is 'bell'"),
    ("tag,class\nbell,bells\n", ", line 2: 'bells' is not a class of the tagger, the nearest is 'Bell'"),
    (
      "tag,class\nbell,Violin, fiddle\n",
      ", line 2: found 3 columns, expected tag,class; a name with a comma is put in",
    ),
    ("tag,class\nbell\n", ", line 2: found 1 columns"),
    ("tag,class\nbell,\xff\n", ": cannot be read as text"),
    (None, ": cannot be read as text"),
  ],
)
def test_a_wrong_row_is_one_line(tmp_path, text, message):
  path = tmp_path / "tags.csv"
  if text is not None:
    path.write_bytes(text.encode("latin-1"))
  with pytest.raises(ConfigError) as error:
    external_taggers.read_table(path, CATEGORIES, CLASSES)
  assert str(error.value).startswith(f"{path}{message}") and "\n" not in str(error.value)


def test_scores_of_a_tags_classes_are_joined():
  scores = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.0, 0.25, 0.0]], np.float32)
  members = [np.array([0, 2]), np.array([], int), np.array([3])]
  sums, maxima = (external_taggers.in_tags(scores, members, combine) for combine in (np.add, np.maximum))
  np.testing.assert_allclose(sums, [[0.4, 0, 0.4], [0.75, 0, 0]], rtol=1e-6)
  np.testing.assert_allclose(maxima, [[0.3, 0, 0.4], [0.5, 0, 0]], rtol=1e-6)
  assert sums.dtype == np.float32


def test_a_tag_is_heard_where_it_is_the_loudest():
  confidences = np.array([[0.5, 0.4, 0.5], [0.0, 0.0, 0.0], [0.2, 0.3, 0.6]])
  for tags, share, expected in (([0], 1, [1, 0, 0]), ([1], 0.8, [1, 0, 0]), ([0, 1], 0.5, [1, 0, 1]), ([], 1, [0] * 3)):
    assert external_taggers.heard(confidences, tags, share).tolist() == expected


def test_the_tables_for_ave_cover_its_categories(shared):
  labels = (shared / "weights" / "yamnet_labels.txt").read_text().splitlines()
  members, _ = external_taggers.read_table(TABLES / "ave_yamnet.csv", ave.CATEGORIES, labels)
  assert len(members) == 29 and all(len(member) for member in members)
  with (TABLES / "ave_vggsound.csv").open(newline="") as file:
    rows = list(csv.reader(file))[1:]
  assert {tag for tag, _ in rows} == set(ave.CATEGORIES)
  assert [tag for tag, name in rows if not name] == ["Frying (food)", "Truck"]  # VGGSound has no such class


# The stages.


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


def make_run(workdir, records, **changes):
  fields = {name: Training(batch=8) for name in TRAINED}
  hearing = Hearing(kind="yamnet", **changes)
  run = Run(Config(name="a", data=Data(path=str(records.path)), hearing=hearing, **fields), workdir)
  run.records = records
  return run


def test_labels_by_the_table_that_is_made_and_edited(tmp_path, records, capsys):
  run = make_run(tmp_path, records)
  external_taggers.check(run)
  table = tmp_path / "tags.csv"
  assert table.read_text() == "tag,class\nbell,Bell\ndrum,Drums\nhorn,\n,Silence\n"
  message = capsys.readouterr().err
  assert message.startswith(f"{table}: tags not covered: horn (1 of 6 clips have one;") and message.count("\n") == 1
  assert str(records.path / "class_scores" / "classes.txt") in message
  table.write_text("tag,class\nbell,Church bell\nhorn,\ndrum,Drums\n,Silence\n")
  done = stages._judge_sound(run)
  frames = np.arange(records.total_frames)
  clip = records.clip_of_frame
  bell = (frames % 2 == 0) & (frames % 3 != 0)
  drum = (frames % 2 != 0) & (frames % 3 != 0)
  expected = np.where(records.tags[clip, 0] > 0, bell, False) | np.where(records.tags[clip, 1] > 0, drum, False)
  expected = np.where(clip == 1, NOT_JUDGED, np.where(clip == 2, 0, expected))
  np.testing.assert_array_equal(run.frame_values("tag_heard"), expected)
  judged = 5 + 3 + 20 + 2
  assert (done["frames"], done["tag_heard"], done["judged"]) == (43, np.sum(expected == 1), judged)
  assert (
    done["by_tag"]["drum"] == [np.sum(expected[(clip == 0) | (clip == 5)] == 1), 7] and "horn" not in done["by_tag"]
  )
  assert done["says"] == (
    f"yamnet: its tag is heard in {np.sum(expected == 1)} of {judged} frames with sound; tags not covered: horn"
  )
  summary = json.loads((run.table("tag_heard") / "summary.json").read_text())
  assert summary["tagger"] == "yamnet" and summary["sha256"] == "0"
  external_taggers.check(run)
  table.write_text("tag,class\nbell,Bell\n")
  with pytest.raises(ConfigError, match=r"tags\.csv: has changed since .*; use another --workdir"):
    external_taggers.check(run)


def test_what_is_not_judged_is_not_learned_from_and_is_heard(tmp_path, records, monkeypatch):
  run = make_run(tmp_path, records)
  heard = np.where(records.clip_of_frame == 1, NOT_JUDGED, 0)
  run._tables["tag_heard"] = heard
  inputs = train_network._inputs(networks.SWITCH, run, Variant(tmp_path))
  assert set(records.clip_of_frame[inputs["items"]]) == {0, 3, 4, 5}
  assert set(inputs["labels"][inputs["items"], 0]) == {0}
  monkeypatch.setattr(Run, "dense", lambda run, name: None)
  monkeypatch.setattr(stages, "switch_values", lambda network, clip: np.zeros(len(clip), np.float32))
  monkeypatch.setattr(Run, "done", lambda run, name: {"sha256": "1"} if name == networks.SWITCH else None)
  done = stages._turn_switch(run)
  np.testing.assert_array_equal(run.frame_values("switch"), records.clip_of_frame == 1)
  assert done == {"frames": 43, "on": NUM_FRAMES[1], "agrees_with_tagger": 1.0}


def test_a_given_table_is_used_and_one_that_covers_no_clip_is_refused(tmp_path, records):
  given = tmp_path / "given.csv"
  given.write_text("tag,class\nhorn,Music\n")
  run = make_run(tmp_path / "run", records, mapping=str(given))
  assert external_taggers.open_ears(run).covered.tolist() == [False, False, True] and not (tmp_path / "run").exists()
  given.write_text("tag,class\n,Silence\n")
  with pytest.raises(ConfigError, match=r"given\.csv: tags not covered: bell, drum, horn .* Add rows tag,class to it"):
    external_taggers.open_ears(run)


def test_scores_of_other_records_are_refused(tmp_path, records):
  with pytest.raises(RecordError, match=r"class_scores: not there; .*--tagger FILE"):
    ClassScores.open(tmp_path)
  found = ClassScores.open(records.path)
  assert found.of("clip 2", 12).shape == (12, 5) and found.of("clip 2", 12).dtype == np.float32
  for name, number in (("clip 2", 11), ("clip 9", 2)):
    with pytest.raises(RecordError, match="scores of other records"):
      found.of(name, number)
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


def test_the_graph_has_no_taggers_of_its_own(tmp_path, records):
  run = make_run(tmp_path, records)
  names = [stage.name for stage in stages.graph(run.config)]
  assert names == [stage.name for stage in stages.GRAPH if stage.name not in networks.TAGGERS]
  done = set()
  for stage in stages.graph(run.config):
    assert set(stage.needs) <= done
    done.add(stage.name)
  stages._check(run.config)

  def message(**changes):
    with pytest.raises(ConfigError) as error:
      stages._check(run.config.model_copy(update=changes))
    return str(error.value)

  text = message(switch=Training(batch=8, start=("s_coarse", "tagger_0")))
  assert text.startswith("switch.start has 'tagger_0', expected one of s_coarse, st_coarse (with hearing.kind 'yamnet'")
  assert "needs data.source records" in message(data=Data(source="synthetic"))
  assert "hearing.weights is 'a'" in message(hearing=Hearing(kind="yamnet", weights="a"))
  assert "hearing.weights is None" in message(hearing=Hearing(kind="vggsound"))


def test_plan_and_report_say_what_there_is(tmp_path, records, monkeypatch):
  run = make_run(tmp_path, records)
  monkeypatch.setattr(plan, "_plan", lambda network, inputs: {})
  assert set(plan.plan_networks(run.config, 3)) == set(TRAINED) - {"tagger"}
  numbers = ("clips", "frames", "frames_without_target", "mean_area", "whole_frames", "on", "agrees_with_tagger")
  done = dict.fromkeys((*numbers, "clips_alone_in_tag", "seconds", "provenance"), 1) | {"says": "yamnet: heard"}
  monkeypatch.setattr(Run, "done", lambda run, name: None if name in networks.TAGGERS else done)
  facts = report._facts(run)
  assert facts["Sound tagger"] == "yamnet: heard" and "Stage switch" in facts and "Stage tagger_0" not in facts


def test_clips_that_were_left_out_as_damaged_are_not_missed(tmp_path, records):
  view = records._without({"clip 0": "damaged", "clip 4": "damaged"})
  run = make_run(tmp_path, view)
  ears, whole = external_taggers.open_ears(run), ClassScores.open(records.path)
  bells = whole.of("clip 2", NUM_FRAMES[2])[:, 0]
  np.testing.assert_array_equal(ears.hear(view.names.index("clip 2"))[:, 0], bells)
  assert len(ears.judged) == 4


# VGGSound's head.


def test_vggsounds_head_gives_probabilities(tmp_path, records, monkeypatch):
  monkeypatch.setattr(external_taggers, "NUM_CATEGORIES", 4)
  monkeypatch.setattr(external_taggers, "Tagger", lambda number, **how: Tagger(number, audio_width=0.01, **how))
  variables = randomise(networks.expected_variables(Tagger(4, audio_width=0.01, audio_pooling="average"), 0), 3)
  monkeypatch.setattr(external_taggers, "_AVERAGE", len(variables["params"]["classify"]["kernel"]))
  store.save(tmp_path / "h.safetensors", variables)
  (tmp_path / "stat.csv").write_text('horn,3\n"playing bells, bell",9\ndrum,1\nan anvil,7\n')
  run = make_run(tmp_path, records)
  hearing = Hearing(kind="vggsound", weights=str(tmp_path / "h.safetensors"), classes=str(tmp_path / "stat.csv"))
  run.config = run.config.model_copy(update={"hearing": hearing})
  ears = external_taggers.open_ears(run)
  assert (tmp_path / "tags.csv").read_text() == 'tag,class\nbell,"playing bells, bell"\ndrum,drum\nhorn,horn\n'
  sounds = np.stack([sound for _, sound in run.training_clip(5).samples])
  audio = by_hand.resnet({kind: variables[kind]["sound"] for kind in variables}, sounds)
  logits = audio @ variables["params"]["classify"]["kernel"] + variables["params"]["classify"]["bias"]
  expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  np.testing.assert_allclose(ears.hear(5)[:, :3], expected[:, [3, 1, 2]], rtol=1e-3, atol=1e-5)
  (tmp_path / "stat.csv").write_text("horn,3\n")
  with pytest.raises(ConfigError, match=r"stat\.csv: 1 categories, expected VGGSound's 4"):
    external_taggers.open_ears(run)
