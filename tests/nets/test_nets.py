"""Networks at full size, by shape alone, and their parts at tiny size against slow NumPy transcriptions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from helpers import by_hand
from helpers.paths import CONFIGS
from helpers.random_variables import randomise
from stajax import config as configuration
from stajax import networks
from stajax.config import Config, Network
from stajax.nets.audio import NetVLAD, ResNet18
from stajax.nets.base import NetworkSizes
from stajax.nets.classifier import Classifier
from stajax.nets.fusion import SoundMap, TemporalBranch, fuse_source, gate
from stajax.nets.layers import ConvBlock, Normalise, max_pool, scaled
from stajax.nets.student import Student
from stajax.nets.visual import VGG16, Neck

# One of each structure: nodes of a group, frames of a fragment, whether it hears.
NETWORKS = {
  "s": (1, 1, False),
  "st": (1, 3, False),
  "sa": (1, 1, True),
  "s_plus_short": (3, 1, False),
  "st_plus_long": (3, 3, False),
  "sa_plus_cross": (3, 1, True),
  "switch": (1, 1, True),
  "tagger_0": (1, 0, True),
  "sta": (1, 3, True),
  "sta_plus_short": (3, 3, True),
}
TINY = NetworkSizes(width=0.01, audio_width=0.01, audio_pooling="average")  # 8 channels everywhere


def count(tree):
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def jitted(network, **how):
  return jax.jit(functools.partial(network.apply, **how))


def shapes(network, size):
  inputs = networks.example_inputs(network, size, batch=2)
  return jax.eval_shape(lambda inputs: network.init_with_output(jax.random.key(0), **inputs), inputs)


# Full size, by shape alone.


def check_shapes(name, out, size, c, side=None):
  """Checks the output for a batch of two groups."""
  n, side = NETWORKS[name][0], size // 8 if side is None else side
  if name.startswith("sta"):
    assert out.shape == (2, n, size, size)
  else:
    c = 1 if name == "switch" else c
    assert out.logits.shape == (2, c)
    assert out.branch_logits.shape == (2, n, c) if n > 1 or name == "tagger_0" else out.branch_logits is None
    assert out.class_maps is None if name == "tagger_0" else out.class_maps.shape == (2, side, side, c)
  assert {x.dtype for x in jax.tree.leaves(out)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("size", [256, 356])
@pytest.mark.parametrize("name", NETWORKS)
def test_full_size(name, size):
  network = networks.make_network(name, Config(name="full"), 28)
  assert (network.num_nodes, network.num_times, network.hears) == NETWORKS[name]
  check_shapes(name, shapes(network, size)[0], size, 28)


@pytest.mark.parametrize(("size", "quarter", "eighth"), [(256, 64, 32), (356, 89, 44)])
def test_backbone_stages(size, quarter, eighth):
  out, _ = jax.eval_shape(VGG16().init_with_output, jax.random.key(0), jnp.zeros((1, size, size, 3)))
  assert [x.shape for x in out] == [(1, quarter, quarter, 256), (1, eighth, eighth, 512), (1, eighth, eighth, 512)]


def test_parameter_counts():
  _, variables = shapes(networks.make_network("s", Config(name="full"), 28), 256)
  assert count(variables["params"]["visual"]) == 14_714_688  # published for VGG-16's convolutions
  neck = 3 * (3 * 3 * 512 * 512 + 512) + 512 * 28 + 28
  assert count(variables["params"]) == 14_714_688 + neck + 28 * 28 + 28 == 21_809_288
  assert set(variables) == {"params"}

  _, variables = shapes(networks.make_network("st_plus_short", Config(name="full"), 28), 256)
  assert abs(count(variables["params"]) / 21.86e6 - 1) < 0.01  # published in Table 5

  _, variables = shapes(networks.make_network("sa", Config(name="full"), 28), 256)
  sound = traverse_util.flatten_dict(variables["params"]["sound"], sep="/")
  # Two convolutions a block, four blocks a width pair; the first of each new width comes from half of it.
  stem, stages, shortcuts = 7 * 7 * 64, 9 * 64 * 64 * 4, 0
  for width in (128, 256, 512):
    stages += 9 * (width // 2 * width + 3 * width * width)
    shortcuts += width // 2 * width
  kernels = {name: x for name, x in sound.items() if name.endswith("kernel") and "netvlad" not in name}
  assert count(kernels) == stem + stages + shortcuts == 11_160_640
  channels = 64 + 4 * 64 + 5 * (128 + 256 + 512)
  assert count({name: x for name, x in sound.items() if "/norm/" in name}) == 2 * channels
  assert count({name: x for name, x in sound.items() if "netvlad" in name}) == 16 * 512 + 512 * 16 + 16
  assert count(sound) == 11_160_640 + 2 * channels + 16 * 512 + 512 * 16 + 16
  assert count(variables["batch_stats"]) == 2 * channels


def test_the_backbone_has_torchvisions_names():
  _, variables = jax.eval_shape(VGG16().init_with_output, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  names = [f"conv{stage}_{i}" for stage, convs in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, convs + 1)]
  wanted = {f"{name}/conv/{leaf}" for name in names for leaf in ("kernel", "bias")}
  assert set(traverse_util.flatten_dict(variables["params"], sep="/")) == wanted


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda p: p.stem)
def test_every_configuration_file(path):
  config = configuration.load(path)
  for name in NETWORKS:
    network, size = networks.make_network(name, config, 7), networks.training_of(name, config).size
    side = {"vgg16": size // 8, "efficientnet_lite0": -(-size // 32)}[config.network.encoder]
    check_shapes(name, shapes(network, size)[0], size, 7, side)


def test_fewer_convolutions():
  """A shallower backbone has some of VGG-16's parameters, and stages of the same sizes."""
  deep, shallow = (
    jax.eval_shape(VGG16(depths=depths).init_with_output, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    for depths in ((2, 2, 3, 3, 3), (1, 1, 2, 2, 2))
  )
  assert deep[0] == shallow[0] and set(shallow[1]["params"]) < set(deep[1]["params"])
  assert sorted(shallow[1]["params"])[:4] == ["conv1_1", "conv2_1", "conv3_1", "conv3_2"]
  _, neck = jax.eval_shape(Neck(5, depth=1).init_with_output, jax.random.key(0), jnp.zeros((1, 8, 8, 512)))
  assert set(neck["params"]) == {"conv1", "project"}


def test_width():
  assert [scaled(c, 1) for c in (28, 64, 512)] == [28, 64, 512]
  assert [scaled(c, 0.125) for c in (32, 64, 512)] == [8, 8, 64] and scaled(512, 0.3) % 8 == 0


# The parts, against slow transcriptions.


@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 0), (3, 1, 1), (3, 2, 1)])
def test_max_pool(window, stride, padding):
  """Numbers at the border are negative; the gradient goes where the maximum came from."""
  x = np.random.default_rng(0).normal(-1, 1, (2, 7, 8, 3)).astype(np.float32)
  expected = by_hand.max_pool(x, window, stride, padding)
  np.testing.assert_array_equal(max_pool(x, window, stride, padding), expected)
  gradient = jax.jit(jax.grad(lambda x: max_pool(x, window, stride, padding).sum()))(x)
  assert float(gradient.sum()) == expected.size and set(x[np.asarray(gradient) > 0]) == set(expected.ravel())


@pytest.fixture(scope="module")
def student():
  network = Student(num_categories=5, sizes=TINY)
  return network, randomise(networks.expected_variables(network, 32), 3)


def test_vgg_at_stride_8(student):
  _, variables = student
  images = np.random.default_rng(0).random((2, 36, 44, 3)).astype(np.float32)
  params = variables["params"]["visual"]
  stages = jitted(VGG16(width=0.01))({"params": params}, images)
  for name, expected in by_hand.vgg(params, images).items():
    if name in ("f3", "f4", "f5"):
      np.testing.assert_allclose(getattr(stages, name), expected, rtol=1e-4, atol=1e-5)
  assert stages.f5.shape == (2, 4, 5, 8) and float(jnp.std(stages.f5)) > 1e-3

  params = variables["params"]["neck"]
  x = f5 = np.random.default_rng(1).normal(size=(2, 5, 6, 8)).astype(np.float32)
  for i in (1, 2, 3):
    x = by_hand.relu(by_hand.conv(x, params[f"conv{i}"]["conv"]["kernel"], params[f"conv{i}"]["conv"]["bias"]))
  expected = by_hand.conv(x, params["project"]["kernel"], params["project"]["bias"])
  np.testing.assert_allclose(jitted(Neck(5, width=0.01))({"params": params}, f5), expected, rtol=1e-4, atol=1e-5)


def test_resnet():
  network = ResNet18(width=0.01, pooling="average")
  spectrogram = np.random.default_rng(0).normal(size=(2, 257, 98)).astype(np.float32)
  variables = randomise(jax.eval_shape(network.init, jax.random.key(0), spectrogram))
  out = jax.jit(network.apply)(variables, spectrogram)
  np.testing.assert_allclose(out, by_hand.resnet(variables, spectrogram), rtol=1e-3, atol=1e-4)


def test_strided_convolutions_are_padded_as_in_pytorch():
  x = jnp.arange(8.0)[None, :, None]
  variables = {"params": {"conv": {"kernel": jnp.ones((3, 1, 1)), "bias": jnp.zeros(1)}}}
  out = ConvBlock(1, (3,), strides=2).apply(variables, x)
  assert out[0, :, 0].tolist() == [1, 6, 12, 18]  # torch.nn.Conv1d(1, 1, 3, stride=2, padding=1); "SAME" is 3 9 15 13


def test_netvlad_in_vggsounds_order():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 3, 4, 6)).astype(np.float32)
  x[1, 0, 0] = 0
  network = NetVLAD()
  variables = randomise(jax.eval_shape(network.init, jax.random.key(0), x), seed=2)
  params = variables["params"]
  for example, out in zip(x, jitted(network)(variables, x), strict=True):
    points = example.reshape(-1, 6) / np.maximum(np.linalg.norm(example.reshape(-1, 6), axis=1, keepdims=True), 1e-12)
    sums = np.zeros((16, 6))
    for point in points:
      scores = np.exp(point @ params["conv"]["kernel"][0, 0] + params["conv"]["bias"])
      for cluster, share in enumerate(scores / scores.sum()):
        sums[cluster] += share * (point - params["centroids"][cluster])
    sums = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).ravel()
    np.testing.assert_allclose(out, sums / np.linalg.norm(sums), atol=1e-5)

  silence = jnp.zeros((1, 2, 2, 6))
  gradient = jax.jit(jax.grad(lambda x: network.apply(variables, x).sum()))(silence)
  assert np.isfinite(gradient).all()


@pytest.mark.parametrize("norm", ["none", "group", "batch"])
def test_normalisation(norm):
  rng = np.random.default_rng(0)
  x = rng.normal(2, 3, (4, 5, 6, 16)).astype(np.float32)
  network = Normalise(norm)
  variables = randomise(jax.eval_shape(lambda key: network.init(key, x, train=True), jax.random.key(0)))
  out, changed = jitted(network, train=True, mutable=["batch_stats"])(variables, x)
  if norm == "none":
    np.testing.assert_array_equal(out, x)
    return
  params = variables["params"][norm]
  if norm == "group":
    groups = x.reshape(4, 5, 6, 2, 8)
    mean, var = (getattr(groups, f)(axis=(1, 2, 4), keepdims=True) for f in ("mean", "var"))
    expected = ((groups - mean) / np.sqrt(var + 1e-6)).reshape(x.shape) * params["scale"] + params["bias"]
  else:
    mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    expected = by_hand.normalised(x, params, {"mean": mean, "var": var})
    before, after = variables["batch_stats"]["batch"], changed["batch_stats"]["batch"]
    np.testing.assert_allclose(after["mean"], 0.9 * before["mean"] + 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(after["var"], 0.9 * before["var"] + 0.1 * var, rtol=1e-4)
    running = jitted(network, train=False)(variables, x)
    np.testing.assert_allclose(running, by_hand.normalised(x, params, before), rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-4)


def test_fusion_of_section_3_3():
  rng = np.random.default_rng(0)
  s, control = rng.normal(size=(2, 2, 3, 4, 5)).astype(np.float32)
  gated, fused = np.zeros((2, 3, 4, 5)), np.zeros((2, 3, 4, 10))
  for at in np.ndindex(s.shape):
    gated[at] = 1 / (1 + np.exp(-control[at])) * s[at] + s[at]
    fused[at], fused[(*at[:3], at[3] + 5)] = max(gated[at], 0), s[at]
  np.testing.assert_allclose(gate(s, control), gated, rtol=1e-5)
  np.testing.assert_allclose(fuse_source(s, control), fused, rtol=1e-5)
  np.testing.assert_allclose(fuse_source(s, control, rectify=False)[..., :5], gated, rtol=1e-5)


def test_temporal_branch():
  spatial = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
  network = TemporalBranch(6)
  variables = randomise(jax.eval_shape(network.init, jax.random.key(0), spatial))
  expected = by_hand.temporal_branch(variables["params"], spatial)
  np.testing.assert_allclose(jitted(network)(variables, spatial), expected, rtol=1e-4, atol=1e-5)


def test_time_and_channels_stay_apart():
  """Hand-made kernels put one channel of one frame into channel 0; a `view` that mixes the axes would put another."""
  spatial = np.random.default_rng(0).random((1, 3, 4, 5, 4)).astype(np.float32)
  network = TemporalBranch(4)
  apply = jitted(network)
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(network.init, jax.random.key(0), spatial))[
    "params"
  ]
  for name in ("space1", "space2"):
    zeros[name]["kernel"][0, 1, 1] = np.eye(4)
  for frame in range(3):
    for channel in range(4):
      params = jax.tree.map(np.copy, zeros)
      params["time"]["kernel"][frame, 0, 0, channel, 0] = 1
      out = apply({"params": params}, spatial)
      np.testing.assert_array_equal(out[..., 0], spatial[:, frame, ..., channel])
      assert not np.any(out[..., 1:])


# Whole networks.


@pytest.mark.parametrize("source", ["s", "st", "sa"])
def test_classifier_is_a_1x1_convolution_and_a_mean(source):
  """The bias is added after pooling. ST and SA gate a spatial map that is lifted by 4, and lower their class maps."""
  network = Classifier(source, num_categories=4, sizes=dataclasses.replace(TINY, norm="group"))
  variables = randomise(networks.expected_variables(network, 32), 1)
  rng = np.random.default_rng(0)
  spatial = rng.normal(size=(3, network.num_times, 4, 4, 4)).astype(np.float32)
  heard = (rng.normal(size=(3, 8)).astype(np.float32), np.array([1, 0, 1], np.float32)) if source == "sa" else ()
  params = variables["params"]
  middle = spatial[:, network.num_times // 2]
  lift = 0 if source == "s" else 4
  fused = middle
  if source == "st":
    fused = fuse_source(middle + lift, by_hand.temporal_branch(params["temporal"], spatial))
  if source == "sa":
    fused = fuse_source(middle + lift, jitted(SoundMap(4), size=(4, 4))({"params": params["sound_map"]}, *heard))
  expected = np.asarray(fused) @ params["classify"]["kernel"][0, 0] - lift
  class_maps = jitted(network, method="fuse")(variables, {"s": spatial}, *heard)
  np.testing.assert_allclose(class_maps, expected, rtol=1e-4, atol=1e-5)
  out = network.apply(variables, class_maps[:, None], method="reason")
  np.testing.assert_array_equal(out.class_maps, class_maps)
  convolved = by_hand.conv(np.asarray(fused), params["classify"]["kernel"], params["bias"])
  np.testing.assert_allclose(out.logits, convolved.mean(axis=(1, 2)) - lift, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["s", "st", "sa"])
def test_channels_of_a_new_classifier_stand_for_categories(source):
  """Its class map of category i is channel i of the spatial map, or the mean of this channel and the gated one."""
  network = Classifier(source, num_categories=4, sizes=TINY)
  size = (1, 1, network.num_times, 32, 32, 3)
  sound = {"sound": np.zeros((1, 1, 257, 98), np.float32), "switch": np.ones((1, 1), np.float32)}
  inputs = {"frames": np.zeros(size, np.float32), **(sound if network.hears else {})}
  variables = network.init(jax.random.key(0), **inputs)
  kernel = np.asarray(variables["params"]["classify"]["kernel"])[0, 0]
  expected = np.eye(4) if source == "s" else np.concatenate([np.eye(4), np.eye(4)]) / 2
  np.testing.assert_array_equal(kernel, expected)


def check_new_sa(num_outputs, highest, expected):
  """Compares the maps of a new network with a function of its spatial map, which is above −4, and of the gate."""
  network = Classifier("sa", num_categories=4, num_outputs=num_outputs, sizes=TINY)
  sound = {"sound": np.zeros((1, 1, 257, 98), np.float32), "switch": np.ones((1, 1), np.float32)}
  variables = network.init(jax.random.key(0), frames=np.zeros((1, 1, 1, 32, 32, 3), np.float32), **sound)
  s = np.random.default_rng(0).uniform(-3.9, highest, size=(2, 1, 4, 4, 4)).astype(np.float32)
  heard = np.random.default_rng(1).normal(size=(2, 8)).astype(np.float32), np.ones(2, np.float32)
  deconv = jitted(SoundMap(4), size=(4, 4))({"params": variables["params"]["sound_map"]}, *heard)
  maps = jitted(network, method="fuse")(variables, {"s": s}, *heard)
  np.testing.assert_allclose(maps, expected(s[:, 0], by_hand.sigmoid(deconv)), rtol=1e-4, atol=1e-4)


def test_a_new_sa_hears_where_the_spatial_map_is_negative():
  check_new_sa(None, -0.1, lambda s, gate: s + gate * (s + 4) / 2)


def test_a_new_switch_asks_whether_anything_heard_is_seen():
  check_new_sa(1, 2, lambda s, gate: 2 * np.sum(gate * (s + 1.5), axis=-1, keepdims=True))


def test_equation_11(student):
  network, variables = student
  params, rng = variables["params"], np.random.default_rng(0)
  spatial = rng.normal(size=(2, 3, 4, 4, 5)).astype(np.float32)
  audio, switch = rng.normal(size=(2, 8)).astype(np.float32), np.array([1, 0], np.float32)
  s = spatial[:, 1]
  deconv = jitted(SoundMap(5), size=(4, 4))({"params": params["sound_map"]}, audio, switch)
  heard = by_hand.sigmoid(deconv) * s + s
  moved = by_hand.sigmoid(by_hand.temporal_branch(params["temporal"], spatial)) * s + s
  both = np.concatenate([heard, moved], axis=-1)
  expected = by_hand.relu(by_hand.conv(both, params["combine"]["kernel"], params["combine"]["bias"]))
  out = jitted(network, method="fuse")(variables, {"s": spatial}, audio, switch)
  assert out.shape == (2, 4, 4, 5)
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_equation_12(student):
  """It is written from the inside out: Ref(Ref(F5) ⊗ sta) ↑, with F4, ↑, with F3, ↑ to the input's size."""
  network, variables = student
  params, rng = variables["params"], np.random.default_rng(0)
  images = rng.random((1, 32, 32, 3)).astype(np.float32)
  features = jitted(network, method="encode_frames")(variables, images)
  stages = by_hand.vgg(params["visual"], images)

  def refined(x, name):
    return by_hand.relu(by_hand.conv(x, params[name]["conv"]["kernel"], params[name]["conv"]["bias"]))

  for name in ("f3", "f4", "f5"):
    assert features[name].shape[-1] == 32
    np.testing.assert_allclose(features[name], refined(stages[name], f"refine_{name}"), rtol=1e-4, atol=1e-5)

  sta = rng.random((1, 4, 4, 5)).astype(np.float32)
  x = sta
  for name, size in (("f5", (4, 4)), ("f4", (8, 8)), ("f3", (32, 32))):
    x = refined(np.concatenate([np.asarray(features[name]), x], axis=-1), f"decode_{name}")
    if name == "f3":
      # One logit a pixel, before the last ↑: both are linear, so that their order does not matter.
      x = by_hand.conv(x, params["readout"]["kernel"], params["readout"]["bias"])
    x = by_hand.bilinear(x, size)
  own = {name: features[name][:, None] for name in ("f3", "f4", "f5")}
  out = jitted(network, method="reason", size=(32, 32))(variables, sta[:, None], own)
  assert out.shape == (1, 1, 32, 32) and out.dtype == jnp.float32
  np.testing.assert_allclose(out[:, 0], x[..., 0], rtol=1e-4, atol=1e-4)


def test_bfloat16_computes_float32_results():
  """Parameters, class maps and logits stay float32, and the result is near that of float32."""
  for name in ("st", "sta", "sa_plus_long", "sta_plus_long", "tagger_0"):
    network = networks.make_network(name, Config(name="half", network=Network(dtype="bfloat16")), 28)
    out, variables = shapes(network, 32)
    assert {x.dtype for x in jax.tree.leaves((out, variables))} == {jnp.dtype("float32")}
  x, neck = np.random.default_rng(0).normal(size=(1, 4, 4, 8)).astype(np.float32), functools.partial(Neck, 5, 0.01)
  variables = randomise(jax.eval_shape(neck().init, jax.random.key(0), x))
  exact, rounded = (jitted(neck(dtype=dtype))(variables, x) for dtype in (jnp.float32, jnp.bfloat16))
  assert rounded.dtype == jnp.bfloat16
  np.testing.assert_allclose(rounded.astype(jnp.float32), exact, atol=0.03 * np.abs(exact).max())
