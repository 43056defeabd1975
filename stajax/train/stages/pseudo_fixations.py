"""The stages `scam_coarse` and `scam_plus`: the boxes of the fine crops, and the maps that students learn from."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from stajax.data.map_set import MapWriter
from stajax.files import make_folder
from stajax.inference.class_maps import ClipSources
from stajax.maps import pseudo
from stajax.networks import COARSE, FINE, granular_of, sources_of
from stajax.train.run import Run, TrainedNetworks
from stajax.train.stages.clip_by_clip import make_table, write_all
from stajax.train.stages.companion_pools import compute_companions
from stajax.train.training_data import clip_tags
from stajax.weights import store


def find_boxes(run: Run) -> dict[str, Any]:
  """Computes the coarse SCAM of every training frame and the box of its fine crop; returns what `done.json` says."""
  summary = {"sha256": run.workdir.sha256_of(*COARSE)}

  def compute(clip: int, trained: TrainedNetworks) -> np.ndarray:
    return _sources(run, clip, trained).boxes()

  boxes = make_table(run, "boxes", compute, "coarse SCAM", summary, read=COARSE)
  area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
  return {"frames": len(boxes), "whole_frames": int(np.sum(area == 1)), "mean_area": round(float(area.mean()), 4)}


def make_pseudo_fixations(run: Run) -> dict[str, Any]:
  """Computes SCAM+, or SCAM for STANet, of every training frame, smoothed and cut; returns what `done.json` says."""
  granular = granular_of(run.config)
  path = run.workdir.companions
  if jax.process_index() == 0 and not path.exists():
    make_folder(path.parent)
    store.save(path, compute_companions(run.data, run.config.seed, run.trained.dense, granular))
  multihost_utils.sync_global_devices("companions written")
  settings = run.config.maps

  def compute(clip: int, trained: TrainedNetworks) -> tuple[np.ndarray, np.ndarray]:
    maps, found = _sources(run, clip, trained).selected((*FINE, *granular))
    return pseudo.pseudo_fixations(maps, found, settings.reach, settings.threshold)

  path = run.workdir.pseudo_fixations
  if not path.exists():
    make_folder(path.parent)
    kind, sources = run.config.students.learn_from, sources_of(run.config)
    summary = {"kind": kind, "sha256": run.workdir.sha256_of(*sources)}
    _ = run.trained.companions  # read once, before the devices ask for them
    write_all(MapWriter(path, run.data.records), compute, run, "pseudo-fixations", summary, read=sources)
  without_target = int(np.sum(run.data.pseudo_fixations().weights == 0))
  return {"frames": run.data.records.total_frames, "frames_without_target": without_target}


def _sources(run: Run, clip: int, trained: TrainedNetworks) -> ClipSources:
  """Returns the class maps of a training clip."""
  return ClipSources(trained.sources(), run.data.clip(clip), clip_tags(run.data.records, clip), clip)
