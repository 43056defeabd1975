"""Turns compiled programs into numbers to plan with: time, memory, messages between chips, chip-hours."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from stajax.plan.topology import Chip, Topology

if TYPE_CHECKING:
  from stajax.plan.compile import Program


class DataSet(NamedTuple):
  """A data set that people train on.

  Attributes:
    training_factor: How many times as many steps as by default a network is trained for (`configs/vggsound.py`).
    num_frames: The number of frames of its clips.
  """

  training_factor: int
  num_frames: int


CLIP_SECONDS = 10
"""How long a clip of AVE or VGGSound is."""
SETS: Mapping[str, DataSet] = {"AVE": DataSet(1, 4097 * 80), "VGGSound": DataSet(4, 45 * 4097 * 80)}

_USABLE = 0.98  # of a device's memory: compilers keep a little for themselves
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
_BYTES |= {"s64": 8, "u64": 8, "f64": 8}
_COLLECTIVE = re.compile(
  r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\(", re.MULTILINE
)
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")

Collectives = dict[str, dict[str, int]]
"""For each kind of exchange: "count", the number of them, and "bytes", the size of their results."""


def collectives(text: str) -> Collectives:
  """Returns what a program exchanges between devices, given its optimised HLO."""
  found: Collectives = {}
  for match in _COLLECTIVE.finditer(text):
    result, kind, is_start = match.groups()
    arrays = [_array_bytes(*array) for array in _ARRAY.findall(result) if array[0] in _BYTES]
    # The result of an operation that only starts an exchange lists the inputs and the outputs.
    size = sum(arrays) // (2 if is_start and kind != "all-reduce" and len(arrays) > 1 else 1)
    _add(found, kind, 1, size)
  return found


def _add(found: Collectives, kind: str, count: int, size: int) -> None:
  entry = found.setdefault(kind, {"count": 0, "bytes": 0})
  entry["count"] += count
  entry["bytes"] += size


def _array_bytes(dtype: str, axes: str) -> int:
  return _BYTES[dtype] * math.prod(int(axis) for axis in axes.split(",") if axis)


def exchange_seconds(found: Mapping[str, Mapping[str, int]], topology: Topology) -> float:
  """Returns the least time of exchanges if nothing hides them: each byte of a sum enters and leaves a chip twice."""
  chips = topology.num_chips
  if chips == 1 or not topology.chip.link:
    return 0.0
  size = sum(entry["bytes"] * (2 if kind == "all-reduce" else 1) for kind, entry in found.items())
  return size * (chips - 1) / chips / topology.chip.link


def compiler_seconds(analysis: Mapping[str, float] | None, text: str) -> float | None:
  """Returns the time that the compiler's model gives a program, or None where it gives none.

  The model subtracts a second for every call of ConcatBitcast (seen in libtpu 0.0.52), which is added back here. A time
  that is not between 0 and 1 s after that is not trusted. The model counts only one round of a loop, so a program with
  a loop has no time.
  """
  seconds = (analysis or {}).get("optimal_seconds")
  if seconds is None or has_loop(text):
    return None
  seconds += text.count('custom_call_target="ConcatBitcast"')
  return seconds if 0 < seconds < 1 else None


def has_loop(text: str) -> bool:
  """Returns whether optimised HLO has a loop, of which the compiler's analysis counts one round only."""
  return re.search(r" while\(", text) is not None


def program_costs(program: "Program", topology: Topology) -> dict[str, Any]:
  """Returns what one run of a program costs on one device.

  Returns:
    "times" that it runs; "flops", "bytes", "seconds", "flop_floor" and "byte_floor", see `summary`, None where they
    are not known; "collectives"; "compile_seconds"; and, if the compiler states them, "memory" by kind and
    "peak_memory", in bytes.
  """
  chip, text = topology.chip, program.compiled.as_text() or ""
  analysis = program.compiled.cost_analysis()
  num_bytes = None if has_loop(text) else (analysis or {}).get("bytes accessed")
  return {
    "times": program.times,
    "flops": 2 * program.macs,
    "bytes": num_bytes,
    "seconds": compiler_seconds(analysis, text) if chip.platform == "tpu" else None,
    "flop_floor": _flop_floor(program, chip),
    "byte_floor": num_bytes * chip.devices / chip.bandwidth if num_bytes and chip.bandwidth else None,
    "collectives": collectives(text),
    "compile_seconds": program.compile_seconds,
    **_memory(program),
  }


def _flop_floor(program: "Program", chip: Chip) -> float | None:
  """Returns the least time for a program's products, of which those of 8-bit integers may be faster."""
  weighted = program.macs - program.int8_macs + program.int8_macs / chip.int8
  return 2 * weighted * chip.devices / chip.flops if chip.flops else None


def _memory(program: "Program") -> dict[str, Any]:
  """Returns the memory of `program_costs`; empty if the compiler does not state it."""
  found = program.compiled.memory_analysis()
  if found is None:
    return {}
  memory = {
    "arguments": found.argument_size_in_bytes,
    "outputs": found.output_size_in_bytes - found.alias_size_in_bytes,
    "temporary": found.temp_size_in_bytes,
    "code": found.generated_code_size_in_bytes,
    "of_batch": program.batch_bytes,
  }
  return {"memory": memory, "peak_memory": sum(memory.values()) - program.batch_bytes}


def largest_batch(memory: Mapping[str, int], batch: int, limit: float) -> int:
  """Returns how many examples fit on a device, if all that is not parameters grows with the batch.

  Args:
    memory: The memory of `program_costs`, for `batch` examples.
    batch: The number of examples.
    limit: The memory of the device, in bytes.
  """
  growing = memory["temporary"] + memory["of_batch"]
  fixed = memory["arguments"] - memory["of_batch"] + memory["outputs"] + memory["code"]
  return max(0, int((_USABLE * limit - fixed) / growing * batch))


def summary(costs: Mapping[str, Mapping[str, Any]], batch: int, topology: Topology) -> dict[str, Any]:
  """Returns what all programs together cost for a batch of examples on a device.

  Args:
    costs: What `program_costs` says of each.
    batch: The number of examples.
    topology: The hardware.

  Returns:
    "flops", "bytes", "seconds", "flop_floor" and "byte_floor" together, each None where a program has none;
    "share_of_peak"; "per_second_a_chip" with the exchange's time, and "at_best", by the floors alone; "peak_memory",
    "memory_limit" and "largest_batch" of a device; "collectives" and "exchange_seconds" of the step.
  """
  chip = topology.chip
  found = {key: _total(costs.values(), key) for key in ("flops", "bytes", "seconds", "flop_floor", "byte_floor")}
  # Programs run one after the other, each at best as fast as its own higher floor.
  floor = sum(max(x["flop_floor"] or 0, x["byte_floor"] or 0) * x["times"] for x in costs.values())
  exchanged = _add_up(costs.values())
  exchange, seconds = exchange_seconds(exchanged, topology), found["seconds"]
  return {
    **found,
    "share_of_peak": (found["flop_floor"] or 0) / seconds if seconds else None,
    "per_second_a_chip": batch * chip.devices / (seconds + exchange) if seconds else None,
    "at_best": batch * chip.devices / floor if floor else None,
    **_memory_use(costs.values(), batch, chip),
    "collectives": exchanged,
    "exchange_seconds": exchange,
  }


def _total(costs: Iterable[Mapping[str, Any]], key: str) -> float | None:
  costs = list(costs)
  return None if any(x[key] is None for x in costs) else sum(x[key] * x["times"] for x in costs)


def _add_up(costs: Iterable[Mapping[str, Any]]) -> Collectives:
  """Adds up what all programs exchange."""
  found: Collectives = {}
  for x in costs:
    for kind, entry in x["collectives"].items():
      _add(found, kind, entry["count"] * x["times"], entry["bytes"] * x["times"])
  return found


def _memory_use(costs: Iterable[Mapping[str, Any]], batch: int, chip: Chip) -> dict[str, Any]:
  """Returns how much memory of a device is used, and how many examples would fit."""
  limit = chip.memory / chip.devices if chip.memory else None
  known = [x for x in costs if "memory" in x]
  batches = [largest_batch(x["memory"], batch, limit) for x in known] if limit else []
  return {
    "peak_memory": max((x["peak_memory"] for x in known), default=None),
    "memory_limit": limit,
    "largest_batch": min(batches, default=None),
  }


def durations(examples: float, per_second_a_chip: float, topology: Topology) -> dict[str, float]:
  """Returns the number of examples, the hours that they take on all chips, and the chip-hours."""
  chip_hours = examples / per_second_a_chip / 3600
  return {"examples": examples, "hours": chip_hours / topology.num_chips, "chip_hours": chip_hours}


def describe(found: Mapping[str, Any], unit: str, batch: int) -> list[str]:
  """Returns a `summary` as lines for people.

  Args:
    found: The summary.
    unit: What a batch consists of.
    batch: The size of a batch.
  """
  lines = [f"FLOPs {found['flops'] / 1e12:.3g} T on each device, for {batch} {unit}"]
  if found["bytes"]:
    lines.append(f"memory traffic {found['bytes'] / 1e9:.1f} GB")
  lines += _describe_time(found, unit)
  if found["peak_memory"] is not None:
    fits = ""
    if found["memory_limit"]:
      fits = f" of {found['memory_limit'] / 1e9:.1f} GB; about {found['largest_batch']} {unit} a device would fit"
    lines.append(f"peak memory {found['peak_memory'] / 1e9:.2f} GB a device{fits}")
  for kind, entry in found["collectives"].items():
    lines.append(f"{entry['count']} {kind}, {entry['bytes'] / 1e6:.3g} MB")
  if found["exchange_seconds"]:
    lines.append(f"exchange at least {_milliseconds(found['exchange_seconds'])} if nothing hides it (in the rate)")
  return lines


def _describe_time(found: Mapping[str, Any], unit: str) -> list[str]:
  floors = f"floors: FLOPs {_milliseconds(found['flop_floor'])}, bytes {_milliseconds(found['byte_floor'])}"
  if found["seconds"]:
    return [
      f"time {_milliseconds(found['seconds'])} by the compiler's model, not measured on a chip; {floors}; "
      f"{found['share_of_peak']:.2f} of the peak",
      f"{found['per_second_a_chip']:.1f} {unit} a second a chip",
    ]
  if found["at_best"]:
    return [
      f"time unknown: this compiler gives none, or counts a loop only once; {floors}, so at best "
      f"{found['at_best']:.1f} {unit} a second a chip"
    ]
  return ["time unknown: this compiler gives none, and the peak of this processor is not known"]


def _milliseconds(seconds: float | None) -> str:
  return "unknown" if seconds is None else f"{1e3 * seconds:.1f} ms"
