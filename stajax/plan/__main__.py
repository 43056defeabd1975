"""Says what every network of a configuration costs, or what a stage of it costs on hardware that need not be present.

  stajax plan --config configs/X.py [--categories N] [--json] [overrides such as --st_plus.size 128]
  stajax plan --config configs/X.py --topology v5e:2x4 --stage st_plus [--dense] [--batch N] [--clips N] …

The first form counts each network's parameters, and the multiply-accumulates of the forward pass of one example (a
group of fragments) in the program itself. No weights are made and no accelerator is touched.

With a topology, the programs of a stage are compiled for it, which takes seconds to minutes, and asked for FLOPs,
bytes, memory, messages and time; time and chip-hours for AVE and VGGSound follow. A stage is a network's training step,
or with --dense its inference over clips, one of {stages}; or `predict`, the final maps of the three
students. With `students.backbone` shared, `students` takes the place of `sta` and `sta_plus`. A clip of a step is
a group; a frame is one that gets a map. Topologies: {examples}.
TPUs need the extra `tpu`, GPUs the extra `gpu`; neither needs the hardware.
Exit codes: 0 done, 1 the batch does not fit in memory, 2 bad input.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from stajax import cli, hints, screen
from stajax.config import Config, ConfigError
from stajax.plan import topology
from stajax.plan.cost import CLIP_SECONDS, DataSet
from stajax.plan.stages import PREDICT, find_categories, stages_of

PROGRAM = "stajax plan"
_CLIPS, _FRAMES = 8, 64
"""The default batches on a device, in training and in inference."""


@dataclass(frozen=True)
class Arguments(cli.ConfigArguments):
  """The options of `stajax plan` that are not fields of the configuration."""

  categories: int | None = None
  """The number of tags; by default, that of the configuration's data."""
  json: bool = False
  """Print one JSON object instead of text."""
  topology: str | None = None
  """The hardware to compile a stage for."""
  stage: str | None = None
  """The stage to compile."""
  dense: bool = False
  """Plan inference over clips instead of the training step."""
  int8: bool = False
  """Plan inference that encodes frames in 8-bit integers, as `predict --precision int8` does."""
  as_configured: bool = False
  """Plan a training step with the configuration's batch, which is filled up where the devices do not divide it."""
  clips: int | None = None
  """The clips of a set of your own, each of 10 seconds, to plan inference for beside AVE and VGGSound."""
  batch: int | None = None
  """Clips of a step on each device (8 by default), or frames that are computed together (64)."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  description = (__doc__ or "").format(stages=", ".join(stages_of()), examples=topology.EXAMPLES)

  def command() -> int:
    arguments, config = cli.parse_with_config(PROGRAM, Arguments, argv, description)
    return _plan(arguments, config)

  return cli.run(PROGRAM, command, (ConfigError, topology.TopologyError))


def _plan(arguments: Arguments, config: Config) -> int:
  target = _find_topology(arguments, config)
  num_categories, origin = find_categories(config, arguments.categories)
  topology.prepare_process(target)
  about = {"config": config.name, "categories": num_categories, "categories_from": origin}
  if target is None:
    screen.say(_network_text(arguments, config, about))
    return 0
  try:
    screen.say(_stage_text(arguments, config, about, target))
    return 0
  except topology.DoesNotFit as error:
    return cli.fail(PROGRAM, error, code=1)


def _find_topology(arguments: Arguments, config: Config) -> topology.Topology | None:
  """Returns the topology that was asked for, None where there is none."""
  if arguments.topology is None:
    needing = (
      arguments.stage,
      arguments.dense,
      arguments.int8,
      arguments.batch,
      arguments.clips,
      arguments.as_configured,
    )
    if any(value not in (None, False) for value in needing):
      options = "--stage, --dense, --int8, --batch, --clips and --as-configured"
      raise ConfigError(f"{options} need --topology, such as {topology.EXAMPLES}")
    return None
  target = topology.parse(arguments.topology)
  stages = (*stages_of(config), PREDICT)
  if arguments.stage not in stages:
    raise ConfigError(f"--stage: found {arguments.stage or 'none'}, {hints.expected(arguments.stage or '', stages)}")
  if arguments.batch is not None and arguments.batch < 1:
    raise ConfigError(f"--batch {arguments.batch}: expected at least 1")
  if arguments.clips is not None and (arguments.clips < 1 or not _is_inference(arguments)):
    raise ConfigError(f"--clips {arguments.clips}: expected at least 1, for --dense or --stage {PREDICT}")
  if arguments.as_configured and (arguments.dense or arguments.batch is not None or arguments.stage == PREDICT):
    raise ConfigError("--as-configured is for training steps, and without --batch")
  if arguments.int8 and not _is_inference(arguments):
    raise ConfigError("--int8 is for inference: expected --dense or --stage predict with it")
  return target


def _network_text(arguments: Arguments, config: Config, about: dict[str, Any]) -> str:
  from stajax.plan.per_network import format_networks, plan_networks  # loads JAX, after `prepare_process`

  plans = plan_networks(config, about["categories"])
  if arguments.json:
    return json.dumps({**about, "networks": plans})
  origin = f"{about['categories']} categories (from {about['categories_from']})"
  return f"{about['config']}: {origin}; one example, forward\n{format_networks(plans)}"


def _is_inference(arguments: Arguments) -> bool:
  return arguments.dense or arguments.stage == PREDICT


def _stage_text(arguments: Arguments, config: Config, about: dict[str, Any], target: topology.Topology) -> str:
  from stajax.networks import training_of  # loads JAX, after `prepare_process`, as the next one does
  from stajax.plan.per_stage import Workload, format_stage, plan_stage

  is_inference = _is_inference(arguments)
  batch = arguments.batch or (_FRAMES if is_inference else _CLIPS)
  own = {}
  if arguments.clips is not None:
    frames = round(arguments.clips * CLIP_SECONDS * config.data.rate)
    own[f"{arguments.clips} clips"] = DataSet(1, frames)
  work = Workload(str(arguments.stage), is_inference, batch, own=own, int8=arguments.int8)
  if arguments.as_configured:
    clips = training_of(work.networks[0], config).batch
    work = replace(work, batch=-(-clips // target.num_devices), clips=clips)
  plan = {**about, **plan_stage(config, about["categories"], target, work)}
  return json.dumps(plan) if arguments.json else format_stage(plan, target)


if __name__ == "__main__":
  sys.exit(main())
