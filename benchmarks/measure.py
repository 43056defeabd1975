"""Measures contestants in turn and compares them with the machine's peak; all benchmarks share this.

All contestants run in one process, one after the other, round after round, so that other users of the machine slow all
of them. Times are medians over the rounds, and a ratio is the median of the rounds' ratios.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "stajax", "jax-cuda12-plugin", "jax-cuda13-plugin")


@dataclass
class Contestant:
  """Something to be measured.

  Attributes:
    run: A function that does the work the given number of times and waits for its end.
    work: The number of examples, maps or the like that are processed each time.
    about: Anything else to report, such as bytes of memory.
  """

  run: Callable[[int], None]
  work: float
  about: dict[str, Any] = field(default_factory=dict)


def use_one_device() -> None:
  """Prepares JAX to share a GPU with PyTorch; call it before JAX touches a device."""
  # JAX would take three quarters of the memory at once, and PyTorch needs some.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  from stajax import runtime

  runtime.configure()


def jax_device() -> Any:
  """Returns JAX's default device."""
  import jax

  return jax.devices()[0]


def torch_device() -> str:
  """Returns `cuda` where JAX has a GPU, else `cpu`."""
  return "cuda" if jax_device().platform == "gpu" else "cpu"


def peers(asked: Sequence[str] | None) -> Sequence[str]:
  """Returns the kinds of PyTorch programs to measure: those that were asked for, or the usual ones."""
  if asked is not None:
    return asked
  return ("eager", "compiled") if torch_device() == "cuda" else ("eager",)


def prepare_torch() -> None:
  """Sets PyTorch up as a user who wants speed would."""
  import torch

  torch.manual_seed(0)
  torch.backends.cudnn.benchmark = True
  torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as JAX does by default


def torch_wait() -> None:
  """Waits for the work that PyTorch has begun."""
  import torch

  if torch.cuda.is_available():
    torch.cuda.synchronize()


def measure(contestants: Mapping[str, Contestant], rounds: int, repeats: int) -> dict[str, dict[str, Any]]:
  """Measures contestants in turn.

  Args:
    contestants: The contestants by name.
    rounds: How often each of them is measured.
    repeats: How often each does its work in a measurement.

  Returns:
    For each contestant `seconds` (rounds,) that its work takes once, their `median`, the work done `per_second`, and
    what the contestant says about itself.
  """
  seconds: dict[str, list[float]] = {name: [] for name in contestants}
  for contestant in contestants.values():
    contestant.run(1)  # once while the others are loaded, to warm up caches and clocks
  for _ in range(rounds):
    for name, contestant in contestants.items():
      start = time.perf_counter()
      contestant.run(repeats)
      seconds[name].append((time.perf_counter() - start) / repeats)
  results = {}
  for name, contestant in contestants.items():
    median = statistics.median(seconds[name])
    results[name] = {"seconds": seconds[name], "median": median, "per_second": contestant.work / median}
    results[name] |= contestant.about
  return results


def ratios(
  results: Mapping[str, Mapping[str, Any]], work: Mapping[str, float], ours: str = "stajax"
) -> dict[str, dict[str, Any]]:
  """Compares contestants.

  Args:
    results: What `measure` returned.
    work: The work of each contestant.
    ours: What the names of our contestants begin with.

  Returns:
    How many times faster each of ours is than each of the others: the ratios of the `rounds`, and their `median`.
  """
  compared = {}
  for own in (name for name in results if name.startswith(ours)):
    for other in (name for name in results if not name.startswith(ours)):
      rates = [[work[name] / x for x in results[name]["seconds"]] for name in (own, other)]
      each = [mine / theirs for mine, theirs in zip(*rates, strict=True)]
      compared[f"{own} / {other}"] = {"rounds": each, "median": statistics.median(each)}
  return compared


def matmul_peak(dtype: str, with_torch: bool, rounds: int = 3) -> dict[str, Any]:
  """Returns the FLOP/s of a large square matrix product: the best framework's, and those of each one's best round."""
  import jax
  import jax.numpy as jnp

  on_cpu = jax_device().platform == "cpu"
  side, repeats = (2048, 2) if on_cpu else (8192, 20)
  found: dict[str, float] = {}
  x = jax.random.normal(jax.random.key(0), (side, side), jnp.dtype(dtype))
  multiply = jax.jit(lambda x, y: x @ y)

  def run_jax(times: int) -> None:
    y = x
    for _ in range(times):
      y = multiply(x, x)
    jax.block_until_ready(y)

  contestants = {"jax": Contestant(run_jax, 2 * side**3)}
  if with_torch:
    import torch

    z = torch.randn(side, side, device=torch_device(), dtype=getattr(torch, dtype))

    def run_torch(times: int) -> None:
      for _ in range(times):
        torch.matmul(z, z)
      torch_wait()

    contestants["torch"] = Contestant(run_torch, 2 * side**3)
  for name, result in measure(contestants, rounds, repeats).items():
    found[name] = 2 * side**3 / min(result["seconds"])
  return {"flops": max(found.values()), "side": side, "dtype": dtype, "by": found}


def program_bytes(compiled: Any) -> int:
  """Returns the memory of a compiled JAX program: arguments, results that do not replace any of them, temporaries."""
  analysis = compiled.memory_analysis()
  if analysis is None:
    return 0
  outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
  return analysis.argument_size_in_bytes + outputs + analysis.temp_size_in_bytes


def jax_peak_bytes() -> int | None:
  """Returns the most memory that JAX has used so far; None if the device does not report it."""
  found = jax_device().memory_stats()
  return found.get("peak_bytes_in_use") if found else None


def torch_peak_bytes() -> int | None:
  """Returns the most memory that PyTorch has used since `torch_forget_peak`; None on CPU."""
  import torch

  return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def torch_forget_peak() -> int:
  """Resets the peak; returns the bytes that are in use."""
  import torch

  if not torch.cuda.is_available():
    return 0
  torch.cuda.empty_cache()
  torch.cuda.reset_peak_memory_stats()
  return torch.cuda.memory_allocated()


def about() -> dict[str, Any]:
  """Returns the machine and the versions of everything that was measured."""
  device = jax_device()
  return {
    "machine": {
      "device": device.device_kind if device.platform != "cpu" else _processor(),
      "platform": device.platform,
      "cores": len(os.sched_getaffinity(0)),
      "system": platform.platform(),
    },
    "versions": {"python": platform.python_version(), **_versions(), **_commit()},
    "xla_flags": os.environ.get("XLA_FLAGS", ""),
  }


def settings_of(arguments: argparse.Namespace) -> dict[str, Any]:
  """Returns the command's arguments that a result names: all but the file that it is written to."""
  return {name: value for name, value in vars(arguments).items() if name != "json"}


def table(result: Mapping[str, Any]) -> list[list[str]]:
  """Returns the rows of a result's table, its heads first; a cell is empty if a contestant has no such value."""
  rows = [["", "ms", result["unit"], "TFLOP/s", "of peak", "memory GB", "processor ms"]]
  peak = result["peak"]["flops"] if "peak" in result else None
  for name, x in result["results"].items():
    rate = x["flops"] / x["median"] if "flops" in x else None
    memory = x.get("peak_bytes") or x.get("program_bytes")
    rows.append([
      name,
      f"{1e3 * x['median']:.2f}",
      f"{x['per_second']:.2f}",
      f"{rate / 1e12:.2f}" if rate else "",
      f"{rate / peak:.3f}" if rate and peak else "",
      f"{memory / 1e9:.2f}" if memory else "",
      f"{1e3 * x['processor']:.0f}" if "processor" in x else "",
    ])  # fmt: skip
  return rows


def read(path: Path) -> Any:
  """Reads what `finish` wrote.

  Raises:
    ValueError: It is missing or not JSON; one line that names the file.
  """
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except OSError as error:
    raise ValueError(f"{path}: {error.strerror}") from None
  except ValueError as error:
    raise ValueError(f"{path}: not JSON ({error})") from None


def finish(result: Mapping[str, Any], path: Path | None) -> None:
  """Prints a result as a small table, and writes it as JSON."""
  machine = result["machine"]
  versions = ", ".join(f"{name} {result['versions'][name]}" for name in ("jax", "torch") if name in result["versions"])
  print(f"{result['title']}\n{machine['device']}, {machine['cores']} cores; {versions}")
  rows = table(result)
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  for first, *rest in rows:
    print("  ".join([first.ljust(widths[0]), *(x.rjust(width) for x, width in zip(rest, widths[1:], strict=True))]))
  for name, x in result["ratios"].items():
    print(f"{name}: {x['median']:.3f} times the speed (rounds {min(x['rounds']):.3f} to {max(x['rounds']):.3f})")
  if path is not None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
  found = {}
  for name in _PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def _commit() -> dict[str, str]:
  root = Path(__file__).resolve().parents[1]
  command: Sequence[str] = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
  try:
    return {"commit": subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()}
  except (OSError, subprocess.CalledProcessError):
    return {}


def _processor() -> str:
  try:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
  except OSError:
    return platform.processor()
  return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
