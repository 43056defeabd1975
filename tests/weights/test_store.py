"""Weights files and model folders: what is written is read again, and what is wrong is one line that names the file."""

import json
import os
import pickle
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from stajax import model, networks
from stajax.config import Config, ConfigError, Network, Training
from stajax.model import ModelError
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
def test_what_is_no_weights_file_is_one_line(tmp_path, content):
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
  """What has the same name and shape is taken; the names of the others are told."""
  own, source = make_variables(), make_variables(1)
  source["params"]["bias"] = np.zeros(9, np.float32)
  source["params"]["spare"] = np.zeros(1, np.float32)
  del source["batch_stats"]
  merged, kept = store.merge(own, source)
  assert kept == ["batch_stats/visual/mean", "params/bias"]
  same(merged["params"]["visual"], source["params"]["visual"])
  same([merged["params"]["bias"], merged["batch_stats"]], [own["params"]["bias"], own["batch_stats"]])
  assert set(merged["params"]) == {"visual", "bias"}


def kernel(inputs, outputs, size=1, seed=0):
  values = np.random.default_rng(seed).normal(size=(size, size, inputs, outputs)).astype(np.float32)
  return {"params": {"classify": {"kernel": values}}}


def test_merge_widens_a_1x1_kernel_by_zeros_first():
  narrow = kernel(2, 3, seed=1)
  merged, own = store.merge(kernel(5, 3), narrow)
  found = merged["params"]["classify"]["kernel"]
  assert found.dtype == np.float32 and own == []
  same([found[:, :, :3], found[:, :, 3:]], [np.zeros((1, 1, 3, 3)), narrow["params"]["classify"]["kernel"]])


@pytest.mark.parametrize("found", [kernel(5, 4), kernel(9, 3), kernel(2, 4), kernel(2, 3, size=3)])
def test_merge_leaves_what_is_no_wider_1x1_kernel(found):
  """Other outputs, more inputs than there are, larger kernels."""
  variables = kernel(5, 3, size=len(found["params"]["classify"]["kernel"]))
  merged, own = store.merge(variables, found)
  assert own == ["params/classify/kernel"]
  same(merged, variables)


@pytest.mark.parametrize("name", ["st", "sa"])
def test_a_network_that_starts_from_s_begins_as_s(name, random_variables):
  """The same logits for anything that moves or sounds, and so with zeros for what is still to be learned."""
  config = CONFIG.model_copy(update={name: Training(size=32)})
  both = {each: networks.make_network(each, config, 3) for each in ("s", name)}
  variables = {each: random_variables(network, 32, seed) for seed, (each, network) in enumerate(both.items())}
  merged, own = store.merge(variables[name], variables["s"])
  assert {path.split("/")[1] for path in own} == ({"temporal"} if name == "st" else {"sound", "sound_map"})
  rng = np.random.default_rng(0)
  frames = rng.random((2, 1, both[name].num_times, 32, 32, 3)).astype(np.float32)
  heard = {"sound": rng.normal(size=(2, 1, 257, 98)).astype(np.float32), "switch": np.array([[1.0], [0.0]])}
  expected = jax.jit(both["s"].apply)(variables["s"], frames[:, :, [frames.shape[2] // 2]])
  found = jax.jit(both[name].apply)(merged, frames, **(heard if name == "sa" else {}))
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)
  assert np.abs(expected.logits).min() > 1e-3


# Model folders.

CONFIG = Config(
  name="tiny",
  network=Network(width=0.01, depths=(1,) * 5, norm="group", audio_width=0.01, audio_norm="group"),
  s=Training(size=32),
  s_plus=Training(size=32),
  sta=Training(size=32),
)
NAMES = ("s", "s_plus_cross", "sta")
COMPANIONS = {"s_plus_cross": np.ones((3, 2, 4, 4, 3), np.float16), "clips": np.array([[0, 2], [1, -1], [-1, -1]])}
CATEGORIES = ["ant", "bee", "cat — “quoted”"]


@pytest.fixture(scope="module")
def files(tmp_path_factory, random_variables):
  folder, made = tmp_path_factory.mktemp("files"), {}
  for name in NAMES:
    variables = random_variables(networks.make_network(name, CONFIG, len(CATEGORIES)), 32)
    made[name] = (folder / name, store.save(folder / name, variables), variables)
  return made


def write(folder, files, **about):
  about = {"categories": CATEGORIES, "rate": 7.5, "side": 40, "trained_on": "ave", **about}
  sha256 = {name: digest for name, (_, digest, _) in files.items()}
  model.save(folder, {name: path for name, (path, _, _) in files.items()}, COMPANIONS, CONFIG, sha256=sha256, **about)


@pytest.fixture
def folder(tmp_path, files):
  write(tmp_path / "run" / "model", files, provenance="a test")
  return tmp_path / "run" / "model"


def test_a_model_folder_is_read_as_written(folder, files):
  for place in (folder, folder.parent, str(folder)):
    found = model.load(place, NAMES)
    assert found.config == CONFIG and found.categories == tuple(CATEGORIES)
    assert (found.rate, found.side, found.trained_on) == (7.5, 40, "ave")
    assert found.sha256 == {name: digest for name, (_, digest, _) in files.items()}
    for name, (_, _, variables) in files.items():
      same(found.variables[name], variables)
    same(found.companions, COMPANIONS)
  assert not model.load(folder, ["s"]).companions  # only networks with companions need them
  assert sorted(path.name for path in folder.iterdir()) == [
    "companions.safetensors", "config.json", "model.json", *(f"{name}.safetensors" for name in NAMES),
  ]  # fmt: skip
  assert json.loads((folder / "model.json").read_text("utf-8"))["provenance"] == "a test"


def test_saving_again_replaces_the_folder(folder, files):
  (folder / "old").write_text("left from before")
  (folder.parent / ".model.partial").mkdir()
  (folder.parent / ".model.partial" / "broken").write_text("left by a killed process")
  write(folder, {"sta": files["sta"]}, rate=3.0)
  assert model.load(folder, ["sta"]).rate == 3 and [path.name for path in folder.parent.iterdir()] == ["model"]
  assert sorted(path.name for path in folder.iterdir()) == [
    "companions.safetensors", "config.json", "model.json", "sta.safetensors",
  ]  # fmt: skip


def edit(path, **changes):
  about = json.loads(path.read_text("utf-8"))
  about |= changes
  path.write_text(json.dumps({key: value for key, value in about.items() if value is not None}), encoding="utf-8")


@pytest.mark.parametrize(
  ("file", "change", "message"),
  [
    ("model.json", b"{ not json", "not JSON"),
    ("model.json", b"\xff\xfe\x00", "not JSON"),
    ("model.json", b"[1, 2]", "format None, this version reads 2"),
    ("model.json", {"format": 99, "categories": None}, "format 99, this version reads 2"),
    ("model.json", {"categories": None}, "not a model description"),
    ("model.json", {"rate": "fast"}, "not a model description"),
    ("model.json", {"rate": float("nan")}, "expected positive numbers"),
    ("model.json", {"side": float("inf")}, "not a model description"),
    ("model.json", {"sha256": 3}, "not a model description"),
    ("config.json", b"{", "Invalid JSON"),
    ("config.json", b"\xff\xfe\x00", "not text"),
    ("config.json", {"seeed": 3}, "did you mean `seed`"),
    ("config.json", None, "No such file"),
    ("sta.safetensors", b"nothing", "not a readable safetensors file"),
    ("sta.safetensors", None, "not a readable safetensors file"),
    ("companions.safetensors", b"nothing", "not a readable safetensors file"),
    ("companions.safetensors", None, "not a readable safetensors file"),
  ],
)
def test_a_damaged_model_is_one_line(folder, file, change, message):
  path = folder / file
  if change is None:
    path.unlink()
  elif isinstance(change, bytes):
    path.write_bytes(change)
  else:
    edit(path, **change)
  with pytest.raises((ModelError, ConfigError, WeightsError)) as error:
    model.load(folder, NAMES)
  assert str(error.value).startswith(f"{path}: ") and message in str(error.value)
  assert "\n" not in str(error.value)


def test_other_categories_do_not_fit_the_weights(folder):
  edit(folder / "model.json", categories=["ant", "bee"])
  with pytest.raises(WeightsError, match=r"does not fit the network: .* \(3,\), expected float32 \(2,\)") as error:
    model.load(folder, ["sta"])
  assert str(error.value).startswith(str(folder / "sta.safetensors"))


def test_what_is_no_model_is_one_line(tmp_path):
  for place in (tmp_path, tmp_path / "nowhere", __file__):
    with pytest.raises(ModelError, match=r"not a model \(expected model\.json in it") as error:
      model.load(place)
    assert str(error.value).startswith(f"{place}: ")
