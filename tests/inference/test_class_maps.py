"""The sources of a clip: what each is asked for, and the boxes, switches, companions and refine layers that it gets."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.tiny import make_boxes
from stajax import companions, networks
from stajax.config import Config, Maps
from stajax.inference.class_maps import (
  ClipSources,
  Sources,
  Toggles,
  make_groups,
  stored_pool,
  switch_values,
  top_tag,
)
from stajax.inference.clip import Clip, windows
from stajax.inference.programs import ClassMaps
from stajax.maps.boxes import coarse_boxes
from stajax.maps.scam import average, select, source_maps

TAGS, SIZE, SIDE = (1, 3), 16, 5
SILENT = 4  # this sample has no sound
POOL_CLIPS = np.array([0, 7, 3, 7])


class WatchedNetwork:
  """A network that remembers what it is run with; its results depend only on itself and on the video's sample."""

  def __init__(self, name, refine, calls):
    self.name, self.refine, self.calls = name, refine, calls
    self.network = SimpleNamespace(num_times=3 if name.startswith("st") else 1)

  def launch(self, clip, select=(), groups=None):
    return [self.run(clip, select, groups)]

  def run(self, clip, select=(), groups=None):
    self.calls.append(SimpleNamespace(name=self.name, refine=self.refine, clip=clip, groups=groups))
    maps, confidences = [], []
    for i in clip.targets:
      heard = int(clip.switch[i]) if self.name.startswith("sa") or self.name == "switch" else 0
      rng = np.random.default_rng(
        [*self.name.encode(), heard, {None: 0, False: 1, True: 2}[self.refine], clip.first + i]
      )
      maps.append(rng.normal(size=(SIDE, SIDE, 5)))
      confidences.append(rng.uniform(size=5))
    return ClassMaps(np.array(maps, np.float32)[..., list(select)], np.array(confidences, np.float32))


class WatchedSources:
  """Sources that remember what they were run with."""

  def __init__(self, pool_clips=POOL_CLIPS, reach=1):
    self.calls, self.pools, self.pool_clips = [], [], pool_clips
    self.sources = Sources(self.network, self.pool, Maps(size=SIZE, reach=reach), seed=5)

  def network(self, name, refine):
    return WatchedNetwork(name, refine, self.calls)

  def pool(self, name, tags, always_heard):
    self.pools.append((name, tuple(tags), always_heard))
    return np.zeros((len(self.pool_clips), SIDE, SIDE, 5)), self.pool_clips

  def take_calls(self):
    """Returns what was run since the last call."""
    calls = self.calls[:]
    self.calls.clear()
    return calls


def make_clip(count=9, **attributes):
  sound = np.zeros((257, 98), np.float32)
  samples = [(np.zeros((8, 8, 3), np.uint8), None if i == SILENT else sound) for i in range(count)]
  return Clip(samples, **attributes).with_switch(np.arange(count) % 2)


def by_hand(clip, name, heard=False, refine=None, boxes=None):
  everything = Clip(clip.samples, first=clip.first, switch=clip.switch)
  found = WatchedNetwork(name, refine, []).run(
    everything.with_switch(np.ones(len(clip))) if heard else everything, TAGS
  )
  return source_maps(found.class_maps, (SIZE, SIZE), boxes), found.confidences


def coarse_by_hand(clip, heard=False, tags=TAGS):
  parts = [by_hand(clip, name, heard) for name in networks.COARSE]
  return select([maps for maps, _ in parts], np.stack([confidences for _, confidences in parts]), tags)[0]


def test_each_source_runs_once_on_all_samples_and_results_are_of_the_targets():
  watched, clip = WatchedSources(), make_clip(targets=range(2, 7))
  sources = ClipSources(watched.sources, clip, TAGS)
  names = (*networks.FINE, *networks.GRANULAR)
  maps, found = sources.selected(names)
  for _ in range(2):
    sources.selected(networks.SOURCES)
    sources.averaged(networks.COARSE)
    sources.cam("sa")
    sources.boxes()
  calls = watched.take_calls()
  assert sorted(call.name for call in calls) == sorted(networks.SOURCES) and {call.refine for call in calls} == {None}
  assert all(call.clip.targets == range(9) and call.clip.features is clip.features for call in calls)
  boxes = coarse_boxes(coarse_by_hand(clip), 1, 2.0)
  parts = [by_hand(clip, name, boxes=boxes if name in networks.FINE else None) for name in names]
  stacked = [part for part, _ in parts], np.stack([confidences for _, confidences in parts])
  expected, right = select(*stacked, TAGS)
  np.testing.assert_allclose(maps, expected[2:7], atol=1e-6)
  np.testing.assert_array_equal(found, right[2:7])
  np.testing.assert_allclose(sources.averaged(names), average(stacked[0])[2:7], atol=1e-6)
  np.testing.assert_allclose(sources.cam("sa"), parts[names.index("sa")][0].mean(axis=-1)[2:7], atol=1e-6)
  phi, confidences = sources.source("st_plus_long")
  assert phi.shape == (9, SIZE, SIZE, 2) and confidences.shape == (9, 5)


@pytest.mark.parametrize("reach", [1, 2])
def test_only_fine_sources_see_boxes(reach):
  """Boxes are smoothed over frames of the grid, however close the samples are."""
  watched, clip = WatchedSources(reach=2), make_clip(15, reach=reach)
  sources = ClipSources(watched.sources, clip, TAGS)
  expected = coarse_boxes(coarse_by_hand(clip), 2 * reach, 2.0)
  assert np.ptp(expected, axis=0).max() > 0
  np.testing.assert_array_equal(sources.boxes(), expected)
  sources.stacked(networks.SOURCES)
  for call in watched.take_calls():
    if call.name in networks.FINE:
      np.testing.assert_array_equal(call.clip.boxes, expected)
    else:
      assert call.clip.boxes is None


def test_networks_with_companions_see_crops_where_configured():
  assert networks.on_crops(Config(name="a")) == set(networks.FINE)
  crops = networks.on_crops(Config(name="a", plus_crops=True))
  assert set(crops) == {*networks.FINE, *networks.GRANULAR}
  watched, clip = WatchedSources(), make_clip()
  sources = ClipSources(replace(watched.sources, crops=crops), clip, TAGS)
  expected = coarse_boxes(coarse_by_hand(clip), 1, 2.0)
  maps, _ = sources.source("st_plus_short")
  np.testing.assert_array_equal(maps, by_hand(clip, "st_plus_short", boxes=expected)[0])
  watched.take_calls()
  sources.stacked(networks.GRANULAR)
  for call in watched.take_calls():
    np.testing.assert_array_equal(call.clip.boxes, expected)
    assert call.clip.features is clip.features


def test_known_crops_are_not_computed_again():
  watched, boxes = WatchedSources(), make_boxes(9)
  clip = make_clip(boxes=boxes)
  sources = ClipSources(watched.sources, clip, TAGS)
  maps, _ = sources.source("s")
  assert [call.name for call in watched.take_calls()] == ["s"]
  np.testing.assert_array_equal(maps, by_hand(clip, "s", boxes=boxes)[0])
  assert sources.source("s_coarse")[0].shape == maps.shape and watched.take_calls()[0].clip.boxes is None


def test_always_heard_changes_what_hears_and_crops():
  watched, clip = WatchedSources(), make_clip()
  sources = ClipSources(watched.sources, clip, TAGS)
  usual = {name: sources.source(name) for name in networks.SOURCES}
  watched.take_calls(), watched.pools.clear()
  heard = {name: sources.source(name, Toggles(always_heard=True)) for name in networks.SOURCES}
  calls = {call.name: call.clip for call in watched.take_calls()}
  assert set(calls) == {"sa_coarse", *networks.FINE, "sa_plus_long", "sa_plus_cross"}
  assert watched.pools == [("sa_plus_cross", TAGS, True)]
  boxes = coarse_boxes(coarse_by_hand(clip, heard=True), 1, 2.0)
  np.testing.assert_array_equal(sources.boxes(always_heard=True), boxes)
  assert not np.array_equal(boxes, sources.boxes())
  for name, seen in calls.items():
    assert seen.switch.tolist() == [i != SILENT for i in range(9)]
    if name in networks.FINE:
      np.testing.assert_array_equal(seen.boxes, boxes)
      assert seen.features is not clip.features, "crops elsewhere are other images"
      assert seen.features is calls["s"].features
    maps, confidences = by_hand(clip, name, True, None, boxes if name in networks.FINE else None)
    np.testing.assert_array_equal(heard[name][0], maps)
    np.testing.assert_array_equal(heard[name][1], confidences)
  for name in set(networks.SOURCES) - set(calls):
    assert heard[name] is usual[name]
  assert all(usual[name] is sources.source(name) for name in networks.SOURCES) and not watched.take_calls()


def test_refine_layers_are_removed_from_plus_and_added_to_coarse_s():
  watched, clip = WatchedSources(), make_clip()
  sources = ClipSources(watched.sources, clip, TAGS)
  usual = {name: sources.source(name) for name in networks.SOURCES}
  watched.take_calls()
  for refine, changed in ((False, set(networks.GRANULAR)), (True, {"s_coarse"})):
    found = {name: sources.source(name, Toggles(refine=refine)) for name in networks.SOURCES}
    calls = watched.take_calls()
    assert {call.name for call in calls} == changed and all(call.refine is refine for call in calls)
    for name in networks.SOURCES:
      assert (found[name] is usual[name]) == (name not in changed)
  np.testing.assert_array_equal(
    sources.source("s_coarse", Toggles(refine=True))[0], by_hand(clip, "s_coarse", refine=True)[0]
  )


def test_companions_of_the_clip_itself():
  watched, clip = WatchedSources(), make_clip(20, targets=range(3, 6), reach=2)
  ClipSources(watched.sources, clip, TAGS, index=11).stacked(networks.GRANULAR)
  for call in watched.take_calls():
    branch, granularity = call.name.split("_plus_")
    if granularity == "cross":
      continue
    assert call.groups.pool is None and call.groups.samples.shape == (20, 3)
    for target, group in enumerate(call.groups.samples.tolist()):
      assert group[0] == target
      if granularity == "short":
        padded = np.pad(np.arange(20), 6, mode="reflect")
        spacing = 6 if branch == "st" else 2
        assert group[1:] == [padded[6 + target - spacing], padded[6 + target + spacing]]
      else:
        assert group[1] != group[2] and all(abs(i - target) > 8 for i in group[1:])
        assert group[1:] == companions.long_companions(5, 11, target, 20, 8).tolist(), "as in training"


def test_another_number_of_companions_where_it_is_asked_for():
  """The first two are the usual ones; a source without companions does not run again."""
  watched, clip = WatchedSources(np.arange(9)), make_clip(20)
  sources = ClipSources(watched.sources, clip, TAGS, index=11)
  names = ("s", "s_plus_short", "s_plus_long", "s_plus_cross")
  sources.stacked(names)
  usual = {call.name: call.groups.samples for call in watched.take_calls() if call.groups is not None}
  for number in (1, 4):
    sources.stacked(names, Toggles(companions=number))
    calls = watched.take_calls()
    assert [call.name for call in calls] == list(names[1:])
    for call in calls:
      assert call.groups.samples.shape == (20, 1 + number) and call.groups.num_companions == number
      np.testing.assert_array_equal(call.groups.samples[:, :3], usual[call.name][:, : 1 + number])
    for samples in (call.groups.samples for call in calls[1:] if number > 2):
      assert (samples[:, 3:] != samples[:, 1:3]).any()


def test_companions_of_other_clips():
  """They are never from the own clip; one item is taken twice if it is alone, and long companions if there is none."""
  for index, pool_clips, others in ((7, POOL_CLIPS, {0, 2}), (-1, POOL_CLIPS, {0, 1, 2}), (2, np.array([6, 2]), {0})):
    watched, clip = WatchedSources(pool_clips), make_clip(12)
    ClipSources(watched.sources, clip, TAGS, index).source("s_plus_cross")
    (call,) = watched.take_calls()
    assert watched.pools == [("s_plus_cross", TAGS, False)] and len(call.groups.pool) == len(pool_clips)
    np.testing.assert_array_equal(call.groups.samples[:, 0], np.arange(12))
    chosen = call.groups.samples[:, 1:] - 12
    assert set(pool_clips[chosen].ravel()) == {pool_clips[i] for i in others} and index not in pool_clips[chosen]
    assert (chosen[:, 0] != chosen[:, 1]).all() == (len(others) > 1)
  for pool_clips in (np.array([4, 4]), np.array([], int)):
    watched, clip = WatchedSources(pool_clips), make_clip(12)
    sources = ClipSources(watched.sources, clip, TAGS, 4)
    sources.stacked(["st_plus_cross", "st_plus_long"])
    cross, long = watched.take_calls()
    np.testing.assert_array_equal(cross.groups.samples, long.groups.samples)


def test_stored_pool():
  rng = np.random.default_rng(0)
  nodes = {name: rng.normal(size=(4, 3, 2, 2, 4)).astype(np.float16) for name in ("s_plus_cross", "sa_plus_cross")}
  heard = rng.normal(size=(4, 3, 2, 2, 4)).astype(np.float16)
  clips = np.array([[4, 2, 9], [7, -1, -1], [-1, -1, -1], [2, 5, -1]], np.int32)
  stored = {**nodes, "sa_plus_cross/heard": heard, "clips": clips}
  for name, always_heard, expected in (
    ("s_plus_cross", True, nodes["s_plus_cross"]),
    ("sa_plus_cross", False, nodes["sa_plus_cross"]),
    ("sa_plus_cross", True, heard),
  ):
    pool, of = stored_pool(stored, name, (3, 1, 2), always_heard)
    np.testing.assert_array_equal(pool, np.stack([expected[3, 0], expected[3, 1], expected[1, 0]]))
    assert of.tolist() == [2, 5, 7]
  for tags in ((2,), ()):
    pool, of = stored_pool(stored, "s_plus_cross", tags)
    assert pool.shape == (0, 2, 2, 4) and of.shape == (0,)


def test_groups_stay_inside_their_window():
  """Long companions are drawn anew in every window, short ones are those of the whole video."""
  samples, drawn = [(None, None)] * 40, []
  for clip in windows(iter(samples), 1, length=16):
    long, short = (make_groups(clip, granularity, 3, seed=2) for granularity in ("long", "short"))
    np.testing.assert_array_equal(long[:, 0], clip.targets)
    assert long.min() >= 0 and long.max() < len(clip)
    drawn.append(long[:4, 1:] - long[:4, :1])
    expected = make_groups(Clip(samples), "short", 3, seed=2)[clip.first + np.array(clip.targets)]
    np.testing.assert_array_equal(short + clip.first, expected)
  assert not np.array_equal(drawn[0], drawn[1])


def test_top_tag_is_that_of_the_mean_confidence():
  """Every frame counts once, heard as the switch says, also those that windows share."""
  clip, calls = make_clip(60), []
  total = sum(WatchedNetwork(name, None, []).run(clip).confidences.sum(axis=0) for name in networks.COARSE)

  def parts():
    for window in windows(iter(clip.samples), 1, length=16):
      yield window.with_switch(clip.switch[window.first : window.first + len(window)])

  assert top_tag(lambda name, refine: WatchedNetwork(name, refine, calls), parts()) == np.argmax(total)
  assert {call.name for call in calls} == set(networks.COARSE) and {call.refine for call in calls} == {None}


def test_the_switch_is_set_by_its_network_where_there_is_sound():
  clip, calls = make_clip(12, targets=range(3, 5)), []
  network = WatchedNetwork("switch", None, calls)
  values = switch_values(network, clip)
  confidences = WatchedNetwork("switch", None, []).run(Clip(clip.samples)).confidences[:, 0]
  assert values.tolist() == [float(c > 0.25 and i != SILENT) for i, c in enumerate(confidences)]
  assert {0, 1} == set(values) and confidences[SILENT] > 0.25
  assert calls[0].clip.switch.tolist() == [i != SILENT for i in range(12)], "asked with all sound heard"
  silent = Clip([(frame, None) for frame, _ in clip.samples])
  assert switch_values(network, silent).tolist() == [0] * 12
