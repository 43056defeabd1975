"""Scores predicted maps on eye-tracking videos: joins `stajax.eyetracking` and `stajax.scoring`.

Maps come in chunks from a `MethodMaps` function, chunks are scored in worker processes, and what is kept are numbers.
The baselines `centre` and `uniform` are scored beside every method, on the same frames. Workers import neither JAX nor
TensorFlow (keep the imports of this module light).
"""

import collections
import contextlib
import functools
import multiprocessing
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from stajax.eyetracking import StavisError, StavisVideo, read_density, read_fixations
from stajax.maps.final import CENTRE_SIGMA as CENTRE_SIGMA  # for the report
from stajax.maps.final import centre_factor
from stajax.scoring import protocol

MethodMaps = Callable[[StavisVideo, Sequence[int]], Iterator[tuple[list[int], dict[str, np.ndarray]]]]
"""(video, 0-based frames) → chunks of (some of them, {method: (k, h, w) uint8}); a frame left out is not scored."""

BASELINES = ("centre", "uniform")
TASK_FRAMES = 64


@dataclass(frozen=True)
class VideoScores:
  """Scores of one video by one set of maps.

  Attributes:
    split: the test list that these maps serve; 0 for all lists.
    entries: how many rows of those lists name the video: its weight in the mean.
    frames: (n,) int64, 0-based.
    num_asked: frames that maps were asked for; more than n where maps are missing.
    scores: {method: {metric: (n,) float64}}.
  """

  database: str
  name: str
  split: int
  entries: int
  frames: np.ndarray
  num_asked: int
  scores: dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Evaluation:
  """Per-frame scores of all videos and what is needed to read them. `skipped`: (database, video, reason)."""

  videos: tuple[VideoScores, ...]
  skipped: tuple[tuple[str, str, str], ...]
  map_sizes: dict[str, list[list[int]]]
  seed: int
  stride: int
  first_frame: int
  nan_policy: protocol.NanPolicy
  groups: Mapping[str, Collection[str]] = field(default_factory=dict)

  @property
  def methods(self) -> list[str]:
    return list(dict.fromkeys(method for video in self.videos for method in video.scores))

  def sets(self) -> dict[str, list[VideoScores]]:
    """The videos of every set: each database, then its groups; sets without a scored video are left out."""
    sets: dict[str, list[VideoScores]] = {}
    for database in dict.fromkeys(video.database for video in self.videos):
      members = [video for video in self.videos if video.database == database]
      sets[database] = members
      for group, names in self.groups.items():
        if group.startswith(database + "/"):
          sets[group] = [video for video in members if video.name in set(names)]
    return {name: videos for name, videos in sets.items() if videos}

  def video_score(self, video: VideoScores, method: str, metric: str) -> float:
    """Mean over the video's frames; NaN if undefined."""
    return protocol.average_frames(video.scores[method][metric], self.nan_policy)

  def set_scores(self) -> dict[str, dict[str, dict[str, float]]]:
    """{set: {method: {metric: score}}}, NaN where undefined."""
    return {
      name: {
        method: {metric: self._set_score(videos, method, metric) for metric in protocol.METRICS}
        for method in self.methods
        if any(method in video.scores for video in videos)
      }
      for name, videos in self.sets().items()
    }

  def _set_score(self, videos: list[VideoScores], method: str, metric: str) -> float:
    videos = [video for video in videos if method in video.scores]
    values = [self.video_score(video, method, metric) for video in videos]
    return protocol.average_videos(np.array(values), np.array([video.entries for video in videos]))


def evaluate_videos(
  videos: Sequence[StavisVideo],
  method_maps: MethodMaps | Mapping[int, MethodMaps],
  seed: int = 0,
  stride: int = 1,
  first_frame: int = 1,
  nan_policy: protocol.NanPolicy = "stavis",
  groups: Mapping[str, Collection[str]] | None = None,
  processes: int | None = None,
  progress: bool = False,
) -> Evaluation:
  """Scores every `stride`-th annotated frame from `first_frame` (1-based) on.

  Args:
    method_maps: maps that serve every test list; or {split: maps} where each split's list has maps of its own (lists
      without a number are then scored with each of them).
    groups: {"<database>/<subset>": video names} to be reported as sets too.
    processes: worker processes; None: one a core; 1: no other process.
    progress: whether to show a progress bar.

  Returns:
    Scores; a video with a bad file, or without maps, is in `skipped` with the reason.
  """
  if stride < 1 or first_frame < 1:
    raise ValueError(f"stride {stride} and first frame {first_frame}: expected at least 1")
  sources = method_maps if isinstance(method_maps, Mapping) else {0: method_maps}
  processes = processes or os.cpu_count() or 1
  in_flight = processes + 4  # tasks; bounds the maps in memory
  work = [(video, frames_to_score(video, stride, first_frame)) for video in videos]
  scored: list[VideoScores] = []
  skipped: list[tuple[str, str, str]] = []
  map_sizes: dict[str, set[tuple[int, int]]] = {}
  passes = [(video, frames, split) for video, frames in work for split in sources if _entries(video, split)]
  bar = tqdm(total=sum(len(frames) for _, frames, _ in passes), unit="frame", disable=not progress, desc="scoring")
  with _make_executor(processes) as executor, bar:
    for video, frames in work:
      rows: list[tuple[VideoScores, dict[str, set[tuple[int, int]]]]] = []
      try:
        if not any(_entries(video, split) for split in sources):
          raise StavisError(f"{video.database}/{video.name}: there are no maps for its test list {video.entries}")
        fixations = _read_all_fixations(executor, video, in_flight)
        for split in sources:
          if _entries(video, split):
            maps = sources[split]
            rows.append(_score_video(executor, video, split, frames, fixations, maps, seed, in_flight, bar))
      except StavisError as error:
        skipped.append((video.database, video.name, str(error)))
        continue
      for row, sizes in rows:
        scored.append(row)
        for method, found in sizes.items():
          map_sizes.setdefault(method, set()).update(found)
  size_lists = {method: [list(size) for size in sorted(found)] for method, found in map_sizes.items()}
  groups = dict(groups or {})
  return Evaluation(tuple(scored), tuple(skipped), size_lists, seed, stride, first_frame, nan_policy, groups)


def frames_to_score(video: StavisVideo, stride: int = 1, first_frame: int = 1) -> list[int]:
  """0-based frames: every `stride`-th from `first_frame` (1-based) on that has both annotations."""
  annotated = set(video.annotated)
  return [i for i in range(first_frame - 1, video.num_frames, stride) if i in annotated]


def centre_map(size: tuple[int, int]) -> np.ndarray:
  """(H, W) uint8: the Gaussian of `stajax.maps.final.centre_factor`."""
  return np.round(centre_factor(size).astype(np.float64) * 255).astype(np.uint8)


def _entries(video: StavisVideo, split: int) -> int:
  """Rows of test lists that name the video and that the maps of `split` serve."""
  return len(video.entries) if split == 0 else video.entries.count(split) + video.entries.count(0)


@dataclass(frozen=True)
class _Fixations:
  """All fixations of a video, sparse: positions in the flattened frame, by 0-based frame."""

  size: tuple[int, int]
  positions: dict[int, np.ndarray]

  def union(self) -> np.ndarray:
    return np.unique(np.concatenate(list(self.positions.values())))


def _read_all_fixations(executor: Executor, video: StavisVideo, limit: int) -> _Fixations:
  frames = sorted(video.fixation_paths)
  parts = [frames[start : start + TASK_FRAMES] for start in range(0, len(frames), TASK_FRAMES)]
  tasks = ((_read_fixations_task, [video.fixation_paths[i] for i in part]) for part in parts)
  positions: dict[int, np.ndarray] = {}
  size = None
  for part, found in zip(parts, _run(executor, tasks, limit)):
    for i, (frame_size, frame_positions) in zip(part, found):
      if size is not None and frame_size != size:
        raise StavisError(f"{video.fixation_paths[i]}: size {frame_size}, expected {size} as in the frames before")
      size, positions[i] = frame_size, frame_positions
  return _Fixations(size, positions)


def _read_fixations_task(paths: list[Path]) -> list[tuple[tuple[int, int], np.ndarray]]:
  found = [read_fixations(path) for path in paths]
  return [(fixations.shape, np.flatnonzero(fixations).astype(np.int32)) for fixations in found]


def _score_video(
  executor: Executor,
  video: StavisVideo,
  split: int,
  asked: Sequence[int],
  fixations: _Fixations,
  method_maps: MethodMaps,
  seed: int,
  limit: int,
  bar: tqdm,
) -> tuple[VideoScores, dict[str, set[tuple[int, int]]]]:
  """The scores, and the sizes of the maps by method."""
  union = fixations.union()
  frames: list[int] = []
  sizes: dict[str, set[tuple[int, int]]] = {method: {fixations.size} for method in BASELINES}

  def tasks() -> Iterator[tuple]:
    for chunk_frames, maps in method_maps(video, asked):
      for method, values in maps.items():
        if values.dtype != np.uint8 or values.ndim != 3 or len(values) != len(chunk_frames):
          raise ValueError(f"{method}: found maps {values.dtype} {values.shape} for {len(chunk_frames)} frames")
        sizes.setdefault(method, set()).add(values.shape[1:])
      for start in range(0, len(chunk_frames), TASK_FRAMES):
        part = slice(start, start + TASK_FRAMES)
        indices = chunk_frames[part]
        frames.extend(indices)
        yield (
          _score_task,
          fixations.size,
          union,
          [fixations.positions[i] for i in indices],
          [video.density_paths[i] for i in indices],
          {method: values[part] for method, values in maps.items()},
          [protocol.frame_seed(seed, video.database, video.name, i) for i in indices],
        )

  parts: list[dict[str, dict[str, np.ndarray]]] = []
  for part in _run(executor, tasks(), limit):
    parts.append(part)
    bar.update(len(part[BASELINES[0]][protocol.METRICS[0]]))
  if not frames:
    raise StavisError(f"{video.database}/{video.name}: none of its frames to be scored has a map")
  if any(part.keys() != parts[0].keys() for part in parts):
    raise ValueError(f"{video.database}/{video.name}: some frames have maps of other methods than the rest")
  order = np.argsort(frames, kind="stable")
  scores = {
    method: {metric: np.concatenate([part[method][metric] for part in parts])[order] for metric in protocol.METRICS}
    for method in parts[0]
  }
  ordered = np.array(frames, np.int64)[order]
  return VideoScores(video.database, video.name, split, _entries(video, split), ordered, len(asked), scores), sizes


def _score_task(
  size: tuple[int, int],
  union_positions: np.ndarray,
  positions: list[np.ndarray],
  density_paths: list[Path],
  maps: dict[str, np.ndarray],
  seeds: list[int],
) -> dict[str, dict[str, np.ndarray]]:
  """Scores at most TASK_FRAMES frames by every method; runs in a worker, one frame's images in memory at a time."""
  union = _mask(size, union_positions)
  constant = _prepared_baselines(size)
  rows: dict[str, list] = {method: [] for method in (*constant, *maps)}
  for k, (frame_positions, path, seed) in enumerate(zip(positions, density_paths, seeds)):
    fixations, density = _mask(size, frame_positions), read_density(path)
    if density.shape != size:
      raise StavisError(f"{path}: density {density.shape}, expected {size} as the fixations have")
    for method, prepared in constant.items():
      rows[method].append(protocol.score_frame(prepared, fixations, density, union, seed))
    scores: dict[tuple, tuple[float, ...]] = {}  # rows of an ablation are often the maps of another method
    for method, values in maps.items():
      key = values[k].shape, values[k].tobytes()
      if key not in scores:
        scores[key] = protocol.score_frame(protocol.prepare_map(values[k], size), fixations, density, union, seed)
      rows[method].append(scores[key])
  return {method: dict(zip(protocol.METRICS, np.array(table, np.float64).T)) for method, table in rows.items()}


@functools.lru_cache(maxsize=2)
def _prepared_baselines(size: tuple[int, int]) -> dict[str, np.ndarray]:
  maps = {"centre": centre_map(size), "uniform": np.full(size, 255, np.uint8)}
  return {method: protocol.prepare_map(values, size) for method, values in maps.items()}


def _mask(size: tuple[int, int], positions: np.ndarray) -> np.ndarray:
  mask = np.zeros(size, bool)
  mask.ravel()[positions] = True
  return mask


def _make_executor(processes: int) -> contextlib.AbstractContextManager[Executor]:
  if processes == 1:
    return ThreadPoolExecutor(1)
  # Spawned, not forked: the parent may hold an accelerator and threads.
  return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))


def _run(executor: Executor, tasks: Iterator[tuple], limit: int) -> Iterator:
  """Results of `function(*arguments)` for every (function, *arguments), in order, at most `limit` under way."""
  waiting: collections.deque[Future] = collections.deque()
  try:
    for function, *arguments in tasks:
      waiting.append(executor.submit(function, *arguments))
      if len(waiting) >= limit:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
  finally:
    for future in waiting:
      future.cancel()
