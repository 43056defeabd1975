"""The paper's tables from scores that were measured here, with the published numbers beside them, marked as such.

Every function returns a `PaperTable`; one that cannot be made says why. Nothing here reads files or runs a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stajax.report import published
from stajax.report.names import title_of
from stajax.report.table_1 import COMPONENTS, NOTE, ROWS
from stajax.report.tables import MetricScores, Scores, format_score

PUBLISHED, HERE, BASELINE = "published", "here", "baseline"
THRESHOLDS = (None, 0.3, 0.5, 0.7)
CAM_BASELINES = {
  "eigen_cam": ("ECAM", "Eigen-CAM: the first principal component of conv5_3's features."),
  "eigen_grad_cam": ("EGCAM", "Eigen-CAM of the features times their gradients."),
  "layer_cam": ("LCAM", "LayerCAM: features weighted by their positive gradients, place by place."),
  "smooth_grad_cam_pp": ("SGradCAMpp", "Smooth Grad-CAM++: Grad-CAM++ averaged over noisy frames."),
}
"""The CAM baselines that are computed here from our S, by method: the paper's name, and what they are."""
_NOT_COMPUTED = (
  "ISCAM, SSCAM and ScoCAM need hundreds to thousands of forward passes a frame; SPG, WSS, MWS, WSSA, VUNP, WSVS, "
  "BCAM, EAVOL, KDCI and CBA are other models: of these only the published numbers stand here. The paper does not say "
  "which classifier its CAM baselines explain; ours explain our S, so their rows need not be the same experiment."
)


@dataclass(frozen=True)
class TableRow:
  """A row: its title, where its numbers come from (`published`, `here` or `baseline`), and its cells."""

  title: str
  origin: str
  cells: Sequence[str]


@dataclass(frozen=True)
class TablePart:
  """Rows with a heading of their own, such as those of one data set."""

  heading: str
  columns: Sequence[str]
  rows: Sequence[TableRow]


@dataclass(frozen=True)
class PaperTable:
  """A table.

  Attributes:
    name: A name for files, such as `table_2`.
    title: What it shows.
    parts: Its parts; empty where it cannot be made.
    notes: Lines for people.
    missing: What could not be made, and why.
  """

  name: str
  title: str
  parts: Sequence[TablePart] = ()
  notes: Sequence[str] = ()
  missing: Sequence[str] = field(default=())


def table_1(scores: Scores, titles: Mapping[str, str], database: str, reason: str = "") -> PaperTable:
  """Makes Table 1 from the rows' maps, made with tags, and from students that learned from them.

  Args:
    scores: The scores of `row_01` … `row_25`, and of `row_11_student` and so on, by set.
    titles: The titles of the rows by method.
    database: The set; the paper's is AVAD.
    reason: Why there are no scores.
  """
  name, title = "table_1", f"Table 1: components, on {database}"
  found = scores.get(database, {})
  rows = [row for row in ROWS if row.method in found]
  if not rows:
    return PaperTable(name, title, notes=[NOTE], missing=[reason or f"the set {database} was not scored"])
  shown: list[TableRow] = []
  for row in rows:
    label = f"{row.number} {titles.get(row.method, row.title)}"
    ticks = "".join(letter for letter in COMPONENTS if letter in row.components)
    shown.append(TableRow(label, HERE, [ticks, *_cells(found[row.method])]))
    if (student := f"{row.method}_student") in found:
      shown.append(TableRow(f"{row.number} its student STA, without tags", HERE, [ticks, *_cells(found[student])]))
    if database == "AVAD":
      shown.append(TableRow(f"{row.number} in the paper", PUBLISHED, [ticks, *_cells(row.published)]))
  letters = "; ".join(f"{letter} {what}" for letter, what in COMPONENTS.items())
  missing = [f"rows {', '.join(absent)}: the model has no such networks"] if (absent := _absent(found)) else []
  parts = [TablePart("", ["components", *_titles(published.METRICS)], shown)]
  return PaperTable(name, title, parts, [NOTE, f"Components: {letters}."], missing)


def _absent(found: Mapping[str, MetricScores]) -> list[str]:
  return [str(row.number) for row in ROWS if row.method not in found]


def table_2(ours: Mapping[str, Scores], baselines: Scores, reasons: Mapping[str, str]) -> PaperTable:
  """Makes Table 2, a part for each set.

  Args:
    ours: The scores of STANet, STANet+ and STANet+♭, each under the method `final`.
    baselines: The scores of `CAM_BASELINES`.
    reasons: Why a row (by its name), or every row of a set (by the set's), is missing.
  """
  printed = list(published.table_2())
  measured = {name for scores in (*ours.values(), baselines) for name in scores if "/" not in name}
  sets = [*published.SETS, *sorted(measured - set(published.SETS))]
  parts: list[TablePart] = []
  for name in sets:
    rows = [
      TableRow(f"{each.method} ({each.kind}; {each.source})", PUBLISHED, _cells(each.scores))
      for each in printed
      if each.set == name
    ]
    for method, (title, _) in CAM_BASELINES.items():
      if method in baselines.get(name, {}):
        rows.append(TableRow(f"{title} of our S", BASELINE, _cells(baselines[name][method])))
    rows += [TableRow(run, HERE, _cells(of[name]["final"])) for run, of in ours.items() if "final" in of.get(name, {})]
    parts.append(TablePart(name, _titles(published.METRICS), rows))
  missing = [f"{name}: {reason}" for name, reason in reasons.items()]
  missing += [f"{name}: no tree that was given has this set" for name in published.SETS if name not in measured]
  described = [f"{title}: {what}" for title, what in CAM_BASELINES.values()]
  return PaperTable("table_2", "Table 2: six sets", parts, [_NOT_COMPUTED, *described], missing)


def table_3(scores: Scores, database: str, methods: Mapping[str, str], reason: str = "") -> PaperTable:
  """Makes Table 3: maps with low values set to 0.

  Args:
    scores: The scores of each method `NAME`, `NAME_0.3`, `NAME_0.5` and `NAME_0.7`.
    database: The set.
    methods: The titles of the methods.
    reason: Why there are no scores.
  """
  name, title = "table_3", f"Table 3: thresholds, on {database}"
  found, columns = scores.get(database, {}), ["T_h", *_titles(published.TABLE_3_METRICS)]
  rows: list[TableRow] = []
  for method, label in methods.items():
    for level in THRESHOLDS:
      key = method if level is None else f"{method}_{level}"
      if key in found:
        cells = [format_score(found[key].get(metric)) for metric in published.TABLE_3_METRICS]
        rows.append(TableRow(label, HERE, [f"{level or 0.0:.1f}", *cells]))
  missing = [] if rows else [reason or f"the set {database} was not scored"]
  if database == "AVAD":
    for method, levels in published.TABLE_3.items():
      for level, values in zip(THRESHOLDS, levels, strict=True):
        cells = [f"{level or 0.0:.1f}", *(f"{value:.3f}" for value in values)]
        rows.append(TableRow(method, PUBLISHED, cells))
  notes = ["A value of T_h sets what is below it in a map that is scaled to [0, 1] to 0."]
  return PaperTable(name, title, [TablePart("", columns, rows)] if rows else (), notes, missing)


def table_4(ours: Mapping[str, Scores], reason: str = "") -> PaperTable:
  """Makes Table 4: training on 168 tagged clips of the sets themselves; scores on AVAD.

  Args:
    ours: The scores of runs by their titles, each under the method `final`.
    reason: Why there is no run on tagged clips of eye-tracking sets.
  """
  rows = [
    TableRow(name, HERE, _cells(of["AVAD"]["final"])) for name, of in ours.items() if "final" in of.get("AVAD", {})
  ]
  rows += [
    TableRow(name, PUBLISHED, [f"{value:.3f}" for value in values]) for name, values in published.TABLE_4.items()
  ]
  note = (
    "The real fixations of the training clips are not used here: a table gives their tags (`prepare stavis --tags`)."
  )
  missing = [reason] if reason else []
  parts = [TablePart("AVAD", _titles(published.METRICS), rows)]
  return PaperTable("table_4", "Table 4: trained on the videos of one split", parts, [note], missing)


def table_5(plans: Mapping[str, Mapping[str, Any]]) -> PaperTable:
  """Makes Table 5 from what `stajax.plan.per_network.plan_networks` returns: costs of one example, sums, reductions."""
  students = [name for name in plans if name in ("sta", "sta_plus", "students")]
  teachers = [name for name in plans if name in published.TABLE_5 and name not in students]
  # Without networks with companions it is STANet, of which the paper prints no sums.
  plus = "+" if any(name.endswith("_plus") for name in teachers) else ""
  ours = {f"SCAM{plus}": _cost(plans, teachers), f"STANet{plus}": _cost(plans, students)}
  parts = [
    TablePart(group, ["networks", "GFLOP", "GMAC", "parameters M"], _cost_rows(plans, names, group, ours[group]))
    for group, names in zip(ours, (teachers, students), strict=True)
  ]
  reductions: list[TableRow] = []
  for origin, sums in ((HERE, ours), (PUBLISHED, published.TABLE_5_SUMS)):
    (teacher, before), (student, after) = sums.items()
    cells = [_reduction(a, b) for a, b in zip(before, after, strict=True)]
    reductions.append(TableRow(f"{student} less than {teacher}", origin, ["", *cells]))
  parts.append(TablePart("Reduction", ["", "GFLOP", "GMAC", "parameters M"], reductions))
  notes = [
    "One example is a group: nine frames for ST+ and STA+, one second of sound for each fragment that hears. A sum "
    "counts a network as often as it is trained (S+ and ST+ three times, SA+ twice, STA+ twice).",
    "The paper's columns are not consistent: what it prints of S and S+ is more than a plain VGG-16 with a neck has.",
  ]
  missing = ["scores on devices (Snapdragon 8 Gen 3, RTX 3060): no such device was measured"]
  return PaperTable("table_5", "Table 5: what networks cost", parts, notes, missing)


def _cost(plans: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> tuple[float, float, float]:
  def total(key: str) -> float:
    return sum(float(plans[name][key]) * len(plans[name]["trained"]) for name in names)

  return total("gflop"), total("gmac"), total("params") / 1e6


def _cost_rows(
  plans: Mapping[str, Mapping[str, Any]], names: Sequence[str], group: str, total: Sequence[float]
) -> list[TableRow]:
  rows: list[TableRow] = []
  for name in names:
    plan = plans[name]
    costs = (plan["gflop"], plan["gmac"], plan["params"] / 1e6)
    rows.append(TableRow(name, HERE, [str(len(plan["trained"])), *(f"{value:.2f}" for value in costs)]))
    if name in published.TABLE_5:
      rows.append(TableRow(name, PUBLISHED, ["1", *(f"{value:.2f}" for value in published.TABLE_5[name])]))
  number = sum(len(plans[name]["trained"]) for name in names)
  rows.append(TableRow(f"{group} in all", HERE, [str(number), *(f"{value:.2f}" for value in total)]))
  if group in published.TABLE_5_SUMS:
    printed = published.TABLE_5_SUMS[group]
    rows.append(TableRow(f"{group} in all", PUBLISHED, ["", *(f"{value:.2f}" for value in printed)]))
  return rows


def _reduction(before: float, after: float) -> str:
  return "–" if not before else f"{1 - after / before:.0%}"


def appendix(scores: Scores, database: str, settings: Mapping[str, str], reason: str = "") -> PaperTable:
  """Makes the sweeps of the appendices: one setting of the C-GCN changed at inference, all others as trained.

  Args:
    scores: The scores by set.
    database: The set.
    settings: For each method a title such as `T_d = 0.7`.
    reason: Why there are no scores.
  """
  found = scores.get(database, {})
  rows = [TableRow(title, HERE, _cells(found[method])) for method, title in settings.items() if method in found]
  notes = [
    "SCAM+ (row 25) with one setting changed at inference; the networks are those of the run. To train with another "
    "value, set network.discard_threshold (T_d), network.refinement_rate (T_r) or network.reasoning_steps (m).",
    "n is the number of companions of a target. Networks are trained with two, as in Fig. 7: a group has three nodes.",
  ]
  missing = [] if rows else [reason or f"the set {database} was not scored"]
  parts = [TablePart("", _titles(published.METRICS), rows)] if rows else []
  return PaperTable("appendix", f"Appendices C, D, F.2: settings of the C-GCN, on {database}", parts, notes, missing)


def _titles(metrics: Sequence[str]) -> list[str]:
  return [title_of(metric) for metric in metrics]


def _cells(scores: MetricScores) -> list[str]:
  return [format_score(scores.get(metric)) for metric in published.METRICS]
