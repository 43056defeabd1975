"""Blurs the maps of a video in time by a Gaussian. The video may be of any length: its maps come in parts."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

Part = np.ndarray | Mapping[str, np.ndarray]
"""The maps (n, H, W) of a video's next n frames: of one method, or of several by their names."""
SomePart = TypeVar("SomePart", bound=Part)

REACH = 3.0
"""How many standard deviations the Gaussian extends to either side."""


def blur_in_time(parts: Iterable[SomePart], sigma: float, unchanged: Collection[str] = ()) -> Iterator[SomePart]:
  """Blurs the maps of one video; near its ends the weighted mean is over the frames that the video has.

  Args:
    parts: The maps, in order. Only those within 3 sigma to either side are kept in memory.
    sigma: The standard deviation in frames, above 0.
    unchanged: The names of methods whose maps are not blurred.

  Yields:
    The blurred maps in order, float32: as many as were given, but divided into other parts.
  """
  reach = math.ceil(REACH * sigma)
  kept: Any = None  # the maps from frame `first` on
  first = done = 0
  for part in parts:
    kept = part if kept is None else _map_arrays(lambda *x: np.concatenate(x), kept, part)
    end = first + _length(kept) - reach
    if end > done:
      yield _weighted_means(kept, np.arange(done, end) - first, sigma, unchanged)
      drop, done = max(0, end - reach - first), end
      kept, first = _map_arrays(lambda x, drop=drop: x[drop:].copy(), kept), first + drop
  if kept is not None and first + _length(kept) > done:
    yield _weighted_means(kept, np.arange(done - first, _length(kept)), sigma, unchanged)


def _weighted_means(maps: Part, wanted: np.ndarray, sigma: float, unchanged: Collection[str]) -> Any:
  """Returns the blurred maps at the indices `wanted` of `maps`."""
  distance = wanted[:, None] - np.arange(_length(maps))
  weights = np.exp(-0.5 * (distance / sigma) ** 2) * (np.abs(distance) <= math.ceil(REACH * sigma))
  weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)

  def mean(x: np.ndarray) -> np.ndarray:
    return np.tensordot(weights, x.astype(np.float32, copy=False), axes=1)

  if isinstance(maps, Mapping):
    return {name: x[wanted] if name in unchanged else mean(x) for name, x in maps.items()}
  return mean(maps)


def _map_arrays(function: Callable[..., np.ndarray], *parts: Part) -> Any:
  """Applies a function to the arrays of the parts, method by method where they have several."""
  if isinstance(parts[0], Mapping):
    return {name: function(*(part[name] for part in parts)) for name in parts[0]}
  return function(*parts)


def _length(part: Part) -> int:
  return len(next(iter(part.values())) if isinstance(part, Mapping) else part)
