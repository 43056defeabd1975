"""Who names the tag: the shares by set, and the table on the page."""

import json
import re

import numpy as np
import pytest

from stajax.report.accuracy import ClipAnswers, accuracy_table, measure_accuracy, names_tag
from stajax.report.page import Page, write_page
from stajax.report.score_files import describe, write_scores
from tests.report.test_report import Browser
from tests.report.test_senses import make_evaluation

GROUPS = {"d/foreign": ["v0", "v1"], "d/rivals": ["v1", "v2", "v3"], "d/no_rivals": ["v0", "v4"]}
MEMBERS = {
  "d": "01234", "d/own_sound": "234", "d/foreign": "01", "d/rivals": "123", "d/rivals/own_sound": "23",
  "d/no_rivals": "04",
}  # fmt: skip
NETWORKS = ("tagger_0", "s_coarse", "sa_plus_cross")


@pytest.fixture(scope="module")
def clips():
  """The number of the set, tags, confidences by network and the switch of clips; v4 has no tag, v5 is not scored."""
  rng = np.random.default_rng(3)
  lengths, tags = (4, 7, 5, 9, 3, 6), ((0,), (2, 1), (3,), (1,), (), (2,))
  return [
    (tags[i], {name: rng.random((n, 4)) for name in NETWORKS}, rng.integers(0, 2, n)) for i, n in enumerate(lengths)
  ]


@pytest.fixture(scope="module")
def accuracy(clips):
  answers = {
    f"v{i}": ClipAnswers({name: names_tag(x, tags) for name, x in confidences.items()}, switch > 0)
    for i, (tags, confidences, switch) in enumerate(clips)
    if tags
  }
  return measure_accuracy(make_evaluation({"final": [1.0] * 5}, groups=GROUPS), answers, 4)


def test_shares_are_those_of_the_frames(clips, accuracy):
  """They are counted here frame by frame."""
  assert list(accuracy["sets"]) == ["d", "d/own_sound", "d/foreign", "d/rivals", "d/rivals/own_sound", "d/no_rivals"]
  for name, found in accuracy["sets"].items():
    members = [clips[int(i)] for i in MEMBERS[name] if clips[int(i)][0]]
    assert found["clips"] == len(members) and found["frames"] == sum(len(switch) for *_, switch in members)
    for network in NETWORKS:
      right = 0
      for tags, confidences, _ in members:
        for frame in confidences[network].tolist():
          right += any(frame[tag] == max(frame) for tag in tags)
      assert found["right"][network] == pytest.approx(right / found["frames"]), (name, network)
    assert found["switch_on"] == pytest.approx(sum(int(switch.sum()) for *_, switch in members) / found["frames"])
  json.dumps(accuracy, allow_nan=False)


def test_the_rule_says_what_can_be_expected(accuracy):
  assert "among the 4 categories is right in 25%" in accuracy["rule"] and "at most 1/k" in accuracy["rule"]
  answers = {"v0": ClipAnswers({}, np.ones(2, bool))}
  without = measure_accuracy(make_evaluation({"final": [1.0]}), answers, 4)
  assert "rivals" not in without["rule"] and without["sets"]["d"]["clips"] == 1
  assert measure_accuracy(make_evaluation({"final": [1.0]}), {}, 4)["sets"] == {}


def test_columns_name_the_database_if_there_are_several(accuracy):
  of_set = accuracy["sets"]["d"]
  several = {"rule": "", "sets": {"all": of_set, "a": of_set, "a/rivals/own_sound": of_set, "b": of_set}}
  assert [heading for _, heading, _ in accuracy_table(several).columns] == ["all", "a", "a: rivals, own sound", "b"]


def test_the_page_has_the_table(accuracy, tmp_path):
  evaluation = make_evaluation({"final": [1.0] * 5}, groups=GROUPS)
  about = describe(evaluation)
  for shown in ({}, {"accuracy": {**accuracy, "sets": {}}}):
    write_page(tmp_path, Page("title", write_scores(evaluation, about, tmp_path), {**about, **shown}))
    assert "Who names the tag" not in (tmp_path / "index.html").read_text()
  about["accuracy"] = accuracy
  write_page(tmp_path, Page("title", write_scores(evaluation, about, tmp_path), about))
  assert json.loads((tmp_path / "evaluation.json").read_text())["accuracy"] == accuracy
  page = Browser((tmp_path / "index.html").read_text())
  head, *rows = [[re.sub(r"\s+", " ", text) for text, _ in row] for row in page.tables["Who names the tag"]]
  assert head[:2] == ["Network", "all clips4 clips"] and head[-2:] == ["rivals, own sound2 clips", "no rivals1 clip"]
  titles = ["Audio tagger 1 of 3: the tag by sound alone", "S coarse: one frame, whole"]
  assert [row[0] for row in rows[:2]] == titles and rows[-1][0] == "Frames in which the audio switch is on"
  assert rows[1][1:] == [f"{of_set['right']['s_coarse']:.0%}" for of_set in accuracy["sets"].values()]
  assert rows[-1][4] == f"{accuracy['sets']['d/rivals']['switch_on']:.0%}" and page.open == []
