"""From compiled programs to numbers that a person plans with: time, memory, messages between chips, chip-hours."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stajax.plan.topology import Topology

SETS: Mapping[str, tuple[int, int]] = {"AVE": (1, 4097 * 80), "VGGSound": (4, 45 * 4097 * 80)}
"""Of each: how many times the default configuration's steps it is trained (`configs/vggsound.py`), and its frames."""

_USABLE = 0.98  # of a device's memory: compilers keep a little for themselves
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
_BYTES |= {"s64": 8, "u64": 8, "f64": 8}
_COLLECTIVE = re.compile(
  r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\(", re.MULTILINE
)
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


def collectives(text: str) -> dict[str, dict[str, int]]:
  """What a program exchanges between devices: of each kind how many there are, and the bytes of their results.

  Args:
    text: the optimised HLO.
  """
  found: dict[str, dict[str, int]] = {}
  for match in _COLLECTIVE.finditer(text):
    result, kind, is_start = match.groups()
    arrays = [_array_bytes(*array) for array in _ARRAY.findall(result) if array[0] in _BYTES]
    # What is only begun is given as what goes in and what comes out.
    size = sum(arrays) // (2 if is_start and kind != "all-reduce" and len(arrays) > 1 else 1)
    entry = found.setdefault(kind, {"count": 0, "bytes": 0})
    entry["count"] += 1
    entry["bytes"] += size
  return found


def exchange_seconds(found: Mapping[str, Mapping[str, int]], topology: Topology) -> float:
  """The least time of the exchanges, if nothing hides them: every byte of a sum leaves and enters each chip twice."""
  chips = topology.num_chips
  if chips == 1 or not topology.chip.link:
    return 0.0
  size = sum(entry["bytes"] * (2 if kind == "all-reduce" else 1) for kind, entry in found.items())
  return size * (chips - 1) / chips / topology.chip.link


def compiler_seconds(analysis: Mapping[str, float] | None, text: str) -> float | None:
  """The time that the compiler's model gives a program, or None where it gives none.

  It takes a second off for every call of ConcatBitcast (seen in libtpu 0.0.52), which is put back; what is not between
  0 and 1 s then is not believed. Of a loop it counts one round only, so a program with a loop has no time.
  """
  seconds = (analysis or {}).get("optimal_seconds")
  if seconds is None or has_loop(text):
    return None
  seconds += text.count('custom_call_target="ConcatBitcast"')
  return seconds if 0 < seconds < 1 else None


def has_loop(text: str) -> bool:
  """Whether optimised HLO has a loop, of which the compiler's analysis counts one round only."""
  return re.search(r" while\(", text) is not None


def program_costs(program: Any, topology: Topology) -> dict[str, Any]:
  """Of a `stajax.plan.compile.Program` once, on one device: see `summary`; and its memory by kind, in bytes."""
  chip, text = topology.chip, program.compiled.as_text()
  analysis, memory = program.compiled.cost_analysis(), program.compiled.memory_analysis()
  found_bytes = None if has_loop(text) else (analysis or {}).get("bytes accessed")
  costs = {
    "times": program.times,
    "flops": 2 * program.macs,
    "bytes": found_bytes,
    "seconds": compiler_seconds(analysis, text) if chip.platform == "tpu" else None,
    "flop_floor": 2 * program.macs * chip.devices / chip.flops if chip.flops else None,
    "byte_floor": found_bytes * chip.devices / chip.bandwidth if found_bytes and chip.bandwidth else None,
    "collectives": collectives(text),
    "compile_seconds": program.compile_seconds,
  }
  if memory is not None:
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    costs["memory"] = {
      "arguments": memory.argument_size_in_bytes,
      "outputs": outputs,
      "temporary": memory.temp_size_in_bytes,
      "code": memory.generated_code_size_in_bytes,
      "of_batch": program.batch_bytes,
    }
    costs["peak_memory"] = sum(costs["memory"].values()) - program.batch_bytes
  return costs


def largest_batch(memory: Mapping[str, int], batch: int, limit: float) -> int:
  """How many examples fit on a device of `limit` bytes, if what is not parameters grows with the batch.

  Args:
    memory: of `program_costs`, for `batch` examples.
  """
  growing = memory["temporary"] + memory["of_batch"]
  fixed = memory["arguments"] - memory["of_batch"] + memory["outputs"] + memory["code"]
  return max(0, int((_USABLE * limit - fixed) / growing * batch))


def summary(costs: Mapping[str, Mapping[str, Any]], batch: int, topology: Topology) -> dict[str, Any]:
  """Of all programs for a batch of examples on a device.

  Returns:
    "flops", "bytes", "seconds", "flop_floor" and "byte_floor" together, each None where a program has none;
    "share_of_peak"; "per_second_a_chip" with the exchange's time, and "at_best", by the floors alone; "peak_memory",
    "memory_limit" and "largest_batch" of a device; "collectives" and "exchange_seconds" of the step.
  """
  chip = topology.chip

  def total(key: str) -> float | None:
    values = [None if x[key] is None else x[key] * x["times"] for x in costs.values()]
    return None if None in values else sum(values)

  found = {key: total(key) for key in ("flops", "bytes", "seconds", "flop_floor", "byte_floor")}
  # Programs run one after the other, each at best as fast as its own higher floor.
  floors = [max(x["flop_floor"] or 0, x["byte_floor"] or 0) * x["times"] for x in costs.values()]
  seconds, floor = found["seconds"], sum(floors)
  together: dict[str, dict[str, int]] = {}
  for x in costs.values():
    for kind, entry in x["collectives"].items():
      into = together.setdefault(kind, {"count": 0, "bytes": 0})
      into["count"] += entry["count"] * x["times"]
      into["bytes"] += entry["bytes"] * x["times"]
  exchange = exchange_seconds(together, topology)
  limit = chip.memory / chip.devices if chip.memory else None
  with_memory = [x for x in costs.values() if "memory" in x]
  batches = [largest_batch(x["memory"], batch, limit) for x in with_memory] if limit else []
  return {
    **found,
    "share_of_peak": found["flops"] * chip.devices / chip.flops / seconds if seconds else None,
    "per_second_a_chip": batch * chip.devices / (seconds + exchange) if seconds else None,
    "at_best": batch * chip.devices / floor if floor else None,
    "peak_memory": max((x["peak_memory"] for x in with_memory), default=None),
    "memory_limit": limit,
    "largest_batch": min(batches, default=None),
    "collectives": together,
    "exchange_seconds": exchange,
  }


def durations(examples: float, per_second_a_chip: float, topology: Topology) -> dict[str, float]:
  """Hours on all chips, and chip-hours."""
  chip_hours = examples / per_second_a_chip / 3600
  return {"examples": examples, "hours": chip_hours / topology.num_chips, "chip_hours": chip_hours}


def _array_bytes(dtype: str, axes: str) -> int:
  size = _BYTES[dtype]
  for axis in axes.split(","):
    size *= int(axis) if axis else 1
  return size


def lines(summary_: Mapping[str, Any], unit: str, batch: int, topology: Topology) -> Sequence[str]:
  """The summary for people."""
  found = summary_

  def milliseconds(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{1e3 * seconds:.1f} ms"

  out = [f"FLOPs {found['flops'] / 1e12:.3g} T on each device, for {batch} {unit}"]
  if found["bytes"]:
    out.append(f"memory traffic {found['bytes'] / 1e9:.1f} GB")
  if found["seconds"]:
    out.append(
      f"time {milliseconds(found['seconds'])} by the compiler's model, not measured on a chip; floors: FLOPs "
      f"{milliseconds(found['flop_floor'])}, bytes {milliseconds(found['byte_floor'])}; "
      f"{found['share_of_peak']:.2f} of the peak"
    )
    out.append(f"{found['per_second_a_chip']:.1f} {unit} a second a chip")
  elif found["at_best"]:
    out.append(
      "time unknown: this compiler gives none, or counts a loop only once; floors: FLOPs "
      f"{milliseconds(found['flop_floor'])}, bytes {milliseconds(found['byte_floor'])}, so at best "
      f"{found['at_best']:.1f} {unit} a second a chip"
    )
  else:
    out.append("time unknown: this compiler gives none, and nobody says what this processor can do")
  if found["peak_memory"] is not None:
    fits = ""
    if found["memory_limit"]:
      fits = f" of {found['memory_limit'] / 1e9:.1f} GB; about {found['largest_batch']} {unit} a device would fit"
    out.append(f"peak memory {found['peak_memory'] / 1e9:.2f} GB a device{fits}")
  for kind, entry in found["collectives"].items():
    out.append(f"{entry['count']} {kind}, {entry['bytes'] / 1e6:.3g} MB")
  if found["exchange_seconds"]:
    out.append(f"exchange at least {milliseconds(found['exchange_seconds'])} if nothing hides it (in the rate)")
  return out
