"""PyTorch's files are read without PyTorch in both formats, and files that claim too much are refused.

`tests/weights/test_parity.py` reads what PyTorch itself writes.
"""

import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.torch_files import (
  BASE,
  FORMATS,
  PROTOCOL,
  Raw,
  Tensor,
  assert_refused,
  encode,
  peak_memory,
  pickled,
  read,
  write_legacy,
  write_state,
  write_zip,
)
from stajax.weights.store import WeightsError


@FORMATS
def test_tensors_are_read(tmp_path, write):
  rng = np.random.default_rng(0)
  state = {
    "weight": rng.normal(size=(4, 3, 2, 2)).astype(np.float32),
    "half": rng.normal(size=5).astype(np.float16),
    "double": rng.normal(size=(2, 3)),
    "num_batches_tracked": np.int64(7),
    "none": np.zeros((0, 3), np.float32),
  }
  write_state(write, tmp_path / "x", state)
  found = read(tmp_path / "x")
  assert list(found) == list(state)
  for name, x in state.items():
    assert found[name].dtype == x.dtype
    np.testing.assert_array_equal(found[name], x)


@FORMATS
def test_views_share_a_storage(tmp_path, write):
  """Views are read by offset and strides, including those of the older `_rebuild_tensor`, and so are parameters."""
  views = {
    "rows": Tensor("0", 12, (2, 3), (3, 1), 6),
    "transposed": Tensor("0", 12, (3, 4), (1, 3)),
    "every_second": Tensor("0", 12, (6,), (2,), rebuild="_rebuild_tensor"),
    "number": Tensor("0", 12, (), (), 11),
  }
  state = views | {"parameter": Raw(b"ctorch._utils\n_rebuild_parameter\n(" + encode(views["rows"]) + b"\x88N" + b"tR")}
  write(tmp_path / "x", state, {"0": BASE})
  found = read(tmp_path / "x")
  np.testing.assert_array_equal(found["rows"], BASE[6:].reshape(2, 3))
  np.testing.assert_array_equal(found["transposed"], BASE.reshape(4, 3).T)
  np.testing.assert_array_equal(found["every_second"], BASE[::2])
  np.testing.assert_array_equal(found["parameter"], found["rows"])
  assert found["number"] == 11


@FORMATS
def test_bfloat16(tmp_path, write):
  upper = (BASE.view(np.uint32) >> 16).astype(np.uint16)  # whole numbers up to 11 lose nothing
  write(tmp_path / "x", {"x": Tensor("0", 12, (3, 4), (4, 1), kind="BFloat16Storage")}, {"0": upper})
  found = read(tmp_path / "x")["x"]
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, BASE.reshape(3, 4))


@FORMATS
@pytest.mark.parametrize("key", ["model_state_dict", "state_dict", "weights"])
def test_a_checkpoint_keeps_its_state_beside_other_things(tmp_path, write, key):
  """The arguments of the training, NumPy's numbers and the optimiser's state are ignored."""
  namespace = Raw(b"cargparse\nNamespace\n)\x81" + encode({"lr": 1}) + b"b")
  dtype = b"cnumpy\ndtype\n" + encode(("f8", False, True)) + b"R" + encode((3, "<", None, None, None, -1, -1, 0)) + b"b"
  data = b"c_codecs\nencode\n" + encode(("\x00" * 8, "latin1")) + b"R"
  scalar = Raw(b"cnumpy.core.multiarray\nscalar\n(" + dtype + data + b"tR")
  tensor = Tensor("0", 12, (12,), (1,))
  state = {"epoch": 3, "args": namespace, "best": scalar, key: {"x": tensor}}
  state["optimizer"] = {"state": {"0": {"momentum_buffer": tensor}}, "param_groups": [{"lr": 1, "params": [0]}]}
  write(tmp_path / "x", state, {"0": BASE})
  assert list(read(tmp_path / "x")) == ["x"]


@FORMATS
def test_the_known_one_of_several_states_is_read(tmp_path, write):
  tensors = {name: {name: Tensor("0", 12, (12,), (1,))} for name in ("teacher", "state_dict", "ema")}
  write(tmp_path / "x", tensors, {"0": BASE})
  assert list(read(tmp_path / "x")) == ["state_dict"]
  write(tmp_path / "y", {name: tensors[name] for name in ("teacher", "ema")}, {"0": BASE})
  assert_refused(tmp_path / "y", "found teacher, ema, expected a dictionary of tensors")


@FORMATS
@pytest.mark.parametrize(("value", "found"), [({}, "found nothing"), ([1, 2], "found list"), ({"lr": 3}, "found lr")])
def test_a_file_without_tensors(tmp_path, write, value, found):
  write(tmp_path / "x", value, {})
  assert_refused(tmp_path / "x", found)


# What claims too much.


@FORMATS
@pytest.mark.parametrize(
  ("tensor", "message"),
  [
    (Tensor("0", 10**12, (10**12,), (1,)), "claim 4000000000000"),
    (Tensor("0", 12, (10**12,), (1,)), "1000000000000 elements in a storage of 12"),
    (Tensor("0", 12, (10**6, 10**6), (0, 0)), "1000000000000 elements in a storage of 12"),  # an expanded one
    (Tensor("0", 12, (2,), (12,)), "2 elements in a storage of 12"),
    (Tensor("0", 12, (3,), (1,), 10), "3 elements in a storage of 12"),
    (Tensor("0", 12, (3,), (-1,), 2), "negative"),
    (Tensor("0", 12, (-3,), (1,)), "negative"),
    (Tensor("0", 12, (2**64,), (1,)), "negative or no number"),
    (Tensor("0", 12, ("3",), (1,)), "negative or no number"),
    (Tensor("0", 12, (3, 4), (1,)), "differ in length"),
    (Tensor("0", 12, (1,) * 99, (1,) * 99), "differ in length"),
    (Tensor("0", -12, (), ()), "without a storage of numbers"),
    (Tensor("0", 13, (13,), (1,)), "claim 52"),
    (Tensor("1", 12, (12,), (1,)), ""),
  ],
)
def test_a_tensor_that_is_not_there_is_refused(tmp_path, write, tensor, message):
  write(tmp_path / "x", {"x": tensor}, {"0": BASE})
  assert peak_memory(lambda: assert_refused(tmp_path / "x", message)) < 2**20


def test_a_storage_that_claims_another_length_than_its_tensors(tmp_path):
  """In the older format each storage states its length once more."""
  tensor = {"x": Tensor("0", 12, (12,), (1,))}
  for count in (10**12, 11, -1):
    write_legacy(tmp_path / "x", tensor, {"0": BASE}, counts={"0": count})
    assert_refused(tmp_path / "x", "of another length")
  write_legacy(tmp_path / "x", tensor, {"0": BASE}, keys=["0", "0"])
  assert_refused(tmp_path / "x", "repeated")
  write_legacy(tmp_path / "x", tensor, {"0": BASE}, keys=["0", "1"])
  assert_refused(tmp_path / "x", "list of storages")
  write_zip(tmp_path / "x", tensor | {"y": Tensor("0", 12, (12,), (1,), kind="IntStorage")}, {"0": BASE})
  assert_refused(tmp_path / "x", "two types")


def test_a_claim_of_a_terabyte_needs_no_memory(tmp_path):
  """The process may have 3 GiB of address space, most of which the libraries take."""
  write_legacy(tmp_path / "x", {"x": Tensor("0", 10**12, (10**12,), (1,))}, {"0": BASE}, counts={"0": 10**12})
  code = """
import resource, sys
from stajax.weights.array_files import open_arrays
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
try:
  with open_arrays(sys.argv[1]) as arrays: arrays.read("x")
except ValueError as error: print(error)
"""
  child = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True)
  assert "claim 4000000000000 bytes" in child.stdout, child.stderr


def test_a_storage_that_would_end_behind_the_file(tmp_path):
  """Its length fits into the file, but not behind its own header; the zip file's directory claims the same length."""
  path, count = tmp_path / "x", 12
  for _ in range(2):  # the length of a tensor's description depends on its count
    write_zip(path, {"x": Tensor("0", count, (count,), (1,))}, {"0": BASE})
    with zipfile.ZipFile(path) as archive:
      count = (path.stat().st_size - archive.getinfo("archive/data/0").header_offset) // 4
  content = bytearray(path.read_bytes())
  entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"archive/data/0"))
  content[entry + 20 : entry + 28] = struct.pack("<II", 4 * count, 4 * count)
  path.write_bytes(content)
  assert_refused(path, "x: the file is cut off")


def test_many_names_for_one_dictionary_take_no_time(tmp_path):
  inner = encode({str(i): None for i in range(50_000)}) + b"q\x00"
  outer = b"X\x01\x00\x00\x00x" + inner + b"".join(encode(str(i)) + b"h\x00" for i in range(50_000))
  write_zip(tmp_path / "x", {"y": Raw(b"}(" + outer + b"u")}, {})
  assert_refused(tmp_path / "x", "found y")
  write_zip(tmp_path / "x", b"\x80\x02}(" + outer + b"u.", {})
  assert_refused(tmp_path / "x", "found x, 0, 1")


# What is no such file.


@FORMATS
def test_a_file_that_ends_early(tmp_path, write):
  """Wherever it ends, the error is one line; an array with other content is never returned."""
  path = tmp_path / "x"
  write(path, {"x": Tensor("0", 12, (12,), (1,))}, {"0": BASE})
  whole = path.read_bytes()
  for length in range(0, len(whole), 7):
    path.write_bytes(whole[:length])
    assert_refused(path)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_bytes_are_one_line_or_other_numbers(tmp_path_factory, data):
  path = tmp_path_factory.getbasetemp() / "fuzzed.pth"
  write = data.draw(st.sampled_from([write_zip, write_legacy]))
  write(path, {"x": Tensor("0", 12, (3, 4), (4, 1)), "y": Tensor("1", 2, (2,), (1,))}, {"0": BASE, "1": BASE[:2]})
  content = bytearray(path.read_bytes())
  for _ in range(data.draw(st.integers(1, 4))):
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
  path.write_bytes(content)
  try:
    found = read(path)
  except WeightsError as error:
    assert str(error).startswith(f"{path}: ")
  else:
    assert sum(x.size for x in found.values()) <= 14


def test_zip_files_that_pytorch_does_not_write(tmp_path):
  path, tensor = tmp_path / "x", {"x": Tensor("0", 12, (12,), (1,))}
  write_zip(path, tensor, {"0": BASE}, compression=zipfile.ZIP_DEFLATED)
  assert_refused(path, "compressed")
  write_zip(path, tensor, {"0": BASE}, byteorder=b"big")
  assert_refused(path, "not little-endian")
  write_zip(path, tensor, {})
  assert_refused(path, "archive/data/0 is missing")
  write_zip(path, pickled("x" * 17 * 2**20), {})
  assert_refused(path, "expected at most")
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("a/data.pkl", pickled(tensor))
    archive.writestr("b/data.pkl", pickled(tensor))
  assert_refused(path, "more than one data.pkl")
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("readme.txt", "hello")
  assert_refused(path, "neither data.pkl nor .npy")
  write_zip(path, tensor, {"0": BASE})
  content = path.read_bytes()
  at = content.index(BASE.tobytes())
  path.write_bytes(content[: at + 5] + b"\xff" + content[at + 6 :])
  assert_refused(path, "CRC")


def test_without_a_byte_order_a_zip_file_is_little_endian(tmp_path):
  write_zip(tmp_path / "x", {"x": Tensor("0", 12, (12,), (1,))}, {"0": BASE}, byteorder=None)
  np.testing.assert_array_equal(read(tmp_path / "x")["x"], BASE)


def test_older_files_that_differ(tmp_path):
  path, tensor = tmp_path / "x", {"x": Tensor("0", 12, (12,), (1,))}
  for changes, message in (
    ({"little_endian": False}, "not little-endian"),
    ({"magic": 7}, "not of PyTorch"),
    ({"protocol": PROTOCOL + 1}, "another version than 1001"),
  ):
    write_legacy(path, tensor, {"0": BASE}, **changes)
    assert_refused(path, message)
  write_legacy(path, {"x": Tensor("0", 12, (12,), (1,), view=(("7", 0, 12),))}, {"0": BASE})
  assert_refused(path, "view of another one")


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "an empty file"),
    (b"\x1f\x8b\x08\x00 gzip", "expected PyTorch's formats, npz, safetensors or TFLite"),
    (b"<html><title>404 Not Found", "expected PyTorch's formats, npz, safetensors or TFLite"),
    (b"some text of a page that moved", "is damaged"),
    (b"PK\x03\x04 and no more", "a damaged zip file"),
    (b"\x10\x00\x00\x00\x00\x00\x00\x00{}              ", None),
    (struct.pack("<Q", 2**60) + b"{", "not a readable safetensors file"),
  ],
)
def test_unknown_formats_are_refused(tmp_path, content, message):
  (tmp_path / "x").write_bytes(content)
  if message is not None:
    assert_refused(tmp_path / "x", message)


def test_a_file_that_is_not_there(tmp_path):
  assert_refused(tmp_path / "nowhere.pth", "No such file")
  assert_refused(tmp_path, "Is a directory")
