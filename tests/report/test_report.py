"""Tests that a report's page is self-contained, readable by people and machines, and shows what it was given."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from stajax import networks
from stajax.report import names, plots
from stajax.report.names import title_of
from stajax.report.overlay import heat_overlay
from stajax.report.page import Example, Page, write_page
from stajax.report.score_files import describe, write_scores
from stajax.report.table_1 import ROWS
from stajax.report.tables import ablation_tables
from stajax.scoring.protocol import METRICS, Settings
from stajax.scoring.results import Evaluation, VideoScores

METHODS = ("centre", "uniform", "cam_s", "scam", "<new> & method")
MAPS = ("cam_s", "cam_st", "cam_sa", "scam", "sta")
EVIL = "<script>alert('x')</script>"
VOID = {"meta", "img", "br"}


class Browser(HTMLParser):
  """Collects what a browser would find: tags with their attributes, tables by caption, text, and unclosed tags."""

  def __init__(self, text: str):
    super().__init__()
    self.tags, self.open, self.tables, self.texts = [], [], {}, []
    self.rows = None
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))
    if tag not in VOID:
      self.open.append(tag)
    if tag == "table":
      self.caption, self.rows = "", []
    elif tag == "tr":
      self.rows.append([])
    elif tag in ("td", "th"):
      self.rows[-1].append(["", dict(attributes).get("class", "")])

  def handle_startendtag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))

  def handle_endtag(self, tag):
    if tag not in VOID:
      assert self.open.pop() == tag
    if tag == "table":
      self.tables[self.caption] = self.rows

  def handle_data(self, data):
    if self.open[-2:] == ["caption", "b"]:
      self.caption = data
    elif "td" in self.open or "th" in self.open:
      self.rows[-1][-1][0] += data.strip()
    self.texts.append(data)

  def attributes(self, name):
    return [(tag, attributes[name]) for tag, attributes in self.tags if name in attributes]


def make_evaluation(database="synthetic"):
  rng = np.random.default_rng(4)
  videos, sizes = [], {method: {(128, 128)} for method in METHODS}
  for i in range(5):
    scores = {method: {metric: rng.normal(0.5, 0.3, 6) for metric in METRICS} for method in METHODS}
    scores["uniform"] = {metric: np.full(6, np.nan if metric != "auc_judd" else 0.5) for metric in METRICS}
    videos.append(VideoScores(database, f"v{i}", 0, 1, np.arange(6), 6, scores, sizes))
  groups = {f"{database}/foreign": ["v1", "v3"]}
  return Evaluation(tuple(videos), ((database, EVIL, "no maps"),), Settings(stride=2), groups)


def make_example(title, side=48, seed=0):
  rng = np.random.default_rng(seed)
  frame = gaussian_filter(rng.random((side, side, 3)), (1, 1, 0))
  frame = np.round(255 * (frame - frame.min()) / np.ptp(frame)).astype(np.uint8)
  maps = {name: np.round(255 * gaussian_filter(rng.random((16, 16)), 1)).astype(np.uint8) for name in MAPS}
  fixations = np.zeros((side, side), bool)
  fixations[tuple(rng.integers(side, size=(2, 9)))] = True
  density = gaussian_filter(fixations.astype(float), side / 40)
  viewers = np.round(255 * density / density.max()).astype(np.uint8)
  return Example(title, frame, maps, viewers, fixations, note=f"note of {title}")


def make_lines(steps=200, every=20, **scalars):
  rng = np.random.default_rng(steps)
  return [
    {"step": step, "loss": float(rng.random()), "accuracy": step / steps, "examples_per_second": 99.6, **scalars}
    for step in range(every, steps + 1, every)
  ]


def make_report(out, evaluation=None, **changes):
  evaluation = evaluation or make_evaluation()
  about = describe(evaluation)
  arguments = {
    "title": "quickstart & more",
    "subtitle": f"What {EVIL} is",
    "notes": ["trained by <somebody>"],
    "curves": {"s": make_lines(), "<stage>": make_lines(60)},
    "examples": [make_example("clip 1, frame 2"), make_example(f"{EVIL}.mp4, tag <b>", seed=1)],
    "facts": {"Time <s>": "s 1:02, sta 3:04", "Versions": "jax & flax"},
  }
  scores = write_scores(evaluation, about, out)
  write_page(out, Page(scores=scores, about=about, **{**arguments, **changes}))
  return scores, (out / "index.html").read_text()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
  return make_report(tmp_path_factory.mktemp("report"))


def test_the_page_is_self_contained(report):
  _, text = report
  page = Browser(text)
  assert page.open == []
  tags = {tag for tag, _ in page.tags}
  assert sum(tag == "script" and not attributes for tag, attributes in page.tags) == 1  # inline: it sorts tables
  assert sum(tag == "script" for tag, _ in page.tags) == 1
  assert not tags & {"link", "iframe", "object", "embed", "base", "form", "image"}
  assert not re.search(r"https?:|@import|//cdn", text)
  sources = page.attributes("src")
  assert sources and all(tag == "img" and value.startswith("data:image/jpeg;base64,") for tag, value in sources)
  identifiers = [value for _, value in page.attributes("id")]
  assert len(identifiers) == len(set(identifiers))
  links = {value for _, value in page.attributes("href")} | set(re.findall(r"url\(([^)]*)\)", text))
  assert links and links <= {f"#{identifier}" for identifier in identifiers}
  assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_the_page_is_accessible(report):
  page = Browser(report[1])
  assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
  assert all(attributes.get("aria-label") for tag, attributes in page.tags if tag == "svg")
  assert all(attributes.get("scope") in ("row", "col") for tag, attributes in page.tags if tag == "th")
  levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
  assert levels[0] == 1 and levels.count(1) == 1
  assert all(after - before <= 1 for before, after in pairwise(levels))
  assert ("html", {"lang": "en"}) in page.tags
  assert "prefers-color-scheme: dark" in report[1]


def test_names_are_escaped(report):
  _, text = report
  visible = "".join(Browser(text).texts)
  assert f"{EVIL}.mp4, tag <b>" in visible and f"What {EVIL} is" in visible and f"synthetic/{EVIL}: no maps" in visible
  for part in ("quickstart & more", "trained by <somebody>", "<stage>", "Time <s>", "jax & flax", "<new> & method"):
    assert part in visible
  alternatives = [value for _, value in Browser(text).attributes("alt")]
  assert f"SCAM, {EVIL}.mp4, tag <b>" in alternatives


def test_tables_hold_the_scores(report):
  scores, text = report
  tables = Browser(text).tables
  assert list(scores) == ["synthetic", "synthetic/foreign"]
  for name, methods in scores.items():
    head, *rows = tables[name]
    assert [cell.replace("\xa0", "") for cell, _ in head] == ["Method", "AUC-J↑", "s-AUC↑", "NSS↑", "SIM↑", "CC↑"]
    assert [row[0][0] for row in rows] == ["Centre", "Uniform", "CAM S", "SCAM", "<new> & method"]
    for column, metric in enumerate(METRICS, 1):
      values = [methods[method][metric] for method in METHODS]
      for value, row in zip(values, rows):
        shown, kind = row[column]
        if value is None:
          assert (shown, kind) == ("–", "")
        else:
          assert float(shown) == pytest.approx(value, abs=5e-4)
          assert (kind == "best") == (value == max(v for v in values if v is not None))


def test_all_examples_are_shown(tmp_path):
  pytest.importorskip("librosa", reason="needs the extra `train`")
  examples = [make_example(f"clip {i}", seed=i) for i in range(5)]
  examples[1] = replace(examples[1], sound=np.random.default_rng(0).normal(size=(257, 98)))
  _, text = make_report(tmp_path, examples=examples)
  alternatives = [value for _, value in Browser(text).attributes("alt")]
  captions = ["Frame", "Viewers", "CAM S", "CAM ST", "CAM SA", "SCAM", "STA"]
  expected = [f"{caption}, clip {i}" for i in range(5) for caption in captions]
  expected.insert(2 * len(captions), "Sound, clip 1")
  assert alternatives == expected
  assert all(f"note of clip {i}" in text for i in range(5))
  sources = [value for _, value in Browser(text).attributes("src")]
  assert len(set(sources)) == len(sources)
  first = decode(sources[0])
  assert max(first.shape[:2]) == plots.SIDE
  expected = Image.fromarray(examples[0].frame).resize((plots.SIDE, plots.SIDE), Image.Resampling.LANCZOS)
  assert np.abs(first.astype(float) - np.asarray(expected)).mean() < 4


def decode(uri):
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_viewers_and_compared_maps_stand_beside_the_frame_above_the_others(tmp_path):
  pytest.importorskip("librosa", reason="needs the extra `train`")
  example = replace(make_example("clip 1"), compared=("scam", "sta", "missing"), sound=np.ones((257, 98)))
  _, text = make_report(tmp_path, examples=[example])
  alternatives = [value.partition(",")[0] for _, value in Browser(text).attributes("alt")]
  assert alternatives == ["Frame", "Viewers", "SCAM", "STA", "CAM S", "CAM ST", "CAM SA", "Sound"]
  assert text.count('<div class="grid pictures">') == 2


def test_a_page_without_scores_is_about_learning_alone(tmp_path):
  nothing = Evaluation((), (), Settings())
  example = replace(make_example("clip 1"), viewers=None)
  scores, text = make_report(tmp_path, nothing, examples=[example])
  page = Browser(text)
  assert scores == {} and page.open == []
  assert re.findall("<h2[^>]*>(.*?)</h2>", text) == ["Learning curves", "Examples", "Facts"]
  assert "Viewers" not in text and "AUC-J" not in text
  # What was skipped is named even where nothing could be scored.
  _, text = make_report(tmp_path, replace(nothing, skipped=(("A", "b", "no sound"),)))
  assert "A/b: no sound" in text and "Viewers" in text


def test_a_map_is_shown_relative_to_its_maximum():
  frame = np.full((256, 256, 3), 90, np.uint8)
  values = gaussian_filter(np.eye(16) * 1.0, 2)
  faint, strong = (np.round(values / values.max() * peak).astype(np.uint8) for peak in (100, 200))
  pictures = [decode(plots.heat_picture(frame, level)).astype(float) for level in (faint, strong)]
  assert np.abs(pictures[0] - pictures[1]).mean() < 2
  assert np.abs(pictures[1] - heat_overlay(frame, strong / strong.max())).mean() < 3
  nothing = plots.heat_picture(frame, np.zeros((16, 16), np.uint8))
  assert nothing == plots.picture(frame)


def test_fixations_are_points_where_they_are():
  frame = np.full((64, 128, 3), 90, np.uint8)
  fixations = np.zeros((64, 128), bool)
  fixations[10, 100] = fixations[50, 20] = True
  shown = decode(plots.heat_picture(frame, np.zeros((64, 128), np.uint8), fixations)).astype(int)
  assert shown.shape == (128, 256, 3)
  bright = np.argwhere(shown.min(axis=-1) > 200)
  for y, x in [(21, 201), (101, 41)]:  # the centres of those pixels in a picture of twice the size
    near = bright[np.abs(bright - (y, x)).max(axis=1) < 8]
    np.testing.assert_allclose(near.mean(axis=0), (y - 0.5, x - 0.5), atol=0.6)
  assert all(np.abs(bright - centre).max(axis=1).min() < 8 for centre in [(21, 201), (101, 41)])
  assert len(bright) < 2 * np.pi * 5**2


def test_a_spectrogram_shows_when_and_how_high_a_tone_is():
  pytest.importorskip("librosa", reason="needs the extra `train`")
  sound = np.full((257, 98), np.log(1e-7), np.float32)
  sound[60:68, 49:] = 0  # 2 kHz, from the frame on
  shown = decode(plots.spectrogram_picture(sound)).astype(int)
  assert shown.shape == (plots.SIDE, plots.SIDE, 3)
  bright = np.argwhere((shown[..., 1] > 230) & (shown[..., 2] < 215))  # the tone, as the margins are white
  dark = shown.max(axis=-1) < 30
  left, right = np.flatnonzero(dark.mean(axis=0) > 0.5)[[0, -1]]
  top, bottom = np.flatnonzero(dark.mean(axis=1) > 0.3)[[0, -1]]
  assert bright[:, 1].min() == pytest.approx((left + right) / 2, abs=4)
  assert bright[:, 0].mean() == pytest.approx(bottom - (bottom - top) / 4, abs=4)


def test_curves_follow_the_log():
  lines = make_lines(400)
  svg = plots.learning_curves(lines, "a", "label")
  drawn = re.findall(r'<path d="([^"]*)"[^>]*var\(--accent\)', svg)
  assert len(drawn) == 2
  for path, name in zip(drawn, ("loss", "accuracy")):
    x, y = np.array(re.findall(r"[ML] ([\d.]+) ([\d.]+)", path), float).T
    assert np.corrcoef(x, [line["step"] for line in lines])[0, 1] == pytest.approx(1, abs=1e-6)
    assert np.corrcoef(y, [line[name] for line in lines])[0, 1] == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize(
  "lines", [make_lines(20), [{"step": 20, "loss": float("nan")}], make_lines(40, other=1e-9), make_lines(60_000, 10)]
)
def test_unusual_logs(lines, tmp_path):
  _, text = make_report(tmp_path, curves={"sta": lines, "empty": []}, examples=())
  assert len(text) < 120_000 and "The log has no lines." in text and "STA: the student" in text
  assert f"After {lines[-1]['step']:,} steps: loss {lines[-1]['loss']:.3g}" in text


def test_synthetic_is_stated_once_at_the_top(tmp_path):
  synthetic = "synthetic: rendered clips with sampled viewers, not eye tracking."
  _, text = make_report(tmp_path, notes=[synthetic])
  assert text.count("rendered clips with sampled viewers") == 1
  assert text.index("Synthetic clips:") < text.index("<table>")
  model = "synthetic: the model was trained on `rendered` <clips>."
  _, both = make_report(tmp_path, notes=[model, synthetic])
  banners = re.findall(r'<p class="banner" role="note">(.*?)</p>', both)
  assert banners == [
    "<strong>Synthetic clips:</strong> the model was trained on <code>rendered</code> &lt;clips&gt;; "
    "rendered clips with sampled viewers, not eye tracking."
  ]
  _, other = make_report(tmp_path, make_evaluation("DIEM"))
  assert ("p", "banner") not in Browser(other).attributes("class") and "trained by" in other


def test_what_is_code_in_notes_looks_like_code(tmp_path):
  _, text = make_report(tmp_path, notes=["given by `--data <x>`"])
  assert "given by <code>--data &lt;x&gt;</code>" in text and "The baseline <code>centre</code> is" in text
  assert "`" not in text


def test_equal_input_gives_equal_bytes(report, tmp_path):
  assert make_report(tmp_path)[1] == report[1]
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    "evaluation.json", "index.html", "per_video.csv", "scores.json",
  ]  # fmt: skip


def test_a_page_with_twelve_examples_can_be_mailed(tmp_path):
  _, text = make_report(tmp_path, examples=[make_example(f"clip {i}", side=356, seed=i) for i in range(12)])
  assert 500_000 < len(text) < 5_000_000


def test_unknown_names_are_shown_as_they_are():
  assert title_of("scam") == "SCAM" and title_of("auc_judd") == "AUC-J" and title_of("frame") == "Frame"
  assert title_of("sta_plus_short") == "STA+ short" and title_of("sta_plus_cross") == "sta_plus_cross"
  assert title_of("row_24") == "Row 24: Selective SC, LC, CC" and title_of("row_26") == "row_26"
  assert title_of("sta_0.3") == "STA, threshold 0.3" and title_of("other_0.7") == "other, threshold 0.7"


def test_every_network_and_method_has_a_title():
  assert {*networks.MODEL_NETWORKS, *networks.TAGGERS, "data", "model", "report"} <= names.STAGES.keys()
  assert all(title != name and text for name, (title, text) in names.METHODS.items())
  expected = "centre spectral_residual feature_distance centre_learned inter_observer uniform "
  expected += "cam_s_coarse cam_st_coarse cam_sa_coarse scam_coarse "
  expected += "cam_s cam_st cam_sa scam_average scam scam_plus pseudo_fixation "
  expected += "sta sta_plus_short sta_plus_long final final_no_switch"
  assert [*names.METHODS][:-1] == expected.split()
  assert len(set(names.STAGES.values())) == len(names.STAGES)


def row_scores(noise=0.0, seed=0):
  rng = np.random.default_rng(seed)
  return {row.method: {m: value + noise * rng.normal() for m, value in row.published.items()} for row in ROWS}


def ablation_report(out, database, scores, **changes):
  evaluation = replace(make_evaluation(database), groups={})
  about = describe(evaluation)
  scores = {name: {**rows, **scores} for name, rows in write_scores(evaluation, about, out).items()}
  write_page(out, Page("Ablation", scores, about, **changes))
  return Browser((out / "index.html").read_text())


def test_ablation_has_the_papers_numbers_beside_on_avad_only(tmp_path):
  scores = row_scores(0.05)
  scores["row_07"]["cc"] = None
  avad = ablation_report(tmp_path, "aVaD", scores)
  other = ablation_report(tmp_path, "DIEM", scores)
  assert avad.open == other.open == []
  head, *rows = [[text for text, _ in row] for row in avad.tables["aVaD"]][-26:]
  assert head[:17] == ["Row", "What it is", *"ABCDEFGHIJKLMNO"] and len(head) == 27
  for row, cells in zip(ROWS, rows, strict=True):
    assert cells[:2] == [str(row.number), row.title]
    assert "".join(letter for letter, cell in zip(head[2:17], cells[2:17]) if cell == "✓") == row.components
    for metric, ours, paper in zip(METRICS, cells[17:22], cells[22:]):
      value = scores[row.method][metric]
      assert ours == ("–" if value is None else f"{value:.3f}") and paper == f"{row.published[metric]:.3f}"
  table = other.tables["DIEM"]
  assert len(table) == 26 and {len(row) for row in table} == {22}
  for column, metric in enumerate(METRICS, 17):
    values = [scores[row.method][metric] for row in ROWS]
    best = [i for i, row in enumerate(table[1:]) if "best" in row[column][1]]
    assert best == [max((v, i) for i, v in enumerate(values) if v is not None)[1]]


def test_ablation_names_what_each_part_adds(tmp_path):
  scores = row_scores()
  scores["row_24"]["nss"] = scores["row_23"]["nss"] - 0.25
  page = ablation_report(tmp_path, "AVAD", scores, row_titles={"row_09": "nine, retrained"})
  table = {row[0][0]: row[1:] for row in page.tables["What each part adds"][2:]}
  rows, *cells = table["Selective over average, SC, LC, CC"]
  assert rows[0] == "24 − 23" and [text for text, _ in cells[:3]] == ["+0.022", "+0.011", "−0.250"]
  assert ["against" in kind for _, kind in cells] == [False, False, True] + [False] * 7
  assert [text for text, _ in cells[5:]] == ["+0.022", "+0.011", "+0.253", "+0.017", "+0.035"]
  assert any(row[1][0] == "nine, retrained" for row in page.tables["AVAD"])
  # What the paper claims of its own table holds in it.
  assert not [claim for claim, row in table.items() for _, kind in row[6:] if "against" in kind]


def test_rows_that_are_missing_are_left_out(tmp_path):
  assert ablation_tables({"x": {"sta": {}}}, {}) == []
  some = {method: row for method, row in row_scores().items() if method in ("row_01", "row_05", "row_11")}
  (table,) = ablation_tables({"avad/part": some}, {})
  assert [row.number for row in table.rows] == [1, 5, 11] and not table.is_published
  assert [part.claim for part in table.differences] == ["Fine over coarse, SCAM"]
  assert all(row.cells and not row.published for row in [*table.rows, *table.differences])
  page = ablation_report(tmp_path, "DIEM", {})
  assert "Ablation on" not in "".join(page.texts)
