"""Finds where to crop a video to another shape: a path of windows that follows the maps, calm within every shot.

NumPy, on the host. A window has the whole height or the whole width of the frame, so its path is one number a frame.
"""

import itertools
import re
from fractions import Fraction

import numpy as np

from stajax.maps.time_blur import blur_in_time

_PLACES = 65  # windows that are compared in every frame
_COST = 1.5  # how many seconds without any heat it costs to move a window by the width (or height) of the frame
_SECONDS = 0.5  # the standard deviation of the Gaussian that smooths the path
_THUMBNAIL = 16  # pixels of a side that shots are compared at
_CHANGE = 20.0  # the mean difference of the thumbnails of two shots, at least, of 255
_STANDS_OUT = 2.5  # how many times larger than those around it such a difference is
_AROUND = 3  # frames to either side that it is compared with
_SHORTEST = 0.3  # seconds; flashes and stills are no shots of their own


def parse_aspect(text: str) -> Fraction:
  """Reads a shape such as "9:16"; raises ValueError, one line, if it is not one."""
  found = re.fullmatch(r"(\d{1,4}):(\d{1,4})", text)
  if found is None or not int(found[1]) or not int(found[2]):
    raise ValueError(f"crop {text}: expected width:height, such as 9:16 or 1:1")
  aspect = Fraction(int(found[1]), int(found[2]))
  if not Fraction(1, 10) <= aspect <= 10:
    raise ValueError(f"crop {text}: expected at most 10 times as wide as high, or as high as wide")
  return aspect


def window_size(size: tuple[int, int], aspect: Fraction, pixel_aspect: Fraction = Fraction(1)) -> tuple[int, int]:
  """Returns the (width, height) in pixels of the largest window of a shape; sides that are cut have an even length.

  Args:
    size: The (width, height) of the frame in pixels.
    aspect: The width of the window over its height, as it is displayed.
    pixel_aspect: The width of a displayed pixel over its height.
  """
  (width, height), ratio = size, aspect / pixel_aspect
  if width >= height * ratio:
    return min(width, _even(height * ratio)), height
  return width, min(height, _even(width / ratio))


def _even(length: Fraction) -> int:
  return max(2, 2 * round(length / 2))


class CropPath:
  """Collects what the path of a crop depends on, frame by frame, and finds the path when all frames are there.

  It keeps some 300 bytes a frame, which are 30 MB for an hour of 30 frames a second.

  Args:
    size: The (width, height) of the frame in pixels.
    window: That of the window.
  """

  def __init__(self, size: tuple[int, int], window: tuple[int, int]) -> None:
    self._size, self._window = size, window
    self._times: list[float] = []
    self._heat: list[np.ndarray] = []
    self._changes: list[float] = []
    self._thumbnail: np.ndarray | None = None

  def add(self, time: float, picture: np.ndarray, saliency: np.ndarray) -> None:
    """Takes the next frame: its time in seconds, picture (H, W, 3) uint8 and map (h, w) float."""
    thumbnail = make_thumbnail(picture)
    before = thumbnail if self._thumbnail is None else self._thumbnail
    self._changes.append(float(np.abs(thumbnail - before).mean()))
    self._thumbnail = thumbnail
    self._times.append(time)
    axis, part = (0, 0) if self._window[0] < self._size[0] else (1, 1)
    self._heat.append(window_heat(saliency.sum(axis=axis), self._window[part] / self._size[part]))

  def windows(self) -> np.ndarray:
    """Returns the window of every frame: (n, 4) int32, x, y, width and height in pixels; x and y are even."""
    count, (width, height) = len(self._times), self._window
    result = np.zeros((count, 4), np.int32)
    result[:, 2:] = width, height
    slack = self._size[0] - width, self._size[1] - height
    along = 0 if slack[0] else 1
    times = np.array(self._times)
    starts = [0, *find_cuts(times, np.array(self._changes)), count]
    for start, end in itertools.pairwise(starts):
      if end > start and slack[along]:
        move = _COST * slack[along] / self._size[along]
        path = calm_path(times[start:end], np.stack(self._heat[start:end]), move)
        result[start:end, along] = 2 * np.round(path * slack[along] / 2)
    result[:, along] = np.minimum(result[:, along], slack[along])
    return result


def window_heat(profile: np.ndarray, part: float) -> np.ndarray:
  """Returns the share of a map's heat in each of 65 windows, from the first to the last place.

  Args:
    profile: The map's sums along the other axis, (w,), not negative.
    part: The length of a window as a part of the frame's.

  Returns:
    (65,) float32. A map that is 0 everywhere counts as uniform.
  """
  total = float(profile.sum())
  profile = np.asarray(profile, np.float64) / total if total > 0 else np.full(len(profile), 1 / len(profile))
  edges, sums = np.linspace(0, 1, len(profile) + 1), np.concatenate([[0], np.cumsum(profile)])
  low = np.linspace(0, 1 - part, _PLACES)
  return (np.interp(low + part, edges, sums) - np.interp(low, edges, sums)).astype(np.float32)


def calm_path(times: np.ndarray, heat: np.ndarray, move: float) -> np.ndarray:
  """Finds the path of a window through one shot that sees much heat and moves little, and smooths it.

  Of all paths it is the one with the least seconds without heat, plus `move` for every move from one end to the other.
  So a window stays where it is until moving pays.

  Args:
    times: (n,) seconds, ascending.
    heat: (n, p) the share of heat at each of p places.
    move: What a move over all places costs, in seconds without heat.

  Returns:
    (n,) float64 in [0, 1], from the first to the last place.
  """
  count, places = heat.shape
  at = np.arange(places)
  step = move / (places - 1)
  seconds = np.diff(times, append=times[-1] + (float(np.median(np.diff(times))) if count > 1 else 1.0))
  costs = (1 - heat.astype(np.float64)) * seconds[:, None]
  for i in range(1, count):  # the least cost of a path that ends at each place
    rising = np.minimum.accumulate(costs[i - 1] - step * at) + step * at
    falling = (np.minimum.accumulate((costs[i - 1] + step * at)[::-1]))[::-1] - step * at
    costs[i] += np.minimum(rising, falling)
  path = np.empty(count)
  path[-1] = place = _middle_of_least(costs[-1])
  for i in range(count - 2, -1, -1):
    total = costs[i] + step * np.abs(at - place)
    # Among places that are equally good it stays where it is.
    place = place if total[place] <= total.min() + 1e-12 else int(total.argmin())
    path[i] = place
  sigma = _SECONDS / max(float(np.median(seconds)), 1e-3)
  smooth = np.concatenate(list(blur_in_time([path[:, None, None]], sigma)))[:, 0, 0]
  return np.clip(smooth.astype(np.float64) / (places - 1), 0, 1)


def _middle_of_least(costs: np.ndarray) -> int:
  least = np.flatnonzero(costs <= costs.min() + 1e-12)
  return int(least[len(least) // 2])


def make_thumbnail(picture: np.ndarray) -> np.ndarray:
  """Returns the means of 16×16 parts of a picture (H, W, 3) uint8, (16, 16, 3) float32; of a small one, itself."""
  for axis in (0, 1):
    length = picture.shape[axis]
    if length > _THUMBNAIL:
      starts = np.arange(_THUMBNAIL) * length // _THUMBNAIL
      counts = np.diff(starts, append=length)
      shape = [1, 1, 1]
      shape[axis] = _THUMBNAIL
      picture = np.add.reduceat(picture, starts, axis=axis, dtype=np.float32) / counts.reshape(shape).astype(np.float32)
  return picture.astype(np.float32)


def find_cuts(times: np.ndarray, changes: np.ndarray) -> list[int]:
  """Returns the first frames of all shots but the first.

  A cut is a change that is large, and much larger than those of the frames around it, which a moving camera is not. A
  flash changes the picture twice, so it is none. Fades and dissolves are not found.

  Args:
    times: (n,) seconds, ascending.
    changes: (n,) the mean difference of each frame's thumbnail from that before it, from 0 to 255.
  """
  cuts: list[int] = []
  last = times[0] if len(times) else 0.0
  for i in np.flatnonzero(changes >= _CHANGE).tolist():
    around = np.concatenate([changes[max(1, i - _AROUND) : i], changes[i + 1 : i + 1 + _AROUND]])
    stands_out = not len(around) or changes[i] >= _STANDS_OUT * around.max()
    if i > 0 and stands_out and times[i] - last >= _SHORTEST:
      cuts.append(i)
      last = times[i]
  return cuts
