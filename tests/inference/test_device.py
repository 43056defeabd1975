"""Prediction and training that run already neither compile, nor transfer implicitly, nor copy on the device."""

import contextlib

import jax
import numpy as np
import pytest

from helpers import small_network, tiny
from helpers.small_network import Small, make_batch, sgd
from helpers.tiny import SIZE, make_samples
from stajax.inference import predictor as prediction
from stajax.inference import programs
from stajax.inference.clip import joined, windows
from stajax.inference.reservoir import Fragments
from stajax.train import loop, step

small_programs = tiny.small_programs
random_networks, model_folder = tiny.random_networks, tiny.model_folder
pytestmark = pytest.mark.usefixtures("small_programs")


@contextlib.contextmanager
def watched_device(caplog):
  """Makes implicit transfers raise in all threads, and yields a list that in the end has what was compiled."""
  compiled = []
  caplog.clear()
  jax.config.update("jax_log_compiles", True)
  jax.config.update("jax_transfer_guard", "disallow")
  try:
    with caplog.at_level("WARNING"):
      yield compiled
  finally:
    jax.config.update("jax_transfer_guard", None)
    jax.config.update("jax_log_compiles", False)
    compiled += [record.message for record in caplog.records if "Compiling" in record.message]


def test_transfers_and_compilations_are_noticed(caplog):
  with watched_device(caplog) as compiled:
    double = jax.jit(lambda x: x + x)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
      double(np.zeros(7))
    double(jax.device_put(np.zeros(7)))
  assert compiled


def test_prediction_compiles_once_and_transfers_explicitly(model_folder, caplog, monkeypatch):
  """After one video nothing is compiled: not for longer ones, for short ones together, or for every method's maps."""
  monkeypatch.setattr(prediction, "WINDOW", 8)
  predictor = prediction.load_predictor(model_folder, batch=4)

  def fragments():
    samples = make_samples(27)
    return Fragments([samples[at : at + 3] for at in range(0, 27, 3)], np.arange(1, 27, 3))

  def run(counts):
    found = [np.array(list(predictor.maps(make_samples(count, seed=count), 1, fragments))) for count in counts]
    methods = [
      predictor.start_method_maps(clip)()
      for count in counts
      for clip in windows(make_samples(count, seed=count), length=8)
    ]
    together = predictor.start_final_maps(joined([make_samples(count) for count in (5, 1, 6)]))()
    return found, methods, together

  run([43])
  with watched_device(caplog) as compiled:
    found, methods, together = run([62, 35])
  assert compiled == []
  assert [x.shape for x in found] == [(62, SIZE, SIZE), (35, SIZE, SIZE)] and len(together) == 12
  assert sum(len(part["final"]) for part in methods) == 62 + 35


def test_buffers_of_prediction_are_written_in_place(model_folder, monkeypatch):
  """Features and fragments stay where they are, by what the compiler says and by their addresses."""
  seen = {}

  def watched(name, function):
    def call(variables, buffer, *arguments, **keywords):
      shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (variables, buffer, arguments, keywords))
      before = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(buffer)]
      result = function(variables, buffer, *arguments, **keywords)
      if before:
        after = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(result)]
        assert after == before and all(x.is_deleted() for x in jax.tree.leaves(buffer)), name
        seen[name] = function, shapes
      return result

    return call

  real = programs.Programs.__init__

  def init(self, *arguments, **keywords):
    real(self, *arguments, **keywords)
    for name in ("encode_frames", "encode_sound", "fuse"):
      program = getattr(self, name)
      program.write = watched(name, program.write)

  monkeypatch.setattr(programs.Programs, "__init__", init)
  monkeypatch.setattr(programs, "_SHARED", {})
  predictor = prediction.load_predictor(model_folder, batch=4)
  list(predictor.maps(make_samples(11)))
  assert list(seen) == ["encode_frames", "encode_sound", "fuse"]
  for name, (function, (variables, buffer, arguments, keywords)) in seen.items():
    compiled = (
      function.jitted(variables, buffer, *arguments, **keywords)
      .lower(variables, buffer, *arguments, **keywords)
      .compile()
    )
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(buffer))
    assert compiled.memory_analysis().alias_size_in_bytes == size, name


def test_training_compiles_once_transfers_explicitly_and_stays_in_place(tmp_path, caplog):
  """This holds from the second step on, logs included; the whole state is donated."""
  network, update, mesh = Small(), sgd(), step.make_mesh()
  pointers, compiled = [], []

  def batches(start, stop):
    yield make_batch(start)
    with watched_device(caplog) as found:
      for number in range(start + 1, stop - 1):
        yield make_batch(number)
    compiled.extend(found)
    yield make_batch(stop - 1)  # then there is a checkpoint, for which Orbax takes arrays apart

  step_function = step.make_train_step(network, step.classification_loss(small_network.SIZE), update, mesh)

  class Watched:
    def lower(self, state, batch):
      program = step_function.lower(state, batch).compile()
      size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
      assert program.memory_analysis().alias_size_in_bytes == size

      def run(state, batch):
        before = addresses(state)
        state, metrics = program(state, batch)
        pointers.append((before, addresses(state)))
        return state, metrics

      self.compile = lambda: run
      return self

  state = small_network.start(network, mesh, update)
  job = loop.Job("small", tmp_path, steps=6, batch=16, checkpoint_every=6, log_every=2)
  final = loop.train(job, state, Watched(), batches, [str(i) for i in range(16)], mesh)
  assert int(final.step) == 6 and len(pointers) == 6 and compiled == []
  # The first step's state is as it was put there, where arrays of equal numbers may be one.
  assert all(before == after for before, after in pointers[1:])


def addresses(state):
  return [[x.data.unsafe_buffer_pointer() for x in leaf.addressable_shards] for leaf in jax.tree.leaves(state)]
