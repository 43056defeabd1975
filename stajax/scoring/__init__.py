"""Scores of saliency maps, as a library: NumPy and SciPy, without JAX.

  from stajax import scoring

  scoring.nss(prediction, fixations)                      # one metric, as its definition reads
  scoring.score_map(prediction, fixations, density, union)  # all five by a protocol, with its blur and resizing

`stajax.scoring.batched` has the metrics as one jitted program; it loads JAX.
"""

from stajax.scoring.metrics import auc_judd, cc, information_gain, kl, nss, s_auc, s_auc_expected, sim
from stajax.scoring.protocol import METRICS, Settings, frame_seed, prepare_map, score_frame, score_map
from stajax.scoring.protocols import PROTOCOLS, Protocol

__all__ = [
  "METRICS",
  "PROTOCOLS",
  "Protocol",
  "Settings",
  "auc_judd",
  "cc",
  "frame_seed",
  "information_gain",
  "kl",
  "nss",
  "prepare_map",
  "s_auc",
  "s_auc_expected",
  "score_frame",
  "score_map",
  "sim",
]
