"""What others have published, as data: the paper's Tables 2 to 5, and later models on the same sets.

`published_table_2.csv` has a row for each method and set; its column `source` says where the numbers are printed:
`paper`, `Zhao et al. 2026` ("Attend to Anything", which prints again what others published), or `recalled`, from memory
and not verified. Nothing in it was measured here.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

METRICS = ("auc_judd", "sim", "s_auc", "cc", "nss")
"""The paper's columns, in its order."""
SETS = ("AVAD", "DIEM", "SumMe", "ETMD_av", "Coutrot_db1", "Coutrot_db2")
"""The sets of Table 2 by the names that they have in the layout of STAViS, in its order."""


@dataclass(frozen=True)
class PublishedScores:
  """The scores of one method on one set.

  Attributes:
    method: The name of the method.
    kind: `fully supervised` or `weakly supervised`.
    source: Where the numbers are printed.
    set: The set.
    scores: The scores by metric; None where none is printed.
  """

  method: str
  kind: str
  source: str
  set: str
  scores: dict[str, float | None]


def table_2() -> Iterator[PublishedScores]:
  """Yields the published scores on the six sets, in the order of the paper, then later models."""
  text = resources.files("stajax.report").joinpath("published_table_2.csv").read_text(encoding="utf-8")
  for row in csv.DictReader(text.splitlines()):
    scores = {metric: float(row[metric]) if row[metric] else None for metric in METRICS}
    yield PublishedScores(row["method"], row["kind"], row["source"], row["set"], scores)


TABLE_3 = {
  "MWS": ((0.807, 0.285, 1.339), (0.799, 0.285, 1.339), (0.801, 0.285, 1.344), (0.800, 0.285, 1.347)),
  "WSSA": ((0.834, 0.309, 1.477), (0.801, 0.296, 1.444), (0.772, 0.262, 1.419), (0.735, 0.254, 1.279)),
  "WSS": ((0.858, 0.347, 1.655), (0.827, 0.337, 1.623), (0.813, 0.333, 1.617), (0.788, 0.320, 1.574)),
  "ScoCAM": ((0.772, 0.237, 1.016), (0.763, 0.231, 0.989), (0.735, 0.224, 0.969), (0.687, 0.207, 0.916)),
  "LCAM": ((0.776, 0.241, 1.033), (0.764, 0.233, 0.992), (0.737, 0.227, 0.974), (0.698, 0.221, 0.978)),
  "SGradCAMpp": ((0.809, 0.275, 1.181), (0.806, 0.269, 1.151), (0.726, 0.181, 0.789), (0.630, 0.122, 0.501)),
}
"""Table 3: AUC-J, CC and NSS on AVAD at the thresholds 0, 0.3, 0.5 and 0.7. The columns MWS and WSSA are printed the
other way round in Table 2."""
TABLE_3_METRICS = ("auc_judd", "cc", "nss")

TABLE_4 = {
  "STANet+, weakly supervised": (0.887, 0.361, 0.595, 0.490, 2.318),
  "STANet+, re-trained on 168": (0.856, 0.264, 0.609, 0.378, 1.711),
  "ACLNet, fully supervised": (0.905, 0.446, 0.560, 0.580, 3.170),
  "ACLNet, re-trained on 168": (0.838, 0.329, 0.579, 0.393, 1.843),
  "SalGAN (printed: weakly supervised)": (0.886, 0.360, 0.579, 0.491, 2.550),
  "SalGAN, re-trained on 168": (0.845, 0.327, 0.556, 0.382, 1.854),
  "DeepNet, fully supervised": (0.869, 0.256, 0.561, 0.383, 1.850),
  "DeepNet, re-trained on 168": (0.852, 0.247, 0.582, 0.410, 1.750),
}
"""Table 4: scores on AVAD, by the metrics of `METRICS`."""

TABLE_5 = {
  "s_coarse": (59.00, 29.41, 58.03),
  "s": (77.06, 38.41, 58.03),
  "s_plus": (92.92, 46.41, 138.36),
  "sa_coarse": (58.48, 29.18, 371.12),
  "sa": (79.32, 41.23, 371.12),
  "sa_plus": (200.46, 100.14, 39.47),
  "st_coarse": (156.23, 75.31, 200.09),
  "st": (172.51, 86.07, 200.09),
  "st_plus": (590.32, 294.93, 21.86),
  "sta": (264.72, 131.99, 116.54),
  "sta_plus": (593.78, 296.65, 39.49),
}
"""Table 5: GFLOP, GMAC and millions of parameters of one network, by the field of the configuration."""
TABLE_5_SUMS = {"SCAM+": (3053.24, 1523.91, 1818.08), "STANet+": (1452.28, 725.29, 195.52)}
"""The sums that Table 5 prints."""
