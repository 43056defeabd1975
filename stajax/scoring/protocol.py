"""How a frame is scored by a protocol, and how scores are averaged over videos and sets.

Every score is a pure function of the data and of a seed that comes from (seed, database, video, frame): it does not
depend on the order of the work or on the number of processes.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stajax import hints
from stajax.scoring import fast
from stajax.scoring.frame import FrameMap, FrameTruth, Scored, without
from stajax.scoring.metrics import moderate
from stajax.scoring.protocols import PROTOCOLS, Rule, density_of

SPLITS = 100  # random draws of s-AUC
STEP = 0.1  # between the thresholds of s-AUC

_MAX_REPEATS = 10_000  # the most fixations of a pixel that are believed

NanPolicy = Literal["stavis", "zero"]


@dataclass(frozen=True)
class Settings:
  """Which frames are scored, and how their scores are averaged.

  Attributes:
    seed: The seed of the random parts of AUC-J (ties) and s-AUC (draws).
    stride: Every n-th frame is scored.
    first_frame: The first frame that is scored, counted from 1.
    nan_policy: Whether undefined scores are left out (`stavis`) or count as 0 (`zero`, as in ViNet's evaluation).
    protocol: The name of a row of `PROTOCOLS`: what is done to a map, and what the metrics mean.
    further: The names of rows of `FURTHER`: metrics beside the five of the protocol.

  Raises:
    ValueError: The stride or the first frame is below 1, or there is no such protocol or metric.
  """

  seed: int = 0
  stride: int = 1
  first_frame: int = 1
  nan_policy: NanPolicy = "stavis"
  protocol: str = "stavis"
  further: tuple[str, ...] = ()

  @property
  def metrics(self) -> list[str]:
    """The names of all metrics."""
    return [*METRICS, *(name for name in FURTHER if name in self.further)]

  def __post_init__(self) -> None:
    if self.stride < 1 or self.first_frame < 1:
      raise ValueError(f"stride {self.stride} and first frame {self.first_frame}: expected at least 1")
    if self.protocol not in PROTOCOLS:
      raise ValueError(f"protocol {self.protocol}: {hints.expected(self.protocol, PROTOCOLS)}")
    if unknown := [name for name in self.further if name not in FURTHER]:
      raise ValueError(f"further metric {unknown[0]}: {hints.expected(unknown[0], FURTHER)}")


DEFAULT_SETTINGS = Settings()


@dataclass(frozen=True)
class Metric:
  """One of the scores by which maps are compared.

  Attributes:
    title: Its usual name.
    meaning: One or two sentences on what it measures, and its range.
    score: Computes it from a prepared map beside the ground truth, and a random generator; NaN where undefined. A
      protocol may have another rule for it.
    lower_is_better: Whether a lower score is the better one.
  """

  title: str
  meaning: str
  score: Rule
  lower_is_better: bool = False


# All metrics of a frame draw from one generator, in this order: a new one that draws has to come last, or the scores of
# the others change.
METRICS: dict[str, Metric] = {
  "auc_judd": Metric(
    "AUC-J",
    "Area under the ROC curve for telling fixated pixels from all others by the map. Chance is 0.5, perfect is 1.",
    fast.auc_judd,
  ),
  "s_auc": Metric(
    "s-AUC",
    "The same, but the others are pixels that are fixated elsewhere (by the protocol stavis: in other frames of the "
    "same video), so a map that always marks the middle scores low. Chance is 0.5.",
    lambda frame, rng: fast.s_auc(frame, rng, SPLITS, STEP),
  ),
  "nss": Metric(
    "NSS",
    "The map's mean value at the fixations, in standard deviations above the map's mean. Chance is 0; there is no "
    "upper limit.",
    lambda frame, rng: fast.nss(frame),
  ),
  "sim": Metric(
    "SIM",
    "Overlap of the map with the viewers' density, each summing to 1. From 0 to 1.",
    lambda frame, rng: fast.sim(frame),
  ),
  "cc": Metric(
    "CC",
    "Linear correlation of the map with the viewers' density. From −1 to 1; chance is 0.",
    lambda frame, rng: fast.cc(frame),
  ),
}
"""The metrics of the protocol by name, in the order in which they are shown."""

FURTHER: dict[str, Metric] = {
  "s_auc_expected": Metric(
    "s-AUC, exact",
    "What s-AUC is on average over all ways to draw its pixels, which its 100 draws only approach.",
    lambda frame, rng: fast.s_auc(frame, None, step=STEP),
  ),
  "kl": Metric(
    "KL",
    "Divergence of the map from the viewers' density, each summing to 1. Lower is better; 0 is perfect. What resizing "
    "leaves below 0 counts as 0.",
    lambda frame, rng: fast.kl(frame),
    lower_is_better=True,
  ),
  "information_gain": Metric(
    "IG",
    "How much better the map, as a probability, predicts a fixation than a constant map does, in bits. The gain over "
    "a baseline is the difference of the two rows. What resizing leaves below 0 counts as 0.",
    lambda frame, rng: fast.information_gain(frame),
  ),
}
"""Metrics that are computed where they are asked for, see `Settings`. They draw nothing."""


def metric_of(name: str) -> Metric:
  """Returns a row of `METRICS` or `FURTHER`."""
  return METRICS[name] if name in METRICS else FURTHER[name]


def frame_seed(seed: int, database: str, video: str, frame: int) -> int:
  """Returns a seed for one frame (0-based), the same on every machine and for every method."""
  text = "\0".join([str(seed), database, video, str(frame)])
  return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def prepare_map(
  prediction: np.ndarray, size: tuple[int, int], out: np.ndarray | None = None, protocol: str = "stavis"
) -> np.ndarray:
  """Brings a map (h, w), uint8 or float in [0, 1], to the ground truth's `size` as a protocol does; returns float64.

  `out`, (H, W) float64, may be used for the result, so that none need be allocated.
  """
  return PROTOCOLS[protocol].prepare(prediction, size, out)


def score_frame(
  prepared: np.ndarray,
  fixations: np.ndarray,
  density: np.ndarray,
  union: np.ndarray,
  seed: int,
  protocol: str = "stavis",
  further: tuple[str, ...] = (),
) -> dict[str, float]:
  """Scores the map of one frame.

  Args:
    prepared: The map that `prepare_map` returned, (H, W).
    fixations: The fixated pixels, (H, W) bool; or how often each is fixated, (H, W) int,
      which only some protocols count.
    density: The density of the fixations, (H, W) uint8.
    union: The pixels that are fixated in any frame of the video, (H, W) bool.
    seed: The seed that `frame_seed` returned.
    protocol: The name of the protocol.
    further: The names of rows of `FURTHER`.

  Returns:
    The score by each of `METRICS` and of `further`, NaN where it is not defined.
  """
  positions = positions_of(fixations, protocol)
  truth = FrameTruth(positions, density_of(density, PROTOCOLS[protocol]), without(np.flatnonzero(union), positions))
  return score(FrameMap(np.ascontiguousarray(prepared, np.float64)), truth, seed, protocol, further)


def score_map(
  prediction: np.ndarray,
  fixations: np.ndarray,
  density: np.ndarray,
  union: np.ndarray,
  seed: int = 0,
  protocol: str = "stavis",
  further: tuple[str, ...] = (),
) -> dict[str, float]:
  """Scores the map of one frame or image as it was saved.

  Args:
    prediction: The map (h, w) of any size, uint8, or float in [0, 1].
    fixations: The fixated pixels, (H, W) bool, or how often each is fixated, (H, W) int.
    density: The density of the fixations, (H, W) uint8.
    union: The pixels that are fixated in any frame of the video, (H, W) bool, which s-AUC takes its negatives from.
    seed: The seed of the random parts, see `frame_seed`.
    protocol: The name of a row of `PROTOCOLS`.
    further: The names of rows of `FURTHER`.

  Returns:
    The score by each of `METRICS` and of `further`, NaN where it is not defined.

  Raises:
    ValueError: The ground truth has several sizes, the map is not finite (or, by stavis, outside of [0, 1]),
      fixations and density seem to be exchanged, or there is no such protocol or metric.
  """
  Settings(protocol=protocol, further=further)  # refuses names that are not known
  prediction, fixations, density, union = map(np.asarray, (prediction, fixations, density, union))
  sizes = {"fixations": fixations.shape, "density": density.shape, "union": union.shape}
  if len(set(sizes.values())) > 1 or prediction.ndim != 2 or density.ndim != 2 or not prediction.size:
    raise ValueError(f"found map {prediction.shape}, {sizes}, expected (h, w) and three times (H, W)")
  if density.dtype == bool or fixations.dtype.kind not in "bui":
    found = f"fixations {fixations.dtype} and a density {density.dtype}"
    raise ValueError(f"found {found}, expected a mask or counts, and grey values: are they exchanged?")
  if not np.isfinite(prediction).all() or not np.isfinite(density).all():
    raise ValueError(f"the map {prediction.shape} or the density {density.shape} has values that are not finite")
  if fixations.min() < 0:
    raise ValueError(f"found fixations down to {fixations.min()}, expected a mask or counts")
  if prediction.dtype.kind == "f":
    prediction = moderate(prediction.astype(np.float64))
  prepared = prepare_map(prediction, (density.shape[0], density.shape[1]), protocol=protocol)
  return score_frame(prepared, fixations, density, union, seed, protocol, further)


def positions_of(fixations: np.ndarray, protocol: str = "stavis") -> np.ndarray:
  """Returns the fixated positions (k,) of (H, W) bool or counts, as often as the protocol counts each.

  Raises:
    ValueError: The protocol counts repeated fixations, and a value is no number of fixations.
  """
  positions = np.flatnonzero(fixations > 0)
  counts = fixations.ravel()[positions].astype(np.float64)
  if not PROTOCOLS[protocol].repeated or (counts == 255).all():  # a mask, as pictures have it
    return positions
  wrong = counts[(counts != np.round(counts)) | (counts > _MAX_REPEATS)]
  if wrong.size:
    expected = f"how often it was fixated, a whole number up to {_MAX_REPEATS:,}, or a mask of 0 and 255"
    raise ValueError(f"a pixel has the value {wrong[0]:g}, expected {expected}")
  return np.repeat(positions, counts.astype(np.int64))


def score(
  prediction: FrameMap, truth: FrameTruth, seed: int, protocol: str = "stavis", further: tuple[str, ...] = ()
) -> dict[str, float]:
  """Scores a prepared map against the ground truth; all else is as in `score_frame`."""
  frame, rng, rules = Scored(prediction, truth), np.random.default_rng(seed), PROTOCOLS[protocol].rules
  scores = {}
  for name in (*METRICS, *further):
    rule = rules.get(name, metric_of(name).score)
    scores[name] = np.nan if rule is None else rule(frame, rng)
  return scores


def average_frames(values: np.ndarray, nan_policy: NanPolicy = "stavis") -> float:
  """Returns one video's score, given those of its frames.

  Args:
    values: The scores of the frames, (n,) float64.
    nan_policy: What becomes of undefined scores, see `Settings`.

  Returns:
    The mean; NaN if no frame has a defined score under `stavis`, or if there are no frames.
  """
  values = np.asarray(values, np.float64)
  values = np.nan_to_num(values, nan=0.0) if nan_policy == "zero" else values[~np.isnan(values)]
  return float(values.mean()) if values.size else np.nan


def average_videos(values: np.ndarray, entries: np.ndarray) -> float:
  """Returns one set's score, given those of its videos: the mean over all rows of all test lists pooled.

  Args:
    values: The scores of the videos, (v,) float64; videos without a defined score (NaN) are left out.
    entries: How many rows of the lists name each video, (v,).
  """
  values, entries = np.asarray(values, np.float64), np.asarray(entries, np.float64)
  defined = ~np.isnan(values) & (entries > 0)
  if not defined.any():
    return np.nan
  return float((values[defined] * entries[defined]).sum() / entries[defined].sum())
