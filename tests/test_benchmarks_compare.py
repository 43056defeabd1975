"""Tests of the comparison of two results of a benchmark."""

import json

import pytest

from benchmarks import compare
from helpers.paths import ROOT

KEPT = sorted((ROOT / "benchmarks/results").glob("*.json"))


def write(path, ratios, **more):
  rounds = {name: {"rounds": values, "median": sorted(values)[len(values) // 2]} for name, values in ratios.items()}
  path.write_text(json.dumps({"ratios": rounds, "results": {}, "arguments": {}, **more}))
  return str(path)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_result_is_as_fast_as_itself(path, capsys):
  assert compare.main([str(path), str(path)]) == 0
  assert "SLOWER" not in capsys.readouterr().out


@pytest.mark.parametrize(
  ("after", "is_slower"),
  [([1.0, 1.1, 1.2], False), ([0.8, 0.9, 0.95], True), ([0.8, 0.9, 1.05], False), ([0.96, 0.97, 0.98], True)],
)
def test_slower_means_a_lower_median_and_no_overlap(tmp_path, capsys, after, is_slower):
  old = write(tmp_path / "old.json", {"stajax / peer": [1.0, 1.1, 1.2]})
  new = write(tmp_path / "new.json", {"stajax / peer": after}, arguments={"rounds": 3})
  assert compare.main([old, new]) == int(is_slower)
  out = capsys.readouterr().out
  assert ("SLOWER" in out) == is_slower and "note: the arguments differ" in out


def test_share_of_peak_and_the_input_pipeline():
  result = {
    "ratios": {},
    "peak": {"flops": 100.0},
    "results": {"stajax": {"flops": 10.0, "seconds": [0.5, 0.2]}, "peer": {"flops": 1.0, "seconds": [1.0]}},
  }
  assert compare.read_rounds(result) == {"stajax, share of peak": [0.2, 0.5]}
  cases = {"cases": [{"stage": "fine", "source": "S", "ratios": [0.9]}]}
  assert compare.read_rounds(cases) == {"fine S / plain decoding": [0.9]}


def test_what_cannot_be_compared_is_one_line(tmp_path, capsys):
  good, other = write(tmp_path / "a.json", {"x": [1.0]}), write(tmp_path / "b.json", {"y": [1.0]})
  (tmp_path / "bad.json").write_text("{")
  (tmp_path / "else.json").write_text("[]")
  for path in (other, tmp_path / "bad.json", tmp_path / "else.json", tmp_path / "none.json"):
    assert compare.main([good, str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("benchmarks.compare: ") and error.count("\n") == 1
