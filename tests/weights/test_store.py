"""Tests of weights files: they give back what was saved, and every error is one line that names the file."""

import json
import os
import pickle
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from stajax.weights import store
from stajax.weights.store import WeightsError


def make_variables(seed=0):
  rng = np.random.default_rng(seed)
  return {
    "params": {"visual": {"conv": {"kernel": rng.normal(size=(3, 3, 2, 4)).astype(np.float32)}},
               "bias": rng.normal(size=4).astype(np.float32)},
    "batch_stats": {"visual": {"mean": rng.normal(size=4).astype(np.float32)}},
  }  # fmt: skip


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_what_is_saved_is_loaded(tmp_path):
  variables, path = make_variables(), tmp_path / "w.safetensors"
  store.save(path, jax.tree.map(jnp.asarray, variables))
  same(store.load(path, variables), variables)
  same(store.load(path, jax.eval_shape(lambda: variables)), variables)
  assert set(safetensors.numpy.load_file(path)) == {
    "params/visual/conv/kernel", "params/bias", "batch_stats/visual/mean",
  }  # fmt: skip
  assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


def test_transposed_views_keep_their_values(tmp_path):
  variables = {"params": {"x": np.arange(6, dtype=np.float32).reshape(3, 2).T}}
  store.save(tmp_path / "w", variables)
  loaded = store.load(tmp_path / "w", variables)
  np.testing.assert_array_equal(loaded["params"]["x"], [[0, 2, 4], [1, 3, 5]])


def test_equal_variables_give_equal_bytes(tmp_path):
  variables = make_variables()
  reordered = {name: dict(reversed(tree.items())) for name, tree in reversed(variables.items())}
  digests = [store.save(tmp_path / str(i), x) for i, x in enumerate((variables, reordered, make_variables(1)))]
  assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
  assert digests[0] == digests[1] != digests[2] and len(digests[0]) == 64


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / "w"
  store.save(path, make_variables())
  before = path.read_bytes()

  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(OSError):
    store.save(path, make_variables(1))
  assert path.read_bytes() == before


def changed(**replaced):
  variables = make_variables()
  variables["params"] |= replaced
  return variables


@pytest.mark.parametrize(
  ("found", "message"),
  [
    (changed(more=np.zeros(1, np.float32)), "spare params/more"),
    ({**make_variables(), "batch_stats": {}}, "missing batch_stats/visual/mean"),
    (changed(bias=np.zeros(5, np.float32)), "params/bias is float32 (5,), expected float32 (4,)"),
    (changed(bias=np.zeros(4, np.float64)), "params/bias is float64 (4,), expected float32 (4,)"),
    (
      {"params": {str(i): np.zeros(1, np.float32) for i in range(9)}},
      "missing batch_stats/visual/mean; spare params/0; ",
    ),
    ({"params": {str(i): np.zeros(1, np.float32) for i in range(9)}}, "; spare params/4; and 4 more"),
  ],
)
def test_what_does_not_fit_is_named(tmp_path, found, message):
  path = tmp_path / "other.safetensors"
  store.save(path, found)
  with pytest.raises(WeightsError) as error:
    store.load(path, make_variables())
  assert str(error.value).startswith(f"{path}: does not fit") and message in str(error.value)
  assert "\n" not in str(error.value)


def tensor_file(header, data=b""):
  header = json.dumps(header).encode()
  return struct.pack("<Q", len(header)) + header + data


@pytest.mark.parametrize(
  "content",
  [
    b"",
    b"plain text, not a file of weights",
    pickle.dumps({"params": 1}),
    struct.pack("<Q", 2**62) + b"{}",
    tensor_file({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234"),
    tensor_file({"x": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}, bytes(8)),
    tensor_file({"x": {"dtype": "F8_E5M2", "shape": [8], "data_offsets": [0, 8]}}, bytes(8)),
    None,
  ],
  ids=["empty", "text", "pickle", "huge header", "short", "overflow", "float8", "folder"],
)
def test_a_file_without_weights_is_one_line(tmp_path, content):
  path = tmp_path / "w.safetensors"
  path.mkdir() if content is None else path.write_bytes(content)
  with pytest.raises(WeightsError, match="not a readable safetensors file") as error:
    store.read(path)
  assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_a_truncated_or_missing_file(tmp_path):
  path = tmp_path / "w"
  store.save(path, make_variables())
  path.write_bytes(path.read_bytes()[:-5])
  with pytest.raises(WeightsError, match="not a readable safetensors file"):
    store.load(path, make_variables())
  with pytest.raises(WeightsError, match="nowhere"):
    store.read(tmp_path / "nowhere")


def test_merge():
  """It takes what has the same name and shape, and returns the names of the others."""
  own, source = make_variables(), make_variables(1)
  source["params"]["bias"] = np.zeros(9, np.float32)
  source["params"]["spare"] = np.zeros(1, np.float32)
  del source["batch_stats"]
  merged, kept = store.merge(own, source)
  assert kept == ["batch_stats/visual/mean", "params/bias"]
  same(merged["params"]["visual"], source["params"]["visual"])
  same([merged["params"]["bias"], merged["batch_stats"]], [own["params"]["bias"], own["batch_stats"]])
  assert set(merged["params"]) == {"visual", "bias"}
