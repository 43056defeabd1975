"""What worker processes do: they read the ground truth, and score a few frames at a time.

Workers import this module, so its imports must stay light: neither JAX nor TensorFlow.
"""

import functools
from pathlib import Path

import numpy as np

from stajax.eyetracking import StavisError, read_density, read_eye_map
from stajax.scoring import protocol
from stajax.scoring.baselines import BASELINES
from stajax.scoring.frame import FrameMap, FrameTruth, without
from stajax.scoring.protocols import PROTOCOLS, density_of
from stajax.scoring.viewers import INTER_OBSERVER, inter_observer


def read_fixations_task(paths: list[Path], name: str) -> list[tuple[tuple[int, int], np.ndarray]]:
  """Returns the size of each frame, and its fixated positions (k,) int32 by the protocol of that name.

  Raises:
    StavisError: A file cannot be read, or its values are no numbers of fixations.
  """
  found = []
  for path in paths:
    eye_map = read_eye_map(path)
    try:
      positions = protocol.positions_of(eye_map, name)
    except ValueError as error:
      raise StavisError(f"{path}: {error}") from error
    found.append((eye_map.shape, positions.astype(np.int32)))
  return found


def score_task(
  size: tuple[int, int],
  positions: list[np.ndarray],
  others: list[np.ndarray],
  density_paths: list[Path],
  maps: dict[str, np.ndarray],
  seeds: list[int],
  settings: protocol.Settings,
  compare_viewers: bool,
) -> dict[str, dict[str, np.ndarray]]:
  """Scores at most TASK_FRAMES frames by every method; runs in a worker, one frame's images in memory at a time."""
  name, further = settings.protocol, settings.further
  baselines, buffer, used = _prepared_baselines(size, name), np.empty(size), PROTOCOLS[name]
  between = (INTER_OBSERVER,) if compare_viewers else ()
  rows: dict[str, list[dict[str, float]]] = {method: [] for method in (*baselines, *between, *maps)}
  for k, (frame_positions, other, path, seed) in enumerate(zip(positions, others, density_paths, seeds)):
    density = read_density(path)
    if density.shape != size:
      raise StavisError(f"{path}: density {density.shape}, expected {size} as the fixations have")
    if used.negatives != "dataset":
      other = without(other, frame_positions)
    truth = FrameTruth(frame_positions, density_of(density, used), other)
    for method, prepared in baselines.items():
      rows[method].append(protocol.score(prepared, truth, seed, name, further))
    if compare_viewers:
      rows[INTER_OBSERVER].append(inter_observer(frame_positions, other, size, seed, settings))
    scores: dict[tuple, dict[str, float]] = {}  # an ablation's row often has the maps of another method
    for method, values in maps.items():
      key = values[k].dtype, values[k].shape, values[k].tobytes()
      if key not in scores:
        prepared = FrameMap(protocol.prepare_map(values[k], size, buffer, name))
        scores[key] = protocol.score(prepared, truth, seed, name, further)
      rows[method].append(scores[key])
  return {
    method: {metric: np.array([row[metric] for row in table], np.float64) for metric in settings.metrics}
    for method, table in rows.items()
  }


@functools.lru_cache(maxsize=2)
def _prepared_baselines(size: tuple[int, int], name: str) -> dict[str, FrameMap]:
  return {
    method: FrameMap(protocol.prepare_map(make_map(size), size, protocol=name))
    for method, make_map in BASELINES.items()
  }
