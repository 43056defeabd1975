"""Configurations that cannot be run are refused in one line, before anything is written."""

import numpy as np
import pytest

from helpers.runs import train_all

pytest.importorskip("tensorflow")

from stajax.config import Config, ConfigError, Data, Hearing, Network, Students, Synthetic, Training
from stajax.prepare.tree_files import write_fold_lists, write_video
from stajax.train.stages.checks import check, trees_to_score
from stajax.train.stages.runner import run_all

SHARED = {"students": Students(backbone="shared")}


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
    ({"data": Data()}, "data.path is missing"),
    (
      {"data": Data(source="synthetic", rate=4, synthetic=Synthetic(seconds=1))},
      "data.synthetic.seconds and data.rate: 1 seconds at 4 frames a second are 4 frames, expected 8 to 10000",
    ),
    ({"students": Students(backbone="shared", learn_from="scam")}, "students.backbone is shared, but with students."),
    (SHARED | {"sta": Training(start=("sta_plus_long",))}, "sta.start has 'sta_plus_long', expected one of s_coarse"),
    (SHARED | {"sta": Training(start=("students",))}, "sta.start has 'students', expected one of s_coarse"),
    (SHARED | {"sta": Training(frozen=("visual", "graph"))}, "sta.frozen has 'graph', expected for shared students"),
    (
      SHARED | {"network": Network(backbone="frozen"), "init": {"visual": "vgg16.npz"}},
      "students.backbone is shared, but with network.backbone frozen",
    ),
    ({"init": {}}, "network.norm is 'none', and without normalisation a backbone of random numbers stays at chance"),
    ({"network": Network(backbone="frozen")}, "network.backbone is frozen, expected its weights"),
    ({"network": Network(audio_encoder="yamnet")}, "network.audio_encoder is 'yamnet', expected what it has learned"),
  ],
)
def test_a_configuration_that_cannot_run_is_one_line(tmp_path, change, message):
  fields = train_all() | {"data": Data(source="synthetic"), "init": {"visual": "random"}}
  for name, part in change.items():
    fields[name] = part
  with pytest.raises(ConfigError) as error:
    run_all(Config(name="a", **fields), tmp_path / "run")
  assert str(error.value).startswith(message) and "\n" not in str(error.value)
  assert not (tmp_path / "run").exists()


def test_off_the_shelf_taggers():
  init = {"visual": "random"}
  config = Config(name="a", data=Data(path="records"), init=init, hearing=Hearing(kind="yamnet"), **train_all())
  check(config)

  def message(**changes):
    with pytest.raises(ConfigError) as error:
      check(config.model_copy(update=changes))
    return str(error.value)

  text = message(switch=Training(batch=8, start=("s_coarse", "tagger_0")))
  assert text.startswith("switch.start has 'tagger_0', expected one of s_coarse, st_coarse (with hearing.kind 'yamnet'")
  assert "needs data.source records" in message(data=Data(source="synthetic"))
  assert "hearing.weights is 'a'" in message(hearing=Hearing(kind="yamnet", weights="a"))
  assert "hearing.weights is None" in message(hearing=Hearing(kind="vggsound"))


def make_tree(root, *databases):
  """Writes trees with one annotated frame."""
  for database in databases:
    frame, fixated, density = np.zeros((8, 8, 3), np.uint8), np.eye(8, dtype=bool), np.full((8, 8), 9, np.uint8)
    write_video(root, database, "a", [frame], None, [(fixated, density)])
    write_fold_lists(root, database, [("a", 1, 8.0)])
  return f"stavis:{root}"


def test_sets_to_score_are_read_before_training(tmp_path):
  both, other = make_tree(tmp_path / "both", "A", "B"), make_tree(tmp_path / "other", "B")
  base = Config(name="a", data=Data(source="synthetic"), **train_all())
  found = trees_to_score(base.model_copy(update={"score_data": (both,)}))
  assert [video.database for tree in found for video in tree.videos] == ["A", "B"]
  for data, message in (
    ((both, other), f"score_data: {tmp_path}/other and {tmp_path}/both both have the database B"),
    ((make_tree(tmp_path / "s", "synthetic"),), "and the held-out clips both have the database synthetic"),
    (("stavis:nowhere",), "score_data: nowhere: not a tree in the STAViS layout"),
    (("nowhere",), "score_data: data nowhere: expected NAME:ROOT"),
  ):
    with pytest.raises(ConfigError) as error:
      trees_to_score(base.model_copy(update={"score_data": data}))
    assert message in str(error.value) and "\n" not in str(error.value)
