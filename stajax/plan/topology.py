"""Describes hardware by name, such as `v5e:2x4`, `h100:8` or `cpu`, and compiles for it where it is not present.

TPU topologies need libtpu (the extra `tpu`), GPUs JAX's CUDA plugin (the extra `gpu`); neither needs the hardware.
"""

import contextlib
import importlib.util
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stajax import hints


class TopologyError(ValueError):
  """Says on one line why a topology cannot be planned for: what was found and what was expected."""


class DoesNotFit(TopologyError):
  """Says on one line, in the compiler's words, that a program does not fit in the device's memory."""


@dataclass(frozen=True)
class Chip:
  """What one chip can do, according to its maker.

  Attributes:
    platform: `tpu`, `cuda` or `cpu`.
    flops: FLOP/s of bfloat16 products; 0 if the maker does not state it.
    int8: How many times as many operations a second products of 8-bit integers have.
    bandwidth: Bytes a second from and to its memory.
    memory: The size of its memory in bytes; 0 for a CPU.
    link: Bytes a second to other chips of the slice, over all links, one way.
    devices: The number of JAX devices of a chip, which share its resources evenly.
    layouts: The shapes of its slices; empty where any number of chips will do.
  """

  platform: str
  flops: float = 0
  int8: float = 1
  bandwidth: float = 0
  memory: float = 0
  link: float = 0
  devices: int = 1
  layouts: tuple[str, ...] = ()


# libtpu ends the process at a shape that it does not know, so only these are allowed.
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")
CHIPS: Mapping[str, Chip] = {
  "v4": Chip("tpu", 275e12, 1, 1228e9, 32 * 2**30, 300e9, devices=2, layouts=(*_CUBES, "4x4x16")),
  "v5e": Chip("tpu", 197e12, 2, 819e9, 16 * 2**30, 200e9, layouts=_FLAT),
  "v5p": Chip("tpu", 459e12, 2, 2765e9, 95 * 2**30, 600e9, layouts=_CUBES),
  "v6e": Chip("tpu", 918e12, 2, 1640e9, 32 * 2**30, 400e9, layouts=_FLAT),
  "a100": Chip("cuda", 312e12, 2, 2039e9, 80e9, 300e9),
  "h100": Chip("cuda", 989e12, 2, 3352e9, 80e9, 450e9),
  "h200": Chip("cuda", 989e12, 2, 4800e9, 141e9, 450e9),
  "cpu": Chip("cpu"),
}
EXAMPLES = "v4:2x2x1, v5e:2x4, v5p:2x2x1, v6e:2x4, h100:8, a100:1, h200:1, cpu"

# What the compiler has to know about a GPU: (processors, units of each, shared memory of each, L2, GHz, capability).
_GPUS = {
  "a100": (108, 64, 167936, 41943040, 1.41, "major: 8"),
  "h100": (132, 128, 233472, 52428800, 1.98, "major: 9"),
  "h200": (132, 128, 233472, 52428800, 1.98, "major: 9"),
}


@dataclass(frozen=True)
class Topology:
  """Chips of one kind.

  Attributes:
    name: The name as the user gave it.
    kind: A key of `CHIPS`.
    shape: The shape of a TPU slice, such as `2x4`; empty for other hardware.
    num_chips: How many chips there are.
  """

  name: str
  kind: str
  shape: str
  num_chips: int

  @property
  def chip(self) -> Chip:
    """What each of the chips can do."""
    return CHIPS[self.kind]

  @property
  def num_devices(self) -> int:
    """How many JAX devices there are."""
    return self.num_chips * self.chip.devices


def parse(name: str) -> Topology:
  """Reads a topology's name.

  Raises:
    TopologyError: The kind of chip is unknown, or there is no such shape.
  """
  kind, _, shape = name.partition(":")
  chip = CHIPS.get(kind)
  if chip is None:
    raise TopologyError(f"{name}: found {kind!r} as the kind of chip, {hints.expected(kind, CHIPS)}: {EXAMPLES}")
  if chip.platform == "tpu":
    if shape not in chip.layouts:
      raise TopologyError(
        f"{name}: found {shape!r} as the shape of a {kind} slice, {hints.expected(shape, chip.layouts)}"
      )
    return Topology(name, kind, shape, math.prod(map(int, shape.split("x"))))
  shape = shape or "1"
  if not (shape.isascii() and shape.isdigit() and 1 <= int(shape) <= 8):
    raise TopologyError(f"{name}: found {shape!r} chips, expected 1 to 8 of one machine")
  return Topology(name, kind, "", int(shape))


def prepare_process(topology: Topology | None = None) -> None:
  """Prepares the process, before JAX starts, to compile without the hardware. The user's own settings stay.

  Args:
    topology: The hardware to compile for, if any; several devices of a CPU have to be asked for before JAX starts.
  """
  os.environ["JAX_PLATFORMS"] = "cpu"  # accelerators of this machine stay free for others
  if topology is not None and topology.chip.platform == "cpu" and topology.num_chips > 1:
    forced = f"--xla_force_host_platform_device_count={topology.num_chips}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {forced}".strip()
  quiet_defaults = {
    "TPU_SKIP_MDS_QUERY": "1",  # otherwise libtpu asks a cloud's server what machine this is
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_LOG_DIR": "disabled",
    "TF_CPP_MIN_LOG_LEVEL": "3",
  }
  for key, value in quiet_defaults.items():
    os.environ.setdefault(key, value)


def devices(topology: Topology) -> list[Any]:
  """Returns all devices of a topology, to compile for.

  Raises:
    TopologyError: The compiler is not installed, or does not know the topology.
  """
  with quiet():  # plugins complain about missing hardware as they load
    import jax
    from jax.experimental import topologies

    host = jax.devices("cpu")
  if topology.chip.platform == "cpu":
    if len(host) < topology.num_chips:
      raise TopologyError(f"{topology.name}: found {len(host)} devices of a CPU, expected {topology.num_chips}")
    return host[: topology.num_chips]
  settings = _tpu_settings(topology) if topology.chip.platform == "tpu" else _gpu_settings(topology)
  try:
    with quiet():
      found = topologies.get_topology_desc(**settings).devices
  except Exception as error:
    message = str(error).strip().split("\n")[0]
    raise TopologyError(f"{topology.name}: the installed compiler does not know it ({message})") from None
  if len(found) != topology.num_devices:
    raise TopologyError(f"{topology.name}: the compiler has {len(found)} devices, expected {topology.num_devices}")
  return list(found)


def _tpu_settings(topology: Topology) -> dict[str, Any]:
  if importlib.util.find_spec("libtpu") is None:
    raise TopologyError(f"{topology.name}: TPU topologies need libtpu; install it with: pip install 'stajax[tpu]'")
  settings: dict[str, Any] = {"platform": "tpu", "topology_name": f"{topology.kind}:{topology.shape}"}
  if topology.num_chips == 1:
    settings["chips_per_host_bounds"] = (1, 1, 1)
  return settings


def _gpu_settings(topology: Topology) -> dict[str, Any]:
  plugins = [f"jax_plugins.xla_cuda{version}" for version in (12, 13)]
  if importlib.util.find_spec("jax_plugins") is None or not any(map(importlib.util.find_spec, plugins)):
    raise TopologyError(f"{topology.name}: GPUs need JAX's CUDA plugin; install it with: pip install 'stajax[gpu]'")
  text = _gpu_text(topology.kind, topology.chip)
  return {"platform": "cuda", "topology": f"1x1x{topology.num_chips}", "target_config": text}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Hides what compilers write to standard error; exceptions pass."""
  kept = os.dup(2)
  try:
    with tempfile.TemporaryFile() as sink:
      os.dup2(sink.fileno(), 2)
      try:
        yield
      finally:
        os.dup2(kept, 2)
  finally:
    os.close(kept)


def _gpu_text(kind: str, chip: Chip) -> str:
  """Returns the GPU as the text of XLA's GpuTargetConfigProto."""
  processors, units, shared, cache, clock, capability = _GPUS[kind]
  return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: {shared} shared_memory_per_block_optin: {shared - 1024}
  core_count: {processors} fpus_per_core: {units} clock_rate_ghz: {clock} l2_cache_size: {cache}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {chip.bandwidth:.0f} device_memory_size: {chip.memory:.0f}
  cuda_compute_capability {{ {capability} }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA"
runtime_version {{ major: 12 minor: 8 }}
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{kind}"
"""
