"""Programs whose traces are kept: the next process finds them, and what is changed or damaged is traced again."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from helpers import tiny
from helpers.tiny import SIZE, make, make_clip, plain_jit
from stajax.inference import programs, traced
from stajax.inference.dense import DenseNetwork

small_programs = tiny.small_programs
real_folder = traced._folder
pytestmark = pytest.mark.usefixtures("small_programs")


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.setattr(traced, "_folder", lambda: tmp_path / "traced")
  monkeypatch.setattr(jax, "jit", plain_jit)  # the quick one of the tests gives nothing that could be kept
  return tmp_path / "traced"


class Counted:
  """A function that counts how often it is traced."""

  def __init__(self):
    self.count = 0

  def __call__(self, weights, x, *, scale):
    self.count += 1
    return {"y": x @ weights["w"] * scale["s"], "z": jnp.sum(x, axis=1)}


def arguments(count=3):
  rng = np.random.default_rng(0)
  return ({"w": rng.normal(size=(4, 5)).astype(np.float32)}, rng.normal(size=(count, 4)).astype(np.float32))


SCALE = {"s": np.float32(2)}


def run(function, count=3, name="f", donate=None):
  program = traced.TracedProgram(function, name, donate)
  out = program(*arguments(count), scale=SCALE)
  jax.tree.map(np.testing.assert_array_equal, program(*arguments(count), scale=SCALE), out)
  return out


def test_a_trace_is_found_by_the_next_process(folder, monkeypatch):
  first, second = Counted(), Counted()
  out = run(first)
  weights, x = arguments()
  np.testing.assert_allclose(out["y"], x @ weights["w"] * 2, rtol=1e-6)
  jax.tree.map(np.testing.assert_array_equal, run(second), out)
  assert (first.count, second.count) == (1, 0) and len(list(folder.iterdir())) == 1
  assert run(second, count=4)["y"].shape == (4, 5) and second.count == 1, "other shapes"


@pytest.mark.parametrize("change", ["function", "code", "setting", "not kept"])
def test_another_program_is_traced(folder, monkeypatch, change):
  function, name = Counted(), {"function": "g", "not kept": None}.get(change, "f")
  run(Counted())
  if change == "code":
    monkeypatch.setattr(traced, "_code", lambda: "changed")
  with jax.default_matmul_precision("highest" if change == "setting" else None):
    run(function, name=name)
  assert function.count == 1 and len(list(folder.iterdir())) == (1 if change == "not kept" else 2)


@pytest.mark.parametrize("damage", ["emptied", "foreign", "cut", "flipped"])
def test_damaged_traces_are_made_again(folder, damage):
  out = run(Counted())
  (path,) = folder.iterdir()
  content, middle = path.read_bytes(), path.stat().st_size // 2
  flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
  path.write_bytes({"emptied": b"", "foreign": b"no program", "cut": content[:-20], "flipped": flipped}[damage])
  for expected in (1, 0):
    function = Counted()
    jax.tree.map(np.testing.assert_array_equal, run(function), out)
    assert function.count == expected


def test_a_folder_that_cannot_be_written_costs_only_time(folder):
  folder.write_text("a file")
  function = Counted()
  assert run(function)["z"].shape == (3,) and function.count == 1
  found = traced.shapes_of_results(function, "f", *arguments(), scale=SCALE)
  assert found == (("y", (5,), np.float32), ("z", (), np.float32))


def test_memory_is_given_to_the_results_also_by_kept_traces(folder):
  for _ in range(2):
    program = traced.TracedProgram(lambda x, buffer: buffer.at[0].set(x), "write", donate=1)
    buffer = jnp.zeros((3, 4))
    np.testing.assert_array_equal(program(jnp.ones(4), buffer), [[1] * 4, [0] * 4, [0] * 4])
    assert buffer.is_deleted()


def test_shapes_are_kept(folder):
  def shapes():
    function = Counted()
    found = traced.shapes_of_results(function, "f", *arguments(), scale=SCALE)
    assert found == (("y", (5,), np.float32), ("z", (), np.float32))
    return function.count

  assert (shapes(), shapes()) == (1, 0)
  (path,) = folder.iterdir()
  path.write_text("[1]")
  assert (shapes(), shapes()) == (1, 0)


@pytest.mark.parametrize("name", ["st", "sta"])
def test_a_network_that_was_traced_before_is_not_traced(folder, monkeypatch, random_variables, name):
  network, variables = make(name, random_variables)
  select = (0, 3) if name == "st" else ()
  expected = DenseNetwork(network, variables, SIZE, 4).run(make_clip(6), select)
  results = []
  for _ in range(2):
    monkeypatch.setattr(programs, "_SHARED", {})  # as in a new process
    results.append(DenseNetwork(network, variables, SIZE, 4, keeps_traces=True).run(make_clip(6), select))
    monkeypatch.setattr(nn.Module, "apply", None)
  for found in results:
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_every_device_runs_a_kept_trace(folder, random_variables):
  """It is made on one device, and called on others, also in another process."""
  network, variables = make("st", random_variables)
  expected = DenseNetwork(network, variables, SIZE, 4).run(make_clip(6), (0, 3))
  devices = jax.devices()
  assert len(devices) == 8
  for used in (devices[3:5], devices[:2]):
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(programs, "_SHARED", {})
      for device in used:
        dense = DenseNetwork(network, variables, SIZE, 4, device=device, keeps_traces=True)
        assert {x.device for x in jax.tree.leaves(dense.launch(make_clip(6), (0, 3)))} == {device}
        jax.tree.map(np.testing.assert_array_equal, dense.run(make_clip(6), (0, 3)), expected)


@pytest.mark.parametrize("given, kept", [("/a", Path("/a/traced")), ("gs://bucket/a", None), ("", None), (None, None)])
def test_traces_are_kept_on_disks_only(given, kept):
  before = jax.config.jax_compilation_cache_dir
  jax.config.update("jax_compilation_cache_dir", given)
  try:
    assert real_folder() == kept
  finally:
    jax.config.update("jax_compilation_cache_dir", before)
