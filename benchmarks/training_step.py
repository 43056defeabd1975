"""How fast a training step is, against the same network in PyTorch (extra `bench`).

  python -m benchmarks.training_step --network st_plus [--batch 8] [--size 256] [--dtype float32|bfloat16]
    [--steps 20] [--rounds 5] [--width 1] [--attention-block 256 1024] [--peers eager compiled] [--json FILE]

The whole step of `stajax.train.step` on a batch that lies on the device: frames scaled to [0, 1] and mirrored,
forward, loss, backward, and SGD with Nesterov momentum; the peer does the same. bfloat16 is that of convolutions and
products (PyTorch's autocast), parameters are float32 in both; on a GPU float32 products are TF32 in both.
Networks: s, st, sa, sta and the same with `_plus`; the paper's, with full VGG-16, unless --width says otherwise.
FLOPs are the multiply-accumulates of stajax's step, by stajax.plan, times two, with no attention computed twice.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.measure import Contestant

NUM_CATEGORIES = 28
NETWORKS = tuple(f"{name}{end}" for end in ("", "_plus") for name in ("s", "st", "sa", "sta"))


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--network", choices=NETWORKS, default="st_plus")
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
  peers = arguments.peers
  if peers is None:
    peers = ["eager", "compiled"] if measure.torch_device() == "cuda" else ["eager"]
  batch = make_batch(arguments.network, arguments.batch, arguments.size)
  contestants = {}
  for block in arguments.attention_block:
    name = "stajax" if len(arguments.attention_block) == 1 else f"stajax, block {block}"
    contestants[name] = stajax_step(arguments.network, batch, arguments.size, arguments.dtype, arguments.width, block)
  for peer in peers:
    contestants[f"PyTorch {peer}"] = torch_step(
      arguments.network, batch, arguments.size, arguments.dtype, arguments.width, peer == "compiled"
    )
  flops = 2 * count(arguments.network, batch, arguments.size, arguments.dtype, arguments.width)
  for contestant in contestants.values():
    contestant.about["flops"] = flops
  results = measure.measure(contestants, arguments.rounds, arguments.steps)
  result = {
    "benchmark": "training_step",
    "title": f"training step of {arguments.network}, {arguments.batch} clips of {arguments.size}×{arguments.size}, "
    f"{arguments.dtype}",
    "arguments": {name: value for name, value in vars(arguments).items() if name != "json"},
    "unit": "clips/s",
    **measure.about(),
    "peak": measure.matmul_peak(arguments.dtype, bool(peers)),
    "results": results,
    "ratios": measure.ratios(results, {name: x.work for name, x in contestants.items()}),
  }
  measure.finish(result, arguments.json)
  return 0


_LEARNING_RATE = 1e-7


def make_batch(name: str, batch: int, size: int) -> dict[str, np.ndarray]:
  """What the input pipeline would give for a network: see `stajax.data.batches.make_batches`."""
  generator = np.random.default_rng(0)
  n, t = 3 if name.endswith("_plus") else 1, 3 if name.startswith("st") else 1
  arrays = {
    "frames": generator.integers(0, 256, (batch, n, t, size, size, 3), np.uint8),
    "flip": generator.random(batch) < 0.5,
  }
  if name.startswith("sa") or name.startswith("sta"):
    arrays["sound"] = generator.normal(size=(batch, n, 257, 98)).astype(np.float16)
    arrays |= {"sound_mean": np.zeros((batch, n), np.float32), "sound_deviation": np.ones((batch, n), np.float32)}
    arrays["switch"] = (generator.random((batch, n)) < 0.7).astype(np.float32)
  if name.startswith("sta"):
    arrays["map"] = generator.integers(0, 256, (batch, n, size // 2, size // 2), np.uint8)
    arrays["weight"] = np.ones((batch, n), np.float32)
  else:
    arrays["tags"] = np.eye(NUM_CATEGORIES, dtype=np.float32)[generator.integers(0, NUM_CATEGORIES, (batch, n))]
  return arrays


def _parts(name: str, size: int, dtype: str, width: float, block: int) -> tuple[Any, ...]:
  """Network, optimiser, jitted step and mesh as the training makes them, and the network's variables as shapes."""
  import jax

  from stajax import config as configuration
  from stajax import networks
  from stajax.plan.compile import make_train_step
  from stajax.train import step

  settings = configuration.Network(dtype=dtype, width=width, audio_width=width, attention_block=block)
  config = configuration.Config(name="benchmark", network=settings)
  # The networks with companions are one for each kind of them.
  name = f"{name}_long" if name.endswith("_plus") else name
  # So small that the one batch is never learned, at which the loss would overflow.
  optimizer = configuration.Optimizer(learning_rate=_LEARNING_RATE)
  sized = networks.training_of(name, config).model_copy(update={"size": size, "optimizer": optimizer})
  config = config.model_copy(update={networks.NETWORKS[name].config_field: sized})
  mesh = step.make_mesh(jax.devices()[:1])
  network, update, train_step = make_train_step(config, name, NUM_CATEGORIES, mesh)
  return network, update, train_step, mesh, networks.expected_variables(network, size)


def stajax_step(name: str, batch: dict[str, np.ndarray], size: int, dtype: str, width: float, block: int) -> Contestant:
  """The training step of stajax, compiled."""
  import jax

  from stajax import networks
  from stajax.train import step

  network, update, train_step, mesh, _ = _parts(name, size, dtype, width, block)
  state = step.replicate(step.make_state(networks.initialise(network, size, jax.random.key(0)), update), mesh)
  arrays = step.put_batch(batch, mesh)
  compiled = train_step.lower(state, arrays).compile()
  held = [state]

  def run(times: int) -> None:
    for _ in range(times):
      held[0], metrics = compiled(held[0], arrays)
    jax.block_until_ready(held[0])
    if not np.isfinite(metrics["loss"]):
      raise FloatingPointError(f"{name}: the loss is {metrics['loss']}")

  run(1)
  about = {"program_bytes": measure.program_bytes(compiled), "peak_bytes": measure.jax_peak_bytes()}
  return Contestant(run, len(batch["frames"]), about)


def count(name: str, batch: dict[str, np.ndarray], size: int, dtype: str, width: float) -> int:
  """Multiply-accumulates of the training step, with all attention at once: none is computed again for the gradient."""
  import jax

  from stajax.plan.count import count_macs
  from stajax.train import step

  _, update, train_step, _, variables = _parts(name, size, dtype, width, block=size * size)
  state = jax.eval_shape(lambda variables: step.make_state(variables, update), variables)
  arrays = {key: jax.ShapeDtypeStruct(x.shape, x.dtype) for key, x in batch.items()}
  return count_macs(train_step, state, arrays)


def torch_step(
  name: str, batch: dict[str, np.ndarray], size: int, dtype: str, width: float, compiled: bool
) -> Contestant:
  """The training step of the peer, eager or compiled."""
  import torch
  import torch.nn.functional as F

  from benchmarks.peers import models

  measure.prepare_torch()
  device = measure.torch_device()
  held = measure.torch_forget_peak()
  network = models.make(name, NUM_CATEGORIES, width).to(device, memory_format=torch.channels_last).train()
  optimizer = torch.optim.SGD(
    parameter_groups(network), lr=1e-3, momentum=0.9, nesterov=True, **({"fused": True} if device == "cuda" else {})
  )
  arrays = {key: torch.from_numpy(x).to(device) for key, x in batch.items()}
  lower = {"device_type": device, "dtype": torch.bfloat16, "enabled": dtype == "bfloat16"}

  def loss_of(arrays: dict[str, torch.Tensor]) -> torch.Tensor:
    frames, flip = arrays["frames"].permute(0, 1, 2, 5, 3, 4), arrays["flip"]
    frames = frames.float() / 255
    frames = torch.where(flip[:, None, None, None, None, None], frames.flip(-1), frames)
    heard = (arrays["sound"].float(), arrays["switch"]) if "sound" in arrays else ()
    with torch.autocast(**lower):
      out = network(frames, *heard)
    if "map" not in arrays:
      return models.classification_loss(out, arrays["tags"])
    maps = F.interpolate(arrays["map"].float() / 255, size=(size, size), mode="bilinear", align_corners=False)
    maps = torch.where(flip[:, None, None, None], maps.flip(-1), maps)
    return models.fixation_loss(out, maps, arrays["weight"])

  objective = torch.compile(loss_of) if compiled else loss_of

  def run(times: int) -> None:
    for _ in range(times):
      optimizer.zero_grad(set_to_none=True)
      loss = objective(arrays)
      loss.backward()
      optimizer.step()
    measure.torch_wait()
    if not torch.isfinite(loss):
      raise FloatingPointError(f"{name}: the peer's loss is {loss.item()}")

  run(1)
  peak = measure.torch_peak_bytes()
  return Contestant(run, len(batch["frames"]), {"peak_bytes": None if peak is None else peak - held})


def parameter_groups(network: Any, weight_decay: float = 1e-4, learning_rate: float = 1e-3) -> list[dict[str, Any]]:
  """The paper's four groups: rates 1, 2, 10 and 20 times the first; kernels of both decay."""
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
