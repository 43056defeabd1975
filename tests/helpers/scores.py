"""Makes small trees in the STAViS layout, and scores several frames of a video."""

import numpy as np

from stajax.prepare.tree_files import write_fold_lists, write_video
from stajax.scoring import protocol

SIZE = (24, 32)


def write_tree(root, database, lists, num_frames=6):
  rng = np.random.default_rng(len(database))
  for name in dict.fromkeys(name for rows in lists for name in rows):
    frames = np.zeros((num_frames, *SIZE, 3), np.uint8)
    fixations = rng.random((num_frames, *SIZE)) < 0.02
    densities = rng.integers(0, 256, (num_frames, *SIZE), dtype=np.uint8)
    write_video(root, database, name, frames, None, zip(fixations, densities))
  rows = [[(name, num_frames, 8.0) for name in names] for names in lists]
  write_fold_lists(root, database, *rows)


def score_frames(predictions, fixations, densities, union, seeds):
  """Returns the scores (n,) of n frames by each metric, for maps (n, h, w) of any size."""
  rows = [
    protocol.score_frame(protocol.prepare_map(prediction, union.shape), fixated, density, union, int(seed))
    for prediction, fixated, density, seed in zip(predictions, fixations, densities, seeds, strict=True)
  ]
  return {metric: np.array([row[metric] for row in rows]) for metric in protocol.METRICS}
