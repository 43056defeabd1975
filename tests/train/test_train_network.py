"""What a network starts from, its random numbers, and that it is trained as it is used."""

import numpy as np
import pytest

from helpers.fake_records import fake_records
from helpers.runs import finish, make_run, train_all

pytest.importorskip("tensorflow")

from stajax import networks
from stajax.config import Config, Students, Training
from stajax.train import train_network
from stajax.train.train_network import Variant
from stajax.weights import store


@pytest.fixture(scope="module")
def records(tmp_path_factory):
  return fake_records(tmp_path_factory.mktemp("records") / "train", number=6)


def variables(value, **sizes):
  return {name: {"kernel": np.full(size, value, np.float32)} for name, size in sizes.items()}


def save(run, name, params):
  path = run.workdir.weights(name)
  path.parent.mkdir(parents=True)
  finish(run, name, sha256=store.save(path, {"params": params}))


def test_the_place_of_a_network_gives_its_seed():
  """Another seed would give other weights than those that earlier versions trained."""
  seeds = [train_network.random_seed(name, Config(name="a", seed=2)) - 42 for name in networks.NETWORKS]
  assert seeds == [*range(21), networks.STUDENTS.index("sta") + 18] and len(train_network.ORDER) == 21
  assert train_network.ORDER[:8] == (*networks.COARSE, *networks.TAGGERS, networks.SWITCH, "s")
  assert train_network.ORDER[18:] == networks.STUDENTS


def test_of_several_networks_the_first_that_fits_counts(tmp_path, records, capsys):
  fields = train_all() | {"sa_coarse": Training(start=("s_coarse", "tagger_0"))}
  run = make_run(tmp_path, records, Config(name="a", **fields))
  save(run, "s_coarse", variables(1, visual=3, classify=2))
  save(run, "tagger_0", variables(2, visual=3, classify=4, sound=5))
  initial = {"params": variables(0, visual=3, classify=4, sound=5, neck=6)}
  merged, random = train_network.start_from_finished("sa_coarse", run, initial)
  values = {name: float(part["kernel"][0]) for name, part in merged["params"].items()}
  assert values == {"visual": 1, "classify": 2, "sound": 2, "neck": 0} and random == {"params/neck/kernel"}
  assert "sa_coarse: starts from s_coarse, tagger_0; new: neck" in capsys.readouterr().out


def test_students_that_are_one_begin_with_finished_networks(tmp_path, records, capsys):
  fields = train_all() | {"sta": Training(start=("st_coarse",))}
  run = make_run(tmp_path, records, Config(name="a", students=Students(backbone="shared"), **fields))
  save(run, "st_coarse", variables(1, visual=3, neck=2, temporal=2, classify=2))
  own = {name: variables(0, temporal=2, combine=1) for name in networks.STUDENTS}
  initial = {"params": {**variables(0, visual=3, neck=2, sound=4), **own}}
  merged, random = train_network.start_from_finished("students", run, initial)
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
  for name in networks.NETWORKS:
    with pytest.raises(InterruptedError):
      train_network.train(name, run)
    assert made[-1] == networks.make_network(name, run.config, 3)
  with pytest.raises(InterruptedError):
    train_network.train("s_plus_long", run, Variant(tmp_path, refine=False))
  assert made[-1] == networks.make_network("s_plus_long", run.config, 3, refine=False) != made[-2]
