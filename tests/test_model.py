"""Model folders: what is written is read again, and what is wrong is one line that names the file."""

import functools
import json

import jax
import numpy as np
import pytest

from helpers.manifests import edit, reseal
from stajax import model, networks
from stajax.config import Config, ConfigError, Network, Training
from stajax.files.manifest import read_manifest, sha256_of_file
from stajax.inference.predictor import Predictor
from stajax.model import ModelError
from stajax.weights import store
from stajax.weights.store import WeightsError

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
      jax.tree.map(np.testing.assert_array_equal, found.variables[name], variables)
    jax.tree.map(np.testing.assert_array_equal, found.companions, COMPANIONS)
  assert not model.load(folder, ["s"]).companions  # only networks with companions need them
  assert sorted(path.name for path in folder.iterdir()) == [
    "companions.safetensors", "config.json", "model.json", *(f"{name}.safetensors" for name in NAMES),
  ]  # fmt: skip
  assert json.loads((folder / "model.json").read_text("utf-8"))["provenance"] == "a test"


def test_half_precision_rounds_the_weights_and_nothing_else(folder, files, tmp_path):
  size = model.save_half(folder.parent, tmp_path / "half")
  assert size < 0.6 * sum(path.stat().st_size for path in folder.glob("s*.safetensors")) + 10_000
  found, before = model.load(tmp_path / "half", NAMES), model.load(folder, NAMES)
  for name in NAMES:
    rounded = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), files[name][2])
    jax.tree.map(np.testing.assert_array_equal, found.variables[name], rounded)
    assert found.sha256[name] == sha256_of_file(tmp_path / "half" / f"{name}.safetensors")
  assert (found.config, found.categories, found.rate) == (before.config, before.categories, before.rate)
  jax.tree.map(np.testing.assert_array_equal, found.companions, before.companions)


def test_a_weight_beyond_half_precision_is_refused(folder, files, tmp_path):
  large = jax.tree.map(lambda x: x + np.float32(1e5), files["sta"][2])
  store.save(folder / "sta.safetensors", large)
  reseal(folder / "model.json")
  with pytest.raises(WeightsError, match=r"sta\.safetensors: .* expected at most 65504"):
    model.save_half(folder, tmp_path / "half")
  assert not (tmp_path / "half").exists()


def test_saving_again_replaces_the_folder(folder, files):
  (folder / "old").write_text("left from before")
  (folder.parent / ".model.partial").mkdir()
  (folder.parent / ".model.partial" / "broken").write_text("left by a killed process")
  write(folder, {"sta": files["sta"]}, rate=3.0)
  assert model.load(folder, ["sta"]).rate == 3 and [path.name for path in folder.parent.iterdir()] == ["model"]
  assert sorted(path.name for path in folder.iterdir()) == [
    "companions.safetensors", "config.json", "model.json", "sta.safetensors",
  ]  # fmt: skip


@pytest.mark.parametrize(
  ("file", "change", "message"),
  [
    ("model.json", b"{ not json", "not JSON"),
    ("model.json", b"\xff\xfe\x00", "not JSON"),
    ("model.json", b"[1, 2]", "found list, expected an object"),
    ("model.json", {"format": 99, "categories": None}, "format 99, this version reads 4, 3 and 2"),
    ("model.json", {"categories": None}, "not a model description"),
    ("model.json", {"rate": "fast"}, "not a model description"),
    ("model.json", {"rate": float("nan")}, "expected positive numbers"),
    ("model.json", {"side": float("inf")}, "not a model description"),
    ("model.json", {"sha256": 3}, "not a model description"),
    ("config.json", b"{", "Invalid JSON"),
    ("config.json", b"\xff\xfe\x00", "not text"),
    ("config.json", {"seeed": 3}, "did you mean `seed`"),
    ("sta.safetensors", b"nothing", "not a readable safetensors file"),
    ("companions.safetensors", b"nothing", "not a readable safetensors file"),
  ],
)
def test_a_damaged_model_is_one_line(folder, file, change, message):
  path = folder / file
  if isinstance(change, bytes):
    path.write_bytes(change)
  elif file == "model.json":
    edit(path, **change)
  else:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change))
  if file != "model.json":
    reseal(folder / "model.json")
  with pytest.raises((ModelError, ConfigError, WeightsError)) as error:
    model.load(folder, NAMES)
  assert str(error.value).startswith(f"{path}: ") and message in str(error.value)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", ["model.json", "config.json", "sta.safetensors", "companions.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "none", "folder"])
def test_a_file_that_is_not_the_one_that_was_written_is_refused(folder, file, damage):
  path = folder / file
  content = bytearray(path.read_bytes())
  path.unlink()
  if damage == "folder":
    path.mkdir()
  elif damage != "none":
    content[-len(content) // 3] ^= 4
    path.write_bytes({"flip": content, "cut": content[:-1], "empty": b""}[damage])
  with pytest.raises((ModelError, ConfigError, WeightsError)) as error:
    model.load(folder, NAMES)
  assert str(path if (file, damage) != ("model.json", "none") else folder) in str(error.value)
  assert "\n" not in str(error.value)


def test_models_of_the_format_before_are_read(folder):
  """Their `model.json` has the SHA-256 of networks only."""
  about, _ = read_manifest(folder / "model.json")
  (folder / "model.json").write_text(json.dumps(about | {"format": 2}))
  model.load(folder, NAMES)
  store.save(folder / "s.safetensors", {"params": {}})
  with pytest.raises(WeightsError, match=r"s\.safetensors: damaged or changed: its SHA-256 is"):
    model.load(folder, NAMES)


def test_former_models_are_read_unless_they_have_an_audio_switch(folder):
  """A switch of then would decide by the rules of now, without a word."""
  edit(folder / "model.json", format=3)
  model.load(folder, NAMES)
  about, _ = read_manifest(folder / "model.json")
  edit(folder / "model.json", sha256={**about["sha256"], "switch": "0" * 64})
  with pytest.raises(ModelError, match=r"model\.json: format 3, whose audio switch decided by other rules; train"):
    model.load(folder, ["s"])


def test_other_categories_do_not_fit_the_weights(folder):
  """If the SHA-256 vouch for them, that is found when they are used."""
  edit(folder / "model.json", categories=["ant", "bee"])
  with pytest.raises(WeightsError, match=r"the weights do not fit the configuration \(.*shape"):
    predictor = Predictor(model.load(folder, ["sta"]), 2, ["sta"])
    list(predictor.maps([(np.zeros((40, 40, 3), np.uint8), None)]))
  about, _ = read_manifest(folder / "model.json")
  (folder / "model.json").write_text(json.dumps(about | {"format": 2}))
  with pytest.raises(WeightsError, match=r"does not fit the network: .* \(3,\), expected float32 \(2,\)") as error:
    model.load(folder, ["sta"])
  assert str(error.value).startswith(str(folder / "sta.safetensors"))


def test_a_folder_without_a_model_is_one_line(tmp_path):
  for place in (tmp_path, tmp_path / "nowhere", __file__):
    with pytest.raises(ModelError, match=r"not a model \(expected model\.json in it") as error:
      model.load(place)
    assert str(error.value).startswith(f"{place}: ")


@pytest.mark.parametrize("name", ["st", "sa"])
def test_a_network_that_starts_from_s_sees_as_s_does(name, random_variables):
  """It has the spatial map of S, and what is new weighs this map and its gated copy, with a classifier of its own."""
  config = CONFIG.model_copy(update={name: Training(size=32)})
  both = {each: networks.make_network(each, config, 3) for each in ("s", name)}
  variables = {each: random_variables(network, 32, seed) for seed, (each, network) in enumerate(both.items())}
  merged, own = store.merge(variables[name], variables["s"])
  assert {path.split("/")[1] for path in own} == {
    "classify",
    *(["temporal"] if name == "st" else ["sound", "sound_map"]),
  }
  frames = np.random.default_rng(0).random((2, 32, 32, 3)).astype(np.float32)
  found, expected = (
    jax.jit(functools.partial(both[each].apply, method="encode_frames"))(x, frames)
    for each, x in ((name, merged), ("s", variables["s"]))
  )
  np.testing.assert_array_equal(found["s"], expected["s"])
