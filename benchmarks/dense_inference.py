"""Measures how many final maps a second the three students make, against the paper's scheme in PyTorch (extra `bench`).

  python -m benchmarks.dense_inference [--seconds 10] [--rate 8] [--size 256] [--dtype float32|bfloat16] [--batch 8]
    [--rounds 3] [--int8] [--width 1] [--students separate shared] [--sound] [--peers eager compiled] [--peer-maps 8]
    [--peer-batch 1] [--json FILE]

The clip is in memory at `size`, and weights are random. Each student has a backbone of its own, or all share one with
its neck (--students). Without --sound the clip is silent, and neither side has an audio switch. stajax encodes every
frame once for each backbone. The peer makes every map by itself, as the paper's code does, in batches of --peer-batch
maps: it sees three frames for STA and nine for each STA+, which are 21 passes through the backbone for each map. With
--sound the switch sees each of the seven fragments once, which makes 28 passes. It is timed on --peer-maps of the
clip's maps. Both sides go from uint8 frames and spectrograms in memory to the maps of Eq. 17 in memory.
FLOPs are twice the multiply-accumulates that stajax.plan counts for each side; stajax needs fewer for a map.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks import measure
from benchmarks.measure import Contestant

NUM_CATEGORIES = 28
STUDENTS = ("sta", "sta_plus_short", "sta_plus_long")
SWITCH = "switch"
_SOUND = (257, 98)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
  """Reads the command's arguments."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--seconds", type=float, default=10)
  parser.add_argument("--rate", type=float, default=8)
  parser.add_argument("--size", type=int, default=256)
  parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
  parser.add_argument("--int8", action="store_true", help="stajax also with 8-bit integers in backbones and necks")
  parser.add_argument("--width", type=float, default=1.0)
  parser.add_argument("--attention-block", type=int, default=256)
  parser.add_argument("--batch", type=int, default=8, help="frames that stajax computes together")
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--students", nargs="+", choices=("separate", "shared"), default=["separate", "shared"])
  parser.add_argument("--sound", action="store_true", help="the clip has sound, and the audio switch is set by it")
  parser.add_argument("--peers", nargs="*", choices=("eager", "compiled"))
  parser.add_argument("--peer-maps", type=int, default=8)
  parser.add_argument("--peer-batch", type=int, default=1, help="maps that the peer makes together")
  parser.add_argument("--json", type=Path)
  arguments = parser.parse_args(argv)
  if arguments.peer_maps % arguments.peer_batch:
    parser.error(f"--peer-maps {arguments.peer_maps}: expected a multiple of --peer-batch {arguments.peer_batch}")
  return arguments


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  arguments = parse(argv)
  measure.use_one_device()
  peers = measure.peers(arguments.peers)
  frames = make_frames(round(arguments.seconds * arguments.rate), arguments.size)
  sounds = make_sounds(len(frames)) if arguments.sound else None
  config = make_config(arguments.size, arguments.dtype, arguments.width, arguments.attention_block)
  macs, contestants = count(config, arguments.size, arguments.sound), {}
  for backbone in arguments.students:
    name = "stajax" if backbone == "separate" else "stajax, shared"
    contestants[name] = stajax_maps(config, frames, sounds, arguments.batch, backbone == "shared")
    contestants[name].about["flops"] = 2 * macs[backbone] * len(frames)
    if arguments.int8:
      shared = backbone == "shared"
      contestants[f"{name}, int8"] = stajax_maps(config, frames, sounds, arguments.batch, shared, int8=True)
  for peer in peers:
    contestant = torch_maps(arguments, frames, sounds, peer == "compiled")
    contestant.about["flops"] = 2 * macs["alone"] * contestant.work
    contestants[f"PyTorch {peer}"] = contestant
  results = measure.measure(contestants, arguments.rounds, 1)
  result = {
    "benchmark": "dense_inference",
    "title": f"final maps of a clip of {len(frames)} frames of {arguments.size}×{arguments.size}, "
    f"{'with sound and switch' if arguments.sound else 'silent'}, {arguments.dtype}",
    "arguments": measure.settings_of(arguments),
    "unit": "maps/s",
    **measure.about(),
    "peak": measure.matmul_peak(arguments.dtype, bool(peers)),
    "results": results,
    "ratios": measure.ratios(results, {name: x.work for name, x in contestants.items()}),
  }
  measure.finish(result, arguments.json)
  return 0


def make_frames(number: int, size: int) -> np.ndarray:
  """Returns frames of coarse noise, (number, size, size, 3) uint8."""
  generator = np.random.default_rng(0)
  frames = generator.integers(0, 256, (number, size // 8, size // 8, 3), np.uint8)
  return frames.repeat(8, axis=1).repeat(8, axis=2)


def make_sounds(number: int) -> np.ndarray:
  """Returns noise in place of normalised log-spectrograms, (number, 257, 98) float32."""
  return np.random.default_rng(1).normal(size=(number, *_SOUND)).astype(np.float32)


def make_config(size: int, dtype: Literal["float32", "bfloat16"], width: float, block: int) -> Any:
  """Returns the configuration of the paper's students at one size."""
  from stajax import config as configuration

  settings = configuration.Network(dtype=dtype, width=width, audio_width=width, attention_block=block)
  training = configuration.Training(size=size)
  return configuration.Config(name="benchmark", network=settings, switch=training, sta=training, sta_plus=training)


def stajax_maps(
  config: Any, frames: np.ndarray, sounds: np.ndarray | None, batch: int, shared: bool, int8: bool = False
) -> Contestant:
  """Makes all maps of the clip by `stajax.inference.dense`.

  Args:
    config: The configuration of the networks.
    frames: The clip's frames.
    sounds: The seconds of sound around them; None for a silent clip.
    batch: The number of frames that are computed together.
    shared: Whether all students share backbones and neck.
    int8: Whether backbones and necks compute in 8-bit integers, calibrated on the first frames.
  """
  import jax

  from stajax import networks
  from stajax.inference import class_maps, dense, predictor
  from stajax.inference import clip as clips
  from stajax.inference.precision import at_precision, calibrate
  from stajax.model import Model
  from stajax.nets.shared_students import COMMON

  size, common = config.sta.size, {}

  def make(seed: int, name: str) -> dict[str, Any]:
    variables = networks.initialise(networks.make_network(name, config, NUM_CATEGORIES), size, jax.random.key(seed))
    if shared and name != SWITCH:
      for collection, parts in variables.items():
        own = {part: x for part, x in parts.items() if part in COMMON}
        variables[collection] = {**parts, **common.setdefault(collection, own)}
    return variables

  names = STUDENTS if sounds is None else (*STUDENTS, SWITCH)
  made = {name: make(seed, name) for seed, name in enumerate(names)}
  model = Model(config, ("",) * NUM_CATEGORIES, 8.0, size, "", made, {}, {})
  if int8:
    model = at_precision(replace(model, calibration=calibrate(model, frames[:8])), "int8", "the benchmark")

  def start(name: str) -> Any:
    variables = model.variables[name]
    return class_maps.make_dense(name, variables, config, NUM_CATEGORIES, batch, int8=model.is_int8)

  students = {name: start(name) for name in STUDENTS}
  switch = None if sounds is None else start(SWITCH)
  samples = list(zip(frames, [None] * len(frames) if sounds is None else sounds, strict=True))

  def run(times: int) -> None:
    for _ in range(times):
      number, maps = 0, np.zeros(0)
      for clip in clips.windows(samples):
        launched = {}
        if switch is not None:
          clip = clip.with_switch(class_maps.switch_values(switch, clip))
        for name, student in students.items():
          granularity = networks.NETWORKS[name].companions
          groups = None
          if granularity is not None:
            groups = dense.Groups(class_maps.make_groups(clip, granularity, student.network.num_times, 0))
          launched[name] = student.launch(clip, groups=groups)
        maps = dense.fetch(predictor.final_maps(launched), len(clip.targets))
        number += len(maps)
      if number != len(frames) or not np.isfinite(maps).all():
        raise FloatingPointError(f"{number} maps of {len(frames)} frames, or values that are not finite")

  run(1)
  return Contestant(run, len(frames), {"peak_bytes": measure.jax_peak_bytes()})


def count(config: Any, size: int, sound: bool) -> dict[str, int]:
  """Counts the multiply-accumulates of one final map.

  Returns:
    "separate", where each frame and sound is encoded once for each student, and "shared", where it is encoded once for
    all; "alone", where each map is made by itself.
  """
  from stajax import networks

  macs = {"separate": 0, "shared": 0, "alone": 0}
  for name in STUDENTS:
    network = networks.make_network(name, config, NUM_CATEGORIES)
    encode, hear, fuse, reason = _count_parts(network, size)
    macs["separate"] += encode + hear + fuse + reason
    macs["shared"] += fuse + reason + (encode + hear if name == STUDENTS[0] else 0)
    macs["alone"] += network.num_nodes * (network.num_times * encode + hear + fuse) + reason
  if sound:
    once = sum(_count_parts(networks.make_network(SWITCH, config, NUM_CATEGORIES), size))
    fragments = 1 + 3 + 3  # those of the students
    macs = {key: value + once * (fragments if key == "alone" else 1) for key, value in macs.items()}
  return macs


def _count_parts(network: Any, size: int) -> tuple[int, int, int, int]:
  """Counts the multiply-accumulates of a network's parts: for a frame, a second of sound, a fragment and a group."""
  import jax
  import jax.numpy as jnp

  from stajax import networks
  from stajax.plan.count import count_macs

  variables = networks.expected_variables(network, size)

  def part(method: str, *inputs: Any, **options: Any) -> tuple[Any, int]:
    """Returns the shapes of a part's outputs, and its multiply-accumulates."""
    apply = partial(network.apply, method=method, **options)
    return jax.eval_shape(apply, variables, *inputs), count_macs(apply, variables, *inputs)

  def repeat(x: Any, *axes: int) -> Any:
    return jax.ShapeDtypeStruct((*axes, *x.shape[1:]), x.dtype)

  features, encode = part("encode_frames", jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
  audio, hear = part("encode_sound", jax.ShapeDtypeStruct((1, *_SOUND), jnp.float32))
  spatial = {"s": repeat(features["s"], 1, network.num_times)}
  fused, fuse = part("fuse", spatial, audio, jax.ShapeDtypeStruct((1,), jnp.float32))
  nodes = repeat(fused, 1, network.num_nodes)
  if network.predicts_maps:
    own = {key: repeat(x, 1, 1) for key, x in features.items()}
    _, reason = part("reason", nodes, own, size=(size, size), read=1)
  else:
    _, reason = part("reason", nodes)
  return encode, hear, fuse, reason


def torch_maps(
  arguments: argparse.Namespace, frames: np.ndarray, sounds: np.ndarray | None, compiled: bool
) -> Contestant:
  """Makes `peer_maps` maps of the clip by the paper's scheme, which keeps nothing of one map for the next."""
  import torch

  from benchmarks.peers import models
  from stajax import companions
  from stajax.grid import reflect

  measure.prepare_torch()
  device = measure.torch_device()
  held = measure.torch_forget_peak()

  def make(name: str, num_categories: int = NUM_CATEGORIES) -> torch.nn.Module:
    network = models.make(name, num_categories, arguments.width).to(device, memory_format=torch.channels_last).eval()
    return torch.compile(network) if compiled else network

  students = [make(name) for name in STUDENTS]
  set_switch = None if sounds is None else make("sa", 1)
  autocast = {"device_type": device, "dtype": torch.bfloat16, "enabled": arguments.dtype == "bfloat16"}
  wanted = np.linspace(0, len(frames) - 1, arguments.peer_maps).round().astype(int)
  num_frames = np.array(len(frames))
  near = companions.short_companions(wanted, num_frames, 3)
  far = companions.long_companions(0, np.array(0), wanted, num_frames)
  nodes = [np.concatenate([wanted[:, None], *others], axis=1) for others in ((), (near,), (far,))]

  @torch.inference_mode()
  def maps_of(chosen: slice) -> np.ndarray:
    maps = []
    for student, centres in zip(students, nodes, strict=True):
      index = reflect(centres[chosen][:, :, None] + np.arange(-1, 2), num_frames)
      inputs = torch.from_numpy(frames[index]).to(device).permute(0, 1, 2, 5, 3, 4).float() / 255
      sound = torch.zeros(*index.shape[:2], *_SOUND, device=device)
      switch = torch.zeros(index.shape[:2], device=device)
      with torch.autocast(**autocast):
        if set_switch is not None and sounds is not None:
          sound = torch.from_numpy(sounds[centres[chosen]]).to(device)
          one_by_one = (x.flatten(0, 1)[:, None] for x in (inputs[:, :, 1:2], sound, torch.ones_like(switch)))
          switch = (set_switch(*one_by_one).logits[:, 0] > 0).float().unflatten(0, switch.shape)
        logits = student(inputs, sound, switch, 1)
      maps.append(torch.sigmoid(logits[:, 0]))
    sta, short, long = maps
    final = (minmax(minmax(sta) * minmax(short) * minmax(long)) + minmax(sta + short + long)) / 2
    return final.cpu().numpy()

  def minmax(maps: torch.Tensor) -> torch.Tensor:
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    span = high - low
    return (maps - low) / torch.where(span > 0, span, 1.0)

  def run(times: int) -> None:
    for _ in range(times):
      for start in range(0, arguments.peer_maps, arguments.peer_batch):
        maps = maps_of(slice(start, start + arguments.peer_batch))
        if not np.isfinite(maps).all():
          raise FloatingPointError("the peer's maps have values that are not finite")

  run(1)
  peak = measure.torch_peak_bytes()
  return Contestant(run, arguments.peer_maps, {"peak_bytes": None if peak is None else peak - held})


if __name__ == "__main__":
  raise SystemExit(main())
