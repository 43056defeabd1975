"""Scores as tables: of a set, of the ablation (the paper's Table 1 with its own numbers), and for a terminal."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from stajax.report.names import title_of
from stajax.report.table_1 import COMPARISONS, COMPONENTS, ROWS
from stajax.scoring.baselines import BASELINES
from stajax.scoring.protocol import FURTHER, METRICS, metric_of
from stajax.scoring.viewers import INTER_OBSERVER, LEARNED_CENTRE

Scores = dict[str, dict[str, dict[str, float | None]]]
"""{set: {method: {metric: value, None where undefined}}}"""
MetricScores = Mapping[str, float | None]
"""{metric: value, None where undefined}"""
Cells = list[tuple[str, bool]]
"""The texts of a row's cells, and whether each is marked."""
Key = TypeVar("Key", bound=Hashable)

PUBLISHED_ON = "avad"
"""The set of the paper's Table 1, in lower case."""
ABLATION_METHODS = frozenset(row.method for row in ROWS)
"""The methods that are rows of Table 1."""


@dataclass(frozen=True)
class AblationRow:
  """One row of Table 1.

  Attributes:
    number: Its number in the paper.
    title: What the row is.
    ticks: Whether it has each of the components A–O.
    cells: Its scores; the best of a column is marked.
    published: The paper's scores likewise; empty for any set but the paper's.
  """

  number: int
  title: str
  ticks: list[bool]
  cells: Cells
  published: Cells


@dataclass(frozen=True)
class AblationDifference:
  """What one part of the method adds.

  Attributes:
    claim: What the paper concludes.
    rows: The numbers of the compared rows, "with − without".
    cells: The differences; those that contradict the claim are marked.
    published: The differences of the paper's scores likewise; empty for any set but the paper's.
  """

  claim: str
  rows: str
  cells: Cells
  published: Cells


@dataclass(frozen=True)
class AblationTable:
  """The rows of Table 1 that a set has.

  Attributes:
    name: The name of the set.
    is_published: Whether the set is the paper's, so that the paper's numbers are shown.
    rows: The rows.
    differences: The comparisons whose rows are all there.
  """

  name: str
  is_published: bool
  rows: list[AblationRow]
  differences: list[AblationDifference]


def metrics_of(scores: Scores) -> list[str]:
  """Returns the names of the metrics of tables: the five of the protocol, and those beside them that scores have."""
  found = {metric for methods in scores.values() for row in methods.values() for metric in row}
  return [*METRICS, *(metric for metric in FURTHER if metric in found)]


def score_rows(scores: Mapping[str, MetricScores], metrics: Sequence[str] = ()) -> list[tuple[str, bool, Cells]]:
  """Returns (method, whether it is a baseline, its cells) for one set of `Scores`; the best of a metric is marked.

  `metrics` are the columns, by default the five of the protocol.
  """
  metrics = metrics or list(METRICS)
  compared = {method: row for method, row in scores.items() if method != INTER_OBSERVER}  # which is no contestant
  marked = _mark_best(compared, metrics)
  limit = {method: [(format_score(row.get(metric)), False) for metric in metrics] for method, row in scores.items()}
  grey = (*BASELINES, LEARNED_CENTRE, INTER_OBSERVER)
  return [(method, method in grey, marked.get(method, limit[method])) for method in scores]


def ablation_tables(scores: Scores, titles: Mapping[str, str]) -> list[AblationTable]:
  """Makes a table for every set that has rows of Table 1.

  Args:
    scores: The scores, of which the methods `row_01` … `row_25` are taken.
    titles: Titles of rows by method, which replace the rows' own.
  """
  tables, metrics = [], metrics_of(scores)
  for name, methods in scores.items():
    rows = [row for row in ROWS if row.method in methods]
    if not rows:
      continue
    ours = {row.number: methods[row.method] for row in rows}
    papers = {row.number: row.published for row in rows} if name.lower() == PUBLISHED_ON else {}
    marked, published = _mark_best(ours, metrics), _mark_best(papers, metrics)
    shown = [
      AblationRow(
        row.number,
        titles.get(row.method, row.title),
        [letter in row.components for letter in COMPONENTS],
        marked[row.number],
        published.get(row.number, []),
      )
      for row in rows
    ]
    differences = [
      AblationDifference(
        claim,
        f"{high} − {low}",
        _differences(ours, high, low, metrics),
        _differences(papers, high, low, metrics),
      )
      for claim, high, low in COMPARISONS
      if high in ours and low in ours
    ]
    tables.append(AblationTable(name, bool(papers), shown, differences))
  return tables


def format_table(scores: Scores) -> str:
  """Returns the scores as lines of text for a terminal."""
  width = max((len(method) for methods in scores.values() for method in methods), default=0)
  lines, columns = [], {metric: max(8, len(title_of(metric)) + 2) for metric in metrics_of(scores)}
  for name, methods in scores.items():
    lines.append(name)
    lines.append(" " * (width + 4) + "".join(f"{title_of(metric):>{wide}}" for metric, wide in columns.items()))
    for method, row in methods.items():
      lines.append(
        f"  {method:<{width + 2}}"
        + "".join(f"{format_score(row.get(metric)):>{wide}}" for metric, wide in columns.items())
      )
  return "\n".join(lines)


def format_score(value: float | None) -> str:
  """Returns a score with three decimals, or a dash where it is not defined."""
  return "–" if value is None else f"{round(value, 3) + 0.0:.3f}"  # + 0.0: never "-0.000"


def _mark_best(table: Mapping[Key, MetricScores], metrics: Sequence[str]) -> dict[Key, Cells]:
  """Formats all scores of a table, and marks the best ones of every metric."""
  best = {}
  for metric in metrics:
    values = [value for row in table.values() if (value := row.get(metric)) is not None]
    choose = min if metric_of(metric).lower_is_better else max
    best[metric] = format_score(choose(values)) if values else None
  return {
    key: [(text := format_score(row.get(metric)), text == best[metric]) for metric in metrics]
    for key, row in table.items()
  }


def _differences(table: Mapping[int, MetricScores], high: int, low: int, metrics: Sequence[str]) -> Cells:
  """Formats how much higher the scores of one row are than those of another; empty if a row is missing."""
  if high not in table or low not in table:
    return []
  cells: Cells = []
  for metric in metrics:
    first, second = table[high].get(metric), table[low].get(metric)
    if first is None or second is None:
      cells.append((format_score(None), False))
      continue
    difference = round(first - second, 3) + 0.0  # + 0.0: never "-0.000"
    cells.append(
      (
        f"{difference:+.3f}".replace("-", "−"),
        (difference > 0) if metric_of(metric).lower_is_better else (difference < 0),
      )
    )
  return cells
