"""Trained students on all videos of an eye-tracking set: short ones share batches. Needs no TensorFlow."""

import collections
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stajax.eyetracking import StavisError, StavisVideo
from stajax.grid import reflect
from stajax.inference.clip import WINDOW, Sample, joined, windows
from stajax.inference.predictor import Predictor, overlapped, to_uint8
from stajax.inference.reservoir import SIZE, Fragments
from stajax.media.file import MediaError
from stajax.media.sound_files import LibraryMissing, sound_file_blocks
from stajax.media.sound_windows import SoundWindows, file_windows
from stajax.scoring.videos import MethodMaps

_CHUNK = 64
_AHEAD, _READERS = 32, 4
"""Frames that are decoded before they are asked for, and threads that do it."""

Begin = Callable[..., Callable[[], Any]]
"""Of a clip and, if it has one, the reservoir of its video: has the device begin, and returns what waits for the maps
(n, h, w) of its targets, alone or of methods by name."""
Parts = list[tuple[StavisVideo, Any]]
"""Of videos what `Begin` gives for their next frames, or an exception: there are no more."""


def set_maps(predictor: Predictor, begin: Begin, videos: Sequence[StavisVideo]) -> Iterator[tuple[StavisVideo, Any]]:
  """The maps of all frames of all videos, in parts: those of one video are in order, and not mixed with others'.

  Args:
    begin: of the predictor: `begin_final` or `begin_methods`.

  Yields:
    A video, and of its next frames what `begin` gives, with the blur in time; or, where it cannot be read on, the
    exception that says why.
  """
  packs = pack(videos, predictor.rate, max(WINDOW, predictor.batch))
  found = overlapped(wait for together in packs for wait in _begin(predictor, begin, together))
  for _, parts in itertools.groupby(itertools.chain.from_iterable(found), key=lambda part: _key(part[0])):
    yield from _steadied(predictor, parts)


def _steadied(predictor: Predictor, parts: Iterator[tuple[StavisVideo, Any]]) -> Iterator[tuple[StavisVideo, Any]]:
  """The parts of one video, with the blur in time; an exception stays the last of them."""
  video, first = next(parts)
  failed = []

  def maps() -> Iterator[Any]:
    for _, part in itertools.chain([(video, first)], parts):
      if isinstance(part, Exception):
        failed.append(part)
      else:
        yield part

  reach = 1 if isinstance(first, Exception) else reach_of(video, predictor.rate)
  for part in itertools.chain(predictor.steadied(maps(), reach), failed):
    yield video, part


def pack(videos: Sequence[StavisVideo], rate: float, length: int = WINDOW) -> list[list[StavisVideo]]:
  """Videos that are to be computed together, of at most `length` frames in all; longer ones are alone.

  Args:
    rate: of the model's grid: videos share a batch if their neighbours in time are as many frames apart.
  """
  packs: list[list[StavisVideo]] = []
  unfilled: dict[int, list[StavisVideo]] = {}
  for video in videos:
    # One that may be several windows is not the same beside others; a rate that is missing is told when it is read.
    if video.fps is None or video.num_frames > WINDOW:
      packs.append([video])
      continue
    together = unfilled.get(reach := reach_of(video, rate))
    if together is None or sum(other.num_frames for other in together) + video.num_frames > length:
      packs.append(together := [])
      unfilled[reach] = together
    together.append(video)
  return packs


def reach_of(video: StavisVideo, rate: float) -> int:
  """How many of its frames apart a video's neighbours in time are, on a grid of `rate` frames a second."""
  return max(1, round(video.rate() / rate))


def method_maps(predictor: Predictor, videos: Sequence[StavisVideo] = ()) -> MethodMaps:
  """All students' maps on every native frame of a video, with neighbours nearest to the grid's spacing.

  Args:
    videos: those that will be asked for: the maps of those that are computed together are kept until then.
  """
  packs = pack(videos, predictor.rate, max(WINDOW, predictor.batch))
  beside = {_key(video): together for together in packs for video in together}
  kept: dict[tuple[str, str], list[Any]] = {}

  def parts(video: StavisVideo) -> Iterator[Any]:
    together = beside.get(_key(video), [video])
    found = ((_key(of), _bytes(part)) for of, part in set_maps(predictor, predictor.begin_methods, together))
    if len(together) == 1:
      yield from (part for _, part in found)
      return
    if _key(video) not in kept:
      kept.update((key, [part]) for key, part in found)
    yield from kept.pop(_key(video))

  def maps(video: StavisVideo, frames: Sequence[int]) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    wanted, first = set(frames), 0
    for part in parts(video):
      if isinstance(part, Exception):
        raise part
      count = len(next(iter(part.values())))
      chosen = [i for i in range(first, first + count) if i in wanted]
      for start in range(0, len(chosen), _CHUNK):
        chunk = chosen[start : start + _CHUNK]
        yield chunk, {name: x[np.array(chunk) - first] for name, x in part.items()}
      first += count

  return maps


def video_samples(video: StavisVideo, rate: float, side: int) -> Iterator[Sample]:
  """Every frame of a video, squashed to side × side, and its second of sound; threads decode ahead."""
  sound = _sound(video, rate)
  with ThreadPoolExecutor(_READERS) as readers:
    waiting: collections.deque[Future] = collections.deque()
    paths = iter(video.frame_paths)
    for index in range(len(video.frame_paths)):
      while len(waiting) < _AHEAD and (path := next(paths, None)) is not None:
        waiting.append(readers.submit(_read_frame, path, side))
      try:
        frame = waiting.popleft().result()
      except StavisError:
        readers.shutdown(cancel_futures=True)
        raise
      yield frame, None if sound is None else sound.window(index / rate)


def fragments(video: StavisVideo, reach: int, side: int, seed: int) -> Fragments:
  """The reservoir of a video: random frames of it with the neighbours that their fragments have."""
  rate, count = video.rate(), video.num_frames
  at = np.sort(np.random.default_rng(seed).choice(count, min(SIZE, count), replace=False))
  sound, offsets, runs = _sound(video, rate), np.array([-reach, 0, reach]), []
  for frame in at.tolist():
    before, middle, after = (_read_frame(video.frame_paths[i], side) for i in reflect(frame + offsets, count))
    heard = None if sound is None else sound.window(frame / rate).copy()
    runs.append([(before, None), (middle, heard), (after, None)])
  return Fragments(runs, at)


def _sound(video: StavisVideo, rate: float) -> SoundWindows | None:
  try:
    if video.sound is None:
      return None
    return file_windows(video.sound, [], video.num_frames / rate, sound_file_blocks)
  except (MediaError, LibraryMissing) as error:
    raise StavisError(str(error)) from None


def _read_frame(path: Path, side: int) -> np.ndarray:
  try:
    with Image.open(path) as image:
      return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
  except (OSError, ValueError, Image.DecompressionBombError) as error:
    raise StavisError(f"{path}: not a readable frame ({error})") from None


def _begin(predictor: Predictor, begin: Begin, videos: Sequence[StavisVideo]) -> Iterator[Callable[[], Parts]]:
  """Has the device begin with videos that are computed together, or with one window of a video after the other."""
  if len(videos) == 1:
    (video,) = videos
    try:
      samples = video_samples(video, video.rate(), predictor.side)
      reach = reach_of(video, predictor.rate)
      reservoir = predictor.reservoir(functools.partial(fragments, video, reach, predictor.side, predictor.seed))
      for clip in windows(samples, reach):
        yield functools.partial(_finish, begin(clip, reservoir), [(video, len(clip.targets))], [])
    except Exception as error:  # as below: FFmpeg's, Pillow's, the disk's
      yield functools.partial(list, [(video, error)])
    return
  read, failed = [], []
  for video in videos:
    try:
      read.append((video, list(video_samples(video, video.rate(), predictor.side))))
    except Exception as error:  # one video must not stop the others
      failed.append((video, error))
  if not read:
    yield functools.partial(list, failed)
    return
  clip = joined([samples for _, samples in read], reach_of(videos[0], predictor.rate))
  yield functools.partial(_finish, begin(clip), [(video, len(samples)) for video, samples in read], failed)


def _finish(wait: Callable[[], Any], counts: Sequence[tuple[StavisVideo, int]], failed: Parts) -> Parts:
  """The maps of a clip by video, of each as many as it has frames there."""
  try:
    maps = wait()
  except Exception as error:  # XLA's
    return [*failed, *((video, error) for video, _ in counts)]
  first, parts = 0, list(failed)
  for video, count in counts:
    at = slice(first, first + count)
    parts.append((video, {name: x[at] for name, x in maps.items()} if isinstance(maps, dict) else maps[at]))
    first += count
  return parts


def _bytes(part: Any) -> Any:
  return part if isinstance(part, Exception) else {name: to_uint8(x) for name, x in part.items()}


def _key(video: StavisVideo) -> tuple[str, str]:
  return video.database, video.name
