"""Tiny networks and clips for tests of inference, and whole networks that run on groups gathered by hand."""

import collections
import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from stajax import model, networks
from stajax.config import Config, Data, Maps, Network, Training
from stajax.inference import programs, traced
from stajax.inference.clip import Clip, windows
from stajax.inference.dense import DenseNetwork
from stajax.inference.predictor import load_predictor
from stajax.nets import base
from stajax.nets.images import to_size
from stajax.weights import store

SIZE, STORED = 32, 40
CATEGORIES = ("ant", "bee", "cat", "dog", "eel")
CONFIG = Config(
  name="tiny",
  seed=3,
  data=Data(source="synthetic"),
  network=Network(
    width=0.01,
    norm="batch",
    depths=(1,) * 5,
    neck_depth=1,
    audio_width=0.01,
    audio_pooling="average",
    reasoning_steps=1,
    attention_block=8,
    dtype="float32",
  ),
  maps=Maps(size=16),
  **{name: Training(size=SIZE) for name, field in Config.model_fields.items() if field.annotation is Training},
)

SMALL = 24
"""The side of STA+ in a model folder; its maps are resized to that of STA's."""
PLUS_CONFIG = CONFIG.model_copy(update={"sta_plus": Training(size=SMALL)})


def make_samples(count, seed=0, heard=0.7):
  """Makes frames of noise, each with a brightness of its own; a share of them has sound."""
  rng = np.random.default_rng(seed)
  frames = rng.integers(0, 100, (count, STORED, STORED, 3)) + rng.integers(0, 150, (count, 1, 1, 3))
  sounds = rng.normal(size=(count, 257, 98)).astype(np.float32)
  return [(f.astype(np.uint8), s if rng.random() < heard else None) for f, s in zip(frames, sounds, strict=True)]


def make_clip(count, reach=1, seed=0, **attributes):
  """Makes a clip with a random switch."""
  clip = Clip(make_samples(count, seed), reach, **attributes)
  return clip.with_switch(np.random.default_rng(seed + 1).integers(0, 2, count))


def make_boxes(count, seed=0):
  rng = np.random.default_rng(seed)
  low, side = rng.uniform(0, 0.4, (count, 2)), rng.uniform(0.2, 0.6, (count, 2))
  return np.concatenate([low, low + side], axis=1).astype(np.float32)


def walk(start, offset, count):
  """Returns the frame that many steps away, where a step turns round at the ends."""
  at, direction = start, 1 if offset > 0 else -1
  for _ in range(abs(offset) if count > 1 else 0):
    if not 0 <= at + direction < count:
      direction = -direction
    at += direction
  return at


def fragment(frame, network, clip):
  """Returns the frames of a fragment."""
  half = network.num_times // 2
  return [walk(frame, step * clip.reach, len(clip)) for step in range(-half, half + 1)]


plain_jit = jax.jit
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def quick_jit(function, **arguments):
  """Compiles quickly, for what tests run a few times only; within another program it is the plain `jit`."""
  quick, plain = (plain_jit(function, compiler_options=options, **arguments) for options in (_QUICK, None))

  @functools.wraps(function)
  def call(*args, **kwargs):
    is_nested = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((args, kwargs)))
    return (plain if is_nested else quick)(*args, **kwargs)

  call.lower = quick.lower
  return call


_resize = quick_jit(to_size, static_argnums=1)


@functools.cache
def compiled(network):
  return quick_jit(lambda variables, inputs: network.apply(variables, **inputs))


class TinyAudio(nn.Module):
  """Stands in for the audio backbone, which would take most of the time to compile."""

  width: float
  norm: str
  pooling: str
  dtype: Any

  @nn.compact
  def __call__(self, sound, train):
    return nn.Dense(6, name="listen")(sound.mean(axis=2))


@pytest.fixture(scope="module")
def small_programs():
  """Makes the networks of the tests compile quickly."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(base, "ResNet18", TinyAudio)
    patch.setattr(jax, "jit", quick_jit)
    patch.setattr(traced, "_folder", lambda: None)  # traces of these networks would be taken for those of real ones
    yield


def whole(network, variables, groups, size=SIZE, most=12):
  """Runs the network's `__call__` on groups of (clip, frame), the targets first.

  Returns:
    Class maps and confidences of a classifier, or saliency of a student, of the targets.
  """
  count, groups = len(groups), [*groups, *[groups[0]] * (most - len(groups))]  # one shape for all tests
  inputs = {}
  if network.num_times:
    resized = {}
    for of, at in (node for group in groups for node in group):
      for i in fragment(at, network, of):
        box = None if of.boxes is None else of.boxes[[i]]
        if (id(of), i) not in resized:
          resized[id(of), i] = np.asarray(_resize(of.samples[i][0][None], size, box)[0])
    inputs["frames"] = np.stack([
      [[resized[id(clip), i] for i in fragment(at, network, clip)] for clip, at in group] for group in groups
    ])  # fmt: skip
  if network.hears:
    silence = np.zeros((257, 98), np.float32)
    sounds = [[clip.samples[at][1] for clip, at in group] for group in groups]
    inputs["sound"] = np.stack([[silence if x is None else x for x in row] for row in sounds])
    inputs["switch"] = np.array([[clip.switch[at] for clip, at in group] for group in groups], np.float32)
  out = compiled(network)(variables, inputs)
  if not network.predicts_maps:
    return np.asarray(out.class_maps)[:count], sigmoid(out.logits)[:count]
  return sigmoid(out)[:count, 0]


def sigmoid(x):
  return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def make(name, random_variables, seed=1):
  """Makes a network and random variables."""
  network = networks.make_network(name, CONFIG, len(CATEGORIES))
  return network, random_variables(network, SIZE, seed=seed)


@pytest.fixture(scope="module")
def random_networks(random_variables, small_programs):
  """Returns (network, variables, size) by name; the switch is on for half of the sounds of a clip."""
  made = {}
  for seed, name in enumerate((networks.SWITCH, *networks.STUDENTS)):
    network, size = networks.make_network(name, CONFIG, len(CATEGORIES)), SMALL if "plus" in name else SIZE
    made[name] = network, random_variables(network, size, seed), size
  network, variables, _ = made[networks.SWITCH]
  clip = Clip(make_samples(11, heard=1))
  _, confidences = whole(network, variables, [[(clip, i)] for i in range(11)])
  bias = np.median(np.log(confidences / (1 - confidences))) + 1e-3 + np.log(3)  # to a quarter
  variables["params"]["bias"] -= np.float32(bias)
  return made


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, random_networks):
  return write_model(
    tmp_path_factory.mktemp("run"), {name: variables for name, (_, variables, _) in random_networks.items()}
  )


def write_model(folder, random_networks):
  """Writes a folder with a model of the networks' variables in it."""
  paths, sha256 = {name: folder / f"{name}.safetensors" for name in random_networks}, {}
  for name, variables in random_networks.items():
    sha256[name] = store.save(paths[name], variables)
  model.save(folder / "model", paths, {}, PLUS_CONFIG, categories=CATEGORIES, rate=4.0, side=STORED,
             trained_on="synthetic", sha256=sha256,
             confidence={"departures": (0.0, 1.0), "gains": (-0.5, 0.5)})  # fmt: skip
  return folder


def method_maps(predictor, samples, reach=1):
  """Returns the maps of all methods for a video, in parts."""
  parts = (predictor.start_method_maps(clip)() for clip in windows(iter(samples), reach))
  return list(predictor.blur_in_time(parts, reach))


@pytest.fixture(scope="module")
def predictor(model_folder):
  return load_predictor(model_folder, batch=16)


def count_calls(monkeypatch):
  """Returns a counter of the calls of each program."""
  calls, real = collections.Counter(), programs.Programs.__init__

  def init(self, *arguments, **keywords):
    real(self, *arguments, **keywords)
    for name in ("encode_frames", "encode_sound", "fuse"):
      program = getattr(self, name)
      program.write = counted(name, program.write)
    self.reason = counted("reason", self.reason)

  def counted(name, function):
    def call(*arguments, **keywords):
      calls[name] += 1
      return function(*arguments, **keywords)

    return call

  monkeypatch.setattr(programs.Programs, "__init__", init)
  monkeypatch.setattr(programs, "_SHARED", {})
  return calls


def count_devices(monkeypatch):
  """Returns a counter of the clips that networks were run on, by the devices that their results are on."""
  launched, real = collections.Counter(), DenseNetwork.launch

  def launch(self, *arguments, **keywords):
    found = real(self, *arguments, **keywords)
    (device,) = {device for x in jax.tree.leaves(found) for device in x.devices()}
    launched[device] += 1
    return found

  monkeypatch.setattr(DenseNetwork, "launch", launch)
  return launched
