"""Tests of `stajax report`: tables, curves and frames of several runs, and what is said of runs that differ."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from stajax import __main__ as console
from stajax.report.compare import compare_runs, comparison_csv
from stajax.report.page import Example, Page, write_page
from stajax.report.run_folder import name_runs, read_frames, read_run
from stajax.report.score_files import describe, write_scores
from stajax.scoring.protocol import METRICS, Settings
from stajax.scoring.results import Evaluation, VideoScores

EVIL = "<script>alert('x')</script>"


def write_run(folder, nss, settings=None, database="d", frames=2, losses=(), titles=(), groups=None):
  """Writes a run whose final map has an NSS for each video; the other metrics are a tenth of it."""
  rows = {"final": nss, "centre": np.ones(len(nss))}
  videos = tuple(
    VideoScores(
      *(database, f"v{i}", 0, 1, np.arange(frames), frames),
      {
        method: {metric: np.full(frames, values[i] if metric == "nss" else values[i] / 10) for metric in METRICS}
        for method, values in rows.items()
      },
      {method: {(8, 8)} for method in rows},
    )
    for i in range(len(nss))
  )
  evaluation = Evaluation(videos, (), settings or Settings(), groups or {})
  about, report = describe(evaluation), folder / "report"
  scores = write_scores(evaluation, about, report)
  rng = np.random.default_rng(len(nss))
  picture, fixations = rng.integers(255, size=(12, 16, 3), dtype=np.uint8), np.eye(12, 16, dtype=bool)
  maps = {name: rng.integers(255, size=(6, 8), dtype=np.uint8) for name in ("sta", "final")}
  examples = [Example(title, picture, maps, fixations * np.uint8(255), fixations) for title in titles]
  write_page(report, Page("run", scores, about, examples=examples))
  if losses:
    log = folder / "stages" / "sta" / "log.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text("".join(json.dumps({"step": 10 * i, "loss": loss}) + "\n" for i, loss in enumerate(losses, 1)))
  return folder


def report(*arguments):
  return console.main(["report", *map(str, arguments)])


def test_differences_are_of_the_sets_and_their_intervals_of_the_videos(tmp_path):
  first, second = np.array([1.0, 2.0, 3.0, 2.5]), np.array([1.5, 2.25, 3.5, 3.5])
  runs = [read_run(write_run(tmp_path / name, nss), name) for name, nss in (("a", first), ("b", second))]
  (table,), warnings = compare_runs(runs)
  assert not warnings and (table.name, table.num_videos, table.runs) == ("d", 4, ("a", "b"))
  cells = table.rows["final"]
  assert cells["a"]["nss"].score == pytest.approx(first.mean()) and cells["a"]["nss"].difference is None
  found, expected = cells["b"]["nss"], second - first
  assert found.difference == pytest.approx(expected.mean()) and (found.videos, found.better) == (4, 4)
  assert found.half_width == pytest.approx(stats.sem(expected) * stats.t.ppf(0.975, 3)) and found.is_sure
  assert not table.rows["centre"]["b"]["nss"].is_sure and table.rows["centre"]["b"]["nss"].difference == 0
  rows = list(csv.DictReader(comparison_csv([table]).splitlines()))
  assert len(rows) == 2 * 2 * len(METRICS)
  row = next(row for row in rows if (row["method"], row["run"], row["metric"]) == ("final", "b", "nss"))
  assert float(row["difference"]) == pytest.approx(expected.mean(), abs=1e-6) and row["higher_in"] == "4"


@pytest.mark.parametrize(
  ("changes", "warning"),
  [
    (
      {"settings": Settings(stride=2)},
      "scored in different ways, which cannot be compared (protocol",
    ),
    (
      {"settings": Settings(protocol="dhf1k")},
      "protocol dhf1k, every frame from frame 1 on,",
    ),
    ({"database": "e"}, "d: not scored by b"),
    ({"nss": [1.0, 2.0]}, "d: has different videos in a, b"),
    ({"frames": 3}, "d: has different numbers of frames in a, b"),
  ],
)
def test_runs_that_cannot_be_compared_are_told_apart(tmp_path, changes, warning):
  write_run(tmp_path / "a", [1.0, 2.0, 3.0])
  write_run(tmp_path / "b", **{"nss": [1.0, 2.0, 3.0], **changes})
  tables, warnings = compare_runs([read_run(tmp_path / name, name) for name in "ab"])
  assert len(tables) == 2 and all(len(table.runs) == 1 for table in tables)
  assert any(warning in line for line in warnings), warnings
  assert all(cell.difference is None for table in tables for row in table.rows.values() for cells in row.values()
             for cell in cells.values())  # fmt: skip


def test_the_page_shows_tables_curves_and_the_same_frames(tmp_path, capsys):
  titles = ("d/v0, frame 3", EVIL)
  write_run(tmp_path / "x" / "run", [1.0, 2.0, 3.0], losses=(3, 2, 1), titles=(*titles, "only here"))
  write_run(tmp_path / "y" / "run", [2.0, 2.5, 4.0], losses=(2, 1.5, 1), titles=[f"Best: {titles[0]}, NSS 2.31", EVIL])
  assert report(tmp_path / "x" / "run", tmp_path / "y" / "run", "--out", tmp_path / "out") == 0
  out, error = capsys.readouterr()
  assert out.startswith("2 runs, 1 sets that several were scored on alike; see ") and not error
  assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["comparison.csv", "index.html"]
  page = (tmp_path / "out" / "index.html").read_text()
  assert "x/run" in page and "y/run" in page and "<b>+0.833 ±" in page.replace("\n", "")
  assert page.count('<svg viewBox="0 0') >= 1 and page.count("var(--run-1)") > 1 and "1 after 30 steps" in page
  shown = re.findall(r'<article class="example">\n<h3>(.*?)</h3>', page)
  assert shown == [titles[0], "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"]
  assert page.count(">Frame</figcaption>") == 2 and page.count(">x/run</figcaption>") == 4
  assert "<script" not in page and not re.search(r"https?:|@import", page)


def test_pictures_are_read_only_where_they_are_pictures(tmp_path):
  page = tmp_path / "index.html"
  figure = '<figure><img src="data:image/jpeg;base64,QUJD"><figcaption>Final</figcaption></figure>'
  good = f"<article><h3>a</h3>{figure}</article>"
  bad = good.replace("data:image/jpeg;base64,QUJD", "https://example.org/x.jpg").replace(">a<", ">b<")
  page.write_text(f"{good}{bad}<img src='data:image/jpeg;base64,QUJD'><figcaption>outside</figcaption><article>")
  assert read_frames(page) == {"a": {"Final": "data:image/jpeg;base64,QUJD"}}
  assert read_frames(tmp_path / "missing.html") == {}


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda folder: None, "no such folder, expected the work folder of `stajax train`"),
    (lambda folder: folder.write_text(""), "is a file, expected the work folder"),
    (lambda folder: folder.mkdir(), "is not a run: it has no scores.json"),
    (lambda folder: (folder / "stages").mkdir(parents=True), "is a training that has no report yet"),
    (lambda folder: (write_run(folder, [1.0]) / "report" / "scores.json").write_text("{"), "scores.json"),
    (lambda folder: (write_run(folder, [1.0]) / "report" / "scores.json").write_text("[1]"), "has no scores by set"),
    (
      lambda folder: (write_run(folder, [1.0]) / "report" / "evaluation.json").write_text("{}"),
      "lacks protocol, stride",
    ),
    (lambda folder: (write_run(folder, [1.0]) / "report" / "per_video.csv").unlink(), "not a report of this version"),
  ],
)
def test_what_is_not_a_run_is_one_line(tmp_path, capsys, make, message):
  write_run(tmp_path / "good", [1.0, 2.0])
  make(tmp_path / "bad")
  assert report(tmp_path / "good", tmp_path / "bad", "--out", tmp_path / "out") == 2
  out, error = capsys.readouterr()
  assert not out and error.startswith("stajax report: ") and message in error and error.count("\n") == 1
  assert str(tmp_path / "bad") in error and not (tmp_path / "out").exists()


def test_wrong_arguments_are_one_line(tmp_path, capsys):
  run = write_run(tmp_path / "a", [1.0])
  for arguments, message in (
    ([run], "found 1 run, expected at least two"),
    ([run, run], "a run is given twice"),
    ([run, tmp_path, "--names", "a"], "--names a: expected 2 different names"),
  ):
    assert report(*arguments, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err


def test_names_are_as_short_as_they_can_be(tmp_path):
  assert name_runs([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
  assert name_runs([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]


def test_groups_are_sets_of_their_own(tmp_path):
  groups = {"d/odd": ["v1", "v2"]}
  for name, value in (("a", 3), ("b", 5)):
    write_run(tmp_path / name, [1.0, 2.0, value], groups=groups)
  runs = [read_run(tmp_path / name, name) for name in "ab"]
  tables = {table.name: table for table in compare_runs(runs)[0]}
  assert tables["d/odd"].num_videos == 2 and tables["d/odd"].rows["final"]["b"]["nss"].difference == pytest.approx(1)
  assert replace(tables["d"], rows={}).runs == ("a", "b")
