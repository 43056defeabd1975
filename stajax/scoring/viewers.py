"""Baselines that know where viewers looked: their centre in other videos, and how well they predict each other."""

from collections.abc import Iterable

import numpy as np
import scipy.ndimage

from stajax.scoring import fast, protocol
from stajax.scoring.frame import FrameMap, FrameTruth, Scored
from stajax.scoring.others import VideoFixations
from stajax.scoring.protocols import PROTOCOLS

LEARNED_CENTRE, INTER_OBSERVER = "centre_learned", "inter_observer"
_GRID = 64
"""The side of the learned centre."""
_GRID_SIGMA = 2.0
"""Its blur, in cells."""
_ROWS = 90
"""The height at which viewers are compared; so a frame of 30 viewers takes milliseconds."""
_SIGMA = 0.025
"""The deviation of the Gaussian around a viewer's fixation, as a part of the frame's width."""
_WITHOUT_DENSITY = ("auc_judd", "s_auc", "nss", "s_auc_expected")
"""The metrics that a single viewer's fixation allows."""
_OF_ONE = {"auc_judd": lambda frame, rng: fast.auc(frame, "unfixated")}
"""The rules that differ for one fixation: AUC-J's curve begins with a straight line to the first fixation, so that with
a single one chance would be 0.75."""


def learned_centre(videos: Iterable[VideoFixations]) -> np.ndarray:
  """Returns where viewers of other videos look, (64, 64) uint8 with a maximum of 255; each video weighs the same."""
  total = np.zeros((_GRID, _GRID))
  for video in videos:
    positions = np.concatenate([np.empty(0, np.int64), *video.positions.values()])
    counts = np.bincount(video.scaled(positions, (_GRID, _GRID)), minlength=_GRID * _GRID).reshape(_GRID, _GRID)
    total += counts / max(1, counts.sum())
  smooth = np.asarray(scipy.ndimage.gaussian_filter(total, _GRID_SIGMA, mode="reflect"))
  return np.round(smooth * (255 / max(smooth.max(), 1e-12))).astype(np.uint8)


def inter_observer(
  positions: np.ndarray, other: np.ndarray, size: tuple[int, int], seed: int, settings: protocol.Settings
) -> dict[str, float]:
  """Scores the fixations of each viewer of a frame by a map of all other viewers' fixations; returns the means.

  Where viewers are followed frame by frame, each fixated pixel is a viewer's, so one is left out at a time. All is
  computed on a grid of at most 90 rows. AUC-J is the share of the other pixels that the viewer's own exceeds, ties
  counting half, so that its chance is 0.5, as it is for many fixations. SIM, CC and KL compare densities, which a
  single fixation has not, and information gain needs a map that is nowhere 0: these are NaN.

  Args:
    positions: The fixated positions of the frame, (k,).
    other: The positions that s-AUC compares with, (m,).
    size: (height, width) of the frame.
    seed: The seed of the frame.
    settings: Name the protocol, by whose rules the map is scored, and the metrics.
  """
  scores = dict.fromkeys(settings.metrics, np.nan)
  if positions.size < 2:
    return scores
  rows = min(_ROWS, size[0])
  small = rows, max(2, round(rows * size[1] / size[0]))
  shrunk = VideoFixations(size, {})
  places, elsewhere = (shrunk.scaled(x, small) for x in (positions, other))
  sigma = _SIGMA * small[1]
  y, x = np.divmod(places, small[1])
  down, along = (
    np.exp(-0.5 * ((np.arange(n) - at[:, None]) / sigma) ** 2) for n, at in zip(small, (y, x), strict=True)
  )
  total, rng, rules = (
    np.einsum("ky,kx->yx", down, along),
    np.random.default_rng(seed),
    {**PROTOCOLS[settings.protocol].rules, **_OF_ONE},
  )
  density = np.zeros(small, np.uint8)
  found: dict[str, list[float]] = {metric: [] for metric in settings.metrics if metric in _WITHOUT_DENSITY}
  for i in range(places.size):
    rest = FrameMap(np.maximum(total - np.outer(down[i], along[i]), 0.0))
    frame = Scored(rest, FrameTruth(places[i : i + 1], density, elsewhere))
    for metric, values in found.items():
      rule = rules.get(metric, protocol.metric_of(metric).score)
      values.append(np.nan if rule is None else rule(frame, rng))
  return scores | {metric: float(np.mean(values)) for metric, values in found.items()}
