"""The stage `model`: the folder that `stajax predict` takes."""

import dataclasses
from typing import Any

import jax

from stajax import model, networks
from stajax.train import checkpoint
from stajax.train.run import Run
from stajax.train.stages.confidence import measure_confidence


def save_model(run: Run) -> dict[str, Any]:
  """Saves the trained networks as a model folder; returns what `done.json` says."""
  names = networks.model_networks(run.config)
  sha256 = run.workdir.sha256_of(*names)
  if jax.process_index() == 0:
    curve = measure_confidence(run)
    records, files = run.data.records, {name: run.workdir.weights(name) for name in names}
    if run.config.has_frozen_backbone:
      files["visual"] = run.workdir.initial_part("visual")
    model.save(
      run.workdir.model,
      files,
      {} if run.config.is_distilled else run.trained.companions,
      run.config,
      categories=records.categories,
      rate=run.config.data.rate,
      side=records.side,
      trained_on=records.provenance,
      sha256=sha256,
      environment=checkpoint.environment(),
      confidence=None if curve is None else dataclasses.asdict(curve),
    )
  return {"sha256": sha256}
