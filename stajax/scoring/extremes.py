"""The best and the worst frame of a video, whose maps are kept for pictures while all others are dropped."""

import collections
import math
from collections.abc import Mapping, Sequence

import numpy as np

from stajax.scoring.protocols import to_8_bits
from stajax.scoring.results import Moment

SHOWN = ("maps", "final")
"""The methods of which pictures are shown: maps from files, or the final map of a model."""
JUDGED_BY = "nss"
"""The metric by which frames are better or worse."""
_SIDE = 320
"""Kept maps are thinned out to so many pixels along each side."""


class Extremes:
  """Finds the best and the worst frame of a video while its maps are scored, chunk after chunk."""

  def __init__(self) -> None:
    self._expected: collections.deque[tuple[Sequence[int], Mapping[str, np.ndarray]]] = collections.deque()
    self._best: Moment | None = None
    self._worst: Moment | None = None

  def expect(self, frames: Sequence[int], maps: Mapping[str, np.ndarray]) -> None:
    """Remembers a chunk of k frames, and their maps {method: (k, h, w)}, until its scores are known."""
    self._expected.append((frames, {name: maps[name] for name in SHOWN if name in maps}))

  def compare(self, scores: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Takes the scores {method: {metric: (k,)}} of the first chunk that has none yet."""
    frames, maps = self._expected.popleft()
    for name, values in maps.items():
      of_frames = scores[name][JUDGED_BY]
      for k in np.flatnonzero(~np.isnan(of_frames)).tolist():
        score = float(of_frames[k])
        if self._best is None or score > self._best.score:
          self._best = _moment(frames[k], score, values[k])
        if self._worst is None or score < self._worst.score:
          self._worst = _moment(frames[k], score, values[k])

  def found(self) -> tuple[Moment, ...]:
    """Returns the best frame and the worst one; none if no frame has a score."""
    return () if self._best is None or self._worst is None else (self._best, self._worst)


def _moment(frame: int, score: float, values: np.ndarray) -> Moment:
  steps = (math.ceil(n / _SIDE) for n in values.shape)
  thinned = values[tuple(slice(step // 2, None, step) for step in steps)]
  return Moment(frame, score, to_8_bits(thinned).copy())
