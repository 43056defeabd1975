"""Recognises what the numbers of a saliency map are, and brings them to [0, 1] without clipping or rounding any.

Integers of 8 or 16 bits stay as they are. Whether maps are rounded to 8 bits is the protocol's affair.

Maps in the wild are pictures, saliency in [0, 1], probabilities that sum to 1, log densities, z-scores or raw outputs
of a network. AUC-J and s-AUC only see the order of values, NSS and CC no linear scale, so all but log densities are
scaled linearly; a log density is a density after exp, as in pysaliency.
"""

from collections import Counter
from typing import Literal

import numpy as np
from scipy.special import logsumexp

from stajax.eyetracking import StavisError
from stajax.screen import counted

Kind = Literal["8 bits", "16 bits", "in [0, 1]", "not negative", "probabilities", "log densities", "z-scores", "signed"]

SAID: dict[str, str] = {
  "not negative": "their values are not negative and exceed 1; each map is divided by its maximum",
  "probabilities": "each map sums to 1: they are taken as probabilities and divided by their maximum",
  "log densities": "the exponentials of each map sum to 1: they are taken as log densities, and exp is applied",
  "z-scores": "mean 0 and deviation 1: they are taken as z-scores and scaled linearly, the minimum to 0",
  "signed": "some values are negative; each map is scaled linearly, the minimum to 0",
}
"""What a note says of each kind of values; kinds without a line go without saying."""
_SUM_TOLERANCE = 0.02
"""How far the sum of probabilities may be from 1: maps are stored with few digits, or resized after the softmax."""
_SCORE_TOLERANCE = 0.02
"""Likewise the mean and the deviation of z-scores from 0 and 1."""


def recognise(values: np.ndarray, name: str) -> Kind:
  """Returns what the numbers (h, w) of a map are.

  Raises:
    StavisError: The map, called `name` in the message, is not finite; log densities may be −inf where nobody looks.
  """
  if values.dtype == np.uint8:
    return "8 bits"
  if values.dtype == np.uint16:
    return "16 bits"
  low, high = float(values.min()), float(values.max())
  if not np.isfinite(high) or np.isnan(low):
    raise StavisError(f"{name}: some values are not finite")
  # A maximum of exactly 0 beside finite values is that of numbers that were lowered by it, not of a logarithm.
  may_be_log = low < high and (high < 0 or (high == 0 and np.isinf(low)))
  if may_be_log and abs(np.expm1(logsumexp(values.astype(np.float64)))) < _SUM_TOLERANCE:
    return "log densities"
  if not np.isfinite(low):
    raise StavisError(f"{name}: some values are not finite, and the others are not log densities")
  if low < 0:
    if max(high, -low) > 2 * np.sqrt(values.size):  # n numbers of deviation 1 are all within √n; squares may overflow
      return "signed"
    mean, deviation = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    is_score = abs(mean) < _SCORE_TOLERANCE and abs(deviation - 1) < _SCORE_TOLERANCE
    return "z-scores" if is_score else "signed"
  if high > 1:
    return "not negative"
  is_density = values.size > 1 and abs(float(values.sum(dtype=np.float64)) - 1) < _SUM_TOLERANCE
  return "probabilities" if is_density else "in [0, 1]"


def to_unit(values: np.ndarray, kind: Kind) -> np.ndarray:
  """Returns a map (h, w) of a kind as float64 from 0 to 1, which is its maximum; 0 for a map without any information.

  Integers of 8 or 16 bits stay as they are.
  """
  if kind in ("8 bits", "16 bits"):
    return values
  values = values.astype(np.float64)
  if kind == "log densities":
    values = np.exp(values - values.max())
  elif kind in ("signed", "z-scores"):
    values = values / max(-values.min(), values.max(), 1)  # else the range of huge numbers may overflow
    values = values - values.min()
  high = values.max()
  return values / high if high > 0 else np.zeros(values.shape)


class Ranges:
  """Brings the maps of one method to [0, 1], and remembers what their numbers were."""

  def __init__(self, notes: list[str]) -> None:
    """`notes` gets a line for each kind of values that somebody should know of."""
    self._notes = notes
    self._said: set[str] = set()
    self._kinds: dict[str, Kind] = {}
    self._constant: Counter[str] = Counter()

  def convert(self, values: np.ndarray, video: str, name: str) -> np.ndarray:
    """Returns a map (h, w) of a video, called `name` in messages, as uint8, uint16 or float64 in [0, 1].

    Raises:
      StavisError: The map is not finite, or only some maps of the video are log densities.
    """
    kind = recognise(values, name)
    constant = values.size > 0 and values.min() == values.max()
    self._constant[video] += int(constant)
    if not constant:  # a constant map may be of any kind
      first = self._kinds.setdefault(video, kind)
      if (kind == "log densities") != (first == "log densities"):
        low, high = float(values.min()), float(values.max())
        raise StavisError(f"{name}: values from {low:.3g} to {high:.3g}, expected {first} as in the video's first map")
      if kind in SAID and kind not in self._said:
        self._said.add(kind)
        self._notes.append(f"values of the maps (first in {name}): {SAID[kind]}")
    return to_unit(values, kind)

  def finish(self, video: str) -> None:
    """Says how many maps of a video were constant."""
    if self._constant[video]:
      maps = counted(self._constant[video], "constant map")
      self._notes.append(f"{video}: {maps}, without a say about where viewers look")
