"""The protocols by which scores are published, as data: what is done to a map, which rules score it, what is averaged.

A protocol is a row of `PROTOCOLS`; nothing else in the package asks for its name. What differs between them is in the
fields of `Protocol` and in the arguments of the functions of `stajax.scoring.fast`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from stajax.scoring import fast
from stajax.scoring.frame import Scored
from stajax.scoring.resize import imresize, postprocess_map, resize_bilinear

Rule = Callable[[Scored, np.random.Generator], float]
"""A function of a prepared map beside the ground truth and of a random generator that returns a score or NaN."""

_FLOAT32 = float(np.finfo(np.float32).eps)
_PYSALIENCY_EPSILON = 2.2204e-16
"""As its `MIT_KLDiv` has it: MATLAB's eps in five digits, which matters where a map is 0."""


@dataclass(frozen=True)
class Protocol:
  """How maps are scored.

  Attributes:
    about: Where it comes from, and what it does, in a sentence or two for people.
    prepare: Brings a map (h, w), uint8, uint16 or float in [0, 1], to the ground truth's size: `prepare(map, (H, W),
      out)`.
    as_pictures: Whether whole sets of maps are rounded to 8 bits first, because the protocol's own code reads pictures.
    rules: The rules of metrics that differ from those of `stajax.scoring.protocol.METRICS` and `FURTHER`; None for a
      metric that the protocol does not have.
    negatives: Which pixels s-AUC compares fixations with: those fixated in other frames of the video, in ten random
      frames of the set, or in all other videos of the set (each as often as it is fixated).
    repeated: Whether a pixel that is fixated by several viewers counts for each of them.
    unit_density: Whether the density is scaled to [0, 1] before it is compared.
    average: Whether frames are averaged to videos and these to the set, or all frames of the set at once.
  """

  about: str
  prepare: Callable[[np.ndarray, tuple[int, int], np.ndarray | None], np.ndarray]
  as_pictures: bool = True
  rules: Mapping[str, Rule | None] = field(default_factory=dict)
  negatives: Literal["video", "ten frames", "dataset"] = "video"
  repeated: bool = False
  unit_density: bool = False
  average: Literal["videos", "frames"] = "videos"


def _blur_and_resize(prediction: np.ndarray, size: tuple[int, int], out: np.ndarray | None = None) -> np.ndarray:
  return imresize(postprocess_map(to_8_bits(prediction) if prediction.dtype == np.uint16 else prediction), size, out)


def _only_resize(prediction: np.ndarray, size: tuple[int, int], out: np.ndarray | None = None) -> np.ndarray:
  scale = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}.get(prediction.dtype, 1.0)
  return imresize(prediction / scale, size, out)


def _scale_and_resize(prediction: np.ndarray, size: tuple[int, int], out: np.ndarray | None = None) -> np.ndarray:
  values = prediction.astype(np.float64)
  return resize_bilinear((values - values.min()) / (values.max() - values.min() + _FLOAT32), size)


def to_8_bits(values: np.ndarray) -> np.ndarray:
  """Returns a map as a picture has it, uint8: uint16 with a maximum of 255, float in [0, 1] times 255.

  Raises:
    ValueError: A float is outside of [0, 1].
  """
  if values.dtype == np.uint8:
    return values
  if values.dtype == np.uint16:
    return np.round(values / max(int(values.max()), 1) * 255).astype(np.uint8)
  low, high = values.min(), values.max()
  if not (low >= 0 and high <= 1):  # NaN is neither
    raise ValueError(f"found a map {values.dtype} from {low:.6g} to {high:.6g}, expected uint8, or float in [0, 1]")
  return np.round(values * 255).astype(np.uint8)


PROTOCOLS: dict[str, Protocol] = {
  "stavis": Protocol(
    "The evaluation code of STAViS (Tsiami et al., 2020): a blur of two pixels, MATLAB's bicubic resizing, the metrics "
    "of the MIT benchmark, frames averaged to videos and videos to the set.",
    _blur_and_resize,
  ),
  "dhf1k": Protocol(
    "The evaluation of DHF1K (Wang et al., 2018): as stavis without the blur; s-AUC against the fixations of ten "
    "random frames of the set; the mean over all frames.",
    _only_resize,
    negatives="ten frames",
    average="frames",
  ),
  "pysaliency": Protocol(
    "The definitions of pysaliency (Kümmerer et al.), averaged by image: AUC against all pixels with ties as one half, "
    "s-AUC exact against all fixations of other videos, NSS by n, no scaling in SIM, repeated fixations counted.",
    _only_resize,
    False,
    {
      "auc_judd": lambda frame, rng: fast.auc(frame, "uniform"),
      "s_auc": lambda frame, rng: fast.auc(frame, "other"),
      "nss": lambda frame, rng: fast.nss(frame, ddof=0, constant=0.0),
      "sim": lambda frame, rng: fast.sim(frame, shift="negative"),
      "cc": lambda frame, rng: fast.cc(frame, constant=0.0),
      "s_auc_expected": lambda frame, rng: fast.auc(frame, "other"),  # nothing is drawn
      "kl": lambda frame, rng: fast.kl(frame, negative="shift", epsilon=_PYSALIENCY_EPSILON),
    },
    negatives="dataset",
    repeated=True,
    average="frames",
  ),
  "avimos": Protocol(
    "The scorer of the AIM 2024 and NTIRE 2026 challenges on AViMoS: maps scaled to [0, 1] and resized bilinearly, "
    "AUC-J without jitter, NSS by n, repeated fixations counted, no s-AUC.",
    _scale_and_resize,
    False,
    {
      "auc_judd": lambda frame, rng: fast.auc_judd(frame, None, negatives="avimos"),
      "s_auc": None,
      "s_auc_expected": None,
      "nss": lambda frame, rng: fast.nss(frame, ddof=0, epsilon=1e-7),
      "sim": lambda frame, rng: fast.sim(frame, shift="none", epsilon=1e-7),
      "cc": lambda frame, rng: fast.cc(frame, epsilon=1e-7),
    },
    repeated=True,
    unit_density=True,
  ),
}
"""The protocols by name. The first one is the default."""


def density_of(values: np.ndarray, protocol: Protocol) -> np.ndarray:
  """Returns a density (H, W), uint8 or uint16, as the protocol compares it."""
  if not protocol.unit_density:
    return values
  low, high = float(values.min()), float(values.max())
  return (values - low) / (high - low + _FLOAT32)
