"""Scores several frames of a video."""

import numpy as np

from stajax.scoring import protocol


def score_frames(predictions, fixations, densities, union, seeds):
  """Returns the scores (n,) of n frames by each metric, for maps (n, h, w) of any size."""
  rows = [
    protocol.score_frame(protocol.prepare_map(prediction, union.shape), fixated, density, union, int(seed))
    for prediction, fixated, density, seed in zip(predictions, fixations, densities, seeds, strict=True)
  ]
  return {metric: np.array([row[metric] for row in rows]) for metric in protocol.METRICS}
