"""Tests that the benchmarks run without peers, and that PyTorch's peers with equal weights compute the same."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import traverse_util

from helpers.paths import ROOT

sys.path.insert(0, str(ROOT))  # `benchmarks` is not installed with stajax

from benchmarks import dense_inference, measure, metrics, page, training_step
from stajax import networks
from stajax.config import Config, Network

WIDTH = 0.125


def torch_weights(variables):
  """Returns Flax variables under the names and in the layouts of the peer's modules."""
  import torch

  found = {}
  for collection in variables.values():
    for path, x in traverse_util.flatten_dict(collection).items():
      x = np.asarray(x)
      *module, name = (part.replace("refine_f", "refine.f").replace("decode_f", "decode.f") for part in path)
      module = ".".join(module).replace(".netvlad.conv", ".assign").replace(".netvlad", "")
      if module.startswith("sound."):
        for block in ("conv1", "conv2", "downsample"):
          module = module.replace(f".{block}.conv", f".{block}.0").replace(".norm.batch", ".1")
      module = module.removesuffix(".conv")
      for place, stage in enumerate(("f3", "f4", "f5")):
        module = module.replace(f".{stage}", f".{place}")
      if name == "kernel":
        name = "weight"
        if module == "temporal.time":
          x = x.transpose(4, 0, 3, 1, 2).reshape(x.shape[-1], -1, 1, 1)
        elif module.startswith("temporal"):
          x = x[0].transpose(3, 2, 0, 1)
        elif module.startswith("sound_map"):
          x = x[::-1, ::-1].transpose(2, 3, 0, 1)
        else:
          x = x.transpose(3, 2, 0, 1) if x.ndim == 4 else x.T
      name = {"scale": "weight", "mean": "running_mean", "var": "running_var"}.get(name, name)
      found[f"{module}.{name}".removeprefix(".")] = torch.from_numpy(np.ascontiguousarray(x))
  return found


@pytest.mark.parametrize("name", training_step.NETWORKS)
def test_peers_compute_the_same(name):
  torch = pytest.importorskip("torch", reason="the extra `bench` is not installed")
  from benchmarks.peers import models

  torch.set_num_threads(1)
  # The map of sound is 32×32, as the spatial map of 256: smaller ones are scaled with antialiasing by JAX alone.
  size = 256 if "a" in name else 32
  config = Config(name="x", network=Network(width=WIDTH, audio_width=WIDTH, dtype="float32", attention_block=256))
  network = networks.make_network(f"{name}_long" if name.endswith("_plus") else name, config, 28)
  generator = np.random.default_rng(1)
  variables = jax.tree.map(
    lambda x: (
      np.abs(generator.normal(size=x.shape, scale=0.2)).astype(np.float32)
      if x.ndim == 1
      else generator.normal(size=x.shape, scale=np.sqrt(2 / np.prod(x.shape[:-1]))).astype(np.float32)
    ),
    networks.initialise(network, size, jax.random.key(0)),
  )
  batch = training_step.make_batch(name, 1, size)
  inputs = {key: batch[key].astype(np.float32) for key in ("sound", "switch") if key in batch}
  frames = batch["frames"].astype(np.float32) / 255
  expected = network.apply(variables, frames, **inputs)
  peer = models.make(name, 28, WIDTH).eval()
  missing = peer.load_state_dict(torch_weights(variables), strict=False)
  assert not missing.unexpected_keys
  assert all(key.endswith(("num_batches_tracked", "visual.mean", "visual.std")) for key in missing.missing_keys)
  with torch.inference_mode():
    found = peer(torch.from_numpy(frames).permute(0, 1, 2, 5, 3, 4), *map(torch.from_numpy, inputs.values()))
  if name.startswith("sta"):
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
  else:
    np.testing.assert_allclose(found.logits.numpy(), expected.logits, rtol=1e-3, atol=1e-4)
    if expected.branch_logits is not None:
      np.testing.assert_allclose(found.branch_logits.numpy(), expected.branch_logits, rtol=1e-3, atol=1e-4)
    assert np.ptp(expected.logits) > 1e-2


def test_a_ratio_compares_the_same_round():
  results = {"stajax": {"seconds": [1.0, 2.0, 9.0]}, "peer": {"seconds": [4.0, 8.0, 36.0]}}
  compared = measure.ratios(results, {"stajax": 2, "peer": 1})
  assert compared == {"stajax / peer": {"rounds": [8.0, 8.0, 8.0], "median": 8.0}}


@pytest.mark.slow
def test_training_step_runs(tmp_path, capsys):
  path = tmp_path / "result.json"
  small = ["--size", "16", "--width", "0.125", "--steps", "1", "--rounds", "1", "--peers"]
  assert training_step.main(["--network", "s", *small, "--json", str(path)]) == 0
  result = json.loads(path.read_text())
  assert result["results"]["stajax"]["per_second"] > 0 and result["results"]["stajax"]["flops"] > 0
  assert result["versions"]["jax"] and result["machine"]["cores"] and not result["ratios"]
  assert "stajax" in capsys.readouterr().out


@pytest.mark.slow
def test_dense_inference_runs(tmp_path):
  path = tmp_path / "result.json"
  small = ["--size", "16", "--width", "0.125", "--seconds", "1", "--rate", "2", "--rounds", "1", "--peers"]
  assert dense_inference.main([*small, "--sound", "--json", str(path)]) == 0
  result = json.loads(path.read_text())
  assert result["results"]["stajax"]["seconds"] and "2 frames" in result["title"]
  assert result["results"]["stajax, shared"]["flops"] < result["results"]["stajax"]["flops"]


def test_a_map_by_itself_takes_21_passes_through_the_backbone():
  config = dense_inference.make_config(256, "float32", 1.0, 256)
  found, heard = (dense_inference.count(config, 256, sound) for sound in (False, True))
  assert 6.4 < found["alone"] / found["separate"] < 7.1  # 7 but for sound, fusion and reasoning
  assert 18 < found["alone"] / found["shared"] < 21
  extra = {name: heard[name] - found[name] for name in found}
  assert extra["alone"] == 7 * extra["shared"] and extra["shared"] == extra["separate"]


def test_metrics_and_their_page(tmp_path, capsys):
  result, out = tmp_path / "result.json", tmp_path / "page.md"
  small = ["--size", "40", "60", "--frames", "2", "--rounds", "1"]
  assert metrics.main([*small, "--json", str(result)]) == 0  # it would raise if the scores of both sides differed
  assert page.main([str(result), "--out", str(out)]) == 0
  found = out.read_text()
  assert "| stajax |" in found and "stajax / plain NumPy: **" in found and "--size 40 60" in found
  assert "CPU cores; python" in found and "TFLOP" not in found.split("|", 1)[1]  # a column without any cell is left out
  assert len({line.count("|") for line in found.splitlines() if line.startswith("|")}) == 1


@pytest.mark.parametrize(
  ("text", "reason"),
  [
    ("{", "not JSON"),
    ("[]", "not a benchmark's result"),
    ("{}", "not a benchmark's result"),
    ('{"title": 1, "versions": {}, "machine": {}, "unit": "x"}', "not a benchmark's result"),
  ],
)
def test_another_file_is_refused_in_one_line(tmp_path, capsys, text, reason):
  path = tmp_path / "result.json"
  path.write_text(text)
  assert page.main([str(path), "--out", str(tmp_path / "page.md")]) == 2
  assert page.main([str(tmp_path / "none.json"), "--out", str(tmp_path / "page.md")]) == 2
  error = capsys.readouterr().err
  assert error.count("\n") == 2 and f"{path}: {reason}" in error


def test_the_kept_results_make_a_page(tmp_path):
  kept = sorted((Path(page.__file__).parent / "results").glob("*.json"))
  assert kept and page.main([*map(str, kept), "--out", str(tmp_path / "page.md")]) == 0
