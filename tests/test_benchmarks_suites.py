"""Tests that one command runs a suite of benchmarks, goes on, and fails where something has become slower."""

import importlib
import json
import sys

import pytest

from helpers.paths import ROOT

sys.path.insert(0, str(ROOT))  # `benchmarks` is not installed with stajax

suites = importlib.import_module("benchmarks.__main__")


def result(*ratios):
  table = {"stajax": {"seconds": [1.0], "median": 1.0, "per_second": 1.0}}
  return {
    "benchmark": "metrics",
    "title": "scores",
    "arguments": {},
    "unit": "frames/s",
    "machine": {"device": "a machine", "cores": 2, "platform": "cpu"},
    "versions": {"jax": "1"},
    "results": table,
    "ratios": {"stajax / peer": {"median": sorted(ratios)[len(ratios) // 2], "rounds": list(ratios)}},
  }


@pytest.fixture
def run(monkeypatch, tmp_path):
  """Replaces the benchmarks by ones that write given ratios; returns the names of those that ran."""
  ran = []

  def fake(command, path):
    ran.append(path.stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.stem != "broken":
      path.write_text(json.dumps(result(5.0, 5.1, 5.2)))
    return path.stem != "broken"

  monkeypatch.setattr(suites, "_run", fake)
  return ran


def test_all_modules_and_options_of_the_suites_exist():
  for suite in suites.SUITES.values():
    for words in suite.values():
      name, *options = words.split()
      module = importlib.import_module(f"benchmarks.{name}")
      with pytest.raises(SystemExit) as ended:
        module.main([*options, "--help"])
      assert ended.value.code == 0


def test_what_was_run_is_not_run_again(run, tmp_path):
  assert suites.main(["small", "--out", str(tmp_path)]) == 0
  assert len(run) == len(suites.SUITES["small"]) and "## a machine, 2 CPU cores" in (tmp_path / "page.md").read_text()
  assert suites.main(["small", "--out", str(tmp_path)]) == 0
  assert len(run) == len(suites.SUITES["small"])


@pytest.mark.parametrize("before, code", [((5.0, 5.1, 5.2), 0), ((6.0, 6.1, 6.2), 1)])
def test_slower_than_the_baseline_fails(run, tmp_path, before, code):
  baseline = tmp_path / "baseline"
  baseline.mkdir()
  (baseline / "small_metrics.json").write_text(json.dumps(result(*before)))
  assert suites.main(["small", "--out", str(tmp_path / "out"), "--baseline", str(baseline)]) == code


def test_a_failing_benchmark_does_not_stop_the_others(run, tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(suites.SUITES, "small", {"broken": "metrics", "whole": "metrics"})
  assert suites.main(["small", "--out", str(tmp_path)]) == 2
  assert run == ["broken", "whole"] and "broken failed" in capsys.readouterr().err
