"""The whole method on a frozen backbone, as a user runs it: it is trained, killed, resumed and evaluated."""

import json
import re
import signal
import time

import jax
import jax.numpy as jnp
import pytest

from stajax import config as configuration
from stajax import model, networks
from stajax.weights import store
from tests.train.test_train_command import CONFIG, METHODS, finish, run

pytestmark = pytest.mark.slow


def test_the_method_on_a_frozen_backbone(tmp_path):
  path, workdir = tmp_path / "config.py", tmp_path / "work"
  path.write_text(re.sub(r"width=0\.125, depths", 'backbone="frozen", width=0.125, depths', CONFIG, count=1))
  settings = configuration.load(path)
  visual = networks.make_backbone(settings).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
  store.save(tmp_path / "visual.safetensors", {"params": {"visual": visual}})
  command = ("-m", "stajax.train", "--config", str(path), "--workdir", str(workdir))
  assert "expected its weights: --init visual=FILE" in finish(run(*command), 2) and not workdir.exists()
  command = (*command, "--init", f"visual={tmp_path / 'visual.safetensors'}")
  first = run(*command)
  deadline = time.monotonic() + 600
  while not list(workdir.glob("features/*/*.npy")) and time.monotonic() < deadline:
    time.sleep(0.1)
  first.send_signal(signal.SIGKILL)
  first.communicate()
  finish(run(*command))
  scores = json.loads((workdir / "report" / "scores.json").read_text())
  assert scores["synthetic"].keys() >= METHODS
  assert {path.name for path in (workdir / "features").iterdir()} == {"32", "32_crops"}
  for name in ("s_coarse", "sta_plus_long"):
    assert not any("visual" in key for key in store.read(workdir / "model" / f"{name}.safetensors"))
  found = model.load(workdir)
  kept = store.flatten({"visual": visual})
  for network in (networks.SWITCH, *networks.STUDENTS):
    ours = store.flatten({"visual": found.variables[network]["params"]["visual"]})
    assert all((jnp.asarray(ours[key]) == kept[key]).all() for key in kept)
  out = tmp_path / "scores"
  data = f"stavis:{workdir / 'data' / 'heldout_tree'}"
  finish(run("-m", "stajax.evaluate", "--model", str(workdir), "--data", data, "--out", str(out), "--stride", "4"))
  (scored,) = (found for name, found in json.loads((out / "scores.json").read_text()).items() if "/" not in name)
  assert scored.keys() >= {"feature_distance", "spectral_residual", "final"}
