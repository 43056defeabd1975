"""The paper's Table 1 as data: what each row is made of, and what the paper measured on AVAD.

The printed ticks are read as follows:

- Rows 1–5 are coarse (D), rows 6–11 fine (E), rows 13–20 one network with companions on whole frames, rows 21–24 all
  eight of those (SC, LC, CC), row 25 everything (SCAM+). Row 12 is S coarse with the FRL on its spatial features
  (§6.2.5).
- Row 22 is row 24 "without the audio switch" (§6.2.3), row 21 is row 24 "without FRL" (§6.2.5). The printed table
  ticks E in rows 21, 23 and 24 where the text means F, the switch; we follow the text. So the switch is off in rows 9
  and 22 alone. Rows without a source that hears have no F to tick.
- M is the plain average (row 23), N is the selective fusion (rows 21, 22, 24).
"""

from dataclasses import dataclass
from typing import Literal

COMPONENTS = {
  "A": "S: frame",
  "B": "SA: frame and sound",
  "C": "ST: three frames",
  "D": "coarse stage",
  "E": "fine stage",
  "F": "audio switch",
  "G": "average of the CAMs",
  "H": "selective fusion (SCAM)",
  "I": "short-term companions",
  "J": "long-term companions",
  "K": "cross-term companions",
  "L": "fixation refine layer (FRL)",
  "M": "average of short, long and cross",
  "N": "selective fusion of short, long and cross",
  "O": "SCAM with all granularities (SCAM+)",
}
"""The columns A–O."""

COARSE = ("s_coarse", "sa_coarse", "st_coarse")
FINE = ("s", "sa", "st")
PLUS = (
  *("s_plus_short", "st_plus_short"),
  *("s_plus_long", "sa_plus_long", "st_plus_long"),
  *("s_plus_cross", "sa_plus_cross", "st_plus_cross"),
)

_PUBLISHED_METRICS: tuple[str, ...] = ("auc_judd", "sim", "s_auc", "cc", "nss")
"""The columns of the paper's scores, in its order."""

Fusion = Literal["cam", "average", "select"]
Variant = Literal["always_heard", "no_frl"]


@dataclass(frozen=True)
class Row:
  """One row of Table 1.

  Attributes:
    number: The row's number in the paper.
    title: What the row is, and what is switched at inference only.
    sources: The names of its networks.
    fusion: How their maps are fused: `cam` takes the only source's map, `average` is AC of §6.2.2, `select` is Eq. 1
      or 4.
    always_heard: Whether the audio switch is left out, so that all sound is heard.
    frl: Whether networks with companions have their FRL; in row 12, whether S has one.
    components: The letters that the paper ticks.
    published: The paper's scores on AVAD by metric.
  """

  number: int
  title: str
  sources: tuple[str, ...]
  fusion: Fusion
  always_heard: bool
  frl: bool
  components: str
  published: dict[str, float]

  @property
  def method(self) -> str:
    """The row's name in `scores.json`: `row_01` … `row_25`."""
    return f"row_{self.number:02d}"

  @property
  def variant(self) -> Variant | None:
    """How the training of the networks that the row really needs differs from the usual one, if it does."""
    if self.always_heard:
      return "always_heard"
    return "no_frl" if not self.frl and "s_plus_long" in self.sources else None

  @property
  def retrained_title(self) -> str:
    """The row's title where the networks of its variant have been trained."""
    return self.title if self.variant is None else f"{self.title.removesuffix(' at inference')}, retrained"


def _row(number: int, title: str, sources: tuple[str, ...], fusion: Fusion, components: str, *published: float) -> Row:
  scores = dict(zip(_PUBLISHED_METRICS, published, strict=True))
  return Row(number, title, sources, fusion, number in (9, 22), "L" in components, components, scores)


ROWS = (
  _row(1, "S, coarse", COARSE[:1], "cam", "AD", 0.774, 0.202, 0.545, 0.261, 1.269),
  _row(2, "SA, coarse", COARSE[1:2], "cam", "BDF", 0.785, 0.223, 0.536, 0.269, 1.292),
  _row(3, "ST, coarse", COARSE[2:], "cam", "CD", 0.780, 0.214, 0.542, 0.277, 1.276),
  _row(4, "Average of S, SA, ST, coarse", COARSE, "average", "ABCDFG", 0.786, 0.219, 0.538, 0.297, 1.312),
  _row(5, "SCAM, coarse", COARSE, "select", "ABCDFH", 0.801, 0.256, 0.554, 0.345, 1.364),
  _row(6, "S, fine", FINE[:1], "cam", "AE", 0.834, 0.291, 0.574, 0.376, 1.528),
  _row(7, "SA, fine", FINE[1:2], "cam", "BEF", 0.843, 0.289, 0.571, 0.372, 1.581),
  _row(8, "ST, fine", FINE[2:], "cam", "CE", 0.845, 0.304, 0.564, 0.384, 1.622),
  _row(9, "SCAM, fine, switch forced to 1 at inference", FINE, "select", "ABCEH", 0.864, 0.330, 0.571, 0.421, 1.833),
  _row(10, "Average of S, SA, ST, fine", FINE, "average", "ABCEFG", 0.845, 0.303, 0.573, 0.399, 1.797),
  _row(11, "SCAM, fine", FINE, "select", "ABCEFH", 0.873, 0.334, 0.580, 0.438, 2.018),
  _row(12, "S, coarse, FRL added at inference", COARSE[:1], "cam", "ADL", 0.807, 0.233, 0.546, 0.304, 1.435),
  _row(13, "S+ short", ("s_plus_short",), "cam", "AIL", 0.829, 0.277, 0.554, 0.372, 1.556),
  _row(14, "ST+ short", ("st_plus_short",), "cam", "CIL", 0.839, 0.268, 0.565, 0.379, 1.568),
  _row(15, "S+ long", ("s_plus_long",), "cam", "AJL", 0.833, 0.280, 0.559, 0.374, 1.550),
  _row(16, "SA+ long", ("sa_plus_long",), "cam", "BFJL", 0.835, 0.271, 0.556, 0.377, 1.574),
  _row(17, "ST+ long", ("st_plus_long",), "cam", "CJL", 0.836, 0.272, 0.550, 0.373, 1.569),
  _row(18, "S+ cross", ("s_plus_cross",), "cam", "AKL", 0.841, 0.269, 0.561, 0.368, 1.553),
  _row(19, "SA+ cross", ("sa_plus_cross",), "cam", "BFKL", 0.838, 0.293, 0.562, 0.381, 1.561),
  _row(20, "ST+ cross", ("st_plus_cross",), "cam", "CKL", 0.831, 0.284, 0.558, 0.382, 1.585),
  _row(
    21, "Selective SC, LC, CC, FRL removed at inference", PLUS, "select", "ABCEIJKN",
    0.856, 0.312, 0.564, 0.436, 1.857,
  ),
  _row(
    22, "Selective SC, LC, CC, switch forced to 1 at inference", PLUS, "select", "ABCIJKLN",
    0.875, 0.329, 0.587, 0.461, 1.893,
  ),
  _row(23, "Average of SC, LC, CC", PLUS, "average", "ABCEIJKLM", 0.864, 0.319, 0.585, 0.432, 1.903),
  _row(24, "Selective SC, LC, CC", PLUS, "select", "ABCEIJKLN", 0.886, 0.336, 0.596, 0.467, 2.156),
  _row(25, "SCAM+", (*FINE, *PLUS), "select", "ABCEFIJKLO", 0.887, 0.361, 0.595, 0.490, 2.318),
)  # fmt: skip
"""All rows, in order."""

NOTE = (
  "What the rows of Table 1 mean is not said in full in the paper. On AVAD, row 11 (SCAM) has the scores that Table 2 "
  "gives STANet, and row 25 (SCAM+) those of STANet+; Table 5 gives STA+ short the AUC-J of row 24. STANet and STANet+ "
  "are students that know no tag, so the paper's rows may be students that learned from the maps of the row. The rows "
  "here are the maps themselves, made with the tag, unless their name says student."
)
"""What the rows can mean."""

COMPARISONS = (
  ("Fine over coarse, SCAM", 11, 5),
  ("Selective over average, coarse", 5, 4),
  ("Selective over average, fine", 11, 10),
  ("Selective over average, SC, LC, CC", 24, 23),
  ("Audio switch, SCAM", 11, 9),
  ("Audio switch, SC, LC, CC", 24, 22),
  ("FRL, S coarse", 12, 1),
  ("FRL, SC, LC, CC", 24, 21),
  ("SCAM+ over SCAM", 25, 11),
)
"""What the paper concludes from the table (§6.2): the claim, the row with the part, and the row without it."""
