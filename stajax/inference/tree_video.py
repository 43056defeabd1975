"""The samples of one video of an eye-tracking set, read from its frames and its sound."""

import collections
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from stajax.eyetracking import StavisError, StavisVideo, open_image
from stajax.grid import reflect
from stajax.inference.clip import Sample
from stajax.inference.reservoir import SIZE, Fragments
from stajax.media import isolated
from stajax.media.file import MediaError
from stajax.media.sound_files import LibraryMissing
from stajax.media.sound_windows import SoundWindows, file_windows, looped_windows

_AHEAD, _READERS = 32, 4
"""How many frames are decoded ahead, and how many threads decode them."""


def reach_of(video: StavisVideo, rate: float) -> int:
  """Returns how many of its frames apart a video's neighbours in time are, on a grid of `rate` frames a second."""
  return max(1, round(video.rate() / rate))


def video_samples(video: StavisVideo, side: int) -> Iterator[Sample]:
  """Yields every frame of a video, resized to side × side, and its second of sound; threads decode ahead.

  Raises:
    StavisError: A frame or the sound cannot be read.
  """
  rate = video.rate()
  sound = _sound(video, video.num_frames / rate)
  with ThreadPoolExecutor(_READERS) as readers:
    waiting: collections.deque[Future[np.ndarray]] = collections.deque()
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


def other_sound(video: StavisVideo, donor: StavisVideo | None) -> Iterator[np.ndarray | None]:
  """Yields, for every frame of a video, the second of another video's sound at the same time.

  A sound that ends before the video begins again.

  Args:
    video: The video.
    donor: The video whose sound is heard; None for silence.
  """
  yield from _sound_at((index / video.rate() for index in range(video.num_frames)), donor)


def _sound_at(times: Iterable[float], donor: StavisVideo | None) -> Iterator[np.ndarray | None]:
  sound = None if donor is None else _sound(donor)
  yield from ((None for _ in times) if sound is None else looped_windows(sound, times))


def is_sounding(video: StavisVideo) -> bool:
  """Returns whether a video has sound that can be read and is not silent throughout."""
  try:
    return _sound(video) is not None
  except StavisError:  # the video will be left out, for the same reason
    return False


def read_fragments(video: StavisVideo, reach: int, side: int, seed: int, donor: StavisVideo | None = None) -> Fragments:
  """Reads what the reservoir of a video holds: random frames with the neighbours that their fragments have.

  Args:
    video: The video.
    reach: The number of frames between the frames of a fragment.
    side: The side of the frames in pixels.
    seed: The seed of the choice.
    donor: The video whose sound the fragments have as another sound, if any.

  Raises:
    StavisError: A frame or the sound cannot be read.
  """
  rate, count = video.rate(), video.num_frames
  at = np.sort(np.random.default_rng(seed).choice(count, min(SIZE, count), replace=False))
  sound, offsets = _sound(video, video.num_frames / rate), np.array([-reach, 0, reach])
  runs: list[list[Sample]] = []
  for frame in at.tolist():
    before, middle, after = (_read_frame(video.frame_paths[int(i)], side) for i in reflect(frame + offsets, count))
    heard = None if sound is None else sound.window(frame / rate).copy()
    runs.append([(before, None), (middle, heard), (after, None)])
  others = [None if other is None else other.copy() for other in _sound_at((at / rate).tolist(), donor)]
  return Fragments(runs, at, others)


def _sound(video: StavisVideo, end: float | None = None) -> SoundWindows | None:
  """Returns the sound of a video, or None; up to `end` seconds it goes on as silence."""
  try:
    if video.sound is None:
      return None
    return file_windows(video.sound, [], end, isolated.sound_file_blocks)
  except (MediaError, LibraryMissing) as error:
    raise StavisError(str(error)) from None


def _read_frame(path: Path, side: int) -> np.ndarray:
  try:
    with open_image(path) as image:
      upright = ImageOps.exif_transpose(image)
      return np.asarray(upright.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
  except (OSError, ValueError, Image.DecompressionBombError) as error:
    raise StavisError(f"{path}: not a readable frame ({error})") from None
