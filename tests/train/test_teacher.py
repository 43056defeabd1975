"""A small student that learns what a finished model predicts."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from helpers import tiny
from helpers.tiny_training import CONFIG
from stajax import config as configuration
from stajax import model, networks
from stajax.config import Config, ConfigError, Data, Students, Training
from stajax.data.map_set import MapSet
from stajax.data.records import Records
from stajax.inference.clip import Clip, clip_samples
from stajax.inference.predictor import Predictor, load_predictor, to_uint8
from stajax.maps.pseudo import resize
from stajax.train.stages.checks import check
from stajax.train.stages.graph import make_graph
from stajax.train.stages.teacher_maps import check_teacher
from stajax.weights import store

random_networks, small_programs = tiny.random_networks, tiny.small_programs
TAUGHT = Students(learn_from="teacher", teacher="somewhere")


def test_nothing_but_the_student_is_trained():
  config = Config(name="a", students=TAUGHT)
  assert [stage.name for stage in make_graph(config)] == ["data", "teacher_maps", "sta", "model", "report"]
  assert networks.model_networks(config) == networks.predicting_networks(config) == ("sta",)


def test_a_classifier_is_trained_first_where_the_student_starts_from_it():
  config = Config(name="a", students=TAUGHT, sta=Training(start=("s_coarse",)), data=Data(path="b"))
  assert [stage.name for stage in make_graph(config)] == ["data", "s_coarse", "teacher_maps", "sta", "model", "report"]
  check(config.model_copy(update={"init": {"visual": "random"}}))


@pytest.mark.parametrize("students", [Students(learn_from="teacher"), Students(teacher="somewhere")])
def test_a_teacher_is_named_where_one_is_needed(students):
  config = Config(name="a", students=students, init={"visual": "random"})
  with pytest.raises(ConfigError, match=r"students\.teacher"):
    check(config)


def test_a_teacher_that_cannot_be_used_is_found_before_anything_is_trained(tmp_path):
  def check_of(teacher: str, rate: float) -> None:
    students = TAUGHT.model_copy(update={"teacher": teacher})
    check_teacher(Config(name="a", students=students, data=Data(path="b", rate=rate)))

  shipped = str(model.SHIPPED)  # its grid has 2 frames a second
  check_of(shipped, 4)
  with pytest.raises(model.ModelError, match="nowhere: not a model"):
    check_of(str(tmp_path / "nowhere"), 2)
  for rate in (1, 3):
    with pytest.raises(ConfigError, match=f"data.rate is {rate}, expected a multiple of students.teacher's 2"):
      check_of(shipped, rate)


def test_a_student_without_a_switch_hears_whenever_there_is_sound(random_networks):
  config = tiny.CONFIG.model_copy(update={"students": TAUGHT})
  variables = {"sta": random_networks["sta"][1]}
  predictor = Predictor(model.Model(config, tiny.CATEGORIES, 4.0, tiny.STORED, "x", variables, {}, {}), 4)
  clip = predictor.show(Clip(tiny.make_samples(5)))
  assert clip.has_sound.any()
  np.testing.assert_array_equal(clip.switch, clip.has_sound)
  (found,) = tiny.method_maps(predictor, tiny.make_samples(5))
  np.testing.assert_array_equal(found["final"], found["final_no_switch"])


@pytest.mark.slow
def test_the_command_trains_a_student_of_a_model(tmp_path):
  """The maps that it learns from are those of the teacher, and the model that it leaves predicts."""
  (tmp_path / "tiny.py").write_text(CONFIG.replace('sta=train("st_coarse", "sa_coarse", **heard)', "sta=train()"))
  _write_teacher(tmp_path)
  workdir = tmp_path / "run"
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
  command = ["--config", str(tmp_path / "tiny.py"), "--workdir", str(workdir)]
  command += ["--students.learn-from", "teacher", "--students.teacher", str(tmp_path / "teacher")]
  child = subprocess.run(
    [sys.executable, "-m", "stajax.train", *command], env=environment, capture_output=True, text=True
  )
  assert child.returncode == 0, child.stdout + child.stderr
  records = Records.open(workdir / "data" / "train")
  maps = MapSet.open(workdir / "maps" / "scam_plus", records)
  teacher = load_predictor(tmp_path / "teacher", centre=False)
  expected = teacher.clip_maps(Clip(clip_samples(records, 0, teacher.side)))["final"]
  found, weights = maps.clip_maps(records, 0)
  assert weights.all()
  np.testing.assert_allclose(found, to_uint8(resize(expected, (16, 16))), atol=2)
  made = json.loads((workdir / "model" / "model.json").read_text())
  assert set(made["sha256"]) == {"sta"}
  assert (workdir / "report" / "index.html").is_file()


def _write_teacher(folder):
  """Writes a model whose only student and whose switch are random, as `teacher` in a folder."""
  config = configuration.load(folder / "tiny.py")
  config = config.model_copy(update={"students": Students(learn_from="scam")})
  paths, sha256 = {}, {}
  for seed, name in enumerate(networks.predicting_networks(config)):
    network, paths[name] = networks.make_network(name, config, 3), folder / f"{name}.safetensors"
    sha256[name] = store.save(paths[name], networks.initialise(network, 32, jax.random.key(seed)))
  about = {"categories": ("a", "b", "c"), "rate": config.data.rate, "side": 32, "trained_on": "synthetic"}
  model.save(folder / "teacher", paths, {}, config, sha256=sha256, **about)
