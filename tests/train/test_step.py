"""The training step: losses against NumPy, shapes that are refused, frozen parts, one and eight devices."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import traverse_util
from jax.sharding import AxisType

from helpers.small_network import SIZE, Small, make_batch, on_devices, sgd, start
from stajax import networks
from stajax.config import Config, Network, Training
from stajax.nets.base import NetworkSizes
from stajax.nets.classifier import Classification, Classifier
from stajax.nets.images import to_size
from stajax.train import loop, step
from stajax.train.programs import make_programs

CONFIG = Config(
  name="tiny",
  network=Network(width=0.01, norm="batch", depths=(1,) * 5, neck_depth=1, audio_width=0.01),
  s_plus=Training(size=32, frozen=("visual",)),
)


# The losses. `Fake` is a network whose output is given; its batch statistics are the inputs that it was shown.


class Fake:
  def __init__(self, out, nodes=1, times=3, hears=False):
    self.out, self.num_nodes, self.num_times, self.hears = out, nodes, times, hears
    self.output_nodes = tuple(range(nodes))

  def apply(self, variables, train, mutable, **inputs):
    assert train and mutable == ["batch_stats"]
    return self.out, {"batch_stats": inputs}


def soft_margin(logits, tags):
  """Eq. 3 of one example."""
  p = scipy.special.expit(np.asarray(logits, np.float64))
  return -np.mean(np.where(tags > 0, np.log(p), np.log(1 - p)))


def classes(out, tags, nodes=1, **inputs):
  batch = {"frames": np.zeros((len(tags), nodes, 1, 4, 4, 3), np.uint8), "tags": tags, **inputs}
  loss = functools.partial(step.classification_loss(4), Fake(out, nodes, 1), {})
  return jax.device_get(jax.jit(loss)(batch))


def test_deep_supervision_is_04_of_the_mean_over_branches():
  """Every branch learns the tags of its own node's clip, and the final output those of the target's clip."""
  rng = np.random.default_rng(0)
  logits, branches = (rng.normal(0, 2, shape).astype(np.float32) for shape in ((4, 5), (4, 3, 5)))
  tags = (rng.random((4, 3, 5)) < 0.4).astype(np.float32)
  value, (_, metrics) = classes(Classification(None, logits, branches), tags, 3)
  concluded = np.mean([soft_margin(logits[b], tags[b, 0]) for b in range(4)])
  supervised = np.mean([[soft_margin(branches[b, n], tags[b, n]) for n in range(3)] for b in range(4)])
  np.testing.assert_allclose(value, concluded + 0.4 * supervised, rtol=1e-5)
  tops = [tags[b, 0, np.argmax(logits[b])] for b in range(4)]
  np.testing.assert_allclose(metrics["accuracy"], np.mean(tops))
  # A network without branches has no such loss; a tagger's map of the sound is a branch of one node.
  value, _ = classes(Classification(None, logits, None), tags[:, :1])
  np.testing.assert_allclose(value, concluded, rtol=1e-5)
  value, _ = classes(Classification(None, logits, branches[:, :1]), tags[:, :1])
  of_map = np.mean([soft_margin(branches[b, 0], tags[b, 0]) for b in range(4)])
  np.testing.assert_allclose(value, concluded + 0.4 * of_map, rtol=1e-5)


def test_the_switch_learns_one_binary_output():
  logits = np.array([[2.0], [-1.0], [0.5], [-3.0]], np.float32)
  labels = np.array([1, 1, 0, 0], np.float32).reshape(4, 1, 1)
  value, (_, metrics) = classes(Classification(None, logits, None), labels)
  p = scipy.special.expit(logits[:, 0])
  np.testing.assert_allclose(value, -np.mean(np.log([p[0], p[1], 1 - p[2], 1 - p[3]])), rtol=1e-5)
  assert metrics["accuracy"] == 0.5


def test_the_tagger_is_shown_sound_alone():
  rng = np.random.default_rng(0)
  logits, tags = rng.normal(size=(3, 4)).astype(np.float32), np.eye(4, dtype=np.float32)[[1, 3, 1]][:, None]
  sound, mean, deviation = (
    rng.normal(size=(3, 1, 257, 98)),
    np.full((3, 1), 2, np.float32),
    np.full((3, 1), 0.5, np.float32),
  )
  batch = {
    "tags": tags, "sound": sound.astype(np.float16), "sound_mean": mean, "sound_deviation": deviation,
    "switch": np.ones((3, 1)),
  }  # fmt: skip
  network = Fake(Classification(None, logits, None), times=0, hears=True)
  value, (shown, metrics) = step.classification_loss(32)(network, {}, batch)
  assert set(shown) == {"sound"} and shown["sound"].dtype == np.float32
  np.testing.assert_allclose(shown["sound"], 2 * (batch["sound"].astype(np.float32) - 2), rtol=1e-6)
  np.testing.assert_allclose(value, np.mean([soft_margin(*pair) for pair in zip(logits, tags[:, 0])]), rtol=1e-5)
  np.testing.assert_allclose(metrics["accuracy"], np.mean([tag[0, np.argmax(x)] for x, tag in zip(logits, tags)]))


def fixations(logits, maps, weight, **views):
  batch = {"frames": np.zeros((*maps.shape[:2], 3, 8, 8, 3), np.uint8), "map": maps, "weight": weight, **views}
  loss = functools.partial(step.fixation_loss(maps.shape[-1]), Fake(logits, maps.shape[1]), {})
  return jax.device_get(jax.jit(loss)(batch))


@pytest.mark.parametrize("nodes", [1, 3])
def test_equations_13_and_16(nodes):
  """For each node the mean over the examples that have a pseudo-fixation there; the nodes are added."""
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 2, (4, nodes, 6, 6)).astype(np.float32)
  maps = rng.integers(0, 256, (4, nodes, 6, 6), dtype=np.uint8)
  weight = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 0]], np.float32)[:, :nodes]  # no example has the third
  expected = {"cross_entropy": 0.0, "divergence": 0.0}
  for n in range(nodes):
    for b in np.flatnonzero(weight[:, n]):
      p, target = scipy.special.expit(logits[b, n]), maps[b, n] / 255
      entropy = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean()
      expected["cross_entropy"] += entropy / weight[:, n].sum()
      distance = scipy.special.rel_entr(target / target.sum(), p / p.sum()).sum()
      expected["divergence"] += distance / weight[:, n].sum()
  value, (_, metrics) = fixations(logits, maps, weight)
  for name, part in expected.items():
    np.testing.assert_allclose(metrics[name], part, rtol=1e-4)
  np.testing.assert_allclose(value, sum(expected.values()), rtol=1e-4)


def test_a_node_of_weight_0_is_skipped():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(4, 3, 6, 6)).astype(np.float32)
  maps = rng.integers(0, 256, (4, 3, 6, 6), dtype=np.uint8)
  weight = (rng.random((4, 3)) < 0.5).astype(np.float32)
  weight[:, 2] = 0
  skipped = weight[..., None, None] == 0
  value = fixations(logits, maps, weight)[0]
  np.testing.assert_allclose(fixations(logits, np.where(skipped, 255 - maps, maps), weight)[0], value, rtol=1e-6)
  assert fixations(logits, np.where(skipped, maps, 255 - maps), weight)[0] != value
  gradient = jax.jit(jax.grad(lambda x: fixations_value(x, maps, weight)))(logits)
  assert (np.abs(gradient).max(axis=(2, 3)) > 0).tolist() == (weight > 0).tolist()
  assert fixations(logits, maps, 0 * weight)[0] == 0


def fixations_value(logits, maps, weight):
  batch = {"frames": np.zeros((*maps.shape[:2], 3, 8, 8, 3), np.uint8), "map": maps, "weight": weight}
  return step.fixation_loss(6)(Fake(logits, 3), {}, batch)[0]


def test_a_half_is_silent_only_where_the_sound_belongs_to_the_other():
  """Its tag is heard in the first example, whose own half is the left one; in the second both halves count."""
  rng = np.random.default_rng(0)
  logits, maps = rng.normal(size=(3, 1, 6, 6)).astype(np.float32), rng.integers(0, 256, (3, 1, 6, 6), dtype=np.uint8)
  sound = {"sound": np.zeros((3, 1, 2, 2)), "sound_mean": np.zeros((3, 1)), "sound_deviation": np.ones((3, 1))}
  batch = {
    "frames": np.zeros((3, 1, 3, 8, 8, 3), np.uint8),
    "map": maps,
    "weight": np.ones((3, 1), np.float32),
    **sound,
  }
  batch |= {"switch": np.ones((3, 1), np.float32), "tags": np.array([1, 0, 1], np.float32)[:, None, None]}
  loss = step.fixation_loss(6, mixed=2, knows_heard_tags=True)
  value, (shown, _) = loss(Fake(logits, hears=True), {}, batch)
  targets = maps[:, 0] / 255
  first = np.concatenate([targets[0][:, 1:4], np.zeros((6, 3))], axis=1)  # the middle half of it
  second = np.concatenate([targets[2][:, 1:4], targets[1][:, 1:4]], axis=1)
  expected = 0.0
  for logit, target in zip(logits[:, 0], (first, second, targets[2])):
    p = scipy.special.expit(logit)
    expected -= (target * np.log(p) + (1 - target) * np.log(1 - p)).mean() / 3
    expected += scipy.special.rel_entr(target / target.sum(), p / p.sum()).sum() / 3
  np.testing.assert_allclose(value, expected, rtol=1e-4)
  np.testing.assert_array_equal(shown["switch"], batch["switch"])  # it hears in any case


def test_every_frame_is_cropped_to_its_own_box_and_groups_are_mirrored_alike():
  """The map is cropped as the middle frame is; here the prediction is that frame, so the divergence is 0."""
  rng = np.random.default_rng(0)
  frames = rng.integers(10, 245, (3, 2, 3, 16, 16, 1), dtype=np.uint8).repeat(3, axis=-1)
  low, flip = rng.uniform(0, 0.4, (3, 2, 3, 2)), np.array([True, False, True])
  box = np.concatenate([low, low + rng.uniform(0.4, 0.6, low.shape)], axis=-1).astype(np.float32)

  class Copy(Fake):
    def apply(self, variables, frames, train, mutable):
      grey = jnp.clip(frames[:, :, 1, ..., 0], 1e-6, 1 - 1e-6)
      return jnp.log(grey / (1 - grey)), {"batch_stats": frames}

  batch = {"frames": frames, "map": frames[:, :, 1, ..., 0], "box": box, "flip": flip, "weight": np.ones((3, 2))}
  value, (seen, metrics) = jax.jit(lambda batch: step.fixation_loss(12)(Copy(None, 2), {}, batch))(batch)
  np.testing.assert_allclose(metrics["divergence"], 0, atol=1e-5)
  alone = jax.jit(to_size, static_argnums=1)
  for b, n, t in np.ndindex(3, 2, 3):
    expected = alone(frames[b, n, t][None], 12, box[b, n, t][None], flip[[b]])[0]
    np.testing.assert_allclose(seen[b, n, t], expected, atol=1e-6)
  grey = np.asarray(seen)[:, :, 1, ..., 0]
  entropy = -(grey * np.log(grey) + (1 - grey) * np.log(1 - grey))
  np.testing.assert_allclose(value, 2 * entropy.mean(), rtol=1e-4)  # the sum over two nodes


def test_shapes_that_would_be_broadcast_are_refused():
  """One output against many labels, or one node's map against many, would give a loss that means nothing."""
  tags = np.ones((4, 1, 5), np.float32)
  with pytest.raises(AssertionError, match="shapes"):
    classes(Classification(None, np.zeros((4, 1), np.float32), np.zeros((4, 1, 1), np.float32)), tags)
  maps, weight = np.zeros((4, 3, 6, 6), np.uint8), np.ones((4, 3), np.float32)
  for logits in (np.zeros((4, 1, 6, 6), np.float32), np.zeros((4, 3, 6, 1), np.float32)):
    with pytest.raises(AssertionError, match="shapes"):
      fixations(logits, maps, weight)
  with pytest.raises(AssertionError, match="shape"):
    fixations(np.zeros((4, 3, 6, 6), np.float32), maps, weight[:, :1])
  with pytest.raises(AssertionError, match="shape"):
    classes(Classification(None, tags[:, 0], tags), tags, frames=np.zeros((4, 1, 3, 4, 4, 3), np.uint8))


# The step. Batch statistics and pooling go over all devices.


@pytest.mark.parametrize(("output", "nodes"), [("classes", 1), ("maps", 3)])
def test_eight_devices_equal_one(output, nodes):
  network, update = Small(output, num_nodes=nodes), sgd()
  loss = (step.classification_loss if output == "classes" else step.fixation_loss)(SIZE)
  results = []
  for devices in (1, 8):
    mesh = step.make_mesh(jax.devices()[:devices])
    state, batch = start(network, mesh, update), on_devices(make_batch(0, nodes=nodes), mesh)
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


@pytest.fixture(scope="module")
def plus_steps(random_variables):
  """A real plus network with a frozen backbone: its state before, and after a step on one and on eight devices."""
  network, update = networks.make_network("s_plus_long", CONFIG, 3), sgd()
  variables = random_variables(network, 32)
  loss, results = step.classification_loss(32), []
  for devices in (1, 8):
    mesh = step.make_mesh(jax.devices()[:devices])
    state = step.replicate(step.make_state(variables, update), mesh)
    run = step.make_train_step(network, loss, update, mesh, CONFIG.s_plus.frozen)
    state, metrics = run(state, on_devices(make_batch(0, batch=8, nodes=3, times=1), mesh))
    results.append(jax.device_get((state, metrics)))
  return step.make_state(variables, update), *results


@pytest.mark.slow
def test_a_plus_network_on_eight_devices_equals_one(plus_steps):
  _, *results = plus_steps
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), *results)


@pytest.mark.slow
def test_frozen_parts_of_a_plus_network_stay(plus_steps):
  before, (after, _), _ = plus_steps
  for tree in ("params", "statistics"):
    old, new = (traverse_util.flatten_dict(getattr(state, tree)) for state in (before, after))
    assert {path[0] for path in old} >= ({"visual", "neck"} | ({"graph", "conclude"} if tree == "params" else set()))
    for path in old:
      # A constant that is added to all of a node's keys leaves the softmax over them as it is.
      still = path[0] == "visual" or path == ("graph", "key", "bias")
      assert np.allclose(old[path], new[path], rtol=0, atol=1e-7 if still else 0) == still, path
      assert np.array_equal(old[path], new[path]) or path[0] != "visual", path


def test_state_is_donated_and_the_step_traced_once():
  network, update, mesh = Small(), sgd(), step.make_mesh()
  chex.clear_trace_counter()
  loss = chex.assert_max_traces(step.classification_loss(SIZE), n=1)
  run = step.make_train_step(network, loss, update, mesh)
  state = start(network, mesh, update)
  size = sum(x.nbytes for x in jax.tree.leaves(state))
  compiled = run.lower(state, on_devices(make_batch(0), mesh)).compile()
  assert compiled.memory_analysis().alias_size_in_bytes >= size
  old = state
  for number in range(3):
    state, _ = compiled(state, on_devices(make_batch(number), mesh))
  assert all(x.is_deleted() for x in jax.tree.leaves(old)) and int(state.step) == 3
  with pytest.raises(TypeError):  # a compiled step is not silently traced again for another shape
    compiled(state, on_devices(make_batch(0, batch=8), mesh))


def test_evaluation_is_traced_once_and_learns_nothing():
  network, mesh = Small(), step.make_mesh()
  chex.clear_trace_counter()
  loss = chex.assert_max_traces(step.classification_loss(SIZE), n=1)
  variables, evaluation_step = start(network, mesh, sgd()).variables(), step.make_evaluation_step(network, loss)
  batches = [make_batch(number) for number in (0, 1, 0)]
  metrics = [loop.evaluate(evaluation_step, variables, [batch], mesh) for batch in batches]
  assert metrics[0] == metrics[2] != metrics[1] and set(metrics[0]) == {"loss", "accuracy"}
  mean = loop.evaluate(evaluation_step, variables, batches[:2], mesh)
  assert mean["loss"] == pytest.approx((metrics[0]["loss"] + metrics[1]["loss"]) / 2)


def test_networks_that_differ_in_what_they_learn_from_share_programs():
  """So a row of them is compiled once."""
  mesh = step.make_mesh()

  def programs(name):
    network, training = networks.make_network(name, CONFIG, 3), networks.training_of(name, CONFIG)
    return make_programs(network, training, networks.NETWORKS[name].learns_fixations, mesh)

  long = programs("s_plus_long")
  assert programs("s_plus_cross") is long and programs("sta") is not long


# The parts of all other networks are parts of these; the first two have all kinds of parts.
_SLOW = (pytest.param(name, marks=pytest.mark.slow) for name in ("tagger_0", "sta", "st_plus_short", "sta_plus_long"))


@pytest.mark.parametrize("name", ["sa_plus_cross", "students", *_SLOW])
def test_steps_lower_under_explicit_axes(name, random_variables):
  """An ambiguous resharding is a type error here, while Auto axes choose silently."""
  network = networks.make_network(name, CONFIG, 3)
  mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
  loss, update = (
    (step.fixation_loss if networks.NETWORKS[name].learns_fixations else step.classification_loss)(32),
    sgd(),
  )
  with jax.set_mesh(mesh):
    state = step.replicate(step.make_state(random_variables(network, 32), update), mesh)
    batch = make_batch(0, nodes=network.num_nodes, times=network.num_times, sound=network.hears)
    if not network.num_times:
      batch = {key: x for key, x in batch.items() if key not in ("frames", "box", "flip")}
    batch = on_devices(batch, mesh)
    assert jax.typeof(batch["tags"]).sharding.spec[0] == "data"
    _, metrics = step.make_train_step(network, loss, update, mesh).lower(state, batch).out_info
  assert metrics["loss"].shape == ()


def test_frozen_parts_stay():
  network, update, mesh = Small(frozen=("visual",)), sgd(), step.make_mesh()
  run = step.make_train_step(network, step.classification_loss(SIZE), update, mesh, network.frozen)
  state = start(network, mesh, update)
  before = jax.device_get(state)
  for number in range(2):
    state, _ = run(state, on_devices(make_batch(number), mesh))
  for tree in ("params", "statistics"):
    old, new = (traverse_util.flatten_dict(getattr(s, tree)) for s in (before, jax.device_get(state)))
    for path in old:
      assert np.array_equal(old[path], new[path]) == (path[0] == "visual"), path


def test_a_frozen_backbone_computes_with_its_statistics(random_variables):
  """In training the frozen part of a network is the same function as in prediction."""
  sizes = NetworkSizes(width=0.01, norm="batch", depths=(1,) * 5)
  free, frozen = (Classifier("s", num_categories=3, sizes=sizes, frozen=frozen) for frozen in ((), ("visual", "neck")))
  variables = random_variables(frozen, 32)
  frames = np.random.default_rng(0).random((2, 1, 1, 32, 32, 3)).astype(np.float32)
  apply = jax.jit(lambda variables, x: frozen.apply(variables, x, train=True, mutable=["batch_stats"]))
  out, changed = apply(variables, frames)
  predicted = jax.jit(free.apply)(variables, frames)
  np.testing.assert_allclose(out.class_maps, predicted.class_maps, rtol=1e-5, atol=1e-6)
  jax.tree.map(np.testing.assert_array_equal, dict(changed["batch_stats"]), variables["batch_stats"])


def test_training_settings_reach_the_networks():
  config = Config(name="t", sa=Training(frozen=("visual", "sound")), tagger=Training(frozen=("sound",)))
  assert networks.make_network("sa", config, 3).frozen == ("visual", "sound")
  assert networks.make_network("tagger_2", config, 3).frozen == ("sound",)
  assert networks.make_network("s", config, 3).frozen == ()


def test_host_keys_are_not_put_on_devices():
  assert not set(on_devices(make_batch(0), step.make_mesh())) & set(loop.HOST_KEYS)
