"""Scores predicted maps on eye-tracking videos.

Maps come in chunks from a `MethodMaps` function, the chunks are scored in worker processes, and only numbers are kept,
beside the maps of two frames of each video that a page shows. The baselines of `stajax.scoring.baselines` are scored
beside every method, on the same frames. Workers import this module, so its imports must stay light: neither JAX nor
TensorFlow.
"""

import collections
import contextlib
import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from stajax import runtime
from stajax.eyetracking import StavisError, StavisVideo
from stajax.runtime import hidden_interrupts, limit_memory
from stajax.scoring import protocol
from stajax.scoring.baselines import BASELINES
from stajax.scoring.extremes import Extremes
from stajax.scoring.others import Others, VideoFixations
from stajax.scoring.protocols import PROTOCOLS, to_8_bits
from stajax.scoring.results import Evaluation, Sizes, VideoScores
from stajax.scoring.tasks import read_fixations_task, score_task
from stajax.scoring.viewers import INTER_OBSERVER, LEARNED_CENTRE, learned_centre

MethodMaps = Callable[[StavisVideo, Sequence[int]], Iterator[tuple[list[int], dict[str, np.ndarray]]]]
"""(video, 0-based frames) → chunks of (some of them, {method: (k, h, w)}), uint8, uint16 or float64 in [0, 1]; frames
in no chunk are not scored."""

Outcome = list[VideoScores] | str
"""The scores of a video, or the reason why it has none."""
VideoKey = tuple[str, str]
"""The names of a video's database and of the video."""

TASK_FRAMES = 64
"""The number of frames that a worker scores at a time."""
MEMORY = 2**32
"""The bytes by which a worker may grow. Scoring frames of 2^25 pixels, the largest that are read, takes half of it."""


class Kept(Protocol):
  """Outcomes that are kept on disk, so that a stopped evaluation goes on with the other videos."""

  def load(self, video: StavisVideo) -> Outcome | None:
    """Returns the outcome of a video, None if it is not there."""
    ...

  def save(self, video: StavisVideo, outcome: Outcome) -> None:
    """Keeps the outcome of a video."""
    ...


@dataclass(frozen=True)
class Share:
  """Which videos are scored, and how they are divided.

  Attributes:
    packs: The videos, those together whose maps are computed together.
    threads: How many packs are scored at the same time, where a model has that many devices for their maps.
    kept: The outcomes of a stopped evaluation, and the place for those of this one.
  """

  packs: Sequence[Sequence[StavisVideo]]
  threads: int = 1
  kept: Kept | None = None


def evaluate_videos(
  videos: Sequence[StavisVideo],
  method_maps: MethodMaps | Mapping[int, MethodMaps],
  settings: protocol.Settings = protocol.DEFAULT_SETTINGS,
  groups: Mapping[str, Collection[str]] | None = None,
  processes: int | None = None,
  progress: bool = False,
  baselines: Collection[str] = (),
  share: Share | None = None,
) -> Evaluation:
  """Scores the annotated frames of videos.

  Args:
    videos: The videos of a tree.
    method_maps: Maps that serve every test list; or {split: maps} if each split's list has its own maps (lists without
      a number are then scored with each of them).
    settings: Which frames are scored, and how.
    groups: {"<database>/<subset>": video names} that are reported as sets too.
    processes: The number of worker processes; None for one per core, 1 to score in this process.
    progress: Whether to show a progress bar.
    baselines: What is scored beside `BASELINES`: `centre_learned`, where viewers of the other videos of the set look,
      and `inter_observer`, how well viewers predict each other. See `stajax.scoring.viewers`.
    share: Which of the videos are scored, and how they are divided; None: all, one after the other.

  Returns:
    The scores, in the order of `videos`. A video with a bad file, or without maps, is in `skipped` with the reason.
  """
  splits = method_maps if isinstance(method_maps, Mapping) else {0: method_maps}
  processes = processes or os.cpu_count() or 1
  share = share or Share([[video] for video in videos])
  outcomes = _load_scores(share)
  packs = [[video for video in pack if _key(video) not in outcomes] for pack in share.packs]
  total = sum(
    len(frames_to_score(video, settings)) * sum(_num_entries(video, split) > 0 for split in splits)
    for video in itertools.chain.from_iterable(packs)
  )
  bar = runtime.progress("scoring", total, "frame", disable=not progress)
  with _make_executor(processes) as executor, bar:
    scorer = _Scorer(executor, processes + 4, settings, bar, {}, frozenset(baselines), threading.Lock())
    if PROTOCOLS[settings.protocol].negatives != "video" or LEARNED_CENTRE in baselines:
      scorer.read_sets(videos)

    def score_pack(pack: Sequence[StavisVideo]) -> None:
      for video in pack:
        outcomes[_key(video)] = outcome = scorer.find_outcome(video, frames_to_score(video, settings), splits)
        if share.kept is not None:
          share.kept.save(video, outcome)

    _for_each(score_pack, packs, share.threads)
  return join_outcomes(videos, outcomes, settings, groups)


def join_outcomes(
  videos: Sequence[StavisVideo],
  outcomes: Mapping[VideoKey, Outcome],
  settings: protocol.Settings,
  groups: Mapping[str, Collection[str]] | None = None,
) -> Evaluation:
  """Returns the outcomes of videos as an evaluation, in the order of the videos; those without one are left out."""
  found = [(*_key(video), outcomes[_key(video)]) for video in videos if _key(video) in outcomes]
  scored = [scores for _, _, outcome in found if not isinstance(outcome, str) for scores in outcome]
  skipped = [(database, name, outcome) for database, name, outcome in found if isinstance(outcome, str)]
  return Evaluation(tuple(scored), tuple(skipped), settings, dict(groups or {}))


def _load_scores(share: Share) -> dict[VideoKey, Outcome]:
  """Returns the kept scores of videos; those that had none are tried again."""
  if share.kept is None:
    return {}
  found = {_key(video): share.kept.load(video) for video in itertools.chain.from_iterable(share.packs)}
  return {key: outcome for key, outcome in found.items() if isinstance(outcome, list)}


def _for_each(call: Callable[[Any], None], items: Sequence[Any], threads: int) -> None:
  """Calls a function for every item, in that many threads."""
  if threads == 1:
    for item in items:
      call(item)
    return
  with ThreadPoolExecutor(threads) as pool:
    try:
      for _ in pool.map(call, items):
        pass
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      raise


def _key(video: StavisVideo) -> VideoKey:
  return video.database, video.name


def frames_to_score(video: StavisVideo, settings: protocol.Settings) -> list[int]:
  """Returns the 0-based frames that the settings choose and that have both annotations."""
  annotated = set(video.annotated)
  return [i for i in range(settings.first_frame - 1, video.num_frames, settings.stride) if i in annotated]


def _num_entries(video: StavisVideo, split: int) -> int:
  """Returns how many rows of the test lists that the maps of `split` serve name the video."""
  return len(video.entries) if split == 0 else video.entries.count(split) + video.entries.count(0)


@dataclass(frozen=True)
class _Scorer:
  """Scores one video after the other, with the work spread over an executor.

  Attributes:
    executor: Where the tasks run.
    max_pending: How many tasks may be under way, which bounds the maps in memory.
    settings: Which frames are scored, and how.
    bar: The progress bar, which advances with every scored frame.
    sets: The fixations of all videos by (database, name), where videos are compared; filled by `read_sets`.
    baselines: The further baselines.
    lock: Held while the bar advances, since several threads may score.
  """

  executor: Executor
  max_pending: int
  settings: protocol.Settings
  bar: tqdm
  sets: dict[VideoKey, VideoFixations]
  baselines: frozenset[str]
  lock: threading.Lock

  def read_sets(self, videos: Sequence[StavisVideo]) -> None:
    """Reads the fixations of all videos; those of a video with a bad file are left out."""
    for video in videos:
      with contextlib.suppress(StavisError):
        self.sets[_key(video)] = self._read_all_fixations(video)

  def find_outcome(self, video: StavisVideo, frames: Sequence[int], splits: Mapping[int, MethodMaps]) -> Outcome:
    """Scores one video, or says why it cannot be scored."""
    try:
      return self.score_video(video, frames, splits)
    except StavisError as error:
      return str(error)

  def score_video(
    self, video: StavisVideo, frames: Sequence[int], splits: Mapping[int, MethodMaps]
  ) -> list[VideoScores]:
    """Scores one video by the maps of each split that serves it; raises StavisError."""
    serving = {split: maps for split, maps in splits.items() if _num_entries(video, split)}
    if not serving:
      raise StavisError(f"{video.database}/{video.name}: there are no maps for its test list {video.entries}")
    fixations = self.sets.get(_key(video)) or self._read_all_fixations(video)
    return [self._score_split(video, frames, fixations, split, maps) for split, maps in serving.items()]

  def _read_all_fixations(self, video: StavisVideo) -> VideoFixations:
    frames = sorted(video.fixation_paths)
    parts = [frames[start : start + TASK_FRAMES] for start in range(0, len(frames), TASK_FRAMES)]
    tasks = ((read_fixations_task, [video.fixation_paths[i] for i in part], self.settings.protocol) for part in parts)
    found = [of_frame for of_part in self._run(tasks) for of_frame in of_part]
    size = found[0][0]
    for i, (frame_size, _) in zip(frames, found):
      if frame_size != size:
        raise StavisError(f"{video.fixation_paths[i]}: size {frame_size}, expected {size} as in the frames before")
    return VideoFixations(size, {i: positions for i, (_, positions) in zip(frames, found)})

  def _score_split(
    self, video: StavisVideo, requested: Sequence[int], fixations: VideoFixations, split: int, method_maps: MethodMaps
  ) -> VideoScores:
    frames: list[int] = []
    between = [INTER_OBSERVER] if INTER_OBSERVER in self.baselines else []
    sizes: Sizes = {method: {fixations.size} for method in (*BASELINES, *between)}
    extremes = Extremes()
    tasks = self._score_tasks(video, fixations, method_maps(video, requested), frames, sizes, extremes)
    parts: list[dict[str, dict[str, np.ndarray]]] = []
    for part in self._run(tasks):
      parts.append(part)
      extremes.compare(part)
      with self.lock:
        self.bar.update(len(next(iter(part["centre"].values()))))
    if not frames:
      what = "none of the frames to score has a map" if requested else "none of its annotated frames is to be scored"
      which = f"one frame in {self.settings.stride}" if self.settings.stride > 1 else "frames"
      raise StavisError(f"{video.database}/{video.name}: {what} ({which} from {self.settings.first_frame} on)")
    if any(part.keys() != parts[0].keys() for part in parts):
      raise ValueError(f"{video.database}/{video.name}: some frames have maps of other methods than the rest")
    order = np.argsort(frames, kind="stable")
    scores = {
      method: {
        metric: np.concatenate([part[method][metric] for part in parts])[order] for metric in self.settings.metrics
      }
      for method in parts[0]
    }
    entries, ordered = _num_entries(video, split), np.array(frames, np.int64)[order]
    return VideoScores(
      video.database, video.name, split, entries, ordered, len(requested), scores, sizes, extremes.found()
    )

  def _score_tasks(
    self,
    video: StavisVideo,
    fixations: VideoFixations,
    chunks: Iterator[tuple[list[int], dict[str, np.ndarray]]],
    frames: list[int],
    sizes: Sizes,
    extremes: Extremes,
  ) -> Iterator[tuple]:
    """Yields a task for every few frames; adds the frames to `frames`, the sizes of their maps to `sizes`, and tells
    `extremes` of them."""
    others = Others.of(video, fixations, self.sets, self.settings)
    elsewhere = [x for (database, name), x in self.sets.items() if database == video.database and name != video.name]
    learned = learned_centre(elsewhere) if LEARNED_CENTRE in self.baselines and elsewhere else None
    for chunk_frames, maps in chunks:
      if learned is not None:
        maps = {LEARNED_CENTRE: np.repeat(learned[None], len(chunk_frames), axis=0), **maps}
      for method, values in maps.items():
        if (
          values.dtype not in (np.uint8, np.uint16, np.float64) or values.ndim != 3 or len(values) != len(chunk_frames)
        ):
          raise ValueError(f"{method}: found maps {values.dtype} {values.shape} for {len(chunk_frames)} frames")
        sizes.setdefault(method, set()).add(values.shape[1:])
      if PROTOCOLS[self.settings.protocol].as_pictures:
        maps = {name: to_8_bits(values) if values.dtype == np.float64 else values for name, values in maps.items()}
      for start in range(0, len(chunk_frames), TASK_FRAMES):
        part = slice(start, start + TASK_FRAMES)
        indices = chunk_frames[part]
        frames.extend(indices)
        of_part = {method: values[part] for method, values in maps.items()}
        extremes.expect(indices, of_part)
        yield (
          score_task,
          fixations.size,
          [fixations.positions[i] for i in indices],
          [others.at(i) for i in indices],
          [video.density_paths[i] for i in indices],
          of_part,
          [protocol.frame_seed(self.settings.seed, video.database, video.name, i) for i in indices],
          self.settings,
          INTER_OBSERVER in self.baselines,
        )

  def _run(self, tasks: Iterator[tuple]) -> Iterator[Any]:
    """Yields the results of `function(*arguments)` for every (function, *arguments), in order."""
    pending: collections.deque[Future] = collections.deque()
    try:
      for function, *arguments in tasks:
        with hidden_interrupts():  # the first task starts the processes
          pending.append(self.executor.submit(function, *arguments))
        if len(pending) >= self.max_pending:
          yield _result(pending.popleft())
      while pending:
        yield _result(pending.popleft())
    except BrokenProcessPool:
      reason = "which systems do when they run out of memory (--processes takes fewer at a time)"
      raise OSError(f"a process that scores has died or was killed, {reason}") from None
    finally:
      for future in pending:
        future.cancel()


def _result(future: Future) -> Any:
  """Returns the result of a task; one that needs too much memory costs the video."""
  try:
    return future.result()
  except MemoryError:
    raise StavisError(f"scoring it needs more than {MEMORY / 2**30:g} GiB of memory in a process") from None


def _begin(memory: int) -> None:
  """Prepares a worker, which loaded this module when it received this function."""
  limit_memory(memory)


def _make_executor(processes: int) -> contextlib.AbstractContextManager[Executor]:
  if processes == 1:
    return ThreadPoolExecutor(1)
  # Spawned, not forked: the parent may hold an accelerator and threads.
  return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin, (MEMORY,))
