"""The three students as one network: functions and gradients equal those of three, and frames are encoded once."""

import collections
import contextlib

import flax.linen as nn
import jax
import numpy as np
import pytest

from helpers import tiny
from helpers.small_network import make_batch
from helpers.tiny import CATEGORIES, CONFIG, SIZE, STORED, make_samples
from stajax import cli, model, networks
from stajax import config as configuration
from stajax.config import Students, Training
from stajax.inference import programs
from stajax.inference.clip import windows
from stajax.inference.dense import fetch
from stajax.inference.predictor import Predictor
from stajax.nets import shared_students
from stajax.nets.student import FixationModule
from stajax.nets.visual import VGG16, Neck
from stajax.train import optimizer, step
from stajax.weights import store

JOINT = CONFIG.model_copy(update={"students": Students(backbone="shared")})
NUM = len(CATEGORIES)

small_programs = tiny.small_programs
pytestmark = [pytest.mark.usefixtures("small_programs"), pytest.mark.slow]


def with_norm(norm):
  return JOINT.model_copy(update={"network": JOINT.network.model_copy(update={"norm": norm, "audio_norm": "group"})})


def make_joint(random_variables, config=JOINT):
  network = networks.make_network(networks.ALL_STUDENTS, config, NUM)
  return network, random_variables(network, SIZE)


def inputs(batch=2, seed=0):
  rng = np.random.default_rng(seed)
  return {
    "frames": rng.random((batch, 5, 3, SIZE, SIZE, 3)).astype(np.float32),
    "sound": rng.normal(size=(batch, 5, 257, 98)).astype(np.float32),
    "switch": rng.integers(0, 2, (batch, 5)).astype(np.float32),
  }


# The companions are those of `stajax.data.sampler`: short in 1 and 2, long in 3 and 4.
READ = {"sta": [0], "sta_plus_short": [0, 1, 2], "sta_plus_long": [0, 3, 4]}


@pytest.mark.parametrize("fine_read_out", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_maps_are_those_of_three_networks(random_variables, fine_read_out):
  sizes = CONFIG.network.model_copy(update={"fine_read_out": fine_read_out})
  network, variables = make_joint(random_variables, JOINT.model_copy(update={"network": sizes}))
  assert network.num_nodes == 5 and network.output_nodes == (0, 0, 1, 2, 0, 3, 4)
  given = inputs()
  found = tiny.compiled(network)(variables, given)
  assert found.shape == (2, 7, SIZE, SIZE) and found.dtype == np.float32
  at = 0
  for name, nodes in READ.items():
    config = CONFIG.model_copy(update={"network": sizes})
    alone, own = networks.make_network(name, config, NUM), shared_students.split(variables, name)
    store.check_fit(name, store.flatten(own), store.flatten(networks.expected_variables(alone, SIZE)))
    expected = tiny.compiled(alone)(own, {key: x[:, nodes] for key, x in given.items()})
    assert np.std(expected) > 1e-2
    np.testing.assert_allclose(found[:, at : at + len(nodes)], expected, rtol=0, atol=1e-5, err_msg=name)
    at += len(nodes)
  assert at == 7


@pytest.mark.slow
def test_loss_and_gradient_are_the_sums_of_three(random_variables):
  """The networks have group normalisation, since the statistics of their batches would be of other frames."""
  config = with_norm("group")
  network, variables = make_joint(random_variables, config)
  batch = {key: x for key, x in make_batch(0, batch=2, nodes=5, sound=True).items() if key not in ("clip", "frame")}
  batch["weight"] = np.array([[1, 1, 0, 1, 1], [1, 0, 0, 1, 1]], np.float32)  # nobody has the third

  def differentiate(network, variables, batch):
    loss = step.fixation_loss(SIZE)
    of = jax.value_and_grad(lambda params: loss(network, {"params": params}, batch), has_aux=True)
    (value, (_, metrics)), gradient = tiny.quick_jit(of)(variables["params"])
    return {"loss": value, **metrics}, store.flatten(gradient)

  values, gradient = differentiate(network, variables, batch)
  totals, sums = collections.Counter(), {}
  for name, nodes in READ.items():
    own = {key: x if key == "flip" else x[:, nodes] for key, x in batch.items()}
    alone = networks.make_network(name, config, NUM)
    found, parts = differentiate(alone, shared_students.split(variables, name), own)
    totals.update({key: float(x) for key, x in found.items()})
    for key, x in parts.items():
      key = key if key.split("/")[0] in shared_students.COMMON else f"{name}/{key}"
      sums[key] = sums.get(key, 0) + np.asarray(x)
  assert values.keys() == totals.keys() and gradient.keys() == sums.keys()
  for key, x in values.items():
    np.testing.assert_allclose(x, totals[key], rtol=1e-5, err_msg=key)
  for key, x in sums.items():
    assert np.abs(x).max() > 0 or key.endswith("graph/key/bias"), key
    np.testing.assert_allclose(gradient[key], x, rtol=1e-5, atol=1e-5 * np.abs(x).max() + 1e-7, err_msg=key)


@contextlib.contextmanager
def counted():
  """Counts the frames and sounds that go through backbones while programs run."""
  counts = collections.Counter()

  def count(call, args, kwargs, context):
    if context.method_name == "__call__" and isinstance(context.module, (VGG16, Neck, tiny.TinyAudio)):
      what, number = type(context.module).__name__, len(args[0])
      jax.debug.callback(lambda: counts.update({what: number}))
    return call(*args, **kwargs)

  with nn.intercept_methods(count):
    yield counts
    jax.effects_barrier()


def test_a_step_encodes_every_frame_once(random_variables):
  """It encodes 15 frames for three networks instead of 21, and five sounds instead of seven."""
  network, variables = make_joint(random_variables)
  with counted() as counts:
    jax.block_until_ready(jax.jit(lambda x: network.apply(variables, **x))(inputs(3)))
  assert counts == {"VGG16": 3 * 15, "Neck": 3 * 15, "TinyAudio": 3 * 5}


def test_prediction_encodes_every_frame_once_for_all_students(random_variables, monkeypatch):
  _, variables = make_joint(random_variables)
  switch = random_variables(networks.make_network(networks.SWITCH, CONFIG, NUM), SIZE, seed=9)
  of = {networks.SWITCH: switch, **{name: shared_students.split(variables, name) for name in networks.STUDENTS}}
  made = model.Model(JOINT, CATEGORIES, 8.0, STORED, "synthetic", of, {}, {})

  def maps(*names):
    monkeypatch.setattr(programs, "_SHARED", {})
    predictor = Predictor(made, 4, names)
    (clip,) = windows(iter(make_samples(11)))
    with counted() as counts:
      launched = predictor.launch(clip)
    assert counts == {"VGG16": 12, "Neck": 12, "TinyAudio": 12}, "filled up to whole batches"
    return {name: fetch(chunks, 11) for name, chunks in launched.items()}

  together = maps(*networks.STUDENTS)
  for name in networks.STUDENTS:
    np.testing.assert_allclose(together[name], maps(name)[name], rtol=1e-4, atol=1e-5)
    assert np.std(together[name]) > 1e-4


def test_prediction_with_one_backbone_transfers_explicitly(random_variables, monkeypatch):
  """So do windows, which do not encode again what they share."""
  monkeypatch.setattr(programs, "_SHARED", {})  # what others have compiled does not count
  _, variables = make_joint(random_variables)
  of = {networks.SWITCH: random_variables(networks.make_network(networks.SWITCH, CONFIG, NUM), SIZE, seed=9)}
  of |= {name: shared_students.split(variables, name) for name in networks.STUDENTS}
  predictor = Predictor(model.Model(JOINT, CATEGORIES, 8.0, STORED, "synthetic", of, {}, {}), batch=4)

  def run():
    clips = windows(iter(make_samples(21)), length=8)
    return [fetch(chunks, len(clip.targets)) for clip in clips for chunks in predictor.launch(clip).values()]

  with counted() as counts:
    run()
  assert counts == {"VGG16": 24, "Neck": 24, "TinyAudio": 24}
  with jax.transfer_guard("disallow"):
    assert len(run()) == 9


def test_frozen_parts_keep_their_statistics(random_variables):
  """In training they compute the same as in prediction."""
  frozen = (*shared_students.COMMON, "sta")
  config = JOINT.model_copy(update={"sta": Training(size=SIZE, frozen=frozen)})
  network, variables = make_joint(random_variables, config)
  run = tiny.quick_jit(lambda variables, x: network.apply(variables, **x, train=True, mutable=["batch_stats"]))
  given = inputs()
  out, changed = run(variables, given)
  before, after = (store.flatten(x["batch_stats"]) for x in (variables, changed))
  assert {key.split("/")[0] for key in before} == {"visual", "neck", *networks.STUDENTS}
  for key, x in before.items():
    assert np.array_equal(x, after[key]) == (key.split("/")[0] in frozen), key
  predicted = tiny.compiled(network)(variables, given)
  np.testing.assert_allclose(out[:, 0], predicted[:, 0], rtol=1e-4, atol=1e-5)
  assert np.abs(out[:, 1:] - predicted[:, 1:]).max() > 1e-3


def test_students_start_from_finished_networks(random_variables):
  """Each takes what a network of its own would take; the shared parts take it once."""
  _, variables = make_joint(random_variables)
  source = random_variables(networks.make_network("st_coarse", CONFIG, NUM), SIZE, seed=5)
  merged, own = store.merge(variables, shared_students.join(source))
  for name in networks.STUDENTS:
    expected, kept = store.merge(shared_students.split(variables, name), source)
    found = store.flatten(shared_students.split(merged, name))
    for key, x in store.flatten(expected).items():
      np.testing.assert_array_equal(found[key], x, err_msg=key)
    parts = [key.split("/", 2) for key in kept]
    prefixed = {f"{kind}/{name}/{part}/{rest}" for kind, part, rest in parts if part not in shared_students.COMMON}
    assert prefixed == {key for key in own if key.split("/")[1] == name} and prefixed
  assert not [key for key in own if key.split("/")[1] in ("visual", "neck")]
  assert [key for key in own if key.split("/")[1] == "sound"], "ST does not hear"


def test_backbones_have_a_learning_rate_of_their_own(random_variables):
  _, variables = make_joint(random_variables)
  groups = jax.tree.map_with_path(lambda path, _: optimizer.group(path), variables["params"])
  for key, group in store.flatten(groups).items():
    parts = key.split("/")
    assert group == 2 * (parts[0] not in ("visual", "sound")) + (parts[-1] == "bias"), key
  assert {*shared_students.COMMON, *networks.STUDENTS} == set(groups)


def test_all_students_are_trained_as_the_field_sta_says():
  config = JOINT.model_copy(update={"sta": Training(size=64, batch=5), "sta_plus": Training(size=16)})
  assert {networks.training_of(name, config).size for name in (*networks.STUDENTS, networks.ALL_STUDENTS)} == {64}
  separate = config.model_copy(update={"students": Students()})
  assert [networks.training_of(name, separate).size for name in networks.STUDENTS] == [64, 16, 16]
  assert (
    networks.NETWORKS[networks.ALL_STUDENTS].companions == "short_long"
    and networks.NETWORKS[networks.ALL_STUDENTS].learns_fixations
  )
  assert isinstance(networks.make_network(networks.ALL_STUDENTS, config, 3), FixationModule)
  assert configuration.loads(configuration.dumps(config), "x") == config
  changed = cli.override(separate, ["--students.backbone", "shared"])
  assert changed == config
