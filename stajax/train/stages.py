"""The stage graph: which network learns from what. A finished stage has a `done.json` and is not run again.

  data ─┬─ s_coarse, st_coarse ─────────────────────────────────────────┐
        └─ tagger_0…2 ─ tag_heard ─ switch ─ switch_values ─ sa_coarse ─┴─ scam_coarse
  scam_coarse ─┬─ s, st, sa ───────────────────────┐
               └─ s_plus_*, st_plus_*, sa_plus_* ──┴─ scam_plus ─ sta, sta_plus_* ─ model ─ report

With `students.backbone` shared, scam_plus ─ students ─ sta, sta_plus_* ─ model: the three are trained as one network,
and each then gets its own weights file.

Where files lie: `stajax.train.workdir`.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from stajax import companions, networks
from stajax import config as configuration
from stajax import model as models
from stajax.config import Config, ConfigError
from stajax.data.frame_table import FrameTableWriter
from stajax.data.map_set import MapSet, MapWriter
from stajax.data.shards import RecordError
from stajax.files import write_json, write_text
from stajax.grid import reflect
from stajax.inference.class_maps import ClipSources, switch_values
from stajax.inference.clip import Clip
from stajax.inference.dense import DenseNetwork
from stajax.maps.pseudo import pseudo_fixations
from stajax.nets.shared_students import COMMON
from stajax.prepare.embedded import prepare_heldout, prepare_synthetic
from stajax.prepare.synthetic import Settings
from stajax.train import checkpoint, external_taggers, initial_weights, train_network
from stajax.train.workdir import NOT_JUDGED, Run, clip_tags
from stajax.weights import store

_POOL_CHUNK = 32


class StageError(ValueError):
  """A work folder that cannot be used; one line."""


@dataclass(frozen=True)
class Stage:
  """One node of the graph: `run` does the work and returns what `done.json` says about it."""

  name: str
  needs: tuple[str, ...]
  run: Callable[[Run], dict[str, Any]]


def run_all(config: Config, workdir: Path) -> str:
  """Runs what is not done yet, in order.

  Returns:
    A one-line summary.

  Raises:
    StageError: the folder belongs to another configuration.
    ConfigError: the configuration cannot be run here.
    TrainingError, RecordError: see `stajax.train.loop`, `stajax.data.records`.
  """
  _check(config)
  parts = initial_weights.check(config, workdir)  # before the folder is claimed
  _claim(config, workdir)
  initial_weights.keep(parts, config, workdir)
  multihost_utils.sync_global_devices("initial parts")
  run, started, names = Run(config, workdir), time.monotonic(), []
  if config.hearing.kind != "trained":
    external_taggers.check(run)
  for stage in graph(config):
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
      write_json(run.folder(stage.name) / "done.json", {"stage": stage.name, "seconds": seconds, **about})
    multihost_utils.sync_global_devices(f"{stage.name} done")
    names.append(stage.name)
  took = f"{len(names)} stages in {time.monotonic() - started:.0f} s" if names else "everything was done already"
  return f"{config.name}: {took}; report: {workdir / 'report' / 'index.html'}, model: {workdir / 'model'}"


def _check(config: Config) -> None:
  devices = jax.device_count()
  order, kind = [stage.name for stage in graph(config)], config.hearing.kind
  for name in (name for name in train_network.TRAINED if name in order):
    training, field = networks.training_of(name, config), networks.NETWORKS[name].config_field
    if training.batch % devices:
      raise ConfigError(f"{field}.batch is {training.batch}, expected a multiple of the {devices} devices")
    earlier = [stage for stage in order[: order.index(name)] if stage in train_network.ORDER]
    if unknown := [start for start in training.start if start not in earlier]:
      expected = f"one of {', '.join(earlier)}" if earlier else "nothing, as it is trained first"
      if unknown[0] in networks.TAGGERS and unknown[0] not in order:
        expected += f" (with hearing.kind {kind!r} no taggers are trained)"
      raise ConfigError(f"{field}.start has {unknown[0]!r}, expected {expected}")
  if config.shares_students:
    if config.has_frozen_backbone:
      raise ConfigError("students.backbone is shared, but with network.backbone frozen all networks share one already")
    parts = (*COMMON, *networks.STUDENTS)
    if unknown := set(config.sta.frozen) - set(parts):
      raise ConfigError(f"sta.frozen has {min(unknown)!r}, expected of shared students some of {', '.join(parts)}")
  if config.has_frozen_backbone and "visual" not in config.init:
    raise ConfigError("network.backbone is frozen, expected its weights: --init visual=FILE")
  if config.data.source == "records" and not config.data.path:
    raise ConfigError("data.path is missing: the folder that `stajax prepare` wrote")
  if kind == "yamnet" and config.data.source == "synthetic":
    raise ConfigError("hearing.kind is 'yamnet', which needs data.source records: it hears media files")
  if (kind == "vggsound") != (config.hearing.weights is not None):
    raise ConfigError(f"hearing.weights is {config.hearing.weights!r}, expected a file with hearing.kind vggsound only")


def _claim(config: Config, workdir: Path) -> None:
  """Saves the resolved configuration, or holds it against the one that is there."""
  path = workdir / "config.json"
  if path.is_file():
    text = path.read_text(encoding="utf-8", errors="replace")
    changes = configuration.differences(configuration.loads(text, str(path)), config)
    if changes:
      raise StageError(f"{workdir}: was begun with another configuration ({'; '.join(changes)}); use another --workdir")
  elif jax.process_index() == 0:
    workdir.mkdir(parents=True, exist_ok=True)
    write_text(path, configuration.dumps(config))


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
  # Each tagger learns from the other folds.
  own_taggers = run.config.hearing.kind == "trained"
  if own_taggers and len(set(train_network.folds(records.num_clips, run.config.seed)[records.has_sound])) < 2:
    heard = f"{int(records.has_sound.sum())} of {records.num_clips} clips have sound"
    raise RecordError(f"{records.path}: {heard}, too few to learn when it belongs to what is seen")
  return {"clips": records.num_clips, "frames": records.total_frames, "provenance": records.provenance}


def _judge_sound(run: Run) -> dict[str, Any]:
  """The switch's labels: whether a tagger that has not learned from the clip hears its tag, for every frame."""
  if run.config.hearing.kind != "trained":
    return _judge_off_the_shelf(run)
  records, path = run.records, run.table("tag_heard")
  fold = train_network.folds(records.num_clips, run.config.seed)
  if not path.exists():
    writer = FrameTableWriter(path, records)
    for clip in run.each_clip(writer, "what is heard"):
      heard = np.zeros(int(records.num_frames[clip]), np.uint8)
      if records.has_sound[clip]:
        tagger = run.tagger(networks.TAGGERS[fold[clip]])
        confidences = tagger(run.training_clip(clip))
        heard[:] = external_taggers.heard(confidences, clip_tags(records, clip), run.config.heard_share)
      writer.write(clip, heard)
    _finish(writer, {"sha256": {name: run.done(name)["sha256"] for name in networks.TAGGERS}})
  heard = run.frame_values("tag_heard")
  return {"frames": len(heard), "tag_heard": int(heard.sum())}


def _judge_off_the_shelf(run: Run) -> dict[str, Any]:
  """The same by an off-the-shelf tagger; clips that have a tag that it does not cover are not judged."""
  records, path, ears = run.records, run.table("tag_heard"), external_taggers.open_ears(run)
  if jax.process_index() == 0:
    write_text(run.folder("tag_heard") / external_taggers.TABLE, ears.text)  # another table is refused from now on
  if not path.exists():
    writer = FrameTableWriter(path, records)
    for clip in run.each_clip(writer, "what is heard"):
      heard = np.zeros(int(records.num_frames[clip]), np.uint8)
      if records.has_sound[clip]:
        heard[:] = NOT_JUDGED
        if ears.judged[clip]:
          heard[:] = external_taggers.heard(ears.hear(clip), clip_tags(records, clip), run.config.heard_share)
      writer.write(clip, heard)
    _finish(writer, ears.made_with)
  return external_taggers.summary(ears, records, run.frame_values("tag_heard"))


def _turn_switch(run: Run) -> dict[str, Any]:
  """The audio switch φ of every training frame; on where there is sound that no tagger could judge."""
  path, judged = run.table("switch"), run.frame_values("tag_heard") != NOT_JUDGED
  if not path.exists():
    writer = FrameTableWriter(path, run.records)
    for clip in run.each_clip(writer, "audio switch"):
      values = switch_values(run.dense(networks.SWITCH), run.training_clip(clip))
      first = int(run.records.first_frame[clip])
      values[~judged[first : first + len(values)]] = 1
      writer.write(clip, values.astype(np.uint8))
    _finish(writer, {"sha256": run.done(networks.SWITCH)["sha256"]})
  values = run.frame_values("switch")
  agrees = np.mean((values == run.frame_values("tag_heard"))[judged])
  return {"frames": len(values), "on": int(values.sum()), "agrees_with_tagger": round(float(agrees), 4)}


def _find_boxes(run: Run) -> dict[str, Any]:
  """Coarse SCAM of every training frame, and the boxes of its fine crops."""
  path = run.table("boxes")
  if not path.exists():
    writer = FrameTableWriter(path, run.records)
    for clip in run.each_clip(writer, "coarse SCAM"):
      sources = ClipSources(run.networks, run.training_clip(clip), clip_tags(run.records, clip), clip)
      writer.write(clip, sources.boxes())
    _finish(writer, {"sha256": {name: run.done(name)["sha256"] for name in networks.COARSE}})
  boxes = run.frame_values("boxes")
  area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
  return {"frames": len(boxes), "whole_frames": int(np.sum(area == 1)), "mean_area": round(float(area.mean()), 4)}


def _make_pseudo_fixations(run: Run) -> dict[str, Any]:
  """SCAM+ of every training frame, smoothed and cut, as a map set."""
  records, settings, path = run.records, run.config.maps, run.workdir / "maps" / "scam_plus"
  if jax.process_index() == 0:
    run.folder("scam_plus").mkdir(parents=True, exist_ok=True)
    store.save(run.folder("scam_plus") / models.COMPANIONS, stored_companions(run, run.dense))
  multihost_utils.sync_global_devices("companions written")
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = MapWriter(path, records)
    for clip in run.each_clip(writer, "pseudo-fixations"):
      sources = ClipSources(run.networks, run.training_clip(clip), clip_tags(records, clip), clip)
      maps, found = sources.selected((*networks.FINE, *networks.GRANULAR))
      writer.write(clip, *pseudo_fixations(maps, found, settings.reach, settings.threshold))
    _finish(writer, {"kind": "scam_plus", "sha256": {name: run.done(name)["sha256"] for name in networks.SOURCES}})
  skipped = int(np.sum(MapSet.open(path, records).weights == 0))
  return {"frames": records.total_frames, "frames_without_target": skipped}


def stored_companions(run: Run, network: Callable[[str], DenseNetwork]) -> dict[str, np.ndarray]:
  """Fragments of training clips of every category, as networks with cross-clip companions see them.

  Args:
    network: of a name of these networks.

  Returns:
    `stajax.model.Model.companions`.
  """
  records = run.records
  items = companions.pool_items(records.tags, records.num_frames, run.config.seed)
  place = np.array([(tag, i) for tag, members in enumerate(items) for i in range(len(members))])
  chosen = np.concatenate(items)
  clips = np.full((len(items), max(map(len, items))), -1, np.int32)
  clips[*place.T] = chosen[:, 0]
  result = {"clips": clips}
  for start in range(0, len(chosen), _POOL_CHUNK):
    part = slice(start, start + _POOL_CHUNK)
    for name, nodes in _pool_nodes(run, network, chosen[part].tolist()).items():
      if name not in result:
        result[name] = np.zeros((*clips.shape, *nodes.shape[1:]), np.float16)
      result[name][*place[part].T] = nodes
  return result


def _pool_nodes(
  run: Run, network: Callable[[str], DenseNetwork], items: list[tuple[int, int]]
) -> dict[str, np.ndarray]:
  """Fragments (n, h, w, c) float16 of (clip, frame) pairs, by what `stored_companions` calls them."""
  # Every fragment's three frames in a row, so that all of them are one clip: its middle frames are wanted.
  samples, switch, boxes = [], [], []
  for clip, frame in items:
    whole = run.training_clip(clip)
    for at in reflect(np.arange(frame - 1, frame + 2), len(whole)):
      samples.append(whole.samples[at])
      switch.append(whole.switch[at])
      boxes.append(whole.boxes[at])
  made, middles = Clip(samples, boxes=np.array(boxes)), np.arange(1, len(samples), 3)
  switches = {"": np.array(switch), models.HEARD: np.ones(len(samples))}
  return {
    name + suffix: np.asarray(network(name).nodes(made.with_switch(values))[middles], np.float16)
    for name in networks.GRANULAR
    if networks.NETWORKS[name].companions == "cross"
    for suffix, values in switches.items()
    if not suffix or networks.NETWORKS[name].hears
  }


def _finish(writer: MapWriter | FrameTableWriter, summary: dict[str, Any]) -> None:
  if jax.process_index() == 0:
    writer.finish(summary)
  multihost_utils.sync_global_devices(f"{writer.path.name} written")


def _save_model(run: Run) -> dict[str, Any]:
  sha256 = {name: run.done(name)["sha256"] for name in networks.MODEL_NETWORKS}
  if jax.process_index() == 0:
    records, files = run.records, {name: run.folder(name) / "weights.safetensors" for name in networks.MODEL_NETWORKS}
    if run.config.has_frozen_backbone:
      files["visual"] = initial_weights.path(run.workdir, "visual")
    models.save(
      run.workdir / "model",
      files,
      run.companions,
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
  from stajax.train import report  # loads plotting

  return report.write(run) if jax.process_index() == 0 else {}


def _training(name: str, *needs: str) -> Stage:
  return Stage(name, needs, partial(train_network.train, name))


GRAPH = (
  Stage("data", (), _prepare_data),
  _training("s_coarse", "data"),
  _training("st_coarse", "data"),
  *(_training(name, "data") for name in networks.TAGGERS),
  Stage("tag_heard", networks.TAGGERS, _judge_sound),
  _training(networks.SWITCH, "tag_heard"),
  Stage("switch_values", (networks.SWITCH,), _turn_switch),
  _training("sa_coarse", "switch_values"),
  Stage("scam_coarse", networks.COARSE, _find_boxes),
  *(_training(name, "scam_coarse") for name in networks.FINE),
  *(_training(name, "scam_coarse") for name in networks.GRANULAR),
  Stage("scam_plus", (*networks.FINE, *networks.GRANULAR), _make_pseudo_fixations),
  *(_training(name, "scam_plus") for name in networks.STUDENTS),
  Stage("model", networks.STUDENTS, _save_model),
  Stage("report", ("model",), _report),
)
"""All stages, in an order in which they can run."""


def graph(config: Config) -> tuple[Stage, ...]:
  """The stages of a configuration: an off-the-shelf tagger takes the place of own ones, and students may be trained as
  one network."""
  stages = GRAPH
  if config.hearing.kind != "trained":
    kept = (stage for stage in stages if stage.name not in networks.TAGGERS)
    stages = tuple(replace(stage, needs=("data",)) if stage.needs == networks.TAGGERS else stage for stage in kept)
  if config.shares_students:
    at = [stage.name for stage in stages].index(networks.STUDENTS[0])
    parts = (Stage(name, (networks.ALL_STUDENTS,), partial(train_network.split, name)) for name in networks.STUDENTS)
    together = (_training(networks.ALL_STUDENTS, *stages[at].needs), *parts)
    stages = (*stages[:at], *together, *stages[at + len(together) - 1 :])
  return stages
