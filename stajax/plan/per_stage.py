"""What a stage costs on hardware that need not be present, found by compiling its programs for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stajax import networks
from stajax.config import Config
from stajax.plan import compile as compiling
from stajax.plan import cost
from stajax.plan.per_network import num_parameters
from stajax.plan.stages import PREDICT, networks_of
from stajax.plan.topology import Topology, devices

_PREDICTING = {"sta": 1, "sta_plus_short": 2}
"""The networks whose programs compute the final maps, and how often each runs: both STA+ are one program."""


@dataclass(frozen=True)
class Workload:
  """What is planned.

  Attributes:
    stage: A stage of `stajax.plan.stages.stages_of`, or `predict`.
    is_inference: Whether inference over clips is planned, not the training step.
    batch: Clips of a step on each device; in inference, frames that are computed together.
    clips: The clips of a step that count, if it is filled up on the last devices; None if all of them do.
    own: Data sets beside `stajax.plan.cost.SETS`, for inference.
    int8: Whether frames are encoded in 8-bit integers, which only inference does.
  """

  stage: str
  is_inference: bool
  batch: int
  clips: int | None = None
  own: Mapping[str, cost.DataSet] = field(default_factory=dict[str, cost.DataSet])
  int8: bool = False

  @property
  def unit(self) -> str:
    """What a batch consists of."""
    return "frames" if self.is_inference else "clips"

  @property
  def predicts(self) -> bool:
    """Whether the final maps of the three students are computed."""
    return self.stage == PREDICT or (self.is_inference and self.stage == networks.ALL_STUDENTS)

  @property
  def networks(self) -> list[str]:
    """Names of the networks of the stage."""
    return list(networks.STUDENTS) if self.predicts else networks_of(self.stage)


def plan_stage(config: Config, num_categories: int, topology: Topology, work: Workload) -> dict[str, Any]:
  """Returns what a stage costs on a topology.

  Returns:
    "topology", "chips", "devices", "stage", "unit", "batch", "slots" of a step and "clips" that count,
    "dtype", "int8" where it encodes frames, "networks" that the stage has; "params" of one;
    "programs", for each what `stajax.plan.cost.program_costs` says; all of `cost.summary`; and "sets", for AVE,
    VGGSound and own sets what `cost.durations` says of all the stage's networks, None where the time is not known.

  Raises:
    TopologyError: The topology cannot be planned for.
    DoesNotFit: The batch does not fit in memory.
  """
  config = _with_dtype(config, topology)
  programs = _compile(config, num_categories, topology, work)
  costs = {program.name: cost.program_costs(program, topology) for program in programs}
  found = cost.summary(costs, work.batch, topology)
  slots = work.batch * topology.num_devices
  clips = slots if work.clips is None else work.clips
  for rate in ("per_second_a_chip", "at_best"):
    found[rate] = None if found[rate] is None else found[rate] * clips / slots
  name = work.networks[-1]
  network = networks.make_network(name, config, num_categories)
  variables = networks.expected_variables(network, networks.training_of(name, config).size)
  return {
    "topology": topology.name,
    "chips": topology.num_chips,
    "devices": topology.num_devices,
    "stage": work.stage,
    "unit": work.unit,
    "batch": work.batch,
    "slots": slots,
    "clips": clips,
    "dtype": config.network.dtype,
    "int8": work.int8,
    "networks": [each for each in work.networks if not work.predicts or each in networks.students_of(config)],
    "params": num_parameters(variables),
    "programs": costs,
    **found,
    "sets": _durations(work, found["per_second_a_chip"], topology),
  }


def _with_dtype(config: Config, topology: Topology) -> Config:
  """Returns the configuration with `dtype` set to what `auto` means on the topology."""
  if config.network.dtype != "auto":
    return config
  dtype = "float32" if topology.chip.platform == "cpu" else "bfloat16"
  return config.model_copy(update={"network": config.network.model_copy(update={"dtype": dtype})})


def _compile(config: Config, num_categories: int, topology: Topology, work: Workload) -> list[compiling.Program]:
  found, name = devices(topology), work.networks[0]
  if not work.is_inference:
    filled_up = work.clips is not None and work.clips < work.batch * len(found)
    return compiling.training_step(config, name, num_categories, work.batch, found, filled_up)
  predicting = {key: times for key, times in _PREDICTING.items() if key in networks.students_of(config)}
  names = predicting if work.predicts else {name: 1}
  return compiling.dense_inference(config, names, num_categories, work.batch, found[0], work.int8)


def _durations(work: Workload, per_second_a_chip: float | None, topology: Topology) -> dict[str, Any]:
  """Returns how long a stage takes on each data set, None where the time of a batch is not known."""
  if not per_second_a_chip:
    return dict.fromkeys([*cost.SETS, *work.own])
  sets: dict[str, Any] = {}
  for name, data_set in {**cost.SETS, **work.own}.items():
    if work.is_inference:
      examples = data_set.num_frames * (1 if work.predicts else len(work.networks))
    else:
      usual = networks.training_of(work.networks[0], Config(name="usual"))
      examples = data_set.training_factor * usual.steps * usual.batch * len(work.networks)
    sets[name] = cost.durations(examples, per_second_a_chip, topology)
  return sets


def format_stage(plan: Mapping[str, Any], topology: Topology) -> str:
  """Returns the result of `plan_stage`, with the configuration's name, as lines of text."""
  kind = "inference" if plan["unit"] == "frames" else "training step"
  hardware = f"{plan['topology']} ({plan['chips']} chips, {plan['devices']} devices)"
  lines = [
    f"{plan['config']}: {plan['stage']}, {kind}, on {hardware}, {plan['batch']} {plan['unit']} a device, "
    f"{plan['dtype']}{' and int8' if plan['int8'] else ''}; {plan['params'] / 1e6:.2f} M parameters"
  ]
  if plan["clips"] < plan["slots"]:
    share = 1 - plan["clips"] / plan["slots"]
    filled = f"{plan['clips']} clips in {plan['slots']} slots of a step"
    lines.append(f"  {filled}: {share:.0%} of the work fills the batch up and counts nowhere (not in the rate)")
  lines += [f"  {line}" for line in cost.describe(plan, plan["unit"], plan["batch"])]
  for name, found in plan["sets"].items():
    if found:
      what = f"{found['examples'] / 1e6:.2f} M {plan['unit']}, {len(plan['networks'])} networks"
      lines.append(f"  {name}: {found['hours']:.2f} hours, {found['chip_hours']:.1f} chip-hours ({what})")
  if len(plan["programs"]) > 1:
    for name, found in plan["programs"].items():
      if found["seconds"]:
        times = f", {found['times']} times" if found["times"] > 1 else ""
        lines.append(f"  {name}: {1e3 * found['seconds']:.2f} ms{times}")
  return "\n".join(lines)
