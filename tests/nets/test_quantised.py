"""Convolutions of 8-bit integers against slow transcriptions, and whole backbones against what rounding can do."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import by_hand
from helpers.random_variables import randomise
from helpers.tiny import quick_jit
from stajax.nets import packed, quantised
from stajax.nets.efficientnet import EfficientNetLite0
from stajax.nets.quantised import Int8Conv, quantise_kernel, to_int8
from stajax.nets.visual import VGG16
from stajax.weights import store


def as_integers(x, *arguments, cpu, default):
  """What accelerators run, run here."""
  return default(x, *arguments)


def rounded(x, step):
  """Rounds one number at a time to the nearest level; a tie goes to the even one."""
  return np.array([max(-127, min(127, round(float(v / step)))) for v in x.ravel()], np.float64).reshape(x.shape)


def drawn(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("platform", ["cpu", "others"])
@pytest.mark.parametrize(
  ("strides", "dilation", "sides"), [(1, 1, (3, 3)), (2, 1, (3, 3)), (1, 2, (3, 3)), (1, 1, (1, 1))]
)
def test_a_convolution_is_that_of_the_integers(platform, strides, dilation, sides, monkeypatch):
  if platform == "others":
    monkeypatch.setattr(jax.lax, "platform_dependent", as_integers)
  x, kernel, bias = drawn(2, 7, 6, 5), drawn(*sides, 5, 4, seed=1), drawn(4, seed=2)
  params = quantise_kernel(kernel, 2.0, bias)  # some inputs are larger
  assert params["kernel"].dtype == np.int8 and np.abs(x).max() > 2
  edge = dilation * (sides[0] - 1) // 2
  module = Int8Conv(4, sides, strides, [(edge, edge)] * 2, dilation)
  found = module.apply({"params": params}, jnp.asarray(x))
  sums = by_hand.conv(rounded(x, params["step"]), params["kernel"], stride=strides, dilation=dilation)
  expected = sums * params["scale"].astype(np.float64) * params["step"] + bias
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_integers_are_convolved_and_summed_in_32_bits():
  """Sums of the largest products are exact: they do not fit in 16 bits."""
  params = {"kernel": np.full((3, 3, 100, 1), 127, np.int8), "scale": np.ones(1), "step": np.float32(1)}
  module = Int8Conv(1, (3, 3), padding=[(0, 0)] * 2, use_bias=False)
  compute = jax.jit(lambda x: module.apply({"params": params}, x))
  x = jnp.full((1, 3, 3, 100), 127, jnp.float32)
  assert float(compute(x)[0, 0, 0, 0]) == 9 * 100 * 127 * 127
  text = compute.trace(x).lower(lowering_platforms=("tpu",)).as_text()
  assert "tensor<1x3x3x100xi8>, tensor<3x3x100x1xi8>) -> tensor<1x1x1x1xi32>" in text


def test_each_output_channel_has_levels_of_its_own():
  kernel = drawn(3, 3, 5, 4) * np.array([1e-3, 1, 1e3, 0], np.float32)
  params = quantise_kernel(kernel, 1.0)
  largest = np.abs(kernel).max(axis=(0, 1, 2))
  np.testing.assert_allclose(params["scale"][:3], largest[:3] / 127, rtol=1e-6)
  assert (np.abs(params["kernel"]).max(axis=(0, 1, 2)) == [127, 127, 127, 0]).all()
  error = np.abs(params["kernel"] * params["scale"] - kernel).max(axis=(0, 1, 2))
  assert (error <= largest / 254 * 1.001).all()  # one width for all would lose the first channel


def test_zero_stays_zero_and_what_is_too_large_is_the_largest():
  x = jnp.asarray([0.0, -0.0, 9.0, -9.0, 0.5, np.inf, -np.inf])
  assert to_int8(x, jnp.float32(1 / 127)).tolist() == [0, 0, 127, -127, 64, 127, -127]
  silent = quantise_kernel(drawn(1, 1, 2, 2), 0.0)  # of a layer whose inputs were 0 throughout
  assert np.isfinite(silent["step"]) and silent["step"] > 0


def test_the_first_stage_on_pairs_of_pixels_is_that_of_the_integers():
  """What TPUs compute of the first two layers of VGG-16."""
  x, (first, second) = (
    drawn(2, 6, 8, 3),
    (quantise_kernel(drawn(3, 3, i, o, seed=i), 3.0, drawn(o, seed=o)) for i, o in ((3, 5), (5, 6))),
  )
  found = quick_jit(packed.first_stage)(jnp.asarray(x), first, second)
  for each in (first, second):
    sums = by_hand.conv(rounded(x.astype(np.float32), each["step"]), each["kernel"])
    x = by_hand.relu(sums * each["scale"].astype(np.float64) * each["step"] + each["bias"])
  np.testing.assert_allclose(found, by_hand.max_pool(x, 2, 2, 0), atol=1e-4)


def prepared(network, images, seed=0):
  """Returns random float parameters of a backbone, and the int8 ones that `images` give."""
  params = randomise(jax.eval_shape(network.init, jax.random.key(0), images), seed)["params"]
  inside = store.flatten(jax.eval_shape(network.clone(int8=True).init, jax.random.key(0), images)["params"])
  wanted = [name.removesuffix("/step") for name in inside if name.endswith("/step")]
  flat = store.flatten(params)

  @quick_jit
  def look(images):
    return quantised.largest_inputs(
      lambda: network.apply({"params": params}, images, mutable=["intermediates"]), wanted
    )

  ranges = look(images)
  for path in wanted:
    both = (flat.pop(f"{path}/{name}") for name in ("kernel", "bias"))
    new = (lambda kernel, bias: quantise_kernel(kernel, float(ranges[path]), bias))(*both)
    flat |= {f"{path}/{name}": x for name, x in new.items()}
  assert {name: (x.shape, x.dtype) for name, x in flat.items()} == {
    name: (x.shape, x.dtype) for name, x in inside.items()
  }
  return params, store.unflatten(flat), ranges


def test_a_backbone_differs_by_no_more_than_rounding_allows():
  """By rounding each input and each weight is off by half a level at most, which is followed through the layers."""
  network: Any = VGG16(width=0.02, depths=(1, 1, 1, 1, 1))
  images = jnp.asarray(np.random.default_rng(1).random((1, 16, 16, 3)), jnp.float32)
  params, rounded_params, ranges = prepared(network, images)
  exact = quick_jit(network.apply)({"params": params}, images)
  found = quick_jit(network.clone(int8=True).apply)({"params": rounded_params}, images)
  x = (np.asarray(images, np.float64) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  off = np.zeros_like(x)
  stages = []
  for stage in range(1, 6):
    layer = params[f"conv{stage}_1"]["conv"]
    own = rounded_params[f"conv{stage}_1"]["conv"]
    step, dilation = own["step"] / 2, 2 if stage == 5 else 1
    assert np.isclose(float(ranges[f"conv{stage}_1/conv"]), np.abs(x).max(), rtol=1e-4)
    # Inputs beyond the largest one that was seen are cut, which brings them nearer to the exact ones.
    at_most = partial(by_hand.conv, dilation=dilation)
    off = at_most(off + step, np.abs(layer["kernel"])) + at_most(
      np.abs(x) + off + step, np.ones_like(layer["kernel"]) * own["scale"] / 2
    )
    x = by_hand.relu(by_hand.conv(x, layer["kernel"], layer["bias"], dilation=dilation))
    stages.append((x, off))
    if stage <= 4:
      pool = (2, 2, 0) if stage <= 3 else (3, 1, 1)
      x, off = by_hand.max_pool(x, *pool), by_hand.max_pool(off, *pool)
  for name, (x, off) in zip(("f3", "f4", "f5"), stages[-3:], strict=True):
    np.testing.assert_allclose(getattr(exact, name), x, rtol=1e-4, atol=1e-4)
    error = np.abs(np.asarray(getattr(found, name)) - x)
    assert error.max() > 0 and (error <= off + 1e-4).all()


def test_the_small_backbone_is_quantised_but_for_channels_by_themselves():
  network, images = EfficientNetLite0(), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  exact, inside = (
    store.flatten(jax.eval_shape(each.init, jax.random.key(0), images)["params"])
    for each in (network, network.clone(int8=True))
  )
  assert {name: x.shape for name, x in exact.items()}.items() <= {name: x.shape for name, x in inside.items()}.items()
  kernels = {name: "depthwise" in name for name in exact if name.endswith("/kernel")}
  assert len(kernels) == 48 and all((inside[name].dtype == np.float32) == alone for name, alone in kernels.items())


@pytest.mark.slow
def test_the_small_backbone_in_integers_is_nearly_that_in_floats():
  network: Any = EfficientNetLite0()
  images = jnp.asarray(np.random.default_rng(1).random((1, 32, 32, 3)), jnp.float32)
  params, rounded_params, ranges = prepared(network, images)
  assert all(float(ranges[f"block{i}_project"]) <= 6 for i in range(16))
  exact = quick_jit(network.apply)({"params": params}, images)
  found = quick_jit(network.clone(int8=True).apply)({"params": rounded_params}, images)
  for name in exact._fields:
    x, y = (np.asarray(getattr(stages, name)) for stages in (exact, found))
    assert 0 < np.sqrt(((y - x) ** 2).mean() / (x**2).mean()) < 0.1
