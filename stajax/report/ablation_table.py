"""Table 1 on a page: the rows with their components, scores, and the paper's numbers beside those of its own set."""

from collections.abc import Mapping
from typing import Any

from stajax.report.score_files import Scores, format_score
from stajax.report.table_1 import COMPARISONS, COMPONENTS, ROWS, Row
from stajax.scoring.protocol import METRICS

PUBLISHED_ON = "avad"
METHODS = frozenset(row.method for row in ROWS)

Cells = list[tuple[str, bool]]
"""Texts, and whether each is to be marked."""


def ablation_tables(scores: Scores, titles: Mapping[str, str]) -> list[dict[str, Any]]:
  """For every set that has rows of Table 1 what the page shows of it; nothing where no set has any.

  Args:
    scores: {set: {method: {metric: value or None}}}; the methods `row_01` … `row_25` are taken.
    titles: by method, in place of the row's own title.

  Returns:
    Dictionaries with
    name: of the set.
    published: whether the paper's numbers are shown: the set is AVAD, whatever its case.
    rows: (number, title, ticks (15 booleans, A–O), cells, paper's cells); the best of a column is marked.
    differences: (claim, "with − without" row numbers, cells, paper's cells); those against the claim are marked.
  """
  tables = []
  for name, methods in scores.items():
    rows = [row for row in ROWS if row.method in methods]
    if not rows:
      continue
    ours = {row.number: methods[row.method] for row in rows}
    papers = {row.number: row.published for row in rows} if name.lower() == PUBLISHED_ON else {}
    marked, paper = _best(ours), _best(papers)
    tables.append(
      {
        "name": name,
        "published": bool(papers),
        "rows": [
          (row.number, titles.get(row.method, row.title), _ticks(row), marked[row.number], paper.get(row.number, []))
          for row in rows
        ],
        "differences": [
          (claim, f"{high} − {low}", _difference(ours, high, low), _difference(papers, high, low))
          for claim, high, low in COMPARISONS
          if high in ours and low in ours
        ],
      }
    )
  return tables


def _ticks(row: Row) -> list[bool]:
  return [letter in row.components for letter in COMPONENTS]


def _best(table: Mapping[int, Mapping[str, float | None]]) -> dict[int, Cells]:
  texts = {number: [format_score(row[metric]) for metric in METRICS] for number, row in table.items()}
  columns = ([row[metric] for row in table.values() if row[metric] is not None] for metric in METRICS)
  best = [format_score(max(column)) if column else None for column in columns]
  return {number: [(text, text == top) for text, top in zip(row, best)] for number, row in texts.items()}


def _difference(table: Mapping[int, Mapping[str, float | None]], high: int, low: int) -> Cells:
  if high not in table or low not in table:
    return []
  cells: Cells = []
  for metric in METRICS:
    values = table[high][metric], table[low][metric]
    if None in values:
      cells.append((format_score(None), False))
      continue
    difference = round(values[0] - values[1], 3) + 0.0  # + 0.0: never "-0.000"
    cells.append((f"{difference:+.3f}".replace("-", "−"), difference < 0))
  return cells
