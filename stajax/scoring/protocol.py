"""The `stavis` evaluation protocol: frames to scores, scores to videos, videos to sets.

Every score is a pure function of the data and of a seed that comes from (seed, database, video, frame): it does not
depend on the order of the work or on the number of processes.
"""

import hashlib
from typing import Literal

import numpy as np

from stajax.scoring import metrics
from stajax.scoring.resize import imresize, postprocess_map

METRICS = ("auc_judd", "s_auc", "nss", "sim", "cc")
SPLITS = 100  # draws of s-AUC
STEP = 0.1  # between its thresholds

NanPolicy = Literal["stavis", "zero"]


def frame_seed(seed: int, database: str, video: str, frame: int) -> int:
  """A seed for one frame (0-based), the same on every machine and for every method."""
  text = "\0".join([str(seed), database, video, str(frame)])
  return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def score_frames(
  predictions: np.ndarray,
  fixations: np.ndarray,
  densities: np.ndarray,
  union: np.ndarray,
  seeds: np.ndarray,
) -> dict[str, np.ndarray]:
  """Scores n frames of one video.

  Args:
    predictions: (n, h, w) uint8 or float in [0, 1], at any size; (1, h, w) is one map for all frames.
    fixations: (n, H, W) bool.
    densities: (n, H, W) uint8.
    union: (H, W) bool, pixels fixated in any frame of the video.
    seeds: (n,) from `frame_seed`.

  Returns:
    (n,) float64 for each of `METRICS`, NaN where a metric is not defined.
  """
  size = union.shape
  rows = []
  prepared = None
  for i in range(len(fixations)):
    if prepared is None or len(predictions) > 1:
      prepared = prepare_map(predictions[i], size)
    rows.append(score_frame(prepared, fixations[i], densities[i], union, int(seeds[i])))
  table = np.array(rows, np.float64).reshape(len(rows), len(METRICS))
  return dict(zip(METRICS, table.T))


def prepare_map(prediction: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """(h, w) uint8 or float in [0, 1] → (H, W) float64 as the protocol compares it."""
  return imresize(postprocess_map(prediction), size)


def score_frame(
  prepared: np.ndarray, fixations: np.ndarray, density: np.ndarray, union: np.ndarray, seed: int
) -> tuple[float, ...]:
  """The scores of one prepared map, in the order of `METRICS`."""
  rng = np.random.default_rng(seed)
  return (
    metrics.auc_judd(prepared, fixations, rng),
    metrics.s_auc(prepared, fixations, union & ~fixations, rng, SPLITS, STEP),
    metrics.nss(prepared, fixations),
    metrics.sim(prepared, density),
    metrics.cc(prepared, density),
  )


def average_frames(values: np.ndarray, nan_policy: NanPolicy = "stavis") -> float:
  """One video's score from those of its frames.

  Args:
    values: (n,) float64.
    nan_policy: `stavis` leaves undefined scores out; `zero` counts them as 0 (as ViNet's evaluation does).

  Returns:
    NaN if no frame has a defined score under `stavis`, or without frames.
  """
  values = np.asarray(values, np.float64)
  values = np.nan_to_num(values, nan=0.0) if nan_policy == "zero" else values[~np.isnan(values)]
  return float(values.mean()) if values.size else np.nan


def average_videos(values: np.ndarray, entries: np.ndarray) -> float:
  """One set's score from those of its videos: the mean over all list entries of all test lists pooled.

  Args:
    values: (v,) float64; videos without a defined score (NaN) are left out.
    entries: (v,) how many times each video is listed.
  """
  values, entries = np.asarray(values, np.float64), np.asarray(entries, np.float64)
  defined = ~np.isnan(values) & (entries > 0)
  if not defined.any():
    return np.nan
  return float((values[defined] * entries[defined]).sum() / entries[defined].sum())
