"""Tests that published weights get our names, that errors name what does not fit, and of `stajax weights convert`."""

import hashlib
import io
import itertools
import zipfile

import av
import jax
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from helpers import parity
from helpers.torch_files import write_legacy, write_state, write_zip
from stajax.nets.visual import VGG16
from stajax.weights import __main__ as command
from stajax.weights import convert, store
from stajax.weights.store import WeightsError

STATES = {kind: parity.state(kind) for kind in parity.KINDS}


def assert_refused(path, *messages):
  with pytest.raises(WeightsError) as error:
    convert.read(path)
  text = str(error.value)
  assert text.startswith(f"{path}: ") and "\n" not in text
  assert all(message in text for message in messages), text


def write_npz(path, state):
  with open(path, "wb") as file:
    np.savez(file, **state)


def write_safetensors(path, state):
  safetensors.numpy.save_file({name: np.asarray(x) for name, x in state.items()}, path)


def as_npz(state):
  """Returns torchvision's state under the names of the npz: `conv1_1/kernel`, (height, width, in, out), float16."""
  names = [f"conv{stage}_{i}" for stage, depth in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, depth + 1)]
  pairs = zip(names, list(state.values())[::2], list(state.values())[1::2], strict=True)
  made = {name: (kernel.transpose(2, 3, 1, 0), bias) for name, kernel, bias in pairs}
  return {
    f"{name}/{leaf}": x.astype(np.float16) for name, both in made.items() for leaf, x in zip(("kernel", "bias"), both)
  }


@pytest.mark.parametrize("container", ["zip", "legacy", "safetensors", "checkpoint"])
@pytest.mark.parametrize("kind", parity.KINDS)
def test_any_container_gives_the_same(tmp_path, kind, container):
  """The same values are in the same places, whatever prefix the names have."""
  state, path = STATES[kind], tmp_path / "weights"
  match container:
    case "zip":
      write_state(write_zip, path, {f"module.{name}": x for name, x in state.items()})
    case "legacy":
      write_state(write_legacy, path, {name.removeprefix("audnet."): x for name, x in state.items()})
    case "checkpoint":
      write_state(write_legacy, path, state, lambda tensors: {"epoch": 3, "model_state_dict": tensors})
    case "safetensors":
      write_safetensors(path, state)
  found = convert.read(path)
  assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
  counters = [name for name in state if name.endswith("num_batches_tracked")]
  assert len(found.arrays) == len(state) - len(counters) and len(found.left_out) == len(counters)
  assert {x.dtype for x in found.arrays.values()} == {np.dtype(np.float32)}
  # Each array is there once, transposed or not.
  sums = sorted(float(np.sum(x, dtype=np.float64)) for name, x in state.items() if name not in counters)
  np.testing.assert_allclose(sorted(float(np.sum(x, dtype=np.float64)) for x in found.arrays.values()), sums)
  first = "features.2" if kind == "vgg16" else "audnet.layer1.0.conv2"
  ours = "params/visual/conv1_2" if kind == "vgg16" else "params/sound/layer1_0/conv2"
  assert state[f"{first}.weight"][5, 3, 0, 2] == found.arrays[f"{ours}/conv/kernel"][0, 2, 3, 5]


def test_statistics_and_the_last_layer_have_their_places(tmp_path):
  path = tmp_path / "I.pth.tar"
  parity.write("netvlad", path, STATES["netvlad"])
  found = convert.read(path).arrays
  for ours, theirs in {
    "batch_stats/sound/layer3_0/downsample/norm/batch/mean": "layer3.0.downsample.1.running_mean",
    "batch_stats/sound/layer3_0/conv1/norm/batch/var": "layer3.0.bn1.running_var",
    "params/sound/layer4_1/conv2/norm/batch/scale": "layer4.1.bn2.weight",
    "params/sound/layer4_1/conv2/norm/batch/bias": "layer4.1.bn2.bias",
    "params/sound/netvlad/centroids": "avgpool.centroids",
    "params/sound/netvlad/conv/bias": "avgpool.conv.bias",
    "params/classify/bias": "fc_.bias",
  }.items():
    np.testing.assert_array_equal(found[ours], STATES["netvlad"][f"audnet.{theirs}"], err_msg=ours)
  np.testing.assert_array_equal(found["params/classify/kernel"].T, STATES["netvlad"]["audnet.fc_.weight"])


def test_an_npz_gives_the_same(tmp_path):
  write_npz(tmp_path / "x.npz", as_npz(STATES["vgg16"]))
  write_state(write_zip, tmp_path / "x.pth", STATES["vgg16"])
  ours, theirs = (convert.read(tmp_path / name).arrays for name in ("x.npz", "x.pth"))
  assert set(ours) == set(theirs)
  for name, x in theirs.items():
    np.testing.assert_array_equal(ours[name], x.astype(np.float16).astype(np.float32))


def test_what_does_not_fit_is_named(tmp_path):
  """Missing, spare and misshaped parameters are named in one line."""
  path, state = tmp_path / "x", dict(STATES["vgg16"])
  del state["features.7.bias"]
  state["features.30.weight"] = np.zeros(3, np.float32)
  state["features.0.weight"] = np.zeros((64, 4, 3, 3), np.float32)
  write_state(write_zip, path, state)
  assert_refused(
    path,
    "does not fit torchvision's VGG-16: missing features.7.bias; spare features.30.weight; ",
    "features.0.weight is (64, 4, 3, 3), expected (64, 3, 3, 3)",
  )


@pytest.mark.parametrize(
  ("kind", "drop", "message"),
  [
    ("average", "audnet.fc.weight", "with average pooling: missing audnet.fc.weight"),
    ("netvlad", "audnet.avgpool.conv.bias", "with netvlad pooling: missing audnet.avgpool.conv.bias"),
    ("netvlad", "audnet.layer2.0.bn1.running_var", "missing audnet.layer2.0.bn1.running_var"),
    ("netvlad", "audnet.avgpool.centroids", "with netvlad pooling: missing audnet.avgpool.centroids"),
  ],
)
def test_an_incomplete_network_is_refused(tmp_path, kind, drop, message):
  write_safetensors(tmp_path / "x", {name: x for name, x in STATES[kind].items() if name != drop})
  assert_refused(tmp_path / "x", message)


def test_other_networks_are_refused(tmp_path):
  path = tmp_path / "x"
  write_safetensors(path, {"layers.0.weight": np.zeros(3, np.float32)})
  assert_refused(
    path, "found arrays named layers.0.weight, …, expected those of torchvision's VGG-16, VGG-16 as npz, VGGSo"
  )
  # torchvision's ResNet-18 has the same names.
  image = dict(STATES["average"])
  image = {name.removeprefix("audnet."): x for name, x in image.items()}
  image["conv1.weight"], image["fc.weight"] = np.zeros((64, 3, 7, 7), np.float32), np.zeros((1000, 512), np.float32)
  write_safetensors(path, image)
  assert_refused(
    path, "conv1.weight is (64, 3, 7, 7), expected (64, 1, 7, 7)", "fc.weight is (1000, 512), expected (309"
  )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
  state = as_npz(STATES["vgg16"])
  state["conv3_2/bias"][7] = value
  write_npz(tmp_path / "x", state)
  assert_refused(tmp_path / "x", "conv3_2/bias has values that are not finite")


def test_a_hash_in_the_name_is_checked(tmp_path):
  """torchvision's names have the first digits of the SHA-256, so a damaged file is found."""
  write_state(write_zip, tmp_path / "x", STATES["vgg16"])
  sha256 = hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()
  right, wrong = tmp_path / f"vgg16-{sha256[:8]}.pth", tmp_path / "vgg16-397923af.pth"
  (tmp_path / "x").rename(right)
  assert convert.read(right).sha256 == sha256
  right.rename(wrong)
  assert_refused(wrong, f"damaged, as its SHA-256 is {sha256}, expected 397923af… by its name")


def test_an_npz_that_claims_too_much(tmp_path):
  path, content = tmp_path / "x.npz", io.BytesIO()
  np.lib.format.write_array_header_1_0(content, {"shape": (10**12,), "fortran_order": False, "descr": "<f4"})
  for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
      archive.writestr("conv1_1/kernel.npy", content.getvalue() + bytes(100))
    assert_refused(path, "conv1_1/kernel: it claims 4000000000000 bytes, which a file of")


def test_an_npz_with_objects_is_refused(tmp_path):
  np.savez(tmp_path / "x.npz", **{"conv1_1/kernel": np.array([{}], object)}, allow_pickle=True)
  assert_refused(tmp_path / "x.npz", "conv1_1/kernel: its type is object, expected numbers")


def test_our_own_files_are_taken_as_they_are(tmp_path):
  """They may be a trained network's of any width: whether they fit is checked where they are used."""
  variables = {"params": {"visual": {"conv1_1": {"conv": {"bias": np.ones(8, np.float32)}}}, "bias": np.zeros(2)}}
  store.save(tmp_path / "x", variables)
  found = convert.read(tmp_path / "x")
  assert found.kind == "stajax" and set(found.arrays) == {"params/visual/conv1_1/conv/bias", "params/bias"}


# The command.


def test_convert_writes_safetensors_that_name_their_source(tmp_path, capsys):
  path, out = tmp_path / "vggsound_netvlad.pth.tar", tmp_path / "vggsound_netvlad.safetensors"
  parity.write("netvlad", path, STATES["netvlad"])
  sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
  assert command.main(["convert", str(path)]) == 0
  line = capsys.readouterr().out
  assert line.count("\n") == 1 and line.startswith(f"{out}: 105 arrays of classify, sound, SHA-256 ")
  assert hashlib.sha256(out.read_bytes()).hexdigest() in line
  assert f"SHA-256 {sha256}; left out: audnet.bn1.num_batches_tracked" in line and "and 14 more" in line
  kind = "VGGSound's ResNet-18 with netvlad pooling"
  assert store.read_about(out) == {"source": path.name, "sha256": sha256, "kind": kind}
  found, stored = convert.read(path).arrays, safetensors.numpy.load_file(out)
  assert set(found) == set(stored) and all(np.array_equal(x, stored[name]) for name, x in found.items())
  first = out.read_bytes()
  assert command.main(["convert", str(path), "--out", str(tmp_path / "again")]) == 0
  assert (tmp_path / "again").read_bytes() == first
  # What it wrote can be converted again, with the same result.
  assert command.main(["convert", str(out), "--out", str(tmp_path / "third")]) == 0
  assert convert.read(tmp_path / "third").arrays.keys() == found.keys()


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("x.pth", b"", "an empty file"),
    ("x.pth", b"cos\nsystem\n(S'true'\ntR.", "`os.system`, which is refused"),
    ("x.safetensors", b"{}", "would be overwritten"),
    ("nowhere.pth", None, "No such file"),
  ],
)
def test_the_error_of_a_file_that_cannot_be_converted_is_one_line(tmp_path, capsys, name, content, message):
  path = tmp_path / name
  if content is not None:
    path.write_bytes(content)
  assert command.main(["convert", str(path)]) == 2
  out, error = capsys.readouterr()
  assert not out and error.startswith(f"stajax weights: {path}: ") and message in error and error.count("\n") == 1
  assert sorted(tmp_path.iterdir()) == ([path] if content is not None else [])


def test_convert_into_a_folder_that_is_not_there(tmp_path, capsys):
  write_npz(tmp_path / "x.npz", as_npz(STATES["vgg16"]))
  assert command.main(["convert", str(tmp_path / "x.npz"), "--out", str(tmp_path / "no" / "x")]) == 2
  assert "cannot be written (no such folder)" in capsys.readouterr().err


# Real weights.


@pytest.fixture(scope="module")
def shared_weights(shared):
  path = shared / "weights" / "vgg16_imagenet_conv.npz"
  if not path.is_file():
    pytest.skip("needs the weights in the folder `shared`")
  return path


def test_the_shared_weights_are_converted(shared_weights):
  found = convert.read(shared_weights)
  assert sum(x.size for x in found.arrays.values()) == 14_714_688 and found.kind == "VGG-16 as npz"
  with np.load(shared_weights, allow_pickle=False) as arrays:
    for name in arrays.files:
      block, leaf = name.split("/")
      np.testing.assert_array_equal(found.arrays[f"params/visual/{block}/conv/{leaf}"], arrays[name].astype(np.float32))


@pytest.mark.slow
def test_the_shared_weights_tell_kinds_of_clips_apart(shared, shared_weights):
  """The most similar clip is more often of the same kind than it is with transposed kernels or swapped colours."""
  frames, tags = eleventh_frames(sorted((shared / "data" / "clips").glob("*/*.mp4")))
  network = jax.jit(lambda params, images: VGG16().apply({"params": params}, images).f5.mean((1, 2)))

  def share(params):
    features = np.array(network(params, frames), np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    features -= features.mean(axis=0)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    alike = features @ features.T - 9 * np.eye(len(features))
    return np.mean(tags[alike.argmax(axis=1)] == tags)

  params = store.unflatten(convert.read(shared_weights).arrays)["params"]["visual"]
  turned = jax.tree.map(lambda x: x.transpose(1, 0, 2, 3) if x.ndim == 4 else x, params)
  first = params["conv1_1"]["conv"]
  swapped = params | {"conv1_1": {"conv": {"kernel": first["kernel"][:, :, ::-1], "bias": first["bias"]}}}
  assert share(params) >= max(0.4, share(turned) + 0.05, share(swapped) + 0.05)


def eleventh_frames(paths, size=96):
  """Returns the eleventh frame of each clip, (n, size, size, 3) in [0, 1], and the names of the clips' folders."""
  frames = []
  for path in paths:
    with av.open(str(path)) as file:
      frame = next(itertools.islice(file.decode(file.streams.video[0]), 10, None))
    frames.append(np.asarray(frame.to_image().resize((size, size), Image.Resampling.BILINEAR), np.float32) / 255)
  return np.stack(frames), np.array([path.parent.name for path in paths])
