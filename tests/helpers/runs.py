"""Runs of a training on tiny records, with stages that seem to be finished."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from stajax.config import Config, Training
from stajax.data.records import Records
from stajax.train.run import Run, open_run

TRAINED = tuple(name for name, info in Config.model_fields.items() if info.annotation is Training)
"""The fields of the configuration that say how networks are trained."""


def train_all(**changes: Any) -> dict[str, Training]:
  """Returns the same settings for all networks, with batches for eight devices."""
  return {name: Training(**{"batch": 8, **changes}) for name in TRAINED}


def make_run(folder: Path, records: Records, config: Config | None = None) -> Run:
  """Returns a run whose training clips are `records`."""
  run = open_run(config or Config(name="a", **train_all()), folder)
  run.data.records = records
  return run


def set_table(run: Run, name: str, values: np.ndarray) -> None:
  """Makes a table of the training frames seem to be finished."""
  run.data._tables[name] = values


def finish(run: Run, *stages: str, **about: Any) -> None:
  """Makes stages seem to be finished; `about` is what they said, by default the name as the digest of the weights."""
  for stage in stages:
    run.workdir.stage(stage).mkdir(parents=True, exist_ok=True)
    (run.workdir.stage(stage) / "done.json").write_text(json.dumps(about or {"sha256": stage}))
