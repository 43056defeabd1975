"""python -m stajax.plan --config configs/X.py [--categories N] [--json] [overrides such as --st_plus.size 128]
   python -m stajax.plan --config configs/X.py --topology v5e:2x4 --stage st_plus [--dense] [--batch N] …

What every network of a configuration costs: its parameters, and the multiply-accumulates of one example (a group of
its fragments) going forward, counted in the program itself. No weights are made and no accelerator is touched.

With a topology, what a stage costs on hardware that need not be there: its programs are compiled for it, which takes
seconds to minutes, and asked for FLOPs, bytes, memory, messages and time; time and chip-hours for AVE and VGGSound
follow. A stage is a network's training step, or with --dense its inference over clips, one of {stages};
or `predict`, the final maps of the three students. With `students.backbone` shared, `students` takes the place of
`sta` and `sta_plus`. Clips of a step are groups; frames are those that get a map.
Topologies: {examples}. TPUs need the extra `tpu`, GPUs the extra `gpu`, neither the hardware.
Exit codes: 0 done, 1 the batch does not fit in memory, 2 bad input.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stajax import config as configuration
from stajax.config import Config, ConfigError, Training
from stajax.plan import cost, topology
from stajax.plan.count import count_macs, count_program_macs
from stajax.prepare.synthetic.categories import CATEGORIES as SYNTHETIC_CATEGORIES

__all__ = ["count_macs", "count_program_macs", "find_categories", "main", "plan_networks", "plan_stage"]

AVE_CATEGORIES = 28
PREDICT = "predict"
_STUDENTS = {"sta": 1, "sta_plus_short": 2}  # both STA+ are one program
_CLIPS, _FRAMES = 8, 64  # a device, where the user does not say


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  parser = argparse.ArgumentParser("stajax plan", description=__doc__, add_help=False, allow_abbrev=False)
  parser.add_argument("--config", type=Path)
  parser.add_argument("--categories", type=int)
  parser.add_argument("--json", action="store_true")
  parser.add_argument("--topology")
  parser.add_argument("--stage")
  parser.add_argument("--dense", action="store_true")
  parser.add_argument("--batch", type=int)
  arguments, overrides = parser.parse_known_args(argv)
  if arguments.config is None:
    print(__doc__.format(stages=", ".join(_fields()), examples=topology.EXAMPLES))
    print("  --categories N   how many tags; those of the configuration's data if not given")
    print("  --json           one JSON object instead of a table")
    print(f"  --batch N        clips of a step on each device ({_CLIPS}), or frames computed together ({_FRAMES})")
    return 0 if {"-h", "--help"} & set(overrides) else 2
  try:
    config = configuration.override(configuration.load(arguments.config), overrides)
    target = _target(arguments, config)
    num_categories, origin = find_categories(config, arguments.categories)
    topology.prepare_process()
    about = {"config": config.name, "categories": num_categories, "categories_from": origin}
    if target is None:
      networks = plan_networks(config, num_categories)
      print(json.dumps({**about, "networks": networks}) if arguments.json else _table(about, networks))
      return 0
    dense = arguments.dense or arguments.stage == PREDICT
    batch = arguments.batch or (_FRAMES if dense else _CLIPS)
    plan = {**about, **plan_stage(config, num_categories, target, arguments.stage, dense, batch)}
    print(json.dumps(plan) if arguments.json else _stage_text(plan, target))
    return 0
  except (ConfigError, topology.TopologyError) as error:
    print(f"stajax plan: {error}", file=sys.stderr)
    return 1 if isinstance(error, topology.DoesNotFit) else 2


def _target(arguments: argparse.Namespace, config: Config) -> topology.Topology | None:
  """The topology that was asked for, None where there is none."""
  if arguments.topology is None:
    if arguments.stage or arguments.dense or arguments.batch is not None:
      raise ConfigError(f"--stage, --dense and --batch need --topology, such as {topology.EXAMPLES}")
    return None
  target = topology.parse(arguments.topology)
  stages = (*_fields(config), PREDICT)
  if arguments.stage not in stages:
    raise ConfigError(f"--stage: found {arguments.stage or 'none'}, expected one of {', '.join(stages)}")
  if arguments.batch is not None and arguments.batch < 1:
    raise ConfigError(f"--batch {arguments.batch}: expected at least 1")
  return target


def plan_stage(
  config: Config, num_categories: int, target: topology.Topology, stage: str, dense: bool, batch: int
) -> dict[str, Any]:
  """What a stage costs on a topology.

  Args:
    stage: a network's field of the configuration, `students` where they are trained as one, or `predict`.
    dense: whether inference over clips is planned, not the training step.
    batch: clips of a step on each device, or frames computed together.

  Returns:
    "topology", "chips", "devices", "stage", "unit", "batch", "dtype", "networks" that the stage has; "params" of one;
    "programs", of each what `stajax.plan.cost.program_costs` says; all of `cost.summary`; and "sets", of AVE and
    VGGSound what `cost.durations` says of all the stage's networks, None where the time is not known.

  Raises:
    TopologyError, DoesNotFit: see `stajax.plan`.
  """
  if config.network.dtype == "auto":
    dtype = "float32" if target.chip.platform == "cpu" else "bfloat16"
    config = config.model_copy(update={"network": config.network.model_copy(update={"dtype": dtype})})
  devices = topology.devices(target)
  from stajax import networks
  from stajax.plan import compile as compiling

  maps = stage == PREDICT or (dense and stage == networks.ALL_STUDENTS)
  names = list(networks.STUDENTS) if maps else _networks(stage)
  if maps:
    programs = compiling.dense_inference(config, _STUDENTS, num_categories, batch, devices[0])
  elif dense:
    programs = compiling.dense_inference(config, {names[0]: 1}, num_categories, batch, devices[0])
  else:
    programs = compiling.training_step(config, names[0], num_categories, batch, devices)
  costs = {program.name: cost.program_costs(program, target) for program in programs}
  found = cost.summary(costs, batch, target)
  sets: dict[str, Any] = {}
  for name, (longer, frames) in cost.SETS.items():
    examples = frames if maps else frames * len(names)
    if not dense:
      usual = networks.training_of(names[0], Config(name="usual"))
      examples = longer * usual.steps * usual.batch * len(names)
    rate = found["per_second_a_chip"]
    sets[name] = cost.durations(examples, rate, target) if rate else None
  variables = networks.expected_variables(
    networks.make_network(names[-1], config, num_categories), networks.training_of(names[-1], config).size
  )
  return {
    "topology": target.name,
    "chips": target.num_chips,
    "devices": target.num_devices,
    "stage": stage,
    "unit": "frames" if dense else "clips",
    "batch": batch,
    "dtype": config.network.dtype,
    "networks": names,
    "params": _num_params(variables),
    "programs": costs,
    **found,
    "sets": sets,
  }


def _stage_text(plan: Mapping[str, Any], target: topology.Topology) -> str:
  kind = "inference" if plan["unit"] == "frames" else "training step"
  hardware = f"{plan['topology']} ({plan['chips']} chips, {plan['devices']} devices)"
  out = [
    f"{plan['config']}: {plan['stage']}, {kind}, on {hardware}, {plan['batch']} {plan['unit']} a device, "
    f"{plan['dtype']}; {plan['params'] / 1e6:.2f} M parameters"
  ]
  out += [f"  {line}" for line in cost.lines(plan, plan["unit"], plan["batch"], target)]
  for name, found in plan["sets"].items():
    if found:
      what = f"{found['examples'] / 1e6:.2f} M {plan['unit']}, {len(plan['networks'])} networks"
      out.append(f"  {name}: {found['hours']:.2f} hours, {found['chip_hours']:.1f} chip-hours ({what})")
  if len(plan["programs"]) > 1:
    for name, x in plan["programs"].items():
      if x["seconds"]:
        out.append(f"  {name}: {1e3 * x['seconds']:.2f} ms" + (f", {x['times']} times" if x["times"] > 1 else ""))
  return "\n".join(out)


def _fields(config: Config | None = None) -> list[str]:
  """The configuration's fields that say how networks are trained; of students that are trained as one, `students`."""
  fields = [name for name, info in Config.model_fields.items() if info.annotation is Training]
  if config is None or config.students.backbone == "separate":
    return fields
  return [*(name for name in fields if name not in ("sta", "sta_plus")), "students"]


def _networks(stage: str) -> list[str]:
  """Returns the names of the networks that are trained as a field says; for `students` the three as one."""
  from stajax import networks

  if stage == networks.ALL_STUDENTS:
    return [stage]
  fields = {name: spec.config_field for name, spec in networks.NETWORKS.items() if name != networks.ALL_STUDENTS}
  return [name for name, field in fields.items() if stage in (name, field)]


def _num_params(variables: Mapping[str, Any]) -> int:
  import jax

  return sum(math.prod(x.shape) for x in jax.tree.leaves(variables["params"]))


def find_categories(config: Config, given: int | None = None) -> tuple[int, str]:
  """The number of categories to plan for, and where it is from.

  Raises:
    ConfigError: not a positive number, or a damaged summary of the prepared data.
  """
  if given is not None:
    if given < 1:
      raise ConfigError(f"--categories {given}: expected at least 1")
    return given, "--categories"
  if config.data.source == "synthetic":
    return len(SYNTHETIC_CATEGORIES), "the synthetic clips"
  path = None if config.data.path is None else Path(config.data.path) / "summary.json"
  if path is None or not path.is_file():
    return AVE_CATEGORIES, "AVE, as no prepared data is at hand; --categories sets another number"
  try:
    categories = json.loads(path.read_text(encoding="utf-8"))["categories"]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ConfigError(f"{path}: not the summary of prepared data ({type(error).__name__}: {error})") from None
  if not isinstance(categories, list) or not categories:
    raise ConfigError(f"{path}: found {categories!r} as `categories`, expected a list of names")
  return len(categories), str(path)


def plan_networks(config: Config, num_categories: int) -> dict[str, dict[str, Any]]:
  """What each network costs, by its field of the configuration (DESIGN: words).

  Returns:
    For each field: "trained", names of the networks that are trained so; "params" of one of them, without running
    statistics; "gmac" and "gflop" of one example forward, by `count_program_macs`; "size", side of its frames in
    pixels, 0 where it sees none; "nodes"; "frames" of all nodes; "inputs", the shapes of one example by name.
  """
  from stajax import networks

  plans = {}
  skipped = () if config.hearing.kind == "trained" else ("tagger",)
  for field in _fields(config):
    if field in skipped:
      continue
    names = _networks(field)
    network = networks.make_network(names[0], config, num_categories)
    inputs = networks.example_inputs(network, networks.training_of(names[0], config).size)
    plans[field] = {"trained": names, **_plan(network, inputs)}
  return plans


def _plan(network: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
  import jax

  # One trace for shapes and products: initialising multiplies no matrices.
  program, (_, variables) = jax.make_jaxpr(
    lambda inputs: network.init_with_output(jax.random.key(0), **inputs), return_shape=True
  )(inputs)
  macs = count_program_macs(program.jaxpr)
  return {
    "params": _num_params(variables),
    "gmac": macs / 1e9,
    "gflop": 2 * macs / 1e9,
    "size": inputs["frames"].shape[-2] if "frames" in inputs else 0,
    "nodes": network.num_nodes,
    "frames": network.num_nodes * network.num_times,
    "inputs": {name: list(x.shape[1:]) for name, x in inputs.items()},
  }


def _table(about: Mapping[str, Any], networks: Mapping[str, Mapping[str, Any]]) -> str:
  rows = [("network", "trained", "params M", "GMAC", "GFLOP", "size", "nodes", "frames", "inputs of one example")]
  for name, plan in networks.items():
    inputs = ", ".join(f"{key} {'×'.join(map(str, shape))}" for key, shape in plan["inputs"].items())
    numbers = (f"{plan['params'] / 1e6:.2f}", f"{plan['gmac']:.2f}", f"{plan['gflop']:.2f}")
    counts = (str(plan[key]) for key in ("size", "nodes", "frames"))
    rows.append((name, str(len(plan["trained"])), *numbers, *counts, inputs))
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  origin = f"{about['categories']} categories (from {about['categories_from']})"
  lines = [f"{about['config']}: {origin}; one example, forward"]
  for name, *middle, last in rows:
    cells = (cell.rjust(width) for cell, width in zip(middle, widths[1:-1], strict=True))
    lines.append("  ".join((name.ljust(widths[0]), *cells, last)))
  return "\n".join(lines)


if __name__ == "__main__":
  sys.exit(main())
