"""The training of one network: what it starts from, the loop, its evaluation, and what it leaves behind."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from stajax import networks
from stajax.companions import TagGroups
from stajax.config import Config
from stajax.files import make_folder
from stajax.nets import shared_students
from stajax.train import checkpoint, initial_weights, loop, step
from stajax.train.network_batches import NetworkBatches, knows_heard_tags, takes_features
from stajax.train.programs import Programs, make_programs
from stajax.train.run import Run
from stajax.train.workdir import WEIGHTS
from stajax.weights import store

ORDER = tuple(name for name in networks.NETWORKS if name != networks.ALL_STUDENTS)
"""The networks that a finished training has. A network's place gives its random numbers, so new ones come last."""


@dataclass(frozen=True)
class Variant:
  """How a network of the ablation is trained differently from the usual one.

  Attributes:
    folder: The folder that it is written to.
    always_heard: Whether its audio switch is on wherever there is sound.
    refine: Whether it has fixation refine layers; see `stajax.networks.make_network`.
    maps: The map set that a student learns from; None for the usual pseudo-fixations.
  """

  folder: Path
  always_heard: bool = False
  refine: bool | None = None
  maps: Path | None = None


def train(name: str, run: Run, variant: Variant | None = None) -> dict[str, Any]:
  """Trains one network, from its last checkpoint if there is one; returns what `done.json` says.

  Raises:
    TrainingError, RecordError: See `stajax.train.loop`, `stajax.data.shards`.
  """
  variant = variant or Variant(run.workdir.stage(name))
  config, records, spec = run.config, run.data.records, networks.NETWORKS[name]
  training = networks.training_of(name, config)
  network = networks.make_network(name, config, len(records.categories), variant.refine)
  variables, files = _initial_variables(name, run, network)
  batches = NetworkBatches(name, run, network, random_seed(name, config), variant.always_heard, variant.maps)
  knows = knows_heard_tags(name, config)
  programs = make_programs(network, training, spec.learns_fixations, run.mesh, batches.decode, knows)
  job = loop.Job(name, variant.folder, training.steps, training.batch, config.checkpoint_every, config.log_every)
  state = step.make_state(variables, programs.optimizer)
  state = loop.train(job, state, programs.train_step, batches.training, records.names, run.mesh)
  evaluation = _evaluate(name, run, programs, state.variables(), batches)
  if jax.process_index() != 0:
    return {}
  sha256 = store.save(variant.folder / WEIGHTS, state.variables())
  about = {"sha256": sha256, **evaluation, "steps": training.steps, "init": files}
  about["environment"] = checkpoint.environment()
  if spec.companions == "cross":
    about["clips_alone_in_tag"] = _count_clips_alone_in_tag(run)
  return about


def random_seed(name: str, config: Config) -> int:
  """Returns the seed of a network's random numbers.

  The network of all three students sees the targets that STA alone would see, in the same order.
  """
  place = ORDER.index(networks.STUDENTS[0] if name == networks.ALL_STUDENTS else name)
  return config.seed * len(ORDER) + place


def _initial_variables(name: str, run: Run, network: Any) -> tuple[dict[str, Any], dict[str, str]]:
  """Returns a network's variables: those of finished networks, those of files, and random ones where neither has any.

  Also returns the SHA-256 of the file of every part that was taken from one.
  """
  size, key = networks.training_of(name, run.config).size, jax.random.key(random_seed(name, run.config))
  variables = networks.initialise(network, size, key, takes_features(name, run.config))
  variables, random = start_from_finished(name, run, variables)
  return initial_weights.insert(name, run.config, run.workdir, variables, random)


def start_from_finished(name: str, run: Run, variables: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
  """Replaces random variables by those of finished networks where they fit; the first network that fits counts.

  Returns:
    The variables, and the names of those that are still random.
  """
  random, start = set(store.flatten(variables)), networks.training_of(name, run.config).start
  for source in reversed(start):
    finished = store.unflatten(run.workdir.read_weights(source))
    if name == networks.ALL_STUDENTS:
      finished = shared_students.join(finished)
    variables, missing = store.merge(variables, finished)
    random &= set(missing)
  if start:
    # A part that is new in one of several students is named without the student.
    new = sorted({parts[parts[0] in networks.STUDENTS] for parts in (key.split("/")[1:] for key in random)})
    tqdm.write(f"{name}: starts from {', '.join(start)}; new: {', '.join(new) or 'nothing'}")
  return variables, random


def _evaluate(
  name: str, run: Run, programs: Programs, variables: Mapping[str, Any], batches: NetworkBatches
) -> dict[str, Any]:
  """Evaluates a network on the validation clips; returns what `done.json` says about it, if there are any."""
  if batches.num_validation_frames == 0:
    return {}
  metrics = loop.evaluate(programs.evaluation_step, variables, batches.validation(), run.mesh)
  tqdm.write(f"{name}: on clips left out, {', '.join(f'{key} {value:.4g}' for key, value in metrics.items())}")
  rounded = {key: round(value, 4) for key, value in metrics.items()}
  return {"left_out": {"clips": int(run.data.is_validation.sum()), **rounded}}


def _count_clips_alone_in_tag(run: Run) -> int:
  """Returns how many clips have no other clip of their tags to learn from."""
  records, is_used = run.data.records, ~run.data.is_validation
  return int(np.sum(TagGroups(records.tags * is_used[:, None], records.num_frames).is_alone[is_used]))


def extract_student(name: str, run: Run) -> dict[str, Any]:
  """Gives one of the students that were trained together its own weights; returns what `done.json` says.

  Raises:
    WeightsError: The joint weights cannot be read.
  """
  if jax.process_index() != 0:
    return {}
  variables = store.unflatten(run.workdir.read_weights(networks.ALL_STUDENTS))
  path = run.workdir.weights(name)
  make_folder(path.parent)
  sha256 = store.save(path, shared_students.split(variables, name))
  return {"sha256": sha256, "environment": run.workdir.outcome(networks.ALL_STUDENTS)["environment"]}
