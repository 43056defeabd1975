"""Compares converted VGG-16, and VGGSound's ResNet-18 with both poolings, with PyTorch's own layers.

Every stage's output is compared: with stored values, and where the extra `parity` is installed with PyTorch itself,
which then also writes the files.
"""

import numpy as np
import pytest

from helpers import parity
from stajax.weights import store
from stajax.weights.array_files import open_arrays

KINDS = pytest.mark.parametrize("kind", parity.KINDS)
TOLERANCE = 1e-4
NUM_STAGES = {"vgg16": 13, "average": 11, "netvlad": 12}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """Returns a function that writes the file of a kind as its publisher does."""
  made = {}

  def file(kind):
    if kind not in made:
      made[kind] = tmp_path_factory.mktemp("published") / kind
      parity.write(kind, made[kind], parity.state(kind))
    return made[kind]

  return file


def assert_same(found, expected, size, name):
  """Compares relative to the values and to the stage's root mean square, because sums near 0 keep their rounding."""
  np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE * size, err_msg=name)


@KINDS
def test_every_stage_has_the_stored_values(kind, files):
  found, _ = parity.stages(kind, files(kind), parity.inputs(kind))
  with np.load(parity.DATA / f"{kind}.npz", allow_pickle=False) as stored:
    assert set(stored["stages"].tolist()) == set(found) and len(found) == NUM_STAGES[kind]
    for name, values, size in zip(stored["stages"].tolist(), stored["values"], stored["sizes"]):
      own, own_size = parity.sample(name, found[name])
      assert_same(own, values, size, name)
      assert own_size == pytest.approx(size, rel=TOLERANCE)
      assert len(np.unique(values)) > parity.NUM_SAMPLES / 4  # the stage has not died


@KINDS
def test_every_stage_is_pytorchs(kind, files, tmp_path):
  torch = pytest.importorskip("torch", reason="needs the extra `parity`")
  from helpers import torch_networks

  network = torch_networks.make(kind, parity.state(kind))
  found, _ = parity.stages(kind, files(kind), parity.inputs(kind))
  expected = torch_networks.run(kind, network, parity.inputs(kind))
  assert set(found) == set(expected)
  for name, x in expected.items():
    assert found[name].shape == x.shape
    assert_same(found[name], x, parity.sample(name, x)[1], name)
  # Its own files give the same arrays, in both formats.
  for is_zip in (True, False):
    state = network.state_dict()
    torch.save(
      state if kind == "vgg16" else {"model_state_dict": state}, tmp_path / "x", _use_new_zipfile_serialization=is_zip
    )
    with open_arrays(tmp_path / "x") as arrays:
      assert list(arrays.shapes) == list(state)
      for name, tensor in state.items():
        np.testing.assert_array_equal(arrays.read(name), tensor.numpy())


@pytest.mark.parametrize("kind", ["average", "netvlad"])
def test_batch_statistics_are_pytorchs(kind, files):
  """In training each stage is normalised by its batch, and the running statistics move a tenth towards it."""
  pytest.importorskip("torch", reason="needs the extra `parity`")
  from helpers import torch_networks

  network = torch_networks.make(kind, parity.state(kind)).train()
  before = {name: x.numpy().copy() for name, x in network.state_dict().items()}
  found, statistics = parity.stages(kind, files(kind), parity.inputs(kind), train=True)
  expected = torch_networks.run(kind, network, parity.inputs(kind))
  for name, x in expected.items():
    # Normalising by the few values of a batch amplifies rounding.
    np.testing.assert_allclose(found[name], x, rtol=1e-3, atol=1e-4 * np.abs(x).max(), err_msg=name)
  own, after = store.flatten(statistics), {name: x.numpy() for name, x in network.state_dict().items()}
  places = {
    "conv1": ("bn1", 2 * 129 * 52),
    "layer1_1/conv2": ("layer1.1.bn2", 2 * 65 * 26),
    "layer2_0/downsample": ("layer2.0.downsample.1", 2 * 33 * 13),
  }
  for name, (theirs, count) in places.items():
    mean, variance = (own[f"sound/{name}/norm/batch/{leaf}"] for leaf in ("mean", "var"))
    np.testing.assert_allclose(mean, after[f"audnet.{theirs}.running_mean"], rtol=1e-4, atol=1e-5)
    # PyTorch keeps the unbiased variance, n/(n-1) of what it normalises by; Flax the latter.
    old, new = (x[f"audnet.{theirs}.running_var"] for x in (before, after))
    np.testing.assert_allclose(variance, old * 0.9 + (new - 0.9 * old) * (count - 1) / count, rtol=1e-4)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_what_pytorch_writes_is_read(tmp_path, is_zip, protocol):
  """Views are read, all types of numbers, and checkpoints that have more than tensors."""
  torch = pytest.importorskip("torch", reason="needs the extra `parity`")
  import argparse

  base = torch.arange(60.0).reshape(10, 6)
  state = {
    "base": base, "rows": base[2:5], "transposed": base.t(), "columns": base[:, ::2], "half": base.half(),
    "bfloat16": base[0].bfloat16(), "number": torch.tensor(7), "none": torch.zeros(0, 3), "yes": torch.tensor([True]),
    "parameter": torch.nn.Parameter(base[:2, :2]),
  }  # fmt: skip
  optimizer = torch.optim.SGD([torch.nn.Parameter(base.clone())], 0.1, momentum=0.9)
  checkpoint = {
    "epoch": 3, "args": argparse.Namespace(rate=1), "best": np.float64(3.5), "model_state_dict": state,
    "optimizer": optimizer.state_dict(), "device": torch.device("cpu"), "size": base.shape, "dtype": torch.float32,
  }  # fmt: skip
  for value in (state, checkpoint):
    torch.save(value, tmp_path / "x", _use_new_zipfile_serialization=is_zip, pickle_protocol=protocol)
    with open_arrays(tmp_path / "x") as arrays:
      assert arrays.shapes == {name: tuple(x.shape) for name, x in state.items()}
      for name, x in state.items():
        np.testing.assert_array_equal(arrays.read(name), x.detach().float().numpy(), err_msg=name)
