"""Trained students on all videos of an eye-tracking set; short videos share batches. TensorFlow is not needed."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic

import numpy as np

from stajax.eyetracking import StavisVideo
from stajax.inference.clip import WINDOW, Clip, Sample, joined, windows
from stajax.inference.local_devices import OfThread, local_devices
from stajax.inference.pending import Pending, finish_in_turn
from stajax.inference.predictor import Predictor, to_uint8
from stajax.inference.reservoir import Reservoir
from stajax.inference.tree_video import is_sounding, other_sound, reach_of, read_fragments, video_samples
from stajax.maps.time_blur import SomePart
from stajax.scoring.videos import MethodMaps
from stajax.senses import choose_donors

_CHUNK = 64

StartMaps = Callable[[Clip, Reservoir | None], Pending[SomePart]]
"""Starts the computation of the maps of a clip's targets, given the reservoir of its video, if it has one."""
VideoPart = tuple[StavisVideo, SomePart | Exception]
"""A video, and the maps of its next frames, or the exception because of which there are no more."""
VideoKey = tuple[str, str]
"""The names of a video's database and of the video."""
Donors = Mapping[VideoKey, StavisVideo]
"""For every video with sound the video whose sound is exchanged for it; empty if no maps need another sound."""


def compute_dataset_maps(
  predictor: Predictor, start: StartMaps[SomePart], videos: Sequence[StavisVideo], donors: Donors | None = None
) -> Iterator[VideoPart[SomePart]]:
  """Computes the maps of all frames of all videos, in parts: those of one video come in order, and together.

  Args:
    predictor: The students.
    start: The predictor's `start_final_maps` or `start_method_maps`.
    videos: The videos.
    donors: The videos whose sound is heard where the predictor needs another sound.

  Yields:
    A video, and the maps of its next frames, blurred in time as the predictor does; or, where the rest of the video
    cannot be read, the exception that says why.
  """
  yield from compute_pack_maps(predictor, start, make_packs(predictor, videos), donors)


def compute_pack_maps(
  predictor: Predictor,
  start: StartMaps[SomePart],
  packs: Iterable[Sequence[StavisVideo]],
  donors: Donors | None = None,
) -> Iterator[VideoPart[SomePart]]:
  """Computes the maps of all frames of videos as `compute_dataset_maps` does, given those that `make_packs` found."""
  reader = _Starter(predictor, start, donors or {})
  finished = finish_in_turn(pending for together in packs for pending in reader.start(together))
  for _, parts in itertools.groupby(itertools.chain.from_iterable(finished), key=lambda part: _key(part[0])):
    yield from _blurred(predictor, parts)


def make_packs(predictor: Predictor, videos: Sequence[StavisVideo]) -> list[list[StavisVideo]]:
  """Groups videos to be computed together by a predictor."""
  return pack(videos, predictor.rate, max(WINDOW, predictor.batch))


def pack(videos: Sequence[StavisVideo], rate: float, length: int = WINDOW) -> list[list[StavisVideo]]:
  """Groups videos to be computed together, with at most `length` frames in a group; longer videos stay alone.

  Args:
    videos: The videos.
    rate: Frames a second of the model's grid: videos share a batch if their neighbours in time are equally many
      frames apart.
    length: The most frames that are computed together.
  """
  packs: list[list[StavisVideo]] = []
  unfilled: dict[int, list[StavisVideo]] = {}
  for video in videos:
    # A video of several windows would have other maps in a group; a missing rate is reported when the video is read.
    if video.fps is None or video.num_frames > WINDOW:
      packs.append([video])
      continue
    together = unfilled.get(reach := reach_of(video, rate))
    if together is None or sum(other.num_frames for other in together) + video.num_frames > length:
      packs.append(together := [])
      unfilled[reach] = together
    together.append(video)
  return packs


def sounding_videos(videos: Sequence[StavisVideo]) -> list[StavisVideo]:
  """Returns the videos that have sound which can be read and is not silent throughout."""
  return [video for video in videos if is_sounding(video)]


def find_donors(sounding: Sequence[StavisVideo], seed: int) -> Donors:
  """Chooses for every video with sound another one, whose sound is exchanged for it.

  Raises:
    ValueError: Only one video has sound.
  """
  videos = {_key(video): video for video in sounding}
  return {key: videos[donor] for key, donor in choose_donors(list(videos), seed).items()}


def method_maps(predictor: Predictor, videos: Sequence[StavisVideo] = (), donors: Donors | None = None) -> MethodMaps:
  """Returns a function that computes all students' maps for native frames of a video.

  The frames of a fragment are the native ones that are nearest to the grid's spacing.

  Several threads may ask at the same time, each for the videos of other packs; each gets a device.

  Args:
    predictor: The students.
    videos: The videos that will be asked for: the maps of those that are computed together are kept until then.
    donors: The videos whose sound is heard where the predictor needs another sound.
  """
  packs = make_packs(predictor, videos)
  beside = {_key(video): together for together in packs for video in together}
  predictors = OfThread(predictor.on, local_devices(len(packs)))
  kept: dict[tuple[str, str], list[dict[str, np.ndarray] | Exception]] = {}

  def parts(video: StavisVideo) -> Iterator[dict[str, np.ndarray] | Exception]:
    together = beside.get(_key(video), [video])
    own = predictors.get()
    found = compute_dataset_maps(own, own.start_method_maps, together, donors)
    in_bytes = ((_key(of), part if isinstance(part, Exception) else _to_bytes(part)) for of, part in found)
    if len(together) == 1:
      yield from (part for _, part in in_bytes)
      return
    if _key(video) not in kept:
      kept.update((key, [part]) for key, part in in_bytes)
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


@dataclass(frozen=True)
class _Starter(Generic[SomePart]):
  """Reads videos and starts the computation of their maps.

  Attributes:
    predictor: The students.
    start_maps: Starts the maps of a clip.
    donors: The videos whose sound is heard where the predictor needs another sound.
  """

  predictor: Predictor
  start_maps: StartMaps[SomePart]
  donors: Donors

  def start(self, videos: Sequence[StavisVideo]) -> Iterator[Pending[list[VideoPart[SomePart]]]]:
    """Starts the videos of a pack: several as one clip, a single one window by window."""
    return self._start_windows(*videos) if len(videos) == 1 else self._start_joined(videos)

  def _start_windows(self, video: StavisVideo) -> Iterator[Pending[list[VideoPart[SomePart]]]]:
    side, seed, donor = self.predictor.side, self.predictor.seed, self.donors.get(_key(video))
    try:
      samples, reach = video_samples(video, side), reach_of(video, self.predictor.rate)
      reservoir = self.predictor.make_reservoir(partial(read_fragments, video, reach, side, seed, donor))
      for clip in windows(samples, reach, other_sound=self._other_sound(video)):
        yield partial(_finish, self.start_maps(clip, reservoir), [(video, len(clip.targets))])
    except Exception as error:  # of FFmpeg, Pillow or the disk: one video must not stop the others
      failed: list[VideoPart[SomePart]] = [(video, error)]
      yield lambda: failed

  def _start_joined(self, videos: Sequence[StavisVideo]) -> Iterator[Pending[list[VideoPart[SomePart]]]]:
    read: list[tuple[StavisVideo, list[Sample]]] = []
    others: list[list[np.ndarray | None]] = []
    failed: list[VideoPart[SomePart]] = []
    for video in videos:
      try:
        samples, other = list(video_samples(video, self.predictor.side)), list(self._other_sound(video) or ())
      except Exception as error:  # one video must not stop the others
        failed.append((video, error))
        continue
      read.append((video, samples))
      others.append(other)
    if read:
      clip = joined([samples for _, samples in read], reach_of(videos[0], self.predictor.rate), others)
      pending = partial(_finish, self.start_maps(clip, None), [(video, len(samples)) for video, samples in read])
    else:
      pending = list[VideoPart[SomePart]]
    yield lambda: [*failed, *pending()]

  def _other_sound(self, video: StavisVideo) -> Iterator[np.ndarray | None] | None:
    """Returns what `Clip.other_sound` is for a video's frames, None where no maps need it."""
    return other_sound(video, self.donors.get(_key(video))) if self.donors else None


def _finish(pending: Pending[SomePart], counts: Sequence[tuple[StavisVideo, int]]) -> list[VideoPart[SomePart]]:
  """Waits for the maps of a clip, and gives each of its videos as many as it has frames there."""
  try:
    maps = pending()
  except Exception as error:  # of XLA
    return [(video, error) for video, _ in counts]
  first = 0
  parts: list[VideoPart[SomePart]] = []
  for video, count in counts:
    parts.append((video, _slice(maps, slice(first, first + count))))
    first += count
  return parts


def _blurred(predictor: Predictor, parts: Iterator[VideoPart[SomePart]]) -> Iterator[VideoPart[SomePart]]:
  """Blurs the parts of one video in time; an exception stays last."""
  video, first = next(parts)
  failed: list[Exception] = []

  def maps() -> Iterator[SomePart]:
    for _, part in itertools.chain([(video, first)], parts):
      if isinstance(part, Exception):
        failed.append(part)
      else:
        yield part

  reach = 1 if isinstance(first, Exception) else reach_of(video, predictor.rate)
  for part in itertools.chain(predictor.blur_in_time(maps(), reach), failed):
    yield video, part


def _slice(maps: SomePart, frames: slice) -> SomePart:
  """Returns the maps of some frames, for each method where there are several."""
  found: Any = {name: x[frames] for name, x in maps.items()} if isinstance(maps, Mapping) else maps[frames]
  return found


def _to_bytes(maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  return {name: to_uint8(x) for name, x in maps.items()}


def _key(video: StavisVideo) -> VideoKey:
  return video.database, video.name
