"""A Gaussian blur in time over the maps of a video of any length, which come in parts. NumPy, on the host."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import numpy as np

Part = np.ndarray | Mapping[str, np.ndarray]
"""Maps (n, H, W) of a video's next n frames, alone or of methods by name."""

_REACH = 3.0  # standard deviations to either side


def steadied(parts: Iterable[Part], sigma: float, plain: Collection[str] = ()) -> Iterator[Part]:
  """The same number of maps, in other parts: each a weighted mean over the frames around it that the video has.

  Args:
    parts: of one video, in order; as many are kept as 3 sigma to either side need.
    sigma: standard deviation in frames, over 0.
    plain: methods that stay as they are.
  """
  reach = math.ceil(_REACH * sigma)
  kept: Part | None = None  # maps from frame `first` on
  first = done = 0
  for part in parts:
    kept = part if kept is None else _each(lambda *x: np.concatenate(x), kept, part)
    until = first + _length(kept) - reach
    if until > done:
      yield _means(kept, np.arange(done, until) - first, sigma, reach, plain)
      drop, done = max(0, until - reach - first), until
      kept, first = _each(lambda x, drop=drop: x[drop:].copy(), kept), first + drop
  if kept is not None and first + _length(kept) > done:
    yield _means(kept, np.arange(done - first, _length(kept)), sigma, reach, plain)


def _means(maps: Part, wanted: np.ndarray, sigma: float, reach: int, plain: Collection[str]) -> Part:
  apart = wanted[:, None] - np.arange(_length(maps))
  weights = np.exp(-0.5 * (apart / sigma) ** 2) * (np.abs(apart) <= reach)
  weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)

  def mean(x: np.ndarray) -> np.ndarray:
    return np.tensordot(weights, x.astype(np.float32, copy=False), axes=1)

  if isinstance(maps, Mapping):
    return {name: x[wanted] if name in plain else mean(x) for name, x in maps.items()}
  return mean(maps)


def _each(function: Callable[..., np.ndarray], *parts: Part) -> Part:
  if isinstance(parts[0], Mapping):
    return {name: function(*(part[name] for part in parts)) for name in parts[0]}
  return function(*parts)


def _length(part: Part) -> int:
  return len(next(iter(part.values())) if isinstance(part, Mapping) else part)
