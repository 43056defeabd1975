"""The stage `teacher_maps`: what a finished model predicts for every training frame, for a small student to learn.

The maps are without the factor of the centre, so that a part of a frame, or a mirrored frame, has the same part of the
map; the student's own configuration says whether its maps get the factor.
"""

import functools
from typing import Any

import numpy as np

from stajax import model as models
from stajax import networks
from stajax.config import Config, ConfigError
from stajax.data.map_set import MapWriter
from stajax.files import make_folder
from stajax.inference.clip import Clip, clip_samples
from stajax.inference.predictor import Predictor, to_uint8
from stajax.maps.pseudo import resize
from stajax.train.run import Run, TrainedNetworks
from stajax.train.stages.clip_by_clip import write_all


def check_teacher(config: Config) -> None:
  """Checks, before anything is trained for it, that the teacher can be read and has a rate that fits.

  Raises:
    ConfigError, ModelError: It cannot be used; one line.
  """
  _reach(config, models.load(config.students.teacher or "", ()))


def _reach(config: Config, teacher: models.Model) -> int:
  """Returns how many frames of the data lie between two of the teacher's grid, on which its neighbours in time are."""
  reach = round(config.data.rate / teacher.rate)
  if reach < 1 or reach * teacher.rate != config.data.rate:
    raise ConfigError(f"data.rate is {config.data.rate:g}, expected a multiple of students.teacher's {teacher.rate:g}")
  return reach


def ask_teacher(run: Run) -> dict[str, Any]:
  """Writes the teacher's maps of all training frames as a map set; returns what `done.json` says.

  Raises:
    ConfigError: The rate is not a multiple of the teacher's.
    ModelError, WeightsError: The teacher cannot be read.
  """
  config, path = run.config, run.workdir.pseudo_fixations
  teacher = models.load(config.students.teacher or "")
  reach = _reach(config, teacher)
  sha256 = {name: teacher.sha256[name] for name in networks.predicting_networks(teacher.config)}
  if not path.exists():
    make_folder(path.parent)
    usual = Predictor(teacher, config.inference_batch, centre=False)
    on = functools.cache(usual.on)

    def compute(clip: int, trained: TrainedNetworks) -> tuple[np.ndarray, np.ndarray]:
      return _predict(run, on(trained.device), clip, reach)

    write_all(MapWriter(path, run.data.records), compute, run, "teacher's maps", {"kind": "teacher", "sha256": sha256})
  return {"frames": run.data.records.total_frames, "teacher": sha256, "trained_on": teacher.trained_on}


def _predict(run: Run, predictor: Predictor, clip: int, reach: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the maps (n, size, size) uint8 of a clip, and weights (n,) float32 that are 1."""
  found = predictor.clip_maps(Clip(clip_samples(run.data.records, clip, predictor.side), reach))
  name = "final" if "final" in found else next(iter(found))
  size = run.config.maps.size
  maps = to_uint8(resize(found[name], (size, size)))
  return maps, np.ones(len(maps), np.float32)
