"""The stage graph: which network learns from what. A finished stage has a `done.json` and is not run again.

  data ─┬─ s, st, sa ─── scam ─── sta ─── model ─── report
        (classifiers)   (pseudo-fixations) (student)

Everything of a run is in its work folder:

  config.json            the resolved configuration
  data/                  rendered clips, where the source is `synthetic`
  stages/NAME/           done.json, weights.safetensors, checkpoints/, log.jsonl, tensorboard/
  maps/scam/             pseudo-fixations as records
  model/                 what `stajax.predict` takes
  report/                index.html, scores.json, …
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from stajax import config as configuration
from stajax import model as models
from stajax.config import Config, ConfigError
from stajax.data import pipeline
from stajax.data.map_set import MapSet, MapWriter
from stajax.data.prepare_synthetic import prepare_heldout, prepare_synthetic
from stajax.data.records import Records
from stajax.data.synthetic import Settings
from stajax.dense import DenseNetwork, Sample, clip_samples, concatenate
from stajax.maps.pseudo import pseudo_fixations, resize
from stajax.maps.scam import scam
from stajax.nets import weights
from stajax.training import checkpoint, loop, optimizer, step


class StageError(ValueError):
  """A work folder that cannot be used; one line."""


@dataclass(frozen=True)
class Stage:
  """One node of the graph: `run` does the work and returns what `done.json` says about it."""

  name: str
  needs: tuple[str, ...]
  run: Callable[["Run"], dict[str, Any]]


@dataclass
class Run:
  """What stages share: the configuration, the work folder and what they opened in it."""

  config: Config
  workdir: Path
  mesh: jax.sharding.Mesh = field(default_factory=step.make_mesh)

  def folder(self, stage: str) -> Path:
    return self.workdir / "stages" / stage

  def done(self, stage: str) -> dict[str, Any] | None:
    """What a finished stage said; None if it is not finished."""
    path = self.folder(stage) / "done.json"
    return json.loads(path.read_text()) if path.is_file() else None

  @property
  def data(self) -> Path:
    """The prepared folder: `train`, and `heldout` with `heldout_tree` where there are viewers."""
    return self.workdir / "data" if self.config.data.source == "synthetic" else Path(self.config.data.path or "")

  @cached_property
  def records(self) -> Records:
    return Records.open(self.data / "train")

  def dense(self, name: str) -> DenseNetwork:
    """A finished network, compiled once for all stages."""
    if name not in self._dense:
      training = models.training_of(name, self.config)
      network = models.make_network(name, self.config, len(self.records.categories))
      shapes = jax.eval_shape(network.init, jax.random.key(0), *models.example_inputs(network, training.size))
      variables = weights.load(self.folder(name) / "weights.safetensors", shapes)
      self._dense[name] = DenseNetwork(network, variables, training.size, self.config.inference_batch)
    return self._dense[name]

  @cached_property
  def _dense(self) -> dict[str, DenseNetwork]:
    return {}


def run_all(config: Config, workdir: Path) -> str:
  """Runs what is not done yet, in order.

  Returns:
    A one-line summary.

  Raises:
    StageError: the folder belongs to another configuration.
    ConfigError: the configuration cannot be run here.
    TrainingError, RecordError: see `stajax.training.loop`, `stajax.data.records`.
  """
  _check(config)
  _claim(config, workdir)
  run, started, names = Run(config, workdir), time.monotonic(), []
  for stage in GRAPH:
    if run.done(stage.name) is not None:
      continue
    missing = [need for need in stage.needs if run.done(need) is None]
    if missing:
      raise StageError(f"{workdir}: stage {stage.name} needs {', '.join(missing)}")
    since = time.monotonic()
    about = stage.run(run)
    multihost_utils.sync_global_devices(stage.name)
    if jax.process_index() == 0:
      seconds = round(time.monotonic() - since, 1)
      _write_json(run.folder(stage.name) / "done.json", {"stage": stage.name, "seconds": seconds, **about})
    multihost_utils.sync_global_devices(f"{stage.name} done")
    names.append(stage.name)
  took = f"{len(names)} stages in {time.monotonic() - started:.0f} s" if names else "everything was done already"
  return f"{config.name}: {took}; report: {workdir / 'report' / 'index.html'}, model: {workdir / 'model'}"


def _check(config: Config) -> None:
  devices = jax.device_count()
  for name in (*models.CLASSIFIERS, *models.STUDENTS):
    training = models.training_of(name, config)
    if training.batch % devices:
      raise ConfigError(f"{name}.batch is {training.batch}, expected a multiple of the {devices} devices")
  if config.data.source == "records" and not config.data.path:
    raise ConfigError("data.path is missing: the folder that `stajax prepare` wrote")


def _claim(config: Config, workdir: Path) -> None:
  """Saves the resolved configuration, or holds it against the one that is there."""
  path = workdir / "config.json"
  if path.is_file():
    changes = configuration.differences(configuration.loads(path.read_text(), str(path)), config)
    if changes:
      raise StageError(f"{workdir}: was begun with another configuration ({'; '.join(changes)}); use another --workdir")
  elif jax.process_index() == 0:
    workdir.mkdir(parents=True, exist_ok=True)
    _write_text(path, configuration.dumps(config))


def _prepare_data(run: Run) -> dict[str, Any]:
  """Renders the embedded clips, or looks at the prepared ones."""
  if run.config.data.source == "synthetic" and jax.process_index() == 0:
    embedded = run.config.data.synthetic
    settings = Settings(size=embedded.size, rate=run.config.data.rate, seconds=embedded.seconds)
    common = {"seed": embedded.seed, "settings": settings, "processes": len(os.sched_getaffinity(0))}
    prepare_synthetic(run.data / "train", num_clips=embedded.clips, **common)
    prepare_heldout(run.data / "heldout", run.data / "heldout_tree", num_clips=embedded.held_out, **common)
  multihost_utils.sync_global_devices("data written")
  records = run.records
  rates = set(records.rate.tolist())
  if rates != {run.config.data.rate}:
    expected = run.config.data.rate
    raise ConfigError(f"{records.path}: clips have {sorted(rates)} frames a second, data.rate is {expected}")
  return {"clips": records.num_clips, "frames": records.total_frames, "provenance": records.provenance}


def _train(name: str, run: Run) -> dict[str, Any]:
  """Trains one network, from its last checkpoint if there is one."""
  config, records = run.config, run.records
  training = models.training_of(name, config)
  network = models.make_network(name, config, len(records.categories))
  index = [stage.name for stage in GRAPH].index(name)
  variables = models.initialise(network, training.size, jax.random.fold_in(jax.random.key(config.seed), index))
  if training.start:
    sources = [weights.read(run.folder(source) / "weights.safetensors") for source in training.start]
    first = {key: x for source in reversed(sources) for key, x in source.items()}
    variables, own = weights.merge(variables, weights.unflatten(first))
    new = sorted({key.split("/")[1] for key in own})
    tqdm.write(f"{name}: starts from {', '.join(training.start)}; new: {', '.join(new) or 'nothing'}")
  choice = training.optimizer
  schedule = optimizer.make_schedule(choice.learning_rate, training.steps, choice.warmup, choice.schedule)
  update = optimizer.make_optimizer(
    choice.name, schedule, choice.momentum, choice.weight_decay, choice.multipliers
  )
  is_student = name in models.STUDENTS
  loss = (step.fixation_loss if is_student else step.classification_loss)(training.size)
  maps = MapSet.open(run.workdir / "maps" / "scam", records) if is_student else None

  def batches(start: int, stop: int) -> Iterator[Mapping[str, np.ndarray]]:
    drawn = pipeline.batches(
      records,
      seed=config.seed * len(GRAPH) + index,
      global_batch=training.batch,
      start_step=start,
      stop_step=stop,
      num_times=network.num_times,
      sound=network.hears,
      decode_size=training.size,
      min_scale=training.min_scale,
      flip=training.flip,
      maps=maps,
      host=jax.process_index(),
      num_hosts=jax.process_count(),
    )
    # Whole frames are not to be cropped, which would cost a tenth of a small network's step.
    unused = {key for key, used in (("box", training.min_scale < 1), ("flip", training.flip)) if not used}
    return ({key: x for key, x in batch.items() if key not in unused} for batch in drawn)

  state = loop.train(
    name,
    run.folder(name),
    step.make_state(variables, update),
    lambda mesh: step.make_train_step(network, loss, update, mesh, training.frozen),
    batches,
    records.names,
    run.mesh,
    training.steps,
    config.checkpoint_every,
    config.log_every,
  )
  if jax.process_index() != 0:
    return {}
  sha256 = weights.save(run.folder(name) / "weights.safetensors", state.variables())
  return {"sha256": sha256, "steps": training.steps, "environment": checkpoint.environment()}


def classify(run: Run, samples: list[Sample], tags: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """CAMs (j, n, h, w), SCAM (n, h, w) and whether any source is right (n,), of one clip by S, ST and SA."""
  results = [concatenate(run.dense(name).run(samples, select=tags)) for name in models.CLASSIFIERS]
  class_maps, confidences = (np.stack(parts) for parts in zip(*results))
  return scam(class_maps, confidences, tags)


def clip_tags(records: Records, clip: int) -> tuple[int, ...]:
  """Category indices of a clip's tags."""
  return tuple(np.flatnonzero(records.tags[clip]).tolist())


def _make_pseudo_fixations(run: Run) -> dict[str, Any]:
  """SCAM of every training frame, smoothed and cut, as a map set; clips that are done are not done again."""
  records, settings = run.records, run.config.maps
  path = run.workdir / "maps" / "scam"
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = MapWriter(path, records)
    mine = range(jax.process_index(), records.num_clips, jax.process_count())
    for clip in tqdm(mine, desc="pseudo-fixations", unit="clip", dynamic_ncols=True):
      if writer.has(clip):
        continue
      samples = clip_samples(records, clip, run.config.s.size)
      _, maps, found = classify(run, samples, clip_tags(records, clip))
      maps = resize(maps, (settings.size, settings.size))
      writer.write(clip, *pseudo_fixations(maps, found, settings.reach, settings.threshold))
    multihost_utils.sync_global_devices("maps staged")
    if jax.process_index() == 0:
      writer.finish({"kind": "scam", "sha256": {name: run.done(name)["sha256"] for name in models.CLASSIFIERS}})
    multihost_utils.sync_global_devices("maps written")
  skipped = int(np.sum(MapSet.open(path, records).weights == 0))
  return {"frames": records.total_frames, "frames_without_target": skipped}


def _save_model(run: Run) -> dict[str, Any]:
  names = (*models.CLASSIFIERS, *models.STUDENTS)
  sha256 = {name: run.done(name)["sha256"] for name in names}
  if jax.process_index() == 0:
    records = run.records
    models.save(
      run.workdir / "model",
      {name: run.folder(name) / "weights.safetensors" for name in names},
      run.config,
      categories=records.categories,
      rate=run.config.data.rate,
      side=records.side,
      trained_on=records.provenance,
      sha256=sha256,
      environment=checkpoint.environment(),
    )
  return {"sha256": sha256}


def _report(run: Run) -> dict[str, Any]:
  from stajax import reporting  # loads plotting

  return reporting.write(run) if jax.process_index() == 0 else {}


GRAPH = (
  Stage("data", (), _prepare_data),
  *(Stage(name, ("data",), partial(_train, name)) for name in models.CLASSIFIERS),
  Stage("scam", models.CLASSIFIERS, _make_pseudo_fixations),
  *(Stage(name, ("scam",), partial(_train, name)) for name in models.STUDENTS),
  Stage("model", models.STUDENTS, _save_model),
  Stage("report", ("model",), _report),
)
"""All stages, in an order in which they can run."""


def _write_json(path: Path, value: Any) -> None:
  _write_text(path, json.dumps(value, indent=2) + "\n")


def _write_text(path: Path, text: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  partial_path = path.with_name(path.name + ".partial")
  partial_path.write_text(text)
  os.replace(partial_path, path)
