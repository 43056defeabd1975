"""What `--init NAME=FILE` does: networks begin with files that fit, and other files are refused at once."""

import hashlib
import json
import re

import jax
import numpy as np
import pytest

from helpers.fake_records import fake_records

pytest.importorskip("tensorflow")

from helpers import tiny
from helpers.runs import finish, make_run, set_table
from stajax import networks
from stajax.config import Training
from stajax.train import initial_weights, train_network
from stajax.train.stages import runner
from stajax.train.workdir import Workdir, WorkdirError
from stajax.weights import convert, store
from stajax.weights.fetch import PUBLICATIONS
from stajax.weights.store import WeightsError

SIZE = tiny.SIZE
ONE_STEP = Training(steps=1, batch=8, size=SIZE, frozen=("visual", "sound"))
CONFIG = tiny.CONFIG.model_copy(
  update={name: ONE_STEP for name, info in tiny.Config.model_fields.items() if info.annotation is Training}
)


def of_part(variables, part):
  return {name: x for name, x in store.flatten(variables).items() if name.split("/")[1] == part}


def same(found, expected):
  assert found.keys() == expected.keys() and expected
  for name, x in expected.items():
    np.testing.assert_array_equal(found[name], x, err_msg=name)


@pytest.fixture(scope="module")
def files(tmp_path_factory, random_variables):
  """The variables of a network that sees and hears, and a file of each of its parts; SHA-256."""
  folder = tmp_path_factory.mktemp("files")
  variables = random_variables(networks.make_network("sa_coarse", CONFIG, 3), SIZE)
  made = {}
  for part in ("visual", "sound"):
    path = folder / f"{part}.safetensors"
    made[part] = (path, store.save(path, store.unflatten(of_part(variables, part))))
  store.save(folder / "whole.safetensors", variables)
  return variables, made, folder / "whole.safetensors"


@pytest.fixture
def no_stages(monkeypatch):
  """Runs end when the folder is ready."""
  monkeypatch.setattr(runner, "make_graph", lambda config: ())


def configured(**init):
  return CONFIG.model_copy(update={"init": {part: str(path) for part, path in init.items()}})


def test_the_work_folder_gets_a_copy_of_each_part(tmp_path, files, no_stages):
  variables, made, whole = files
  runner.run_all(configured(visual=made["visual"][0], sound=whole), tmp_path)
  for part, source in (("visual", made["visual"][0]), ("sound", whole)):
    kept = tmp_path / "init" / f"{part}.safetensors"
    same(store.read(kept), of_part(variables, part))
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    assert store.read_about(kept) == {"source": source.name, "sha256": sha256, "kind": "stajax"}
  assert json.loads((tmp_path / "config.json").read_text())["init"]["sound"] == str(whole)


def test_what_was_fetched_is_found_by_its_name(tmp_path, files, no_stages, monkeypatch):
  variables, made, _ = files
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  with pytest.raises(WeightsError, match="vgg16: is not in the cache yet: stajax weights fetch vgg16"):
    runner.run_all(configured(visual="vgg16"), tmp_path / "run")
  fetched = tmp_path / "cache" / "stajax" / "weights" / PUBLICATIONS["vgg16"].name
  fetched.parent.mkdir(parents=True)
  fetched.write_bytes(made["visual"][0].read_bytes())
  monkeypatch.setattr(convert, "_HASH_IN_NAME", re.compile("(?!)"))  # it is not the published file
  runner.run_all(configured(visual="vgg16"), tmp_path / "run")
  same(store.read(tmp_path / "run" / "init" / "visual.safetensors"), of_part(variables, "visual"))


def test_a_run_goes_on_without_the_file_but_not_with_another(tmp_path, files, no_stages):
  _, made, _ = files
  path, run = tmp_path / "here.safetensors", tmp_path / "run"
  content = made["visual"][0].read_bytes()
  path.write_bytes(content)
  runner.run_all(configured(visual=path), run)
  runner.run_all(configured(visual=path), run)
  path.unlink()
  runner.run_all(configured(visual=path), run)
  path.write_bytes(content[:-1] + b"x")
  with pytest.raises(WeightsError) as error:
    runner.run_all(configured(visual=path), run)
  digests = [hashlib.sha256(data).hexdigest() for data in (path.read_bytes(), content)]
  assert str(error.value) == (
    f"{path}: has SHA-256 {digests[0]}, but {run} began with {digests[1]}; use another --workdir"
  )
  for config in (configured(), configured(visual=path, sound=made["sound"][0])):
    path.write_bytes(content)
    with pytest.raises(WorkdirError, match=r"begun with another configuration \(init\.(visual|sound): "):
      runner.run_all(config, run)
  assert [file.name for file in (run / "init").iterdir()] == ["visual.safetensors"]


def test_a_run_that_was_killed_before_the_copy_makes_it(tmp_path, files, no_stages):
  config = configured(visual=files[1]["visual"][0])
  runner.run_all(config, tmp_path)
  Workdir(tmp_path).initial_part("visual").unlink()
  runner.run_all(config, tmp_path)
  assert Workdir(tmp_path).initial_part("visual").is_file()


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"network": CONFIG.network.model_copy(update={"width": 0.25})}, "is float32 (8,), expected float32 (16,)"),
    ({"network": CONFIG.network.model_copy(update={"depths": (2, 1, 1, 1, 1)})}, "missing params/visual/conv1_2/conv/"),
    ({"network": CONFIG.network.model_copy(update={"norm": "none"})}, "spare batch_stats/visual/conv1_1/norm/"),
  ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, files, no_stages, change, message):
  path = files[1]["visual"][0]
  with pytest.raises(WeightsError) as error:
    runner.run_all(configured(visual=path).model_copy(update=change), tmp_path / "run")
  text = str(error.value)
  assert text.startswith(f"{path}: does not fit 'visual' of the network: ") and message in text and "\n" not in text
  assert not (tmp_path / "run").exists()


def test_a_file_of_another_part_is_refused(tmp_path, files, no_stages):
  for init, message in (
    ({"visual": files[1]["sound"][0]}, "has nothing of 'visual', only of sound"),
    ({"sound": tmp_path / "nowhere"}, "No such file"),
  ):
    with pytest.raises(WeightsError, match=message):
      runner.run_all(configured(**init), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_random_parts_are_replaced_by_those_of_the_files(tmp_path, files, no_stages, random_variables, capsys):
  """What comes from a finished network stays; everything else of the part is the file's."""
  variables, made, _ = files
  config = configured(**{part: path for part, (path, _) in made.items()})
  runner.run_all(config, tmp_path)
  sha256 = {part: digest for part, (_, digest) in made.items()}
  for name, parts in (("s_coarse", ["visual"]), ("tagger_1", ["sound"]), ("sta", ["visual", "sound"])):
    own = random_variables(networks.make_network(name, config, 3), SIZE, seed=1)
    inserted, taken = initial_weights.insert(name, config, Workdir(tmp_path), own, store.flatten(own).keys())
    assert taken == {part: sha256[part] for part in parts} and jax.tree.structure(inserted) == jax.tree.structure(own)
    for part in {name.split("/")[1] for name in store.flatten(own)}:
      same(of_part(inserted, part), of_part(variables if part in parts else own, part))
    assert f"{name}: {', '.join(parts)} from " in capsys.readouterr().out
  # This one starts from a network that sees, but not from one that hears.
  own = random_variables(networks.make_network("sa_coarse", config, 3), SIZE, seed=2)
  random = [name for name in store.flatten(own) if name.split("/")[1] != "visual"]
  inserted, taken = initial_weights.insert("sa_coarse", config, Workdir(tmp_path), own, random)
  assert taken == {"sound": sha256["sound"]}
  same(of_part(inserted, "visual"), of_part(own, "visual"))
  same(of_part(inserted, "sound"), of_part(variables, "sound"))


@pytest.mark.slow
@pytest.mark.parametrize("start", [(), ("s_coarse",)])
def test_training_begins_with_the_file(tmp_path, files, no_stages, start):
  """A frozen part still is the file's at the end, and `done.json` names the file."""
  variables, made, _ = files
  config = configured(**{part: path for part, (path, _) in made.items()})
  config = config.model_copy(update={"sa_coarse": ONE_STEP.model_copy(update={"start": start})})
  runner.run_all(config, tmp_path)
  run = make_run(tmp_path, fake_records(tmp_path / "records"), config)
  set_table(run, "tag_heard", np.zeros(run.data.records.total_frames, np.uint8))
  if start:
    run.workdir.stage("s_coarse").mkdir(parents=True)
    visual = {name: x + 1 for name, x in of_part(variables, "visual").items()}
    finish(run, "s_coarse", sha256=store.save(run.workdir.weights("s_coarse"), store.unflatten(visual)))
  about = train_network.train("sa_coarse", run)
  expected = {part: digest for part, (_, digest) in made.items()}
  assert about["init"] == ({"sound": expected["sound"]} if start else expected)
  found = store.read(run.workdir.weights("sa_coarse"))
  for part in ("visual", "sound"):
    moved = 1 if start and part == "visual" else 0
    own = {name: x for name, x in found.items() if name.split("/")[1] == part}
    same(own, {name: x + moved for name, x in of_part(variables, part).items()})
