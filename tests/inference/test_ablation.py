"""The rows of Table 1 against the paper's table and against maps composed by hand; tags, windows, the command."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.paths import SHARED
from stajax import model, networks
from stajax.config import Config, Maps
from stajax.evaluate.__main__ import main
from stajax.evaluate.methods import Methods, with_thresholds
from stajax.inference import ablation
from stajax.inference.ablation import clip_maps, row_maps
from stajax.inference.class_maps import ClipSources, Sources
from stajax.inference.clip import Clip
from stajax.inference.programs import ClassMaps
from stajax.maps.boxes import coarse_boxes
from stajax.maps.scam import average, select, source_maps
from stajax.prepare.tree_files import write_fold_lists, write_video
from stajax.report.table_1 import COARSE, COMPARISONS, FINE, PLUS, ROWS

PAPER = SHARED / "paper" / "stanet_plus.md"
SIZE, SIDE, TAGS = 16, 5, (1, 3)


def test_names_are_those_of_the_networks():
  for ours, theirs in ((COARSE, networks.COARSE), (FINE, networks.FINE), (PLUS, networks.GRANULAR)):
    assert sorted(ours) == sorted(theirs)
  assert [row.number for row in ROWS] == list(range(1, 26))
  assert ROWS[0].method == "row_01" and ROWS[24].method == "row_25"


@pytest.mark.skipif(not PAPER.is_file(), reason="needs the paper in `shared` beside the repository")
def test_rows_are_printed_in_the_paper():
  printed = {}
  for line in PAPER.read_text().splitlines():
    cells = line.split("\t")
    if len(cells) == 22 and re.fullmatch("[①②③④⑤⑥]+", cells[0]):
      ticks = "".join(letter for letter, cell in zip("ABCDEFGHIJKLMNO", cells[2:17]) if cell.strip() == "✓")
      values = [float(re.sub("</?b>", "", cell)) for cell in cells[17:]]
      printed[int(cells[1])] = ticks, dict(zip(("auc_judd", "sim", "s_auc", "cc", "nss"), values))
  assert printed == {row.number: (row.components, row.published) for row in ROWS}


def test_rows_are_what_their_ticks_mean():
  for row in ROWS:
    ticks = set(row.components)
    if row.number in (21, 23, 24):  # printed E, meant F
      ticks = ticks - {"E"} | {"F"}
    branches = [branch for letter, branch in (("A", "s"), ("B", "sa"), ("C", "st")) if letter in ticks]
    wanted = {f"{branch}_coarse" for branch in branches if "D" in ticks}
    wanted |= {branch for branch in branches if "E" in ticks}
    for letter, granularity in (("I", "short"), ("J", "long"), ("K", "cross")):
      wanted |= {f"{b}_plus_{granularity}" for b in branches if letter in ticks and (b, letter) != ("sa", "I")}
    assert set(row.sources) == wanted and len(row.sources) == len(wanted)
    hears = any(name.startswith("sa") for name in row.sources)
    assert row.always_heard == (hears and "F" not in ticks)
    assert row.frl == ("L" in ticks)
    fusion = {"G": "average", "M": "average", "H": "select", "N": "select", "O": "select"}
    assert row.fusion == next((kind for letter, kind in fusion.items() if letter in ticks), "cam")
    assert (row.fusion == "cam") == (len(row.sources) == 1)


def test_titles_say_what_is_toggled():
  for row in ROWS:
    assert ("switch forced to 1 at inference" in row.title) == row.always_heard == (row.number in (9, 22))
    assert row.title.endswith("at inference") == (row.number in (9, 12, 21, 22))
    assert row.retrained_title.endswith(", retrained") == (row.number in (9, 21, 22)) == (row.variant is not None)
  assert ROWS[20].retrained_title == "Selective SC, LC, CC, FRL removed, retrained"


def test_what_the_paper_concludes_holds_in_its_table():
  rows = {row.number: row for row in ROWS}
  for _, high, low in COMPARISONS:
    assert all(rows[high].published[metric] > value for metric, value in rows[low].published.items())


class FakeNetwork:
  """A network whose results are random for its name, what it hears, where it looks and whether it has an FRL."""

  def __init__(self, name, refine, calls=None):
    self.name, self.refine, self.calls = name, refine, calls
    self.network = SimpleNamespace(num_times=3 if name.startswith("st") else 1)

  def launch(self, clip, select=(), groups=None):
    return [self.run(clip, select, groups)]

  def run(self, clip, select=(), groups=None):
    hears = self.name.startswith("sa")
    boxes = clip.boxes if self.name in networks.FINE else np.zeros(1)
    maps, confidences = [], []
    for i in clip.targets:
      seed = [*self.name.encode(), int(clip.switch[i]) if hears else 2, {None: 0, False: 1, True: 2}[self.refine]]
      seed += [clip.first + i, *np.asarray(boxes[i % len(boxes)] * 1e6, int).ravel()]
      rng = np.random.default_rng(seed)
      maps.append(rng.normal(size=(SIDE, SIDE, 5)))
      confidences.append(rng.uniform(size=5))
    if self.calls is not None:
      self.calls.append((self.name, self.refine, tuple(select)))
    return ClassMaps(np.array(maps, np.float32)[..., list(select)], np.array(confidences, np.float32))


def make_sources(calls=None, pick=FakeNetwork):
  def pool(name, tags, always_heard):
    return np.zeros((3, SIDE, SIDE, 5), np.float32), np.array([0, 1, 2])

  return Sources(lambda name, refine: pick(name, refine, calls), pool, Maps(size=SIZE, reach=1), 0)


def make_clip(count=7, targets=range(1, 6), first=0):
  sound = np.zeros((257, 98), np.float32)
  samples = [(np.zeros((8, 8, 3), np.uint8), None if i == 4 else sound) for i in range(count)]
  return Clip(samples, targets=targets, first=first).with_switch(np.array([1, 0, 1, 0, 1, 0, 0])[:count])


def by_hand(clip, name, heard, refine, boxes=None):
  """Returns Φ and confidences of one source for all samples, from the fake network itself."""
  if heard:
    clip = clip.with_switch(np.ones(len(clip)))
  everything = Clip(clip.samples, first=clip.first, switch=clip.switch, boxes=boxes)
  result = FakeNetwork(name, refine).run(everything, TAGS)
  return source_maps(result.class_maps, (SIZE, SIZE), boxes), result.confidences


def expected_map(clip, row):
  coarse = [by_hand(clip, name, row.always_heard and name == "sa_coarse", None) for name in networks.COARSE]
  boxes = coarse_boxes(select([maps for maps, _ in coarse], np.stack([c for _, c in coarse]), TAGS)[0], 1, 2.0)
  parts = []
  for name in row.sources:
    heard = row.always_heard and name.startswith("sa")
    refine = True if row.number == 12 else False if row.number == 21 else None
    parts.append(by_hand(clip, name, heard, refine, boxes if name in networks.FINE else None))
  maps, confidences = [maps for maps, _ in parts], np.stack([c for _, c in parts])
  if len(parts) == 1:
    found = maps[0].mean(axis=-1)
  elif row.number in (4, 10, 23):
    found = average(maps)
  else:
    found = select(maps, confidences, TAGS)[0]
  return found[1:6]


def test_every_row_equals_its_sources_put_together_by_hand():
  clip = make_clip()
  sources = ClipSources(make_sources(), clip, TAGS)
  found = {row.number: row_maps(sources, row) for row in ROWS}
  for row in ROWS:
    assert found[row.number].shape == (5, SIZE, SIZE)
    np.testing.assert_allclose(found[row.number], expected_map(clip, row), atol=1e-6, err_msg=row.title)
  for high, low in ((11, 9), (24, 22), (24, 21), (12, 1), (11, 10), (24, 23), (25, 11)):
    assert np.abs(found[high] - found[low]).max() > 0.05


def test_every_source_runs_once_for_all_rows():
  calls = []
  maps = clip_maps(ClipSources(make_sources(calls), make_clip(), TAGS))
  assert list(maps) == [row.method for row in ROWS]
  assert all(x.dtype == np.uint8 and x.shape == (5, SIZE, SIZE) and x.max() == 255 for x in maps.values())
  # 14 sources, S coarse with FRL, the eight without; SA coarse, the three on its crops and two plus ones always heard.
  assert len(calls) == 14 + 1 + 8 + 1 + 3 + 2


def test_retrained_rows_use_their_networks_on_the_usual_crops():
  def trained(variant, names):
    def pick(name, refine, calls):
      return FakeNetwork(f"{name} {variant}" if name in names else name, None if name in names else refine, calls)

    return make_sources(pick=pick)

  # The fake's name decides what is heard and whether it sees crops, so only networks on whole frames are replaced.
  variants = {
    "always_heard": trained("heard", ("sa_plus_long", "sa_plus_cross")),
    "no_frl": trained("plain", networks.GRANULAR),
  }
  clip = make_clip()
  retrained = {variant: ablation.RetrainedSources(found, clip, TAGS) for variant, found in variants.items()}
  usual = ClipSources(make_sources(), clip, TAGS)
  with_them, without = clip_maps(usual, retrained), clip_maps(usual)
  changed = [row.number for row in ROWS if not np.array_equal(with_them[row.method], without[row.method])]
  assert changed == [9, 21, 22]  # 9: its crops are those of row 11
  np.testing.assert_array_equal(retrained["always_heard"].boxes(always_heard=True), usual.boxes())
  assert not np.array_equal(usual.boxes(always_heard=True), usual.boxes())


def make_samples(count):
  sound = np.zeros((257, 98), np.float32)
  return [(np.full((8, 8, 3), i % 255, np.uint8), sound) for i in range(count)]


class FakeSwitch:
  """A switch that is on for every other frame of the video."""

  def run(self, clip):
    return ClassMaps(None, np.array([[0.9 if (clip.first + i) % 2 else 0.1] for i in clip.targets]))


def test_long_videos_are_windows_with_the_tag_of_the_whole(monkeypatch):
  calls = []
  opened = []

  def clips():
    opened.append(1)
    return ablation.switched_windows(make_samples(200), 1, FakeSwitch())

  parts = list(ablation.video_maps(make_sources(calls), clips, None))
  assert len(opened) == 2 and [i for found, _ in parts for i in found] == list(range(200)) and len(parts) == 2
  # Coarse confidences of the whole video, each frame once, heard where the switch is on.
  clip = Clip(make_samples(200), switch=np.arange(200) % 2)
  top = np.argmax(sum(FakeNetwork(name, None).run(clip).confidences.sum(axis=0) for name in networks.COARSE))
  assert {tags for _, _, tags in calls if tags} == {(int(top),)}
  calls.clear()
  parts = list(ablation.video_maps(make_sources(calls), clips, (2,)))
  assert len(opened) == 3 and {tags for _, _, tags in calls} == {(2,)}
  # In the middle of a window a map is that of the whole video at once; only long companions could differ.
  whole = ClipSources(make_sources(), clip, (2,))
  for row in (ROWS[0], ROWS[4], ROWS[10], ROWS[8]):
    windowed = np.concatenate([maps[row.method] for _, maps in parts])
    np.testing.assert_array_equal(windowed, ablation.to_uint8(row_maps(whole, row)))


def test_chosen_frames_come_in_chunks():
  parts = [(range(0, 128), {"m": np.arange(128)}), (range(128, 200), {"m": np.arange(128, 200)})]
  found = list(ablation.select_frames(parts, [3, *range(100, 199, 2), 5]))
  assert [i for chunk, _ in found for i in chunk] == [3, 5, *range(100, 199, 2)]
  assert all(list(maps["m"]) == chunk for chunk, maps in found)


def test_thresholds_are_methods_of_their_own():
  values = np.array([[[50, 60, 155, 250], [50, 110, 149, 150]]], np.uint8)  # scaled by 200 after 50 is taken away

  def method_maps(video, frames):
    yield [0], {"maps": values}

  methods = with_thresholds(Methods("title", {1: method_maps, 2: method_maps}))
  assert list(methods.maps) == [1, 2] and methods.notes[0].startswith("thresholds: ")
  ((_, found),) = methods.maps[1](None, [0])
  assert list(found) == ["maps", "maps_0.3", "maps_0.5", "maps_0.7"]
  np.testing.assert_array_equal(found["maps"], values)
  scaled = (values[0].astype(float) - 50) / 200
  for level in (0.3, 0.5, 0.7):
    expected = np.round(255 * np.where(scaled < level, 0, scaled))
    np.testing.assert_array_equal(found[f"maps_{level}"][0], expected)


def write_tree(root, tags):
  rng = np.random.default_rng(0)
  for name in ("a", "b"):
    frames = rng.integers(0, 255, (4, 24, 32, 3), dtype=np.uint8)
    densities = rng.integers(0, 255, (4, 24, 32), dtype=np.uint8)
    write_video(root, "avad", name, frames, None, zip(rng.random((4, 24, 32)) < 0.05, densities))
  write_fold_lists(root, "avad", [("a", 4, 8.0), ("b", 4, 8.0)])
  (root / "clips.csv").write_text("video,tag\n" + "".join(f"{name},{tag}\n" for name, tag in tags.items()))


@pytest.mark.parametrize(
  "tags, note, ending",
  [
    ({"a": "Bark", "b": "Bus"}, "Rows use the true tag of every video.", "at inference"),
    ({"a": "Bark"}, "predicted tag: 1 of 2 videos", "at inference (some tags predicted)"),
    ({}, "predicted tag: 2 of 2 videos", "at inference (predicted tag)"),
  ],
)
def test_command_says_where_tags_are_predicted(tmp_path, monkeypatch, tags, note, ending):
  """There is no model: the test is about what the command makes of its maps."""
  loaded = SimpleNamespace(trained_on="synthetic", categories=("Bark", "Bus"), sha256={}, config=Config(name="a"))
  monkeypatch.setattr(model, "load", lambda folder, names: loaded if names is networks.tag_networks else None)
  given = []

  def method_maps(*arguments):
    given.append(arguments)

    def maps(video, frames):
      rng = np.random.default_rng(len(video.name))
      yield list(frames), {row.method: rng.integers(0, 255, (len(frames), 8, 8), dtype=np.uint8) for row in ROWS}

    return maps

  monkeypatch.setattr(ablation, "method_maps", method_maps)
  write_tree(tmp_path / "tree", tags)
  out = tmp_path / "out"
  arguments = ["--ablation", "--model", str(tmp_path), "--data", f"stavis:{tmp_path / 'tree'}", "--out", str(out)]
  assert main([*arguments, "--processes", "1"]) == 0
  assert given == [(loaded, 8, {name: (loaded.categories.index(tag),) for name, tag in tags.items()}, {})]
  scores = json.loads((out / "scores.json").read_text())
  assert list(scores["avad"]) == ["centre", "uniform", *(row.method for row in ROWS)]
  about = json.loads((out / "evaluation.json").read_text())
  assert any(line.startswith(note) for line in about["notes"]) and about["rows"]["row_22"].endswith(ending)
  page = (out / "index.html").read_text()
  assert note in page and about["rows"]["row_22"] in page and "the model was trained on rendered clips" in page
  assert page.count("0.887") == 1  # of the paper's row 25


@pytest.mark.parametrize(
  "arguments, expected",
  [
    (["--maps", "{0}", "--ablation"], "--ablation takes a model"),
    (["--model", "{0}", "--retrain"], "--retrain needs --ablation"),
    (["--model", "{0}", "--ablation", "--retrain"], "is not the work folder of a training: it has no folder 'stages'"),
    (["--model", "{0}", "--ablation", "--thresholds"], "--thresholds and --ablation: give one of them"),
  ],
)
def test_options_that_exclude_each_other_are_one_line(tmp_path, capsys, arguments, expected):
  filled = [argument.format(tmp_path) for argument in arguments]
  assert main([*filled, "--data", f"stavis:{tmp_path}", "--out", str(tmp_path / "out")]) == 2
  error = capsys.readouterr().err
  assert expected in error and error.count("\n") == 1
