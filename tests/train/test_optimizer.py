"""The optimiser and its learning rates against PyTorch's formulas, and its groups of parameters."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from helpers.small_network import MULTIPLIERS
from stajax import networks
from stajax.config import Config
from stajax.train import optimizer


def group_sizes(network):
  shapes = networks.expected_variables(network, 32)
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
  assert group_sizes(networks.make_network("sa", Config(name="full"), 28)) == [
    14_714_688 - vgg_biases + resnet,
    vgg_biases + channels + 16,
    neck + deconvolutions + 56 * 28,
    3 * 512 + 28 + 3 * 32 + 28 + 28,
  ]
  temporal, decoder = 3 * 28 * 28 + 2 * 9 * 28 * 28, 9 * 32 * (60 + 64 + 64)
  refine = 32 * (256 + 512 + 512)
  assert group_sizes(networks.make_network("sta", Config(name="full"), 28))[2:] == [
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
