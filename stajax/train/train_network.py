"""The training of one network: what it learns from, what it starts from, and what it leaves behind."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from stajax import networks
from stajax.companions import Tags
from stajax.config import Training
from stajax.data import batches as pipeline
from stajax.data.map_set import MapSet
from stajax.nets import shared_students
from stajax.train import checkpoint, initial_weights, loop, optimizer, step, validation
from stajax.train.workdir import NOT_JUDGED, Run
from stajax.weights import store

ORDER = tuple(name for name in networks.NETWORKS if name != networks.ALL_STUDENTS)
"""The networks that there are in the end; a network's place gives its random numbers, so new ones come last."""
TRAINED = (*ORDER, networks.ALL_STUDENTS)
"""All networks that some configuration trains."""


@dataclass(frozen=True)
class Variant:
  """How a network is trained otherwise than usual, for the ablation.

  Attributes:
    folder: where it is written.
    always_heard: its audio switch is 1 wherever there is sound.
    frl: whether it has fixation refine layers: of `stajax.networks.make_network`.
  """

  folder: Path
  always_heard: bool = False
  frl: bool | None = None


def train(name: str, run: Run, variant: Variant | None = None) -> dict[str, Any]:
  """Trains one network, from its last checkpoint if there is one; returns what `done.json` says.

  Raises:
    TrainingError, RecordError: see `stajax.train.loop`, `stajax.data.records`.
  """
  variant = variant or Variant(run.folder(name))
  config, records = run.config, run.records
  training = networks.training_of(name, config)
  network = networks.make_network(name, config, len(records.categories), variant.frl)
  # The three students together see the targets that STA alone would, in its order.
  seed = config.seed * len(ORDER) + ORDER.index(networks.STUDENTS[0] if name == networks.ALL_STUDENTS else name)
  stored = config.has_frozen_backbone and network.num_times > 0
  variables = networks.initialise(network, training.size, jax.random.key(seed), stored)
  own = store.flatten(variables).keys()
  if training.start:
    variables, own = _started(name, run, variables)
  variables, taken = initial_weights.begin(name, config, run.workdir, variables, own)
  loss = _make_loss(networks.NETWORKS[name].learns_fixations, training.size)
  update, train_step = _make_step(network, loss, training, run.mesh)
  inputs = _inputs(name, run, variant)
  items = inputs.pop("items", None)
  items = pipeline.trainable_items(records, inputs.get("maps")) if items is None else items
  apart = validation.choose(records.tags, config.data.left_out, config.seed)
  is_apart = apart[records.clip_of_frame[items]]
  # Whole frames are not to be cropped, which would cost a tenth of a small network's step.
  cropped, kept = "boxes" in inputs, {"box": training.min_scale < 1 or "boxes" in inputs, "flip": training.flip}
  if stored:
    views = {"features": run.features(training.size, cropped), "stages": networks.stage_times(network)}
    inputs |= {"views": run.views, **views}
    kept = {"box": "maps" in inputs and run.config.features.views > 2, "flip": "maps" in inputs}

  def batches(start: int, stop: int, of_apart: bool = False) -> Iterator[Mapping[str, np.ndarray]]:
    drawn = pipeline.batches(
      records,
      items=items[is_apart == of_apart],
      partners=None if of_apart else ~apart,
      seed=seed,
      global_batch=training.batch,
      start_step=start,
      stop_step=stop,
      num_times=network.num_times,
      sound=network.hears,
      # A crop is enlarged, so it is cut from all the pixels that are stored.
      decode_size=records.side if cropped else training.size,
      scaled_to=training.size,
      min_scale=training.min_scale,
      flip=training.flip,
      granularity=networks.NETWORKS[name].companions,
      host=jax.process_index(),
      num_hosts=jax.process_count(),
      **inputs,
    )
    return ({key: x for key, x in batch.items() if kept.get(key, True)} for batch in drawn)

  state = loop.train(
    name,
    variant.folder,
    step.make_state(variables, update),
    lambda mesh: train_step,
    batches,
    records.names,
    run.mesh,
    training.steps,
    config.checkpoint_every,
    config.log_every,
  )
  judged = {}
  if is_apart.any():
    steps = -(-int(is_apart.sum()) // training.batch)  # the last batch may show some frames once more
    metrics = loop.judge(step.make_judge(network, loss), state.variables(), batches(0, steps, of_apart=True), run.mesh)
    judged = {"left_out": {"clips": int(apart.sum()), **{key: round(value, 4) for key, value in metrics.items()}}}
    tqdm.write(f"{name}: on clips left out, {', '.join(f'{key} {value:.4g}' for key, value in metrics.items())}")
  if jax.process_index() != 0:
    return {}
  sha256 = store.save(variant.folder / "weights.safetensors", state.variables())
  about = {"sha256": sha256, **judged, "steps": training.steps, "init": taken, "environment": checkpoint.environment()}
  if networks.NETWORKS[name].companions == "cross":
    about["clips_alone_in_tag"] = int(np.sum(Tags(records.tags * ~apart[:, None], records.num_frames).alone[~apart]))
  return about


def split(name: str, run: Run) -> dict[str, Any]:
  """Gives one of the students that were trained together its own weights; returns what `done.json` says.

  Raises:
    WeightsError: the weights of the three cannot be read.
  """
  if jax.process_index() != 0:
    return {}
  found = store.unflatten(store.read(run.folder(networks.ALL_STUDENTS) / "weights.safetensors"))
  run.folder(name).mkdir(parents=True, exist_ok=True)
  sha256 = store.save(run.folder(name) / "weights.safetensors", shared_students.split(found, name))
  return {"sha256": sha256, "environment": run.done(networks.ALL_STUDENTS)["environment"]}


def folds(num_clips: int, seed: int) -> np.ndarray:
  """The fold (num_clips,) of every clip: a tagger judges the fold that it has not learned from."""
  return np.random.default_rng(seed).permutation(num_clips) % networks.NUM_FOLDS


@functools.lru_cache(maxsize=1)
def _make_loss(is_student: bool, size: int) -> step.Loss:
  return (step.fixation_loss if is_student else step.classification_loss)(size)


@functools.lru_cache(maxsize=1)
def _make_step(network: Any, loss: step.Loss, training: Training, mesh: jax.sharding.Mesh) -> tuple[Any, Any]:
  """The optimiser and the jitted step; once for networks in a row that differ in nothing but what they learn from."""
  choice = training.optimizer
  schedule = optimizer.make_schedule(choice.learning_rate, training.steps, choice.warmup, choice.schedule)
  update = optimizer.make_optimizer(choice.name, schedule, choice.momentum, choice.weight_decay, choice.multipliers)
  return update, step.make_train_step(network, loss, update, mesh, training.frozen)


def _started(name: str, run: Run, variables: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
  """Initial variables, with those of finished networks where they fit; of several that fit the first one's.

  Returns:
    The variables, and the names of those that no other network had.
  """
  start = networks.training_of(name, run.config).start
  own = None
  for source in reversed(start):
    found = store.unflatten(store.read(run.folder(source) / "weights.safetensors"))
    if name == networks.ALL_STUDENTS:
      found = shared_students.join(found)
    variables, kept = store.merge(variables, found)
    own = set(kept) if own is None else own & set(kept)
  # Of several students, their parts.
  new = sorted({parts[parts[0] in networks.STUDENTS] for parts in (key.split("/")[1:] for key in own)})
  tqdm.write(f"{name}: starts from {', '.join(start)}; new: {', '.join(new) or 'nothing'}")
  return variables, own


def _inputs(name: str, run: Run, variant: Variant) -> dict[str, Any]:
  """What a network learns from beside frames, sound and tags: arguments of `stajax.data.pipeline.batches`."""
  records = run.records
  heard = records.has_sound[records.clip_of_frame]
  if name in networks.TAGGERS:
    others = folds(records.num_clips, run.config.seed) != networks.TAGGERS.index(name)
    return {"items": np.flatnonzero(heard & others[records.clip_of_frame])}
  if name == networks.SWITCH:
    labels = run.frame_values("tag_heard")
    return {"items": np.flatnonzero(heard & (labels != NOT_JUDGED)), "labels": labels.astype(np.float32)[:, None]}
  inputs: dict[str, Any] = {}
  if networks.NETWORKS[name].is_switched and not variant.always_heard:
    inputs["switch"] = run.frame_values("switch")
  if networks.sees_crops(name, run.config):
    inputs["boxes"] = run.frame_values("boxes")
  if networks.NETWORKS[name].learns_fixations:
    inputs["maps"] = MapSet.open(run.workdir / "maps" / "scam_plus", records)
  return inputs
