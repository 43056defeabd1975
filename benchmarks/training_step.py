"""Measures how fast a training step is, against the same network in PyTorch (extra `bench`).

  python -m benchmarks.training_step --network st_plus [--batch 8] [--size 256] [--dtype float32|bfloat16]
    [--steps 20] [--rounds 5] [--width 1] [--attention-block 256 1024] [--peers eager compiled] [--json FILE]

The whole step of `stajax.train.step` is measured, on a batch that is on the device already: frames are scaled to [0, 1]
and mirrored, followed by forward pass, loss, backward pass, and SGD with Nesterov momentum. The peer does the same.
With bfloat16, convolutions and products compute in this type (PyTorch's autocast), while parameters are float32 on both
sides; on a GPU, float32 products are TF32 on both.
The networks are s, st, sa, sta and the same with `_plus`: those of the paper with the full VGG-16, unless --width says
otherwise. FLOPs are twice the multiply-accumulates of stajax's step, counted by stajax.plan, with no attention computed
twice.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks import measure
from benchmarks.measure import Contestant

NUM_CATEGORIES = 28
NETWORKS = {name: name for name in ("s", "st", "sa", "sta")} | {
  # The companions make no difference to the time.
  f"{name}_plus": f"{name}_plus_long"
  for name in ("s", "st", "sa", "sta")
}
"""The rows of `stajax.networks` by the names of the command."""


@dataclass(frozen=True)
class Case:
  """What is trained.

  Attributes:
    network: One of `NETWORKS`.
    size: The side of the frames in pixels.
    dtype: The number format of convolutions and products.
    width: The factor of the channels of VGG-16, neck and ResNet-18.
    block: The positions whose attention is computed at a time.
  """

  network: str
  size: int
  dtype: Literal["float32", "bfloat16"]
  width: float
  block: int


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--network", choices=tuple(NETWORKS), default="st_plus")
  parser.add_argument("--batch", type=int, default=1, help="clips a step")
  parser.add_argument("--size", type=int, default=256)
  parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
  parser.add_argument("--width", type=float, default=1.0)
  parser.add_argument("--attention-block", type=int, nargs="+", default=[256])
  parser.add_argument("--steps", type=int, default=1, help="steps a round")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--peers", nargs="*", choices=("eager", "compiled"))
  parser.add_argument("--json", type=Path)
  arguments = parser.parse_args(argv)
  measure.use_one_device()
  peers = measure.peers(arguments.peers)
  case = Case(arguments.network, arguments.size, arguments.dtype, arguments.width, arguments.attention_block[0])
  batch = make_batch(case.network, arguments.batch, case.size)
  contestants = {}
  for block in arguments.attention_block:
    name = "stajax" if len(arguments.attention_block) == 1 else f"stajax, block {block}"
    contestants[name] = stajax_step(replace(case, block=block), batch)
  for peer in peers:
    contestants[f"PyTorch {peer}"] = torch_step(case, batch, peer == "compiled")
  flops = 2 * count(case, batch)
  for contestant in contestants.values():
    contestant.about["flops"] = flops
  results = measure.measure(contestants, arguments.rounds, arguments.steps)
  result = {
    "benchmark": "training_step",
    "title": f"training step of {case.network}, {arguments.batch} clips of {case.size}×{case.size}, {case.dtype}",
    "arguments": measure.settings_of(arguments),
    "unit": "clips/s",
    **measure.about(),
    "peak": measure.matmul_peak(case.dtype, bool(peers)),
    "results": results,
    "ratios": measure.ratios(results, {name: x.work for name, x in contestants.items()}),
  }
  measure.finish(result, arguments.json)
  return 0


# So small that the one batch is never learned; if it were, the loss would overflow.
_LEARNING_RATE = 1e-7


def make_batch(name: str, batch: int, size: int) -> dict[str, np.ndarray]:
  """Returns what the input pipeline would give for a network; see `stajax.data.batches.make_batches`."""
  from stajax import networks
  from stajax.companions import num_nodes

  spec, generator = networks.NETWORKS[NETWORKS[name]], np.random.default_rng(0)
  n, t = num_nodes(spec.companions), 3 if spec.branch in ("st", "sta") else 1
  arrays = {
    "frames": generator.integers(0, 256, (batch, n, t, size, size, 3), np.uint8),
    "flip": generator.random(batch) < 0.5,
  }
  if spec.hears:
    arrays["sound"] = generator.normal(size=(batch, n, 257, 98)).astype(np.float16)
    arrays |= {"sound_mean": np.zeros((batch, n), np.float32), "sound_deviation": np.ones((batch, n), np.float32)}
    arrays["switch"] = (generator.random((batch, n)) < 0.7).astype(np.float32)
  if spec.learns_fixations:
    arrays["map"] = generator.integers(0, 256, (batch, n, size // 2, size // 2), np.uint8)
    arrays["weight"] = np.ones((batch, n), np.float32)
  else:
    arrays["tags"] = np.eye(NUM_CATEGORIES, dtype=np.float32)[generator.integers(0, NUM_CATEGORIES, (batch, n))]
  return arrays


def _make_programs(case: Case) -> tuple[Any, Any, Any]:
  """Returns a network, the devices, and the programs that `stajax.train` trains it with."""
  import jax

  from stajax import config as configuration
  from stajax import networks
  from stajax.train import step
  from stajax.train.programs import make_programs

  settings = configuration.Network(
    dtype=case.dtype, width=case.width, audio_width=case.width, attention_block=case.block
  )
  config, spec = configuration.Config(name="benchmark", network=settings), networks.NETWORKS[NETWORKS[case.network]]
  optimizer = configuration.Optimizer(learning_rate=_LEARNING_RATE)
  training = networks.training_of(spec.name, config).model_copy(update={"size": case.size, "optimizer": optimizer})
  network = networks.make_network(spec.name, config, NUM_CATEGORIES)
  mesh = step.make_mesh(jax.devices()[:1])
  return network, mesh, make_programs(network, training, spec.learns_fixations, mesh)


def stajax_step(case: Case, batch: dict[str, np.ndarray]) -> Contestant:
  """Compiles the training step of stajax."""
  import jax

  from stajax import networks
  from stajax.train import step

  network, mesh, programs = _make_programs(case)
  variables = networks.initialise(network, case.size, jax.random.key(0))
  state = step.replicate(step.make_state(variables, programs.optimizer), mesh)
  arrays = step.put_batch(batch, mesh)
  compiled = programs.train_step.lower(state, arrays).compile()
  held = [state]

  def run(times: int) -> None:
    metrics: dict[str, Any] = {}
    for _ in range(times):
      held[0], metrics = compiled(held[0], arrays)
    jax.block_until_ready(held[0])
    if not np.isfinite(metrics["loss"]):
      raise FloatingPointError(f"{case.network}: the loss is {metrics['loss']}")

  run(1)
  about = {"program_bytes": measure.program_bytes(compiled), "peak_bytes": measure.jax_peak_bytes()}
  return Contestant(run, len(batch["frames"]), about)


def count(case: Case, batch: dict[str, np.ndarray]) -> int:
  """Counts the multiply-accumulates of the training step, with all attention at once.

  Attention in blocks would be counted twice, as it is computed again for the gradient.
  """
  import jax

  from stajax import networks
  from stajax.plan.count import count_macs
  from stajax.train import step

  network, _, programs = _make_programs(replace(case, block=case.size**2))
  variables = networks.expected_variables(network, case.size)
  state = jax.eval_shape(lambda variables: step.make_state(variables, programs.optimizer), variables)
  arrays = {key: jax.ShapeDtypeStruct(x.shape, x.dtype) for key, x in batch.items()}
  return count_macs(programs.train_step, state, arrays)


def torch_step(case: Case, batch: dict[str, np.ndarray], compiled: bool) -> Contestant:
  """Makes the training step of the peer, eager or compiled."""
  import torch
  import torch.nn.functional as F

  from benchmarks.peers import models

  measure.prepare_torch()
  device = measure.torch_device()
  held = measure.torch_forget_peak()
  network = models.make(case.network, NUM_CATEGORIES, case.width).to(device, memory_format=torch.channels_last).train()
  optimizer = torch.optim.SGD(
    parameter_groups(network), lr=1e-3, momentum=0.9, nesterov=True, **({"fused": True} if device == "cuda" else {})
  )
  arrays = {key: torch.from_numpy(x).to(device) for key, x in batch.items()}
  autocast = {"device_type": device, "dtype": torch.bfloat16, "enabled": case.dtype == "bfloat16"}

  def loss_of(arrays: dict[str, torch.Tensor]) -> torch.Tensor:
    frames, flip = arrays["frames"].permute(0, 1, 2, 5, 3, 4), arrays["flip"]
    frames = frames.float() / 255
    frames = torch.where(flip[:, None, None, None, None, None], frames.flip(-1), frames)
    heard = (arrays["sound"].float(), arrays["switch"]) if "sound" in arrays else ()
    with torch.autocast(**autocast):
      out = network(frames, *heard)
    if "map" not in arrays:
      return models.classification_loss(out, arrays["tags"])
    maps = F.interpolate(arrays["map"].float() / 255, size=(case.size, case.size), mode="bilinear", align_corners=False)
    maps = torch.where(flip[:, None, None, None], maps.flip(-1), maps)
    return models.fixation_loss(out, maps, arrays["weight"])

  objective = torch.compile(loss_of) if compiled else loss_of

  def run(times: int) -> None:
    loss = torch.zeros(())
    for _ in range(times):
      optimizer.zero_grad(set_to_none=True)
      loss = objective(arrays)
      loss.backward()
      optimizer.step()
    measure.torch_wait()
    if not torch.isfinite(loss):
      raise FloatingPointError(f"{case.network}: the peer's loss is {loss.item()}")

  run(1)
  peak = measure.torch_peak_bytes()
  return Contestant(run, len(batch["frames"]), {"peak_bytes": None if peak is None else peak - held})


def parameter_groups(network: Any, weight_decay: float = 1e-4, learning_rate: float = 1e-3) -> list[dict[str, Any]]:
  """Returns the paper's four groups, with rates of 1, 2, 10 and 20 times the first; only kernels decay."""
  groups: list[dict[str, Any]] = []
  for is_new in (False, True):
    for is_bias in (False, True):
      chosen = [
        x
        for key, x in network.named_parameters()
        if (key.split(".")[0] not in ("visual", "sound")) == is_new and key.endswith("bias") == is_bias
      ]
      rate = learning_rate * (10 if is_new else 1) * (2 if is_bias else 1)
      groups.append({"params": chosen, "lr": rate, "weight_decay": 0.0 if is_bias else weight_decay})
  return groups


if __name__ == "__main__":
  raise SystemExit(main())
