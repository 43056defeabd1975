"""Batches that devices do not divide: what fills them up counts nowhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.small_network import SIZE, Small, make_batch, on_devices, start
from helpers.tiny import quick_jit
from stajax import networks
from stajax.config import Config, Network
from stajax.nets.layers import Normalise, counting
from stajax.train import optimizer, step

CONFIG = Config(
  name="tiny",
  network=Network(
    width=0.01, norm="batch", depths=(1,) * 5, neck_depth=1, audio_width=0.01, audio_pooling="average", dtype="float32"
  ),
)


def fill_up(batch, number, seed=9):
  """Fills a batch up to `number` examples, with others than it has."""
  examples = len(batch["tags"])
  other = make_batch(seed, number - examples, *batch["frames"].shape[1:3], sound="sound" in batch)
  filled = {key: np.concatenate([x, other[key]]) for key, x in batch.items()}
  return filled | {"counts": np.where(np.arange(number) < examples, examples, 0).astype(np.float32)}


def distance(left, right):
  """The distance of two trees as vectors, relative to the second one's length."""
  vectors = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (left, right))
  difference, length = (lambda a, b: (np.linalg.norm(a - b), np.linalg.norm(b)))(*vectors)
  return difference / length


def fifty_steps(output, nodes, devices):
  """Trains on 3 examples a step; returns the losses, the parameters and the batch statistics."""
  network, mesh = Small(output, num_nodes=nodes), step.make_mesh(jax.devices()[:devices])
  update = optimizer.make_optimizer("sgd", lambda _: 2e-3, 0.9, 1e-3, (1.0, 2.0, 10.0, 20.0))
  loss = (step.classification_loss if output == "classes" else step.fixation_loss)(SIZE)
  run, state, metrics = step.make_train_step(network, loss, update, mesh), start(network, mesh, update), []
  for number in range(50):
    batch, slots = make_batch(number, batch=3, nodes=nodes), -(-3 // devices) * devices
    batch = batch if slots == 3 else fill_up(batch, slots, 100 + number)
    state, of_step = run(state, on_devices(batch, mesh))
    metrics.append(of_step)
  return jax.device_get((metrics, state.params, state.statistics))


@pytest.mark.parametrize(("output", "nodes"), [("classes", 3), ("maps", 1)])
@pytest.mark.parametrize("devices", [8, pytest.param(2, marks=pytest.mark.slow)])
def test_fifty_steps_are_those_of_the_batch(output, nodes, devices, monkeypatch):
  # The programs of training, and not those that are compiled quickly for tests: 1e-6 is near what float32 can tell.
  monkeypatch.setattr(jax, "jit", functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 3}))
  expected, filled = (fifty_steps(output, nodes, number) for number in (1, devices))
  assert [distance(*pair) < 1e-6 for pair in zip(filled, expected, strict=True)] == [True] * 3


_SLOW = (pytest.param(name, marks=pytest.mark.slow) for name in ("s_plus_long", "sa_plus_cross", "students"))


@pytest.mark.parametrize("mixed", [1, pytest.param(0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["tagger_0", *_SLOW])
def test_the_gradients_of_every_kind_of_network_are_those_of_the_batch(name, mixed, random_variables):
  """Everything that is normalised, reasoned over or supervised in between is an example's own, or leaves it out."""
  network = networks.make_network(name, CONFIG, 3)
  loss = (step.fixation_loss if network.predicts_maps else step.classification_loss)(32, mixed=mixed)
  variables = random_variables(network, 32)
  batch = make_batch(0, 2, network.num_nodes, network.num_times or 1, sound=network.hears)
  batch["weight"][:] = 1

  @quick_jit
  def learn(batch):
    def value(params):
      return loss(network, {**variables, "params": params}, batch)

    return jax.value_and_grad(value, has_aux=True)(variables["params"])

  expected, filled, other = jax.device_get([learn(batch), *(learn(fill_up(batch, 4, seed)) for seed in (1, 2))])
  assert distance(filled, expected) < 1e-5
  jax.tree.map(np.testing.assert_array_equal, filled, other)
  counted = jax.device_get(learn({**fill_up(batch, 4, 1), "counts": np.full(4, 4, np.float32)}))
  assert distance(counted, expected) > 1e-2


def test_batch_statistics_are_those_of_the_examples_that_count():
  """Every example has several places in a row, as frames of a group have."""
  x = np.random.default_rng(0).normal(size=(6, 4, 4, 8)).astype(np.float32)
  module = Normalise("batch")
  variables = module.init(jax.random.key(0), x, True)
  with counting(jnp.asarray([True, False, True])):
    _, found = module.apply(variables, x, True, mutable=["batch_stats"])
    predicted = module.apply(variables, x, False)
  some = x[[0, 1, 4, 5]]
  np.testing.assert_allclose(found["batch_stats"]["batch"]["mean"], 0.1 * some.mean(axis=(0, 1, 2)), rtol=1e-5)
  np.testing.assert_allclose(found["batch_stats"]["batch"]["var"], 0.9 + 0.1 * some.var(axis=(0, 1, 2)), rtol=1e-5)
  np.testing.assert_array_equal(predicted, module.apply(variables, x, False))
