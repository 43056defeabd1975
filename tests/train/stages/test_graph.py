"""The stage graph: its order, and what a configuration changes in it."""

import pytest

from helpers.runs import TRAINED
from stajax import networks
from stajax.config import Config, Hearing, Students
from stajax.inference.ablation import rows_of
from stajax.train.stages.graph import make_graph


def test_every_network_has_a_stage_and_a_field_of_the_configuration():
  names = [stage.name for stage in make_graph(Config(name="a"))]
  trained = {stage.name for stage in make_graph(Config(name="a")) if stage.work == "train"}
  assert len(names) == len(set(names)) and len(trained) == 21
  assert trained == {*networks.MODEL_NETWORKS, *networks.TAGGERS}
  assert {networks.NETWORKS[name].config_field for name in trained} == set(TRAINED)
  assert networks.NETWORKS["st_plus_short"].config_field == "st_plus"
  assert networks.NETWORKS["s_coarse"].config_field == "s_coarse"


@pytest.mark.parametrize("students", ["separate", "shared"])
@pytest.mark.parametrize("hearing", ["trained", "yamnet"])
def test_what_a_stage_needs_comes_before_it(hearing, students):
  done = set()
  config = Config(name="a", hearing=Hearing(kind=hearing), students=Students(backbone=students))
  for stage in make_graph(config):
    assert set(stage.needs) <= done, stage.name
    done.add(stage.name)


def test_an_off_the_shelf_tagger_takes_the_place_of_trained_ones():
  usual, others = make_graph(Config(name="a")), make_graph(Config(name="a", hearing=Hearing(kind="yamnet")))
  assert [stage.name for stage in others] == [stage.name for stage in usual if stage.name not in networks.TAGGERS]
  assert {stage.name: stage.needs for stage in others}["tag_heard"] == ("data",)
  assert {stage.name: stage.needs for stage in usual}["tag_heard"] == networks.TAGGERS


def test_an_off_the_shelf_tagger_may_teach_one_that_others_start_from():
  usual, taught = (
    make_graph(Config(name="a", hearing=Hearing(kind="yamnet", teaches=teaches))) for teaches in (False, True)
  )
  assert [stage.name for stage in taught if stage not in usual] == ["tagger_0"]
  names = [stage.name for stage in taught]
  assert names.index("tag_heard") < names.index("tagger_0") < names.index("switch")


@pytest.mark.parametrize("hearing", ["trained", "yamnet"])
def test_students_may_be_trained_as_one(hearing):
  """Each then gets weights of its own in a stage of its own, so that what follows is as usual."""
  separate, shared = (
    make_graph(Config(name="a", hearing=Hearing(kind=hearing), students=Students(backbone=backbone)))
    for backbone in ("separate", "shared")
  )
  names = [stage.name for stage in shared]
  at = names.index("students")
  assert [*names[:at], *names[at + 1 :]] == [stage.name for stage in separate]
  assert "students" not in [stage.name for stage in separate]
  usual = {stage.name: stage for stage in separate}
  changed = {stage.name: stage for stage in shared if stage != usual.get(stage.name)}
  assert list(changed) == ["students", *networks.STUDENTS]
  assert changed["students"].needs == ("scam_plus",) and changed["students"].work == "train"
  for name in networks.STUDENTS:
    assert changed[name].needs == ("students",) and changed[name].work == "extract student"


@pytest.mark.parametrize("hearing", ["trained", "yamnet"])
def test_stanet_has_one_student_and_no_networks_with_companions(hearing):
  """The rest of its graph is that of STANet+, so both can have their classifiers in common."""
  usual, config = (
    Config(name="a", hearing=Hearing(kind=hearing)),
    Config(name="a", students=Students(learn_from="scam")),
  )
  config = config.model_copy(update={"hearing": usual.hearing})
  stages = {stage.name: stage for stage in make_graph(config)}
  without = {*networks.GRANULAR, "sta_plus_short", "sta_plus_long"}
  assert list(stages) == [stage.name for stage in make_graph(usual) if stage.name not in without]
  assert stages["scam_plus"].needs == networks.FINE and stages["model"].needs == ("switch", "sta")
  assert set(networks.model_networks(usual)) == set(networks.MODEL_NETWORKS)
  assert set(networks.model_networks(config)) == set(networks.MODEL_NETWORKS) - without
  assert [row.number for row in rows_of(config)] == list(range(1, 13)) and len(rows_of(usual)) == 25
