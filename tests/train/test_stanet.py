"""STANet, the conference version: one student that learns from SCAM, from the command to its scores."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers import tiny
from helpers.tiny_training import CONFIG
from stajax import model, networks
from stajax.config import Students
from stajax.inference.predictor import Predictor

random_networks, small_programs = tiny.random_networks, tiny.small_programs


def test_the_final_map_is_that_of_sta(random_networks):
  """The single student's map stands for the final one, under the usual name."""
  config = tiny.CONFIG.model_copy(update={"students": Students(learn_from="scam")})
  names = networks.predicting_networks(config)
  assert names == (networks.SWITCH, "sta")
  variables = {name: random_networks[name][1] for name in names}
  made = model.Model(config, tiny.CATEGORIES, 4.0, tiny.STORED, "x", variables, {}, {})
  predictor, samples = Predictor(made, 4), tiny.make_samples(5)
  (found,) = tiny.method_maps(predictor, samples)
  assert set(found) == {"sta", "final", "final_no_switch", "spectral_residual"}
  np.testing.assert_array_equal(found["final"], found["sta"])
  np.testing.assert_array_equal(np.stack(list(predictor.maps(iter(samples)))), found["sta"])


@pytest.mark.slow
def test_train_stanet(tmp_path):
  """Pseudo-fixations are of the three fine sources, and the report has what there is."""
  (tmp_path / "tiny.py").write_text(CONFIG)
  workdir = tmp_path / "run"
  command = ["--config", str(tmp_path / "tiny.py"), "--workdir", str(workdir), "--students.learn-from", "scam"]
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
  child = subprocess.run(
    [sys.executable, "-m", "stajax.train", *command], env=environment, capture_output=True, text=True
  )
  assert child.returncode == 0, child.stdout + child.stderr
  stages = {path.parent.name for path in Path(workdir).glob("stages/*/done.json")}
  assert not stages & {*networks.GRANULAR, "sta_plus_short", "sta_plus_long"} and "sta" in stages
  summary = json.loads((workdir / "maps" / "scam_plus" / "summary.json").read_text())
  assert summary["kind"] == "scam" and set(summary["sha256"]) == {*networks.COARSE, *networks.FINE}
  scores = json.loads((workdir / "report" / "scores.json").read_text())["synthetic"]
  assert (
    scores["final"] == scores["sta"] and "scam_plus" not in scores and "row_12" in scores and "row_13" not in scores
  )
