"""Students for the rows of the paper's Table 1: STA, trained on pseudo-fixations that are made of a row's maps.

They lie in `ablation/student_ROW/` of the work folder of a finished training: `maps/`, and `sta/` with the weights.
What is finished is not done again.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stajax.data.map_set import MapWriter
from stajax.files import make_folder
from stajax.inference.ablation import row_maps
from stajax.inference.class_maps import ClipSources, Toggles
from stajax.maps import pseudo
from stajax.networks import COARSE, STUDENTS
from stajax.report.table_1 import Row
from stajax.train import train_network
from stajax.train.ablation_variants import RetrainingError, open_finished
from stajax.train.loop import TrainingError
from stajax.train.run import Run, TrainedNetworks
from stajax.train.stages.clip_by_clip import write_all
from stajax.train.training_data import clip_tags
from stajax.train.workdir import WEIGHTS


def train_students(workdir: Path, rows: Sequence[Row]) -> dict[str, Path]:
  """Trains the students of rows that have none yet.

  Args:
    workdir: The work folder of a finished training.
    rows: The rows.

  Returns:
    The file of the student's weights for each row, by the row's method.

  Raises:
    RetrainingError: The folder is not that of a finished training, or training failed.
    ConfigError, RecordError, WeightsError: A file in it cannot be used.
  """
  run = open_finished(workdir)
  return {row.method: _train_student(run, row) for row in rows}


def _train_student(run: Run, row: Row) -> Path:
  folder = run.workdir.variant(f"student_{row.method}")
  maps, weights = folder / "maps", folder / STUDENTS[0] / WEIGHTS
  if not maps.exists():
    make_folder(folder)
    summary = {"kind": row.method, "sources": list(row.sources)}

    def compute(clip: int, trained: TrainedNetworks) -> tuple[np.ndarray, np.ndarray]:
      return _targets(run, trained, row, clip)

    write_all(MapWriter(maps, run.data.records), compute, run, row.method, summary, read=(*COARSE, *row.sources))
  if not weights.is_file():
    try:
      train_network.train(STUDENTS[0], run, train_network.Variant(weights.parent, maps=maps))
    except TrainingError as error:
      raise RetrainingError(f"ablation/{folder.name}: {error}") from None
  return weights


def _targets(run: Run, trained: TrainedNetworks, row: Row, index: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the pseudo-fixations (n, h, w) of a training clip by a row's maps, and their weights (n,)."""
  sources = ClipSources(trained.sources(), run.data.clip(index), clip_tags(run.data.records, index), index)
  # A frame counts where one of the row's sources finds the tag, whatever the row's fusion is.
  _, found = sources.selected(row.sources, Toggles(row.always_heard, row.frl))
  settings = run.config.maps
  return pseudo.pseudo_fixations(row_maps(sources, row), found, settings.reach, settings.threshold)
