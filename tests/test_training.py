"""The optimiser against PyTorch's formulas, the step on one and eight devices, and the loop's resumption."""

import functools
import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import randomise
from flax import traverse_util
from jax.sharding import AxisType

from stajax import model
from stajax.config import Config, Network, Training
from stajax.nets.classifier import Classification, Classifier
from stajax.nets.layers import ConvBlock
from stajax.training import checkpoint, logs, loop, optimizer, step

MULTIPLIERS = (1.0, 2.0, 10.0, 20.0)


# Optimiser.


def group_sizes(network):
  shapes = jax.eval_shape(network.init, jax.random.key(0), *model.example_inputs(network, 32))
  sizes = [0, 0, 0, 0]
  for path, leaf in jax.tree_util.tree_leaves_with_path(shapes["params"]):
    sizes[optimizer.group(path)] += math.prod(leaf.shape)
  return sizes


def test_four_groups_of_real_networks():
  """Counted by hand: the VGG and the ResNet with its NetVLAD are pretrained, everything else is new."""
  vgg_biases = 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512
  channels = 64 + 4 * 64 + 5 * (128 + 256 + 512)  # each has a scale and an offset in the ResNet
  resnet = 11_160_640 + channels + 16 * 512 + 512 * 16
  neck = 3 * 9 * 512 * 512 + 512 * 28
  deconvolutions = 16 * 8192 * 32 + 2 * 16 * 32 * 32 + 16 * 32 * 28
  assert group_sizes(model.make_network("sa", Config(name="full"), 28)) == [
    14_714_688 - vgg_biases + resnet,
    vgg_biases + channels + 16,
    neck + deconvolutions + 56 * 28,
    3 * 512 + 28 + 3 * 32 + 28 + 28,
  ]
  temporal, decoder = 3 * 28 * 28 + 2 * 9 * 28 * 28, 9 * 32 * (60 + 64 + 64)
  refine = 32 * (256 + 512 + 512)
  assert group_sizes(model.make_network("sta", Config(name="full"), 28))[2:] == [
    neck + deconvolutions + temporal + 56 * 28 + refine + decoder + 32,
    3 * 512 + 28 + 3 * 32 + 28 + 3 * 28 + 28 + 6 * 32 + 1,
  ]


PARAMETERS = {
  ("visual", "conv1_1", "conv", "kernel"): 0,
  ("visual", "conv1_1", "conv", "bias"): 1,
  ("sound", "netvlad", "centroids"): 0,
  ("sound", "layer1_0", "norm", "batch", "scale"): 0,
  ("sound", "layer1_0", "norm", "batch", "bias"): 1,
  ("neck", "project", "kernel"): 2,
  ("decode_f3", "norm", "group", "scale"): 2,
  ("sound_map", "seed", "bias"): 3,
}


def run_optimizer(update, gradients, params):
  state, step_once = update.init(params), jax.jit(update.update)
  for gradient in gradients:
    changes, state = step_once(gradient, state, params)
    params = jax.tree.map(np.add, params, changes)
  return traverse_util.flatten_dict(params)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_steps_are_pytorchs(name):
  """torch.optim.SGD(nesterov=True) and AdamW, with a learning rate and a weight decay for each group."""
  rng = np.random.default_rng(0)

  def draw():
    return traverse_util.unflatten_dict({path: rng.normal(size=(3, 4)).astype(np.float32) for path in PARAMETERS})

  params, gradients = draw(), [draw() for _ in range(4)]
  rates, momentum, decay = [0.0, 0.05, 0.1, 0.1], 0.8, 0.3
  schedule = optimizer.make_schedule(0.1, steps=9, warmup=2, schedule="constant")
  after = run_optimizer(optimizer.make_optimizer(name, schedule, momentum, decay, MULTIPLIERS), gradients, params)
  for path, group in PARAMETERS.items():
    p, *grads = (traverse_util.flatten_dict(tree)[path].astype(np.float64) for tree in (params, *gradients))
    weight_decay = decay if path[-1] == "kernel" else 0
    first = second = 0
    for t, (gradient, rate) in enumerate(zip(grads, rates, strict=True), start=1):
      rate *= MULTIPLIERS[group]
      if name == "sgd":
        gradient = gradient + weight_decay * p
        first = momentum * first + gradient
        p = p - rate * (gradient + momentum * first)
      else:
        first = momentum * first + (1 - momentum) * gradient
        second = 0.999 * second + 0.001 * gradient**2
        adaptive = first / (1 - momentum**t) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        p = p - rate * adaptive - rate * weight_decay * p
    np.testing.assert_allclose(after[path], p, rtol=1e-4, atol=1e-5)


def test_schedules():
  def rates(warmup, kind):
    schedule = optimizer.make_schedule(2.0, 10, warmup, kind)
    return [float(schedule(jnp.asarray(i))) for i in range(11)]

  assert rates(0, "constant") == [2] * 11
  np.testing.assert_allclose(rates(4, "constant"), [0, 0.5, 1, 1.5] + [2] * 7)
  cosine = [1 + math.cos(math.pi * i / 10) for i in range(11)]
  np.testing.assert_allclose(rates(0, "cosine"), cosine, atol=1e-6)
  cosine = [1 + math.cos(math.pi * i / 8) for i in range(9)]
  np.testing.assert_allclose(rates(2, "cosine"), [0, 1, *cosine], atol=1e-6)


# The step. `Small` stands for any network; batch statistics and pooling go over all devices.


class Small(nn.Module):
  output: str = "classes"
  frozen: tuple[str, ...] = ()
  hears = False

  @nn.compact
  def __call__(self, frames, train=False):
    b, t, *size = (frames.shape[axis] for axis in (0, 2, 3, 4))
    x = frames[:, 0, t // 2]
    x = ConvBlock(8, strides=2, norm="batch", name="visual")(x, train and "visual" not in self.frozen)
    x = ConvBlock(8, norm="batch", name="neck")(x, train)
    x = nn.Conv(3, (1, 1), name="classify")(x)
    if self.output == "classes":
      return Classification(x, jnp.mean(x, axis=(1, 2)))
    return jax.image.resize(x[..., 0], (b, *size), "bilinear")[:, None]


def make_batch(step_number, batch=16, times=3, sound=False):
  rng = np.random.default_rng(step_number)
  low = rng.uniform(0, 0.3, (batch, 1, 2))
  return {
    "frames": rng.integers(0, 255, (batch, 1, times, 20, 20, 3), dtype=np.uint8),
    "box": np.concatenate([low, low + 0.7], axis=-1).astype(np.float32),
    "flip": rng.random(batch) < 0.5,
    "tags": np.eye(3, dtype=np.float32)[rng.integers(0, 3, batch)],
    "map": rng.integers(0, 255, (batch, 1, 10, 10), dtype=np.uint8),
    "weight": (rng.random((batch, 1)) < 0.4).astype(np.float32),
    "clip": np.arange(batch, dtype=np.int32)[:, None],
    "frame": np.zeros((batch, 1), np.int32),
    **({"sound": rng.normal(size=(batch, 1, 257, 98)).astype(np.float32)} if sound else {}),
    **({"switch": np.ones((batch, 1), np.float32)} if sound else {}),
  }


def sgd(decay=1e-3):
  return optimizer.make_optimizer("sgd", optimizer.make_schedule(0.02, 9, 0, "constant"), 0.9, decay, MULTIPLIERS)


def start(network, mesh, update):
  shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 1, 3, 16, 16, 3)))
  return step.replicate(step.make_state(randomise(shapes), update), mesh)


def on_devices(batch, mesh):
  return step.put_batch({name: x for name, x in batch.items() if name not in loop.HOST_KEYS}, mesh)


@pytest.mark.parametrize("output", ["classes", "maps"])
def test_eight_devices_equal_one(output):
  network, update = Small(output), sgd()
  loss = (step.classification_loss if output == "classes" else step.fixation_loss)(16)
  results = []
  for devices in (1, 8):
    mesh = step.make_mesh(jax.devices()[:devices])
    state, batch = start(network, mesh, update), on_devices(make_batch(0), mesh)
    assert len(batch["frames"].addressable_shards) == devices
    assert batch["frames"].addressable_shards[0].data.shape[0] == 16 // devices
    state, metrics = step.make_train_step(network, loss, update, mesh)(state, batch)
    assert state.params["neck"]["conv"]["kernel"].sharding.is_fully_replicated
    results.append(jax.device_get((state, metrics)))
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *results)
  (state, metrics), before = results[1], jax.device_get(start(network, step.make_mesh(), update))
  assert int(state.step) == 1 and np.isfinite(metrics["loss"])
  for old, new in ((before.params, state.params), (before.statistics, state.statistics)):
    assert all(np.abs(a - b).max() > 1e-6 for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True))


def test_maps_of_weight_0_count_for_nothing():
  network, update, mesh = Small("maps"), sgd(), step.make_mesh()
  variables = jax.device_get(start(network, mesh, update)).variables()
  batch = {name: x for name, x in make_batch(1).items() if name not in loop.HOST_KEYS}
  loss = jax.jit(functools.partial(step.fixation_loss(16), network))
  weights = batch["weight"] = np.random.default_rng(0).choice([0, 0.5, 1, 2], (16, 1)).astype(np.float32)
  value, (_, metrics) = loss(variables, batch)
  each = [loss(variables, {**batch, "weight": np.eye(16, dtype=np.float32)[:, [i]]})[0] for i in range(16)]
  np.testing.assert_allclose(value, np.average(each, weights=weights[:, 0]), rtol=1e-5)
  other = make_batch(2)["map"]
  changed = {**batch, "map": np.where(batch["weight"][..., None, None] > 0, batch["map"], other)}
  np.testing.assert_allclose(loss(variables, changed)[0], value, rtol=1e-6)
  np.testing.assert_allclose(value, metrics["cross_entropy"] + metrics["divergence"], rtol=1e-6)
  assert loss(variables, {**batch, "map": other})[0] != value
  assert loss(variables, {**batch, "weight": 0 * batch["weight"]})[0] == 0


def test_state_is_donated_and_the_step_traced_once():
  network, update, mesh = Small(), sgd(), step.make_mesh()
  chex.clear_trace_counter()
  loss = chex.assert_max_traces(step.classification_loss(16), n=1)
  run = step.make_train_step(network, loss, update, mesh)
  state = start(network, mesh, update)
  size = sum(x.nbytes for x in jax.tree.leaves(state))
  compiled = run.lower(state, on_devices(make_batch(0), mesh)).compile()
  assert compiled.memory_analysis().alias_size_in_bytes >= size
  old = state
  for number in range(3):
    state, _ = compiled(state, on_devices(make_batch(number), mesh))
  assert all(x.is_deleted() for x in jax.tree.leaves(old)) and int(state.step) == 3
  with pytest.raises(TypeError):  # a compiled step cannot be traced again for another shape in silence
    compiled(state, on_devices(make_batch(0, batch=8), mesh))


@pytest.mark.parametrize("name", ["st", "sta"])  # S and SA are parts of these
def test_steps_lower_under_explicit_axes(name, random_variables):
  """Where a resharding would be ambiguous this is a type error, and with Auto axes a silent choice."""
  config = Config(name="tiny", network=Network(width=0.01, norm="batch", depths=(1,) * 5, audio_width=0.01))
  network = model.make_network(name, config, 3)
  mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
  loss = (step.fixation_loss if name == "sta" else step.classification_loss)(32)
  update = sgd()
  with jax.set_mesh(mesh):
    state = step.replicate(step.make_state(random_variables(network, 32), update), mesh)
    batch = on_devices(make_batch(0, times=network.num_times, sound=network.hears), mesh)
    assert jax.typeof(batch["frames"]).sharding.spec[0] == "data"
    _, metrics = step.make_train_step(network, loss, update, mesh).lower(state, batch).out_info
  assert metrics["loss"].shape == ()


def test_frozen_parts_stay():
  network, update, mesh = Small(frozen=("visual",)), sgd(), step.make_mesh()
  run = step.make_train_step(network, step.classification_loss(16), update, mesh, network.frozen)
  state = start(network, mesh, update)
  before = jax.device_get(state)
  for number in range(2):
    state, _ = run(state, on_devices(make_batch(number), mesh))
  for tree in ("params", "statistics"):
    old, new = (traverse_util.flatten_dict(getattr(s, tree)) for s in (before, jax.device_get(state)))
    for path in old:
      assert np.array_equal(old[path], new[path]) == (path[0] == "visual"), path


def test_a_frozen_backbone_computes_with_its_statistics(random_variables):
  """In training the frozen part of a real network is the same function as in prediction."""
  free, frozen = (
    Classifier("s", 3, width=0.01, norm="batch", depths=(1,) * 5, frozen=frozen) for frozen in ((), ("visual", "neck"))
  )
  variables = random_variables(frozen, 32)
  frames = np.random.default_rng(0).random((2, 1, 1, 32, 32, 3)).astype(np.float32)
  apply = jax.jit(lambda variables, x: frozen.apply(variables, x, train=True, mutable=["batch_stats"]))
  out, changed = apply(variables, frames)
  predicted = jax.jit(free.apply)(variables, frames)
  np.testing.assert_allclose(out.class_maps, predicted.class_maps, rtol=1e-5, atol=1e-6)
  jax.tree.map(np.testing.assert_array_equal, dict(changed["batch_stats"]), variables["batch_stats"])


# The loop, with batches from memory.


class Crash(Exception):
  pass


def train(folder, steps=7, spoil=lambda number, batch: batch, asked=None, checkpoint_every=2, log_every=1):
  network, update, mesh = Small(), sgd(), step.make_mesh()

  def batches(first, last):
    if asked is not None:
      asked.append((first, last))
    return (spoil(number, make_batch(number)) for number in range(first + 1, last + 1))

  return loop.train(
    "small",
    folder,
    start(network, mesh, update),
    lambda mesh: step.make_train_step(network, step.classification_loss(16), update, mesh),
    batches,
    [f"clip {letter}" for letter in "abcdefghijklmnop"],
    mesh,
    steps,
    checkpoint_every,
    log_every,
  )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
  pytest.importorskip("tensorflow")  # writes the event files
  folder = tmp_path_factory.mktemp("uninterrupted")
  return folder, jax.device_get(train(folder))


def losses_of(folder):
  return [(line["step"], line["loss"], line["accuracy"]) for line in logs.read(folder / "log.jsonl")]


def test_resuming_is_exact(uninterrupted, tmp_path):
  def crash(number, batch):
    if number == 6:
      raise Crash
    return batch

  with pytest.raises(Crash):
    train(tmp_path, spoil=crash)
  assert [line[0] for line in losses_of(tmp_path)] == [1, 2, 3, 4, 5]  # step 5 was done, but not saved
  with open(tmp_path / "log.jsonl", "a") as file:
    file.write('{"step": 6, "lo')  # a line that a killed process left
  asked = []
  state = jax.device_get(train(tmp_path, asked=asked))
  assert asked == [(4, 7)]
  jax.tree.map(np.testing.assert_array_equal, state, uninterrupted[1])
  assert losses_of(tmp_path) == losses_of(uninterrupted[0])
  assert [line[0] for line in losses_of(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]


def test_what_is_finished_is_not_done_again(uninterrupted):
  folder, state = uninterrupted
  asked = []
  again = jax.device_get(train(folder, asked=asked))
  assert not asked
  jax.tree.map(np.testing.assert_array_equal, again, state)
  assert list((folder / "tensorboard").iterdir())


def test_log_lines_are_means(uninterrupted, tmp_path):
  train(tmp_path, log_every=3, checkpoint_every=6)
  each = np.array(losses_of(uninterrupted[0]))
  expected = [[6 if i else 3, *each[3 * i : 3 * i + 3, 1:].mean(axis=0)] for i in range(2)] + [each[6].tolist()]
  np.testing.assert_allclose(losses_of(tmp_path), expected, rtol=1e-5)


def test_nan_stops_with_stage_step_and_clips(uninterrupted, tmp_path):
  def spoil(number, batch):
    return {**batch, "tags": np.where(number == 4, np.nan, batch["tags"]).astype(np.float32),
            "clip": np.where(batch["clip"] % 2, 5, batch["clip"] % 4)}  # fmt: skip

  with pytest.raises(loop.TrainingError, match=r"^stage small: .* nan at step 4; clips: clip a, clip c, clip f$"):
    train(tmp_path, spoil=spoil, log_every=3, checkpoint_every=3)
  asked = []
  state = jax.device_get(train(tmp_path, asked=asked))  # the last good state was kept
  assert asked == [(3, 7)]
  jax.tree.map(np.testing.assert_array_equal, state, uninterrupted[1])


def test_another_environment_is_told(uninterrupted, tmp_path, capsys, monkeypatch):
  train(tmp_path, steps=2)
  capsys.readouterr()
  real = checkpoint.environment()
  monkeypatch.setattr(checkpoint, "environment", lambda: {**real, "jax": "99.1", "cores": "3"})
  train(tmp_path, steps=2)
  lines = [line for line in capsys.readouterr().out.splitlines() if "resumes with" in line]
  assert [line.split(",")[0] for line in lines] == ["small: resumes with jax '99.1'", "small: resumes with cores '3'"]
  assert repr(real["jax"]) in lines[0] and "may differ" in lines[0]
  assert {"jax", "jaxlib", "xla_flags", "devices", "processor", "cores"} <= set(real)


def test_training_settings_reach_the_networks():
  config = Config(name="t", sa=Training(frozen=("visual", "sound")))
  assert model.make_network("sa", config, 3).frozen == ("visual", "sound")
  assert model.make_network("s", config, 3).frozen == ()
