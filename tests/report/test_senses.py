"""What each sense adds: differences by video, the sets that they are taken over, and what the lines say."""

import json

import numpy as np
import pytest
from scipy import stats

from stajax.report.page import Page, write_page
from stajax.report.score_files import describe, write_scores
from stajax.report.senses import LEAST, compare_senses, format_comparison, sense_tables
from stajax.scoring.protocol import METRICS, Settings
from stajax.scoring.results import Evaluation, VideoScores
from stajax.senses import parse

OTHER, SILENT, STILL, ALONE = map(parse, ("sound=other", "sound=none", "motion=none", "companions=none"))


def make_evaluation(nss, database="d", groups=None):
  """Makes an evaluation of videos of two frames, given {method: NSS of every video}; other metrics are a tenth."""
  videos = []
  for i in range(len(next(iter(nss.values())))):
    scores = {}
    for method, values in nss.items():
      both = values[i] + np.array([-0.5, 0.5])
      scores[method] = {metric: both if metric == "nss" else both / 10 for metric in METRICS}
    sizes = {method: {(8, 8)} for method in nss}
    videos.append(VideoScores(database, f"v{i}", 0, 1 + i, np.arange(2), 2, scores, sizes))
  return Evaluation(tuple(videos), (), Settings(), groups or {})


def names(*numbers, database="d"):
  return {(database, f"v{i}") for i in numbers}


def test_differences_are_those_of_the_videos():
  own, other, sta = [2.0, 1.5, 3.0, 1.0], [1.0, 1.25, 3.5, 9.0], [1.0] * 4
  nss = {"final": own, "final_other_sound": other, "final_no_motion": other, "sta": sta, "sta_other_sound": sta}
  comparison = compare_senses(make_evaluation(nss), [OTHER, STILL], names(0, 1, 2))
  found = comparison["differences"]["d"]
  assert list(found) == ["final_other_sound", "final_no_motion", "sta_other_sound"]
  expected = np.array([1.0, 0.25, -0.5])  # the last video has no sound
  nss = found["final_other_sound"]["nss"]
  assert (nss["videos"], nss["better"]) == (3, 2) and next(iter(found["final_other_sound"])) == "nss"
  assert nss["difference"] == pytest.approx(expected.mean()) and nss["own"] == pytest.approx(6.5 / 3)
  assert nss["ablated"] == pytest.approx(5.75 / 3) and nss["error"] == pytest.approx(stats.sem(expected))
  interval = stats.t.interval(0.95, 2, expected.mean(), stats.sem(expected))
  assert nss["interval"] == pytest.approx(interval)
  assert found["final_other_sound"]["cc"]["difference"] == pytest.approx(expected.mean() / 10)
  assert found["final_no_motion"]["nss"]["videos"] == 4
  assert found["final_no_motion"]["nss"]["difference"] == pytest.approx((0.75 - 8) / 4)
  json.dumps(comparison, allow_nan=False)


def test_sets_of_their_own_sound():
  groups = {"d/foreign": ["v0", "v1"], "d/rivals": ["v1", "v2", "v3"], "d/no_rivals": ["v0"]}
  nss = {"final": [1.0] * 5, "final_no_sound": [0.0, 0.5, 0.75, 0.25, 1.0]}
  comparison = compare_senses(make_evaluation(nss, groups=groups), [SILENT], names(*range(5)))
  differences = {
    name: found["final_no_sound"]["nss"]["difference"] for name, found in comparison["differences"].items()
  }
  assert differences == pytest.approx({
    "d": 0.5, "d/own_sound": 1 / 3, "d/foreign": 0.75, "d/rivals": 0.5, "d/rivals/own_sound": 0.5, "d/no_rivals": 1.0,
  })  # fmt: skip
  (line,) = comparison["says"]
  assert "of 3 videos without foreign sound" not in line and "in 3 videos without foreign sound" in line


@pytest.mark.parametrize(
  "other, expected",
  [
    (
      [1.0, 1.1, 0.9, 1.0, 2.05],
      "The final map hears: with its own sound its NSS is 0.790 ± 0.590 higher than with another video's sound; "
      "it is higher in 80% of 5 videos.",
    ),
    ([1.0, 3.0, 1.0, 3.0, 2.5], "The final map changes with the sound, but not for the better: exchanging the sound "),
    ([1.99, 2.01, 2.0, 2.0, 2.0], "The final map is deaf: exchanging the sound changes its NSS by +0.000 ± 0.009 in 5"),
    # Significant, but too small to count.
    ([1.99, 1.991, 1.99, 1.99, 1.99], "The final map is deaf: exchanging the sound changes its NSS by −0.010"),
    ([2.5, 2.51, 2.5, 2.5, 2.5], "The final map changes with the sound, but not for the better"),
  ],
)
def test_does_the_model_hear(other, expected):
  evaluation = make_evaluation({"final": [2.0] * 5, "final_other_sound": other})
  (line,) = compare_senses(evaluation, [OTHER], names(*range(5)))["says"]
  assert line.startswith(expected), line


def test_every_sense_has_its_line():
  senses = [OTHER, SILENT, STILL, ALONE, parse("sound=none,motion=none")]
  nss = {"final": [2.0] * 4, **{f"final{each.suffix}": [1.0, 1.1, 1.0, 1.1] for each in senses}}
  lines = compare_senses(make_evaluation(nss), senses, names(*range(4)))["says"]
  starts = ["hears:", "uses its sound:", "uses motion:", "uses its companions:"]
  starts += ["uses what it lacks with no sound and no motion:"]
  for line, start in zip(lines, starts, strict=True):
    assert line.startswith(f"The final map {start}") and "0.950 ± 0.092 higher" in line and "{" not in line


def test_without_sound_or_with_few_videos_nothing_is_claimed():
  nss = {"final": [1.0, 2.0], "final_other_sound": [0.0, 0.0], "final_no_motion": [1.0, 2.0]}
  evaluation = make_evaluation(nss)
  comparison = compare_senses(evaluation, [OTHER, STILL], ())
  assert comparison["says"][0] == ("None of the 2 videos has sound: there is no sound to exchange or to take away.")
  assert comparison["differences"]["d"]["final_other_sound"]["nss"] == {
    "own": None, "ablated": None, "difference": None, "error": None, "interval": (None, None), "better": 0, "videos": 0,
  }  # fmt: skip
  assert "–" in format_comparison(comparison)
  (line,) = compare_senses(evaluation, [OTHER], names(1))["says"]
  assert line == "One video is too little to say whether the final map hears."


def test_several_databases_are_also_taken_together():
  nss = {"final": [1.0, 2.0, 3.0], "final_no_motion": [0.0, 1.0, 2.0]}
  first, second = make_evaluation(nss, "a"), make_evaluation(nss, "b")
  both = Evaluation((*first.videos, *second.videos), (), Settings())
  comparison = compare_senses(both, [STILL], ())
  assert {name: found["final_no_motion"]["nss"]["videos"] for name, found in comparison["differences"].items()} == {
    "all": 6, "a": 3, "b": 3,
  }  # fmt: skip
  assert "of 6 videos" in comparison["says"][0] and LEAST == 0.02


def test_the_page_has_a_section_in_place_of_rows(tmp_path):
  groups = {"synthetic/foreign": ["v0"]}
  nss = {"sta": [1.0] * 4, "sta_no_sound": [0.5] * 4, "final": [2.0] * 4, "final_no_sound": [1.0, 1.1, 1.0, 2.1]}
  evaluation = make_evaluation(nss, "synthetic", groups)
  about = describe(evaluation) | {
    "senses": compare_senses(evaluation, [SILENT], names(*range(4), database="synthetic"))
  }
  scores = write_scores(evaluation, about, tmp_path)
  write_page(tmp_path, Page("Scores", scores, about))
  page = (tmp_path / "index.html").read_text()
  assert "final_no_sound" in scores["synthetic"]
  assert about["groups"] == {"synthetic/foreign": ["v0"], "synthetic/own_sound": ["v1", "v2", "v3"]}
  section = page[page.index('id="senses"') : page.index('id="how"')]
  assert "What each sense adds on synthetic/own_sound" in section and "clips whose sound is not foreign" in section
  assert "Final, no sound" not in page[: page.index('id="senses"')] and "3 of 4" in section
  assert section.index("Final, no sound") < section.index("STA, no sound")
  for line in about["senses"]["says"]:
    assert line.partition(":")[2].strip().replace("'", "&#39;") in section
  assert json.loads((tmp_path / "evaluation.json").read_text())["senses"]["differences"]["synthetic/own_sound"]
  (table, *others) = sense_tables(about["senses"])
  assert [other.name for other in others] == ["synthetic/own_sound", "synthetic/foreign"]
  title, is_first, cells = table.rows[0]
  assert (title, is_first) == ("Final, no sound", True) and cells[:2] == ["2.000", "1.300"]
  assert cells[2].startswith("+0.700 ± ") and cells[3] == "3 of 4" and len(cells) == 4 + len(METRICS) - 1
