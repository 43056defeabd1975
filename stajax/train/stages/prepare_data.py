"""The stage `data`: renders the embedded clips, or checks the prepared ones."""

import os
from typing import Any

import jax
from jax.experimental import multihost_utils

from stajax.config import ConfigError
from stajax.data.shards import RecordError
from stajax.prepare.synthetic import Settings
from stajax.prepare.synthetic_records import ClipRange, prepare_synthetic
from stajax.train.run import Run


def prepare_data(run: Run) -> dict[str, Any]:
  """Prepares the training clips; returns what `done.json` says.

  Raises:
    ConfigError: The rate of the clips differs from that of the configuration.
    RecordError: The records cannot be used, no clip has a tag, or too few of them have sound.
  """
  if run.config.data.source == "synthetic" and jax.process_index() == 0:
    _render(run)
  multihost_utils.sync_global_devices("data written")
  records = run.data.records
  _check_tags(run)
  _check_rate(run)
  if run.config.hearing.kind == "trained":
    _check_sound(run)
  return {"clips": records.num_clips, "frames": records.total_frames, "provenance": records.provenance}


def _render(run: Run) -> None:
  embedded, folder = run.config.data.synthetic, run.data.folder
  settings = Settings(size=embedded.size, rate=run.config.data.rate, seconds=embedded.seconds)
  training = ClipRange(embedded.seed, embedded.clips, "train", settings)
  heldout = ClipRange(embedded.seed, embedded.held_out, "heldout", settings)
  processes = len(os.sched_getaffinity(0))
  prepare_synthetic(folder / "train", training, processes)
  prepare_synthetic(folder / "heldout", heldout, processes, folder / "heldout_tree")


def _check_tags(run: Run) -> None:
  records = run.data.records
  if not (records.tags > 0).any():
    found = f"none of the {records.num_clips} clips has a tag"
    expected = "expected clips with tags, which are all that the method learns from"
    raise RecordError(f"{records.path}: {found}, {expected} (for a tree: `stajax prepare … --tags`)")


def _check_rate(run: Run) -> None:
  found, expected = set(run.data.records.rate.tolist()), run.config.data.rate
  if found != {expected}:
    path = run.data.records.path
    raise ConfigError(f"{path}: clips have {sorted(found)} frames a second, data.rate is {expected}")


def _check_sound(run: Run) -> None:
  """Checks that clips of two folds have sound, since each tagger learns from the folds that it does not label."""
  records = run.data.records
  if len(set(run.data.folds[records.has_sound])) < 2:
    found = f"{int(records.has_sound.sum())} of {records.num_clips} clips have sound"
    raise RecordError(f"{records.path}: {found}, too few to learn when sound belongs to what is seen")
