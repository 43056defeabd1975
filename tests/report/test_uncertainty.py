"""Tests of intervals, tests between methods, and shares."""

import csv

import numpy as np
import pytest
import scipy.stats

from stajax.report import uncertainty
from stajax.report.page import Page, write_page
from stajax.report.score_files import add_uncertainty, describe, write_scores
from stajax.scoring import protocol
from stajax.scoring.results import Evaluation, VideoScores

GAINS = np.array([0.1, 0.3, -0.05, 0.2, 0.25, 0.15])


def make_evaluation():
  """Two methods on six videos of two frames; `new` has higher NSS by `GAINS`, all else is equal."""
  videos = []
  for k, gain in enumerate(GAINS):
    base = {metric: np.full(2, 0.5 + k / 10) for metric in protocol.METRICS}
    between = {metric: np.full(2, np.nan if metric in ("sim", "cc") else 2.0) for metric in protocol.METRICS}
    scores = {"centre": base, "inter_observer": between, "new": base | {"nss": base["nss"] + gain}}
    videos.append(VideoScores("DB", f"v{k}", 0, 1 + (k == 0), np.arange(2), 2, scores, {}))
  return Evaluation(tuple(videos), (), protocol.Settings())


def test_an_interval_is_near_students_and_repeatable():
  values = np.random.default_rng(0).normal(3, 1, 60)
  low, high = uncertainty.bootstrap_interval(values)
  expected = scipy.stats.t.interval(0.95, 59, values.mean(), values.std(ddof=1) / np.sqrt(60))
  assert (low, high) == pytest.approx(expected, abs=0.05)
  assert uncertainty.bootstrap_interval(values) == (low, high)
  assert uncertainty.bootstrap_interval(values[:2]) is None and uncertainty.bootstrap_interval(np.ones(9)) is None


@pytest.mark.parametrize("name", ["stavis", "pysaliency"])
@pytest.mark.parametrize("nan_policy", ["stavis", "zero"])
def test_intervals_are_those_of_the_scores(name, nan_policy):
  """The sums and weights of videos make up the score of the set, with splits, list rows and undefined frames."""
  rng, videos = np.random.default_rng(0), []
  for k, (video, entries, frames) in enumerate([("a", 2, 3), ("a", 1, 3), ("b", 1, 40), ("c", 3, 7), ("d", 1, 5)]):
    scores = {metric: rng.random(frames) for metric in protocol.METRICS}
    scores["nss"][0] = np.nan
    scores["cc"][:] = np.nan if video == "d" else scores["cc"]
    videos.append(VideoScores("DB", video, k, entries, np.arange(frames), frames, {"m": scores}, {}))
  found = Evaluation(tuple(videos), (), protocol.Settings(protocol=name, nan_policy=nan_policy))
  intervals = uncertainty.bootstrap_intervals(found)["DB"]["m"]
  for metric, score in found.set_scores()["DB"]["m"].items():
    sums, weights = uncertainty.video_parts(found, videos, "m", metric)
    assert sums.sum() / weights.sum() == pytest.approx(score, abs=1e-12)
    assert len(sums) == (3 if metric == "cc" and nan_policy == "stavis" else 4)
    assert intervals[metric][0] < score < intervals[metric][1]


def test_methods_are_compared_video_by_video():
  rows = uncertainty.paired_tests(make_evaluation())["DB"]
  (row,) = [row for row in rows if (row["first"], row["second"], row["metric"]) == ("new", "centre", "nss")]
  assert row["difference"] == pytest.approx(GAINS.mean()) and row["better"] == 5 and row["videos"] == 6
  assert row["interval"][0] < GAINS.mean() < row["interval"][1]
  # The gain that is negative is the smallest in size: of the 64 ways of signs, 2 on each side are as extreme.
  assert row["p"] == pytest.approx(min(1, 4 / 64 * len(rows))) or row["p"] >= 4 / 64
  assert not [row for row in rows if {row["first"], row["second"]} == {"new", "centre"} and row["metric"] == "cc"]


def test_holms_correction():
  assert uncertainty._holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
  assert uncertainty._holm([]) == []


def test_shares_of_the_way():
  scores = {"DB": {"centre": {"nss": 1.0, "cc": 0.2}, "inter_observer": {"nss": 3.0, "cc": None}, "m": {"nss": 2.5}}}
  found = uncertainty.shares(scores)["DB"]
  assert found["m"] == {"nss": 0.75} and found["centre"] == {"nss": 0.0} and found["inter_observer"] == {"nss": 1.0}


def test_the_files_and_the_page(tmp_path):
  found = make_evaluation()
  about = describe(found)
  add_uncertainty(about, found)
  scores = write_scores(found, about, tmp_path)
  write_page(tmp_path, Page("T", scores, about))
  rows = list(csv.DictReader((tmp_path / "paired_tests.csv").open()))
  assert {row["set"] for row in rows} == {"DB"} and all(float(row["p_holm"]) <= 1 for row in rows)
  rows = list(csv.DictReader((tmp_path / "intervals.csv").open()))
  (shown,) = uncertainty.format_uncertainty(about, ["sim", "nss", "kl"])
  cells = dict(shown[1])["new"]
  assert len(cells) == 3 and cells[2] == "–"
  row = next(row for row in rows if (row["method"], row["metric"]) == ("new", "nss"))
  assert [float(row[key]) for key in ("score", "low", "high", "share")] == pytest.approx(
    [scores["DB"]["new"]["nss"], *about["intervals"]["DB"]["new"]["nss"], about["shares"]["DB"]["new"]["nss"]], abs=1e-6
  )
  page = (tmp_path / "index.html").read_text()
  assert f"{GAINS.mean():+.3f} (p " in page and "Maps − Centre" not in page and "new − Centre" in page
  low, high = about["intervals"]["DB"]["new"]["nss"]
  assert f"{low:.3f}\N{NO-BREAK SPACE}to {high:.3f} ({100 * about['shares']['DB']['new']['nss']:.0f}%)" in page
  assert '<td class="best">2.000</td>' not in page  # what viewers reach among themselves is no contestant
