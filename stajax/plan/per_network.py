"""What every network of a configuration costs: parameters, and the multiply-accumulates of one example."""

import math
from collections.abc import Mapping
from typing import Any

import jax

from stajax import networks
from stajax.config import Config
from stajax.plan.count import count_program_macs
from stajax.plan.stages import networks_of, stages_of


def plan_networks(config: Config, num_categories: int) -> dict[str, dict[str, Any]]:
  """Returns what each network costs, by the field of the configuration that says how it is trained.

  No weights are made.

  Returns:
    For each field: "trained", the names of the networks that are trained so; "params" of one of them, without running
    statistics; "gmac" and "gflop" of one example forward, by `count_program_macs`; "size", the side of its frames in
    pixels, 0 where it sees none; "nodes"; "frames" of all nodes; "inputs", the shapes of one example by name.
  """
  plans: dict[str, dict[str, Any]] = {}
  for field in stages_of(config):
    if field == "tagger" and config.hearing.kind != "trained" and not config.hearing.teaches:
      continue
    names = networks_of(field)
    network = networks.make_network(names[0], config, num_categories)
    inputs = networks.example_inputs(network, networks.training_of(names[0], config).size)
    plans[field] = {"trained": names, **_plan_network(network, inputs)}
  return plans


def _plan_network(network: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
  # One trace for shapes and products: initialising multiplies no matrices.
  program, (_, variables) = jax.make_jaxpr(
    lambda inputs: network.init_with_output(jax.random.key(0), **inputs), return_shape=True
  )(inputs)
  macs = count_program_macs(program.jaxpr)
  return {
    "params": num_parameters(variables),
    "gmac": macs / 1e9,
    "gflop": 2 * macs / 1e9,
    "size": inputs["frames"].shape[-2] if "frames" in inputs else 0,
    "nodes": network.num_nodes,
    "frames": network.num_nodes * network.num_times,
    "inputs": {name: list(x.shape[1:]) for name, x in inputs.items()},
  }


def num_parameters(variables: Mapping[str, Any]) -> int:
  """Returns how many parameters a network's variables, or their shapes, have."""
  return sum(math.prod(x.shape) for x in jax.tree.leaves(variables["params"]))


def format_networks(plans: Mapping[str, Mapping[str, Any]]) -> str:
  """Returns the result of `plan_networks` as a table with a row for each field."""
  rows = [("network", "trained", "params M", "GMAC", "GFLOP", "size", "nodes", "frames", "inputs of one example")]
  for name, plan in plans.items():
    inputs = ", ".join(f"{key} {'×'.join(map(str, shape))}" for key, shape in plan["inputs"].items())
    numbers = (f"{plan['params'] / 1e6:.2f}", f"{plan['gmac']:.2f}", f"{plan['gflop']:.2f}")
    sizes = (str(plan["size"]), str(plan["nodes"]), str(plan["frames"]))
    rows.append((name, str(len(plan["trained"])), *numbers, *sizes, inputs))
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines: list[str] = []
  for name, *middle, last in rows:
    cells = (cell.rjust(width) for cell, width in zip(middle, widths[1:-1], strict=True))
    lines.append("  ".join((name.ljust(widths[0]), *cells, last)))
  return "\n".join(lines)
