"""The audio-only tagger and the audio switch's network, which starts from it."""

import functools

import jax
import numpy as np

from helpers import by_hand
from helpers.random_variables import randomise
from stajax import networks
from stajax.nets.base import NetworkSizes
from stajax.nets.classifier import Classifier
from stajax.nets.fusion import SoundMap
from stajax.nets.tagger import Tagger

SIZES = NetworkSizes(width=0.01, audio_width=0.01, audio_pooling="average")
COMMON = {"num_categories": 4, "sizes": SIZES}


def test_the_tagger_classifies_the_sound_of_the_target():
  network = Tagger(**COMMON)
  variables = randomise(networks.expected_variables(network, 32), 1)
  sound = np.random.default_rng(0).normal(size=(2, 1, 257, 98)).astype(np.float32)
  audio = by_hand.resnet({kind: variables[kind]["sound"] for kind in variables}, sound[:, 0])
  classify = variables["params"]["classify"]
  out = jax.jit(network.apply)(variables, sound)
  np.testing.assert_allclose(out.logits, audio @ classify["kernel"] + classify["bias"], rtol=1e-3, atol=1e-4)
  assert out.class_maps is None and out.branch_logits is None


def test_the_map_of_the_sound_names_the_category_too():
  network = Tagger(has_map=True, **COMMON)
  variables = randomise(networks.expected_variables(network, 32), 1)
  sound = np.random.default_rng(0).normal(size=(2, 1, 257, 98)).astype(np.float32)
  out = jax.jit(network.apply)(variables, sound)
  audio = network.apply(variables, sound[:, 0], method="encode_sound")
  heard = SoundMap(4).apply({"params": variables["params"]["sound_map"]}, audio, np.ones(2, np.float32), (32, 32))
  np.testing.assert_allclose(out.branch_logits[:, 0], np.mean(heard, axis=(1, 2)), rtol=1e-4, atol=1e-5)


def test_the_switch_is_sa_with_one_output():
  switch, sa = (Classifier("sa", num_outputs=outputs, **COMMON) for outputs in (1, None))
  parts, others = (networks.expected_variables(network, 32)["params"] for network in (switch, sa))
  assert set(parts) == set(others) and {name for name in others if parts[name] != others[name]} == {"classify", "bias"}
  assert parts["classify"]["kernel"].shape == (1, 1, 8, 1) and parts["bias"].shape == (1,)


def test_tagger_and_sa_have_the_same_audio_parts():
  """Names, shapes and statistics are the same, so that one can start from the other."""
  tagger, plain, sa = (
    networks.expected_variables(network, 32)
    for network in (Tagger(has_map=True, **COMMON), Tagger(**COMMON), Classifier("sa", **COMMON))
  )
  for kind in ("params", "batch_stats"):
    assert tagger[kind]["sound"] == plain[kind]["sound"] == sa[kind]["sound"]
  assert tagger["params"]["sound_map"] == sa["params"]["sound_map"]
  assert set(tagger["params"]) == {"sound", "sound_map", "classify"}
  assert set(plain["params"]) == {"sound", "classify"}


def test_a_frozen_audio_backbone_keeps_its_statistics():
  sound = np.random.default_rng(0).normal(size=(2, 1, 257, 98)).astype(np.float32)
  for frozen in ((), ("sound",)):
    network = Tagger(frozen=frozen, **COMMON)
    variables = randomise(networks.expected_variables(network, 32))
    _, changed = jax.jit(functools.partial(network.apply, train=True, mutable=["batch_stats"]))(variables, sound)
    same = [np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (changed, variables["batch_stats"])))]
    assert all(same) if frozen else not any(same)
