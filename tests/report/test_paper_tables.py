"""The paper's tables from scores: what is there, what is published, and what is missing, with the reason."""

import json

import pytest

from stajax.report import paper_tables, published
from stajax.report.paper_tables import HERE, PUBLISHED
from stajax.report.table_1 import ROWS
from stajax.report.table_files import markdown, write_tables


def scores(value):
  return dict.fromkeys(published.METRICS, value)


def rows_of(table, origin):
  return [
    (part.heading, row.title, list(row.cells)) for part in table.parts for row in part.rows if row.origin == origin
  ]


def test_table_1_has_rows_their_students_and_the_papers_numbers():
  found = {"AVAD": {row.method: scores(row.number / 100) for row in ROWS[:12]} | {"row_11_student": scores(0.5)}}
  table = paper_tables.table_1(found, {"row_03": "ST, tags predicted"}, "AVAD")
  ours = rows_of(table, HERE)
  assert ours[2][1:] == ("3 ST, tags predicted", ["CD", *["0.030"] * 5])
  assert ours[11][1] == "11 its student STA, without tags" and ours[11][2][1] == "0.500" and len(ours) == 13
  papers = rows_of(table, PUBLISHED)
  assert papers[10][1:] == ("11 in the paper", ["ABCEFH", "0.873", "0.334", "0.580", "0.438", "2.018"])
  assert table.missing == [f"rows {', '.join(map(str, range(13, 26)))}: the model has no such networks"]
  assert "Table 5 gives STA+ short the AUC-J of row 24" in table.notes[0]  # what the paper's own numbers say
  papers = {row.number: row.published for row in ROWS}
  stanet = {each.method: each.scores for each in published.table_2() if each.set == "AVAD"}
  assert (
    papers[11] == pytest.approx(stanet["STANet"], abs=0.005) and papers[25]["auc_judd"] == stanet["STANet+"]["auc_judd"]
  )
  other = paper_tables.table_1({"DIEM": found["AVAD"]}, {}, "DIEM")
  assert not rows_of(other, PUBLISHED)  # the paper's numbers are those of AVAD
  assert paper_tables.table_1({}, {}, "AVAD", "no tree").missing == ["no tree"]


def test_table_2_has_a_part_for_each_set_and_says_what_is_missing():
  ours = {
    "STANet+ (a)": {"AVAD": {"final": scores(0.3)}, "AVAD/x": {"final": scores(0.1)}, "Own": {"final": scores(0.2)}}
  }
  table = paper_tables.table_2(ours, {"AVAD": {"layer_cam": scores(None)}}, {"STANet": "no such run"})
  assert [part.heading for part in table.parts] == [*published.SETS, "Own"]
  assert rows_of(table, HERE) == [("AVAD", "STANet+ (a)", ["0.300"] * 5), ("Own", "STANet+ (a)", ["0.200"] * 5)]
  assert rows_of(table, "baseline") == [("AVAD", "LCAM of our S", ["–"] * 5)]
  assert ("AVAD", "STANet+♭ (weakly supervised; paper)", ["0.892", "0.366", "0.603", "0.508", "2.430"]) in rows_of(
    table, PUBLISHED
  )
  assert table.missing[0] == "STANet: no such run" and "DIEM: no tree that was given has this set" in table.missing
  assert len(table.missing) == 6


def test_tables_3_and_4():
  found = {"AVAD": {"row_25": scores(0.5), "row_25_0.3": scores(0.4), "row_25_0.7": scores(0.1)}}
  table = paper_tables.table_3(found, "AVAD", {"row_25": "SCAM+"})
  assert [cells for _, _, cells in rows_of(table, HERE)] == [
    ["0.0", *["0.500"] * 3],
    ["0.3", *["0.400"] * 3],
    ["0.7", *["0.100"] * 3],
  ]
  assert len(rows_of(table, PUBLISHED)) == 24 and not table.missing
  assert paper_tables.table_3({}, "AVAD", {}, "no tree").missing == ["no tree"]
  table = paper_tables.table_4({"re-trained (b)": {"AVAD": {"final": scores(0.2)}}, "c": {}})
  assert [title for _, title, _ in rows_of(table, HERE)] == ["re-trained (b)"] and len(rows_of(table, PUBLISHED)) == 8


def test_table_5_adds_up():
  def plan(gmac, number):
    return {"gflop": 2 * gmac, "gmac": gmac, "params": 1e6 * gmac, "trained": ["x"] * number}

  plans = {"s": plan(10, 1), "s_plus": plan(5, 3), "tagger": plan(99, 3), "sta": plan(1, 1), "sta_plus": plan(2, 2)}
  table = paper_tables.table_5(plans)
  totals = {title: cells for _, title, cells in rows_of(table, HERE) if "all" in title or "less" in title}
  assert totals["SCAM+ in all"] == ["4", "50.00", "25.00", "25.00"]
  assert totals["STANet+ in all"] == ["3", "10.00", "5.00", "5.00"]
  assert totals["STANet+ less than SCAM+"] == ["", "80%", "80%", "80%"]
  printed = {title: cells for _, title, cells in rows_of(table, PUBLISHED)}
  assert printed["STANet+ less than SCAM+"] == ["", "52%", "52%", "89%"]  # as the paper says
  stanet = paper_tables.table_5({"s": plan(10, 1), "sta": plan(1, 1)})
  assert [part.heading for part in stanet.parts] == ["SCAM", "STANet", "Reduction"]


def test_files_mark_what_is_published(tmp_path):
  table = paper_tables.table_2({"STANet+ <a>": {"AVAD": {"final": scores(0.3)}}}, {}, {})
  empty = paper_tables.table_1({}, {}, "AVAD", "no tree")
  write_tables(tmp_path, "Tables", [table, empty], [("figures/a.jpg", "clip & co")], ["synthetic: rendered."])
  page, text = ((tmp_path / name).read_text() for name in ("index.html", "tables.md"))
  assert '<tr class="here"><th scope="row">STANet+ &lt;a&gt;</th><td>here</td><td>0.300</td>' in page
  assert page.count('<tr class="published">') == 212 and "clip &amp; co" in page and "synthetic: rendered." in page
  assert "<li>Missing: no tree</li>" in page
  assert "| STANet+ <a> | here | 0.300 |" in text and "Missing: no tree" in text and "synthetic: rendered." in text
  assert json.loads((tmp_path / "tables.json").read_text())["table_1"]["missing"] == ["no tree"]
  assert markdown(empty).startswith("## Table 1")
