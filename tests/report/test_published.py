"""Published numbers against the paper's own text, cell by cell."""

import re

import pytest

from helpers.paths import SHARED
from stajax.report import published

PAPER = SHARED / "paper" / "stanet_plus.md"
needs_paper = pytest.mark.skipif(not PAPER.is_file(), reason="needs the paper in `shared` beside the repository")


def printed_rows():
  """Returns the cells of every line of the paper that has tabs, without marks of bold and superscripts."""
  rows = [re.sub(r"</?(b|sup)>", "", line).split("\t") for line in PAPER.read_text().splitlines() if "\t" in line]
  return [[cell.strip() for cell in row] for row in rows]


def numbers(cells):
  return [float(cell) for cell in cells if re.fullmatch(r"\d+\.\d+", cell)]


@needs_paper
def test_table_2_is_the_papers():
  found = {}
  for each in published.table_2():
    if each.source == "paper":
      assert list(each.scores) == list(published.METRICS)
      found.setdefault(each.method, {})[each.set] = list(each.scores.values())
  expected = {}
  for row in printed_rows():
    if len(values := numbers(row)) == 30:
      name = next(cell for cell in row if cell and "supervised" not in cell).replace("STANet+ b", "STANet+♭")
      parts = {name: values[5 * i : 5 * i + 5] for i, name in enumerate(published.SETS)}
      expected[re.sub(r"^STANet\+ ?b$", "STANet+♭", name)] = parts
  assert found == expected and len(found) == 28


def test_later_models_say_where_their_numbers_are_printed():
  others = [each for each in published.table_2() if each.source != "paper"]
  assert {each.source for each in others} == {"Zhao et al. 2026", "recalled"}
  assert {each.method for each in others if each.source == "recalled"} == {"DiffSal 2024"}
  for each in others:
    assert each.set in published.SETS and each.scores["s_auc"] is None
    assert 0.85 < (each.scores["auc_judd"] or 0) < 1 and 0.4 < (each.scores["cc"] or 0) < 1


@needs_paper
def test_tables_3_to_5_are_the_papers():
  rows = printed_rows()
  thresholds = [numbers(row)[1:] for row in rows if re.fullmatch(r"0\.[0357]", row[0]) and len(numbers(row)) == 10]
  assert len(thresholds) == 8
  for block, names in enumerate((("MWS", "WSSA", "WSS"), ("ScoCAM", "LCAM", "SGradCAMpp"))):
    for place, name in enumerate(names):
      printed = tuple(tuple(line[3 * place : 3 * place + 3]) for line in thresholds[4 * block : 4 * block + 4])
      assert published.TABLE_3[name] == printed
  table_4 = [numbers(row) for row in rows if re.match(r"(STANet\+|ACLNet) (Weakly|Fully|Re-|re-)", row[0], re.I)]
  printed = {tuple(line[i : i + 5]) for line in table_4 for i in (0, 5)}
  assert printed == set(published.TABLE_4.values()) and len(table_4) == 4
  costs = {row[0]: numbers(row) for row in rows if row[0] in ("FLOPs", "MACs", "Params")}
  columns = ("s_coarse", "s", "s_plus", *[None] * 2, "sa_coarse", "sa", "sa_plus", None, "st_coarse", "st", "st_plus")
  for place, name in enumerate(columns):
    if name is not None:
      assert published.TABLE_5[name] == tuple(costs[kind][place] for kind in ("FLOPs", "MACs", "Params"))
  students = {
    row[0]: tuple(numbers(row)[:3]) for row in rows if row[0] in ("STANet", "STA+Short", "STA+Long", "STANet+")
  }
  assert students["STA+Short"] == students["STA+Long"] == published.TABLE_5["sta_plus"]
  assert students["STANet"] == published.TABLE_5["sta"] and students["STANet+"] == published.TABLE_5_SUMS["STANet+"]
