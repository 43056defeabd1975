"""Makes small trees in the STAViS layout, and scores several frames of a video."""

import itertools

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


def avimos_by_hand(prediction, fixations, density):
  """What the challenge's scorer of AViMoS computes, pixel by pixel; `fixations` are (row, column), some repeatedly."""
  eps = np.finfo(np.float32).eps
  prediction, density = (
    (x - x.min()) / (x.max() - x.min() + eps) for x in (prediction.astype(float), density.astype(float))
  )
  height, width = density.shape
  large = np.zeros((height, width))
  for i, j in np.ndindex(height, width):
    sides = zip((i, j), prediction.shape, (height, width))
    at = [(k + 0.5) * (n / m) - 0.5 for k, n, m in sides]
    at = [min(max(x, 0), n - 1) for x, n in zip(at, prediction.shape)]
    (y, dy), (x, dx) = ((int(v), v - int(v)) for v in at)
    y1, x1 = min(y + 1, prediction.shape[0] - 1), min(x + 1, prediction.shape[1] - 1)
    top, bottom = (row[x] + (row[x1] - row[x]) * dx for row in (prediction[y], prediction[y1]))
    large[i, j] = top + (bottom - top) * dy  # in this form, equal values stay ties, as in OpenCV
  fixations = np.array(fixations)
  values = large[fixations[:, 0], fixations[:, 1]]
  a, b = ((x - x.mean()) / (x.std() + 1e-7) for x in (large, density))
  possible = large.size + len(fixations) - np.unique(fixations, axis=1).shape[-1]
  curve = [(0.0, 0.0)]
  for i, threshold in enumerate(sorted(values, reverse=True), start=1):
    curve.append((((large >= threshold).sum() - i) / (possible - len(fixations)), i / len(fixations)))
  curve.append((1.0, 1.0))
  return {
    "nss": a[fixations[:, 0], fixations[:, 1]].mean(),
    "cc": (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-7),
    "sim": np.minimum(large / (large.sum() + 1e-7), density / (density.sum() + 1e-7)).sum(),
    "auc_judd": sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in itertools.pairwise(curve)),
  }  # fmt: skip
