"""The C-GCN and the networks that reason with it: S+, ST+, SA+ and STA+."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from helpers import by_hand
from helpers.random_variables import randomise
from stajax import networks
from stajax.nets import attention
from stajax.nets.base import NetworkSizes
from stajax.nets.classifier import Classifier
from stajax.nets.graph import ConservativeGCN, fixation_refine
from stajax.nets.student import Student

SIZES = NetworkSizes(norm="group", width=0.01, audio_width=0.01, audio_pooling="average")
TINY = {"num_categories": 4, "sizes": SIZES}


def random_nodes(shape=(2, 3, 3, 4, 5), scale=1.5, seed=0):
  return np.random.default_rng(seed).normal(0.2, scale, shape).astype(np.float32)


def graph_of(nodes, seed=1, **attributes):
  """Makes a C-GCN and its variables, whose attention is far from uniform."""
  network = ConservativeGCN(nodes.shape[-1], **attributes)
  return network, randomise(jax.eval_shape(network.init, jax.random.key(0), nodes), seed)


def run(network, variables, *inputs, **how):
  return jax.jit(functools.partial(network.apply, **how))(variables, *inputs)


def flat(tree):
  return {name: x.shape for name, x in traverse_util.flatten_dict(tree, sep="/").items()}


# C-GCN.


@pytest.mark.parametrize("frl", [False, True], ids=["eqs_5_to_8", "eqs_5_to_10"])
@pytest.mark.parametrize("steps", [1, 3])
def test_equations_5_to_10(steps, frl):
  nodes = random_nodes()
  network, variables = graph_of(nodes, steps=steps, frl=frl)
  expected = np.stack([by_hand.c_gcn(variables["params"], group, steps, frl) for group in nodes])
  out = run(network, variables, nodes)
  assert out.shape == nodes.shape and out.dtype == jnp.float32
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-6)
  # Otherwise the transcription could be met without the query, the key or the attention.
  for name in ("query", "key"):
    params = {**variables["params"], name: jax.tree.map(np.zeros_like, variables["params"][name])}
    assert np.abs(run(network, {"params": params}, nodes) - expected).max() > 1e-2


@pytest.mark.parametrize("number", [2, 5])
def test_groups_may_have_any_number_of_nodes(number):
  nodes = random_nodes((1, number, 2, 3, 4))
  network, variables = graph_of(nodes, steps=2)
  out = run(network, variables, nodes, read=1)
  np.testing.assert_allclose(out[0], by_hand.c_gcn(variables["params"], nodes[0], 2, True)[:1], rtol=1e-4, atol=1e-6)


def test_equations_9_and_10():
  """Two states have mean responses that are all negative; nothing is discarded of a constant one."""
  states = random_nodes((2, 3, 5, 6, 4))
  states[0, 1] -= 5
  states[1, 2] = 0.7
  out = jax.jit(fixation_refine)(states.reshape(2, 3, 30, 4)).reshape(states.shape)
  for group, node in np.ndindex(2, 3):
    np.testing.assert_allclose(out[group, node], by_hand.fixation_refine(states[group, node]), rtol=1e-5, atol=1e-6)
  swept = jax.jit(lambda x: fixation_refine(x, 0.5, 0.2))(states.reshape(2, 3, 30, 4)).reshape(states.shape)
  np.testing.assert_allclose(swept[0, 0], by_hand.fixation_refine(states[0, 0], 0.5, 0.2), rtol=1e-5, atol=1e-6)
  share = out[1, 2] / states[1, 2]
  np.testing.assert_allclose(share, 0.5 * (by_hand.sigmoid(0.7) + 1), rtol=1e-5)


@pytest.mark.parametrize("attend", [attention._attend_at_once, functools.partial(attention._attend_in_blocks, block=9)])
def test_every_form_of_attention_and_of_its_gradient(monkeypatch, attend):
  """A pair at a time or all together, for a TPU or in blocks, it equals plain softmax that JAX differentiates.

  35 positions are padded to whole vectors, and to four blocks of nine.
  """
  monkeypatch.setattr(
    attention, "_attend", lambda queries, keys, values, block, num_others=1: attend(queries, keys, values, num_others)
  )
  queries, keys, values = (list(random_nodes((3, 2, 35, 4), seed=seed)) for seed in range(3))
  weight = random_nodes((2, 2, 35, 4), seed=3)

  def plain(queries, keys, values, _):
    def attend(node, other):
      return jax.nn.softmax(queries[node] @ keys[other].swapaxes(1, 2), axis=-1) @ values[other]

    return [attend(0, 1) + attend(0, 2), attend(1, 0) + attend(1, 2)]

  def differentiated(form):
    def total(queries, keys, values):
      received = form(queries[:2], keys, values, 9)
      return sum(jnp.sum(x * y) for x, y in zip(received, weight, strict=True)), received

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))(queries, keys, values)

  (_, expected), slopes = differentiated(plain)
  (_, found), own_slopes = differentiated(attention.messages)
  alone = jax.jit(functools.partial(attention.messages, block=9))(queries[:2], keys, values)
  for x, y, z in zip(expected, found, alone, strict=True):
    np.testing.assert_allclose(y, x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(z, x, rtol=1e-4, atol=1e-5)
  for x, y in zip(jax.tree.leaves(slopes), jax.tree.leaves(own_slopes), strict=True):
    np.testing.assert_allclose(y, x, rtol=1e-4, atol=2e-5)
  assert min(float(jnp.abs(x).max()) for x in jax.tree.leaves(slopes)[:2]) > 1e-3


@pytest.mark.parametrize("read", [None, 1])
def test_folded_projections_equal_the_plain_ones(monkeypatch, read):
  """What TPUs run is run here instead: queries that are made for the states themselves."""
  nodes = random_nodes()
  network, variables = graph_of(nodes, steps=2, floor=3.0)
  expected, slopes = results = value_and_gradients(network, variables, nodes, read)
  monkeypatch.setattr(jax.lax, "platform_dependent", lambda *given, tpu, default: tpu(*given))
  for found, wanted in zip(
    jax.tree.leaves(value_and_gradients(network, variables, nodes, read)), jax.tree.leaves(results), strict=True
  ):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
  assert np.abs(slopes[0]["params"]["key"]["kernel"]).max() > 1e-2 and np.any(expected)


def value_and_gradients(network, variables, nodes, read=None):
  """Returns the states and the gradients of their sum with random weights, for the variables and the nodes."""

  def value(variables, nodes):
    out = network.apply(variables, nodes, read)
    return jnp.sum(out * random_nodes(out.shape, seed=1)), out

  (_, out), gradients = jax.jit(jax.value_and_grad(value, argnums=(0, 1), has_aux=True))(variables, nodes)
  return out, gradients


@pytest.mark.parametrize(("platform", "number"), [("tpu", 3 + 2), ("cpu", 6), ("cuda", 6)])
def test_only_tpus_fold_the_projections(platform, number):
  """Three nodes have three queries and three keys in a step; or three queries alone, of folded parameters."""
  nodes = random_nodes((1, 3, 2, 2, 5))
  network, variables = graph_of(nodes, steps=1)
  text = jax.jit(network.apply).trace(variables, nodes).lower(lowering_platforms=(platform,)).as_text()
  assert len(re.findall(r"dot_general.*tensor<5x5xf32>\) ->", text)) == number


def test_blocks_equal_the_plain_form():
  """35 positions are four blocks of nine, one of them padded."""
  nodes = random_nodes((2, 3, 5, 7, 4))
  plain, variables = graph_of(nodes, steps=2)
  blocked, _ = graph_of(nodes, steps=2, block=9)
  (out, gradients), (expected, expected_gradients) = (
    value_and_gradients(network, variables, nodes) for network in (blocked, plain)
  )
  np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
  for found, wanted in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected_gradients), strict=True):
    # A key's bias moves all scores of a query alike, so that its gradient is rounding alone.
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
  query = expected_gradients[0]["params"]["query"]["kernel"]
  assert np.abs(query).max() > 1e-2


def test_memory_grows_with_the_positions_instead_of_their_square():
  """The plain form of the gradient would take sixteen times the memory for four times the positions."""

  def memory(side, block):
    network = ConservativeGCN(4, steps=1, block=block)
    nodes = jax.ShapeDtypeStruct((1, 3, side, side, 4), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), nodes)
    gradient = jax.grad(lambda variables, nodes: network.apply(variables, nodes).sum(), argnums=(0, 1))
    return jax.jit(gradient).lower(variables, nodes).compile().memory_analysis().temp_size_in_bytes

  pairs, float_bytes = 6, 4
  small, large = memory(32, 256), memory(64, 256)
  assert small > pairs * 256 * 32**2 * float_bytes  # the measure sees a block's attention
  assert large < 6 * small and large < pairs * 64**4 * float_bytes / 3


def test_bfloat16_keeps_float32_states():
  nodes = random_nodes((1, 3, 4, 4, 4), scale=0.5)
  exact, variables = graph_of(nodes, frl=False)
  rounded, _ = graph_of(nodes, frl=False, dtype=jnp.bfloat16, block=5)
  expected, out = run(exact, variables, nodes), run(rounded, variables, nodes)
  assert out.dtype == jnp.float32 and np.any(out != expected)
  np.testing.assert_allclose(out, expected, atol=0.02 * np.abs(expected).max())


# The networks.


@pytest.fixture(scope="module")
def plus_classifier():
  network = Classifier("st", plus=True, **TINY)
  return network, randomise(networks.expected_variables(network, 32), 1)


@pytest.fixture(scope="module")
def plus_student():
  network = Student(plus=True, num_categories=4, sizes=dataclasses.replace(SIZES, norm="none"))
  return network, randomise(networks.expected_variables(network, 32), 1)


@pytest.mark.parametrize(("steps", "frl"), [(3, True), (2, False)])
def test_reasoning_of_a_plus_classifier(plus_classifier, steps, frl):
  _, variables = plus_classifier
  sizes = dataclasses.replace(SIZES, reasoning_steps=steps, attention_block=7)
  network = Classifier("st", plus=True, num_categories=4, sizes=sizes, frl=frl)
  params, nodes = variables["params"], random_nodes((2, 3, 4, 4, 4))
  # States are class maps above a floor of -3.
  final = np.stack([by_hand.c_gcn(params["graph"], group + 3, steps, frl)[0] for group in nodes])
  class_maps = by_hand.conv(final, params["conclude"]["kernel"]) - 3
  out = run(network, variables, nodes, method="reason")
  np.testing.assert_allclose(out.class_maps, class_maps, rtol=1e-4, atol=1e-5)
  logits = class_maps.mean(axis=(1, 2)) + params["conclude_bias"]
  np.testing.assert_allclose(out.logits, logits, rtol=1e-4, atol=1e-5)
  assert out.branch_logits.shape == (2, 3, 4)
  for node in range(3):
    expected = nodes[:, node].mean(axis=(1, 2)) + params["bias"]
    np.testing.assert_allclose(out.branch_logits[:, node], expected, rtol=1e-4, atol=1e-5)


def test_branch_logits_are_those_of_the_branch(plus_classifier):
  """With the branch's weights under the same names, every node is classified as the branch alone classifies it."""
  network, variables = plus_classifier
  branch = Classifier("st", **TINY)
  names = networks.expected_variables(branch, 32)["params"]
  frames = np.random.default_rng(0).random((1, 3, 3, 32, 32, 3)).astype(np.float32)
  out = run(network, variables, frames)
  alone = run(branch, {"params": {name: variables["params"][name] for name in names}}, frames.swapaxes(0, 1))
  np.testing.assert_allclose(out.branch_logits[0], alone.logits, rtol=1e-4, atol=1e-5)
  assert np.abs(out.logits[0] - alone.logits[0]).max() > 1e-3


@pytest.mark.parametrize("source", ["s", "st", "sa"])
def test_a_plus_network_has_the_parameters_of_its_branch(source):
  branch, plus = (networks.expected_variables(Classifier(source, plus=plus, **TINY), 32) for plus in (False, True))
  branch, more = flat(branch), flat(plus)
  assert branch.items() < more.items()
  graph = {f"params/graph/{name}/{leaf}" for name in ("query", "key") for leaf in ("kernel", "bias")}
  assert set(more) - set(branch) == graph | {"params/conclude/kernel", "params/conclude_bias"}
  without_frl = networks.expected_variables(Classifier(source, plus=True, frl=False, **TINY), 32)
  assert flat(without_frl) == more


def test_sta_plus_has_all_of_sta_but_the_decoder():
  branch, plus = (networks.expected_variables(Student(plus=plus, **TINY), 32) for plus in (False, True))
  decoder = {f"{part}_{stage}" for part in ("refine", "decode") for stage in ("f3", "f4", "f5")} | {"readout"}
  assert set(branch["params"]) - set(plus["params"]) == decoder
  assert set(plus["params"]) - set(branch["params"]) == {"graph", "ref_32", "ref_1"}
  shared = {name: branch["params"][name] for name in set(branch["params"]) - decoder}
  assert flat(shared).items() < flat(plus["params"]).items()


def test_equations_14_and_15(plus_student):
  """Every node is read out with its own spatial map; `read` leaves out the nodes that are not wanted."""
  network, variables = plus_student
  params, nodes = variables["params"], np.abs(random_nodes((2, 3, 4, 4, 4)))
  spatial = random_nodes((2, 3, 4, 4, 4), seed=3)
  states = np.stack([by_hand.c_gcn(params["graph"], group, 3, True) for group in nodes])
  out = run(network, variables, nodes, {"s": spatial}, size=(18, 20), method="reason")
  assert out.shape == (2, 3, 18, 20) and out.dtype == jnp.float32
  for node in range(3):
    expected = by_hand.read_out(params, states[:, node], spatial[:, node], (18, 20))
    np.testing.assert_allclose(out[:, node], expected, rtol=1e-4, atol=1e-4)
  target = run(network, variables, nodes, {"s": spatial[:, :1]}, size=(18, 20), read=1, method="reason")
  np.testing.assert_allclose(target, out[:, :1], rtol=1e-5, atol=1e-5)


def test_a_fine_read_out_is_the_decoder_of_sta():
  """What the C-GCN makes of each node is decoded by STA's own decoder, with the features of the node's frame."""
  sizes = dataclasses.replace(SIZES, norm="none", fine_read_out=True)
  network, sta = (Student(plus=plus, num_categories=4, sizes=sizes) for plus in (True, False))
  variables = randomise(networks.expected_variables(network, 32), 1)
  params, nodes = variables["params"], np.abs(random_nodes((2, 3, 4, 4, 4)))
  assert {*params} - {"graph"} == {*networks.expected_variables(sta, 32)["params"]}
  states = np.stack([by_hand.c_gcn(params["graph"], group, 3, True) for group in nodes]).astype(np.float32)
  sides = {"f3": 8, "f4": 4, "f5": 4}
  features = {name: np.abs(random_nodes((2, 3, side, side, 32), seed=side)) for name, side in sides.items()}
  out = run(network, variables, nodes, features, size=(18, 20), method="reason")
  alone = {"params": {name: x for name, x in params.items() if name != "graph"}}
  expected = run(sta, alone, states, features, size=(18, 20), method="reason")
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["plus_classifier", "plus_student"])
def test_swapped_companions_do_not_change_the_map_of_the_target(kind, request):
  """A companion does matter: with another one in its place the map changes."""
  network, variables = request.getfixturevalue(kind)
  rng = np.random.default_rng(0)
  inputs = {name: rng.random(x.shape, np.float32) for name, x in networks.example_inputs(network, 32).items()}

  def target_map(order):
    swapped = {name: x[:, order] for name, x in inputs.items()}
    out = apply(variables, **swapped)
    return np.asarray(out[:, 0] if kind == "plus_student" else out.class_maps)

  apply = jax.jit(network.apply)
  original = target_map([0, 1, 2])
  np.testing.assert_allclose(target_map([0, 2, 1]), original, rtol=1e-5, atol=1e-6)
  assert np.abs(target_map([0, 1, 1]) - original).max() > 1e-4


def test_a_new_plus_network_keeps_what_companions_confirm():
  """Class maps that large companions confirm come out unchanged; the others fall to the floor."""
  network = Classifier("s", plus=True, frl=False, **TINY)
  variables = networks.initialise(network, 32, jax.random.key(0))
  nodes = random_nodes((2, 3, 4, 4, TINY["num_categories"]))
  nodes[:, 1:] = np.array([100, -100, 100, -100])
  out = network.apply(variables, nodes, method="reason")
  np.testing.assert_allclose(out.class_maps[..., ::2], nodes[:, 0, ..., ::2], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(out.class_maps[..., 1::2], -3, atol=1e-6)
  np.testing.assert_allclose(out.logits[:, 1::2], -3, rtol=1e-5)


def test_a_new_plus_network_attends_to_what_is_alike():
  """Of two objects in a frame, the companions show one, at other places: only this one is confirmed.

  Floors are added to class maps, so what is compared is how far they are above the floor.
  """
  network = Classifier("s", plus=True, frl=False, **TINY)
  variables = networks.initialise(network, 32, jax.random.key(0))
  nodes = np.full((1, 3, 6, 6, 4), -2.9, np.float32)  # nothing
  nodes[0, 0, 1, 1, 0] = nodes[0, 0, 4, 4, 1] = 4  # an object of category 0 and one of category 1
  nodes[0, 1, 5, 0, 0] = nodes[0, 2, 0, 5, 0] = 4  # one of category 0
  maps = network.apply(variables, nodes, method="reason").class_maps[0] + 3
  assert maps[1, 1, 0] > 1.4 * maps[4, 4, 1]


def test_what_speaks_most_against_a_category_stays_the_least_likely():
  network = Classifier("s", plus=True, **TINY)
  variables = networks.initialise(network, 32, jax.random.key(0))
  level = np.linspace(-2.5, -0.5, TINY["num_categories"], dtype=np.float32)  # all against, none equally
  nodes = np.broadcast_to(level, (1, 3, 4, 4, len(level)))
  logits = network.apply(variables, nodes, method="reason").logits[0]
  assert (np.diff(logits) > 0).all()
