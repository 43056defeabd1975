"""The stage graph: its order, what it refuses, the folds of the tagger, and the tables that stages write."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.fake_records import fake_records

pytest.importorskip("tensorflow")

from stajax import companions, networks
from stajax.config import Config, ConfigError, Data, Hearing, Network, Students, Training
from stajax.data.map_set import MapWriter
from stajax.data.shards import RecordError
from stajax.networks import TAGGERS
from stajax.train import stages, train_network
from stajax.train.train_network import Variant
from stajax.train.workdir import Run
from stajax.weights import store

SHARED = {"students": Students(backbone="shared")}
TRAINED = [name for name, info in Config.model_fields.items() if info.annotation is Training]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
  """Six clips; the third has no sound, the fourth no tag and the second no other clip of its tag."""
  return fake_records(tmp_path_factory.mktemp("records") / "train", number=6)


def make_run(tmp_path, records, **fields):
  fields = {"batch": 8, **fields}
  run = Run(Config(name="a", **{name: Training(**fields) for name in TRAINED}), tmp_path)
  run.records = records
  return run


# The graph.


def test_every_network_has_a_stage_and_a_field_of_the_configuration():
  names = [stage.name for stage in stages.GRAPH]
  assert len(names) == len(set(names)) and set(train_network.ORDER) < set(names)
  assert {*networks.MODEL_NETWORKS, *networks.TAGGERS} == set(train_network.ORDER) and len(
    set(train_network.ORDER)
  ) == 21
  assert {networks.NETWORKS[name].config_field for name in train_network.ORDER} == set(TRAINED)
  assert (
    networks.NETWORKS["st_plus_short"].config_field == "st_plus"
    and networks.NETWORKS["s_coarse"].config_field == "s_coarse"
  )


def test_what_a_stage_needs_comes_before_it():
  done = set()
  for stage in stages.GRAPH:
    assert set(stage.needs) <= done, stage.name
    done.add(stage.name)


def test_students_may_be_trained_as_one():
  """And then each has a stage of its own, so that what follows is as ever; with taggers of any kind."""
  shared = Students(backbone="shared")
  for hearing in (Hearing(), Hearing(kind="yamnet")):
    before, after = (stages.graph(Config(name="a", hearing=hearing, students=each)) for each in (Students(), shared))
    names = [stage.name for stage in after]
    at = names.index("students")
    assert [*names[:at], *names[at + 1 :]] == [stage.name for stage in before] and "students" in train_network.TRAINED
    needs = {stage.name: stage.needs for stage in after}
    assert needs["students"] == ("scam_plus",) and {needs[name] for name in networks.STUDENTS} == {("students",)}
    assert [name for name in needs if needs[name] != {each.name: each.needs for each in before}.get(name)] == [
      "students", *networks.STUDENTS
    ]  # fmt: skip
  assert "students" not in [stage.name for stage in stages.GRAPH]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"st": Training(start=("s_cores",))}, "st.start has 's_cores', expected one of s_coarse, st_coarse, tagger_0,"),
    ({"st_coarse": Training(start=("s",))}, "st_coarse.start has 's', expected one of s_coarse"),
    ({"s_coarse": Training(start=("s_coarse",))}, "s_coarse.start has 's_coarse', expected nothing, as it is trained"),
    ({"s_coarse": Training(start=("st_coarse",))}, "s_coarse.start has 'st_coarse', expected nothing"),
    ({"tagger": Training(start=("tagger_1",))}, "tagger.start has 'tagger_1', expected one of s_coarse, st_coarse"),
    ({"sta_plus": Training(start=("sta", "scam_plus"))}, "sta_plus.start has 'scam_plus', expected one of"),
    ({"s_plus": Training(start=("s_plus_long",))}, "s_plus.start has 's_plus_long', expected one of"),
    ({"sa_plus": Training(batch=12, start=("sa_coarse",))}, "sa_plus.batch is 12, expected a multiple of the 8"),
    ({"data": Data()}, "data.path is missing"),
    (SHARED | {"sta": Training(start=("sta_plus_long",))}, "sta.start has 'sta_plus_long', expected one of s_coarse"),
    (SHARED | {"sta": Training(start=("students",))}, "sta.start has 'students', expected one of s_coarse"),
    (SHARED | {"sta": Training(frozen=("visual", "graph"))}, "sta.frozen has 'graph', expected of shared students"),
    (SHARED | {"network": Network(backbone="frozen")}, "students.backbone is shared, but with network.backbone frozen"),
  ],
)
def test_a_configuration_that_cannot_run_is_one_line(tmp_path, change, message):
  fields = {name: Training(batch=8) for name in TRAINED} | {"data": Data(source="synthetic")}
  for name, part in change.items():
    keep = not isinstance(part, Training) or part.batch == 12
    fields[name] = part if keep else part.model_copy(update={"batch": 8})
  with pytest.raises(ConfigError) as error:
    stages.run_all(Config(name="a", **fields), tmp_path / "run")
  assert str(error.value).startswith(message) and "\n" not in str(error.value)
  assert not (tmp_path / "run").exists()


def runnable(**changes):
  fields = {name: Training(batch=8) for name in TRAINED}
  return Config(name="ü", data=Data(source="synthetic"), **(fields | changes))


def fake_graph(monkeypatch, calls, fail=None):
  def make(name):
    def run(run):
      calls.append(name)
      if name == fail:
        raise RecordError("broken")
      return {"said": name}

    return run

  graph = [stages.Stage(each.name, each.needs, make(each.name)) for each in stages.GRAPH]
  monkeypatch.setattr(stages, "GRAPH", tuple(graph))
  return [stage.name for stage in graph]


def test_finished_stages_are_not_run_again(tmp_path, monkeypatch):
  calls = []
  names = fake_graph(monkeypatch, calls, fail="scam_coarse")
  with pytest.raises(RecordError):
    stages.run_all(runnable(), tmp_path)
  stopped = names.index("scam_coarse")
  assert calls == names[: stopped + 1] and not (tmp_path / "stages" / "scam_coarse" / "done.json").exists()
  monkeypatch.undo()
  calls = []
  fake_graph(monkeypatch, calls)
  assert f"{len(names) - stopped} stages in" in stages.run_all(runnable(), tmp_path)
  assert calls == names[stopped:]
  done = json.loads((tmp_path / "stages" / "sta" / "done.json").read_text())
  assert done["stage"] == done["said"] == "sta" and done["seconds"] >= 0
  assert "everything was done already" in stages.run_all(runnable(), tmp_path)
  assert not list(tmp_path.rglob("*.partial"))


def test_another_configuration_is_refused(tmp_path, monkeypatch):
  fake_graph(monkeypatch, [])
  stages.run_all(runnable(), tmp_path)
  with pytest.raises(stages.StageError, match=r"tagger\.steps: 30000 → 3; sta\.flip: true → false.*another --workdir"):
    stages.run_all(runnable(tagger=Training(batch=8, steps=3), sta=Training(batch=8, flip=False)), tmp_path)
  for text in (b"{", b"\xff\xfe", b""):
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(ConfigError) as error:
      stages.run_all(runnable(), tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'config.json'}: ") and "\n" not in str(error.value)


# The tagger's folds and the switch's labels.


def test_folds_are_thirds_of_the_clips():
  for clips in (3, 10, 400):
    sizes = np.bincount(train_network.folds(clips, 0), minlength=3)
    assert sizes.sum() == clips and sizes.max() - sizes.min() <= 1
  assert (train_network.folds(400, 0) == train_network.folds(400, 0)).all()
  assert (train_network.folds(400, 0) != train_network.folds(400, 1)).any()


@pytest.mark.parametrize("tagger", TAGGERS)
def test_a_tagger_learns_from_the_other_folds(tmp_path, records, tagger):
  run = make_run(tmp_path, records)
  items = train_network._inputs(tagger, run, Variant(tmp_path))["items"]
  fold = train_network.folds(6, run.config.seed)
  expected = [clip for clip in range(6) if fold[clip] != TAGGERS.index(tagger) and records.has_sound[clip]]
  assert sorted(set(records.clip_of_frame[items])) == expected
  assert len(items) == len(set(items)) == sum(records.num_frames[clip] for clip in expected)


def test_every_clip_is_judged_by_the_tagger_that_has_not_learned_from_it(tmp_path, records, monkeypatch):
  judged = {}

  def tagger(run, name):
    def tags(clip):
      (found,) = [i for i in range(6) if np.array_equal(clip.samples[0][0], records.clip_frames(i)[0])]
      judged[found] = name
      return np.eye(3)[np.arange(len(clip)) % 3] * 0.5 + 0.1

    return tags

  monkeypatch.setattr(Run, "tagger", tagger)
  run = make_run(tmp_path, records)
  for name in TAGGERS:
    run.folder(name).mkdir(parents=True)
    (run.folder(name) / "done.json").write_text(json.dumps({"sha256": name}))
  done = stages._judge_sound(run)
  for clip, name in judged.items():
    learned = train_network._inputs(name, run, Variant(tmp_path))["items"]
    assert clip not in records.clip_of_frame[learned]
  assert set(judged) == {0, 1, 3, 4, 5}  # the one without sound is judged by none
  heard = run.frame_values("tag_heard")
  expected = [
    clip != 2 and bool(records.tags[clip, frame % 3]) for clip in range(6) for frame in range(records.num_frames[clip])
  ]
  np.testing.assert_array_equal(heard, expected)
  assert done == {"frames": 43, "tag_heard": sum(expected)} and heard.dtype == np.uint8
  summary = json.loads((run.table("tag_heard") / "summary.json").read_text())
  assert summary["sha256"] == {name: name for name in TAGGERS}
  judged.clear()
  assert stages._judge_sound(make_run(tmp_path, records)) == done and not judged  # killed before it was done: no rework


def test_a_tag_that_sounds_much_like_the_top_one_is_heard(tmp_path, records, monkeypatch):
  """With 0.5, a tag with half of the highest confidence or more; a clip that has none is never heard."""
  confidences = np.float32([0.8, 0.4, 0.39])
  monkeypatch.setattr(Run, "tagger", lambda run, name: lambda clip: np.tile(confidences, (len(clip), 1)))
  for share, heard_tags in ((1.0, [0]), (0.5, [0, 1]), (0.48, [0, 1, 2])):
    run = make_run(tmp_path / str(share), records)
    run.config = run.config.model_copy(update={"heard_share": share})
    for name in TAGGERS:
      run.folder(name).mkdir(parents=True)
      (run.folder(name) / "done.json").write_text(json.dumps({"sha256": name}))
    stages._judge_sound(run)
    expected = records.tags[:, heard_tags].any(axis=1) & records.has_sound
    np.testing.assert_array_equal(run.frame_values("tag_heard"), np.repeat(expected, records.num_frames))


def table(run, name, values):
  run._tables[name] = values


def test_what_networks_learn_from(tmp_path, records):
  run = make_run(tmp_path, records)
  heard = (np.arange(43) % 3 == 0).astype(np.uint8)
  switch, boxes = (np.arange(43) % 2).astype(np.uint8), np.tile(np.array([0, 0, 1, 1], np.float32), (43, 1))
  for name, values in (("tag_heard", heard), ("switch", switch), ("boxes", boxes)):
    table(run, name, values)

  def inputs(name, **how):
    return train_network._inputs(name, run, Variant(tmp_path, **how))

  learned = inputs("switch")
  assert set(learned) == {"items", "labels"}
  np.testing.assert_array_equal(learned["labels"], heard[:, None])
  assert learned["labels"].dtype == np.float32
  np.testing.assert_array_equal(learned["items"], np.flatnonzero(records.has_sound[records.clip_of_frame]))
  for name in ("s_coarse", "st_coarse", "s_plus_cross", "st_plus_short"):
    assert inputs(name) == {}
  assert set(inputs("s")) == set(inputs("st")) == {"boxes"} and set(inputs("sa")) == {"switch", "boxes"}
  maps = tmp_path / "maps" / "scam_plus"
  maps.parent.mkdir()
  writer = MapWriter(maps, records)
  for clip, count in enumerate(records.num_frames):
    writer.write(clip, np.zeros((count, 4, 4), np.uint8), np.ones(count))
  writer.finish({})
  for name in (*networks.STUDENTS, "students"):
    assert set(inputs(name)) == {"switch", "maps"}
  for name in ("sa_coarse", "sa_plus_long", "sa_plus_cross"):
    assert inputs(name) == {"switch": switch} and inputs(name, always_heard=True) == {}
  run.config = run.config.model_copy(update={"plus_crops": True})
  assert set(inputs("st_plus_short")) == {"boxes"} and set(inputs("sa_plus_long")) == {"switch", "boxes"}


# What a network starts from.


def test_of_several_networks_the_first_that_fits_counts(tmp_path, records, capsys):
  run = make_run(tmp_path, records)
  run = Run(run.config.model_copy(update={"sa_coarse": Training(start=("s_coarse", "tagger_0"))}), tmp_path)

  def variables(value, **sizes):
    return {"params": {name: {"kernel": np.full(size, value, np.float32)} for name, size in sizes.items()}}

  for name, found in (
    ("s_coarse", variables(1, visual=3, classify=2)),
    ("tagger_0", variables(2, visual=3, classify=4, sound=5)),
  ):
    run.folder(name).mkdir(parents=True)
    store.save(run.folder(name) / "weights.safetensors", found)
  own = variables(0, visual=3, classify=4, sound=5, neck=6)
  merged, random = train_network._started("sa_coarse", run, own)
  values = {name: float(part["kernel"][0]) for name, part in merged["params"].items()}
  assert values == {"visual": 1, "classify": 2, "sound": 2, "neck": 0} and random == {"params/neck/kernel"}
  assert "sa_coarse: starts from s_coarse, tagger_0; new: neck" in capsys.readouterr().out


def test_students_that_are_one_begin_with_finished_networks(tmp_path, records, capsys):
  run = make_run(tmp_path, records)
  fields = {"students": Students(backbone="shared"), "sta": Training(start=("st_coarse",))}
  run = Run(run.config.model_copy(update=fields), tmp_path)

  def variables(value, **sizes):
    return {name: {"kernel": np.full(size, value, np.float32)} for name, size in sizes.items()}

  run.folder("st_coarse").mkdir(parents=True)
  finished = variables(1, visual=3, neck=2, temporal=2, classify=2)
  store.save(run.folder("st_coarse") / "weights.safetensors", {"params": finished})
  own = {name: variables(0, temporal=2, combine=1) for name in networks.STUDENTS}
  begun = {"params": {**variables(0, visual=3, neck=2, sound=4), **own}}
  merged, random = train_network._started("students", run, begun)
  values = {name: float(x[0]) for name, x in store.flatten(merged).items()}
  taken = {"params/visual/kernel", "params/neck/kernel"}
  taken |= {f"params/{name}/temporal/kernel" for name in networks.STUDENTS}
  new = {"params/sound/kernel", *(f"params/{name}/combine/kernel" for name in networks.STUDENTS)}
  assert values == dict.fromkeys(taken, 1) | dict.fromkeys(new, 0) and random == new
  assert "students: starts from st_coarse; new: combine, sound\n" in capsys.readouterr().out


def test_networks_are_trained_as_they_are_used(tmp_path, records, monkeypatch):
  """The module that learns is the one that inference makes by default; the ablation's is another."""
  made = []

  def stop(network, *_):
    made.append(network)
    raise InterruptedError

  monkeypatch.setattr(networks, "initialise", stop)
  run = make_run(tmp_path, records)
  for name in train_network.TRAINED:
    with pytest.raises(InterruptedError):
      train_network.train(name, run)
    assert made[-1] == networks.make_network(name, run.config, 3)
  with pytest.raises(InterruptedError):
    train_network.train("s_plus_long", run, Variant(tmp_path, frl=False))
  assert made[-1] == networks.make_network("s_plus_long", run.config, 3, refine=False) != made[-2]


def test_too_little_sound_is_one_line(tmp_path, records, monkeypatch):
  def data(has_sound):
    run = make_run(tmp_path, records)
    rates = np.full(6, run.config.data.rate)
    run.records = SimpleNamespace(
      path="data", rate=rates, has_sound=np.array(has_sound, bool), num_clips=6, total_frames=43, provenance="test"
    )
    return stages._prepare_data(run)

  fold = train_network.folds(6, 0)
  for has_sound in (np.zeros(6), fold == 1):
    with pytest.raises(RecordError, match=rf"data: {int(np.sum(has_sound))} of 6 clips have sound, too few"):
      data(has_sound)
  assert data(fold != 1)["clips"] == 6
  with pytest.raises(ConfigError, match=r"clips have .* frames a second, data\.rate is 8\.0"):
    stages._prepare_data(make_run(tmp_path, records))


# Companions of other clips, for inference.


def test_companions_are_fragments_of_the_pools_clips(tmp_path, records):
  run = make_run(tmp_path, records)
  switch = (np.arange(43) % 2).astype(np.uint8)
  boxes = np.random.default_rng(0).integers(0, 64, (43, 4)).astype(np.float32)
  for name, stage, values in (("switch", "switch_values", switch), ("boxes", "scam_coarse", boxes)):
    table(run, name, values)
    run.folder(stage).mkdir(parents=True)
    (run.folder(stage) / "done.json").write_text("{}")

  class Seen:
    """A network whose fragments say the frame, its neighbours in the clip that it is given, the box and the switch."""

    def __init__(self, name):
      self.name = name

    def nodes(self, clip):
      frames = np.stack([frame[16, 16] for frame, _ in clip.samples]).astype(np.float32)
      before, after = np.roll(frames, 1, axis=0), np.roll(frames, -1, axis=0)
      return np.column_stack([frames, before, after, clip.boxes, clip.switch])[:, None, None]

  found = stages.stored_companions(run, Seen)
  assert set(found) == {"clips", "s_plus_cross", "st_plus_cross", "sa_plus_cross", "sa_plus_cross/heard"}
  items = companions.pool_items(records.tags, records.num_frames, run.config.seed)
  assert found["clips"].shape == (3, 3) and found["clips"].dtype == np.int32
  for tag, members in enumerate(items):
    assert found["clips"][tag].tolist() == [*members[:, 0], *[-1] * (3 - len(members))]
    for place, (clip, frame) in enumerate(members.tolist()):
      assert records.tags[clip, tag]
      pixels = records.clip_frames(clip)[:, 16, 16].astype(np.float32)
      count = len(pixels)
      last = max(count - 1, 0)
      near = [pixels[abs(frame - 1) if count > 1 else 0], pixels[last - abs(last - frame - 1) if count > 1 else 0]]
      at = records.first_frame[clip] + frame
      expected = np.concatenate([pixels[frame], *near, boxes[at], [switch[at] * records.has_sound[clip]]])
      heard = np.append(expected[:-1], records.has_sound[clip])
      for name in ("s_plus_cross", "st_plus_cross", "sa_plus_cross"):
        np.testing.assert_array_equal(found[name][tag, place, 0, 0], expected.astype(np.float16))
      np.testing.assert_array_equal(found["sa_plus_cross/heard"][tag, place, 0, 0], heard.astype(np.float16))
  assert all(x.dtype == np.float16 for name, x in found.items() if name != "clips")
