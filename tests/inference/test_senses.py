"""Maps with a sense taken away: each is what the model makes of an input from which it is really missing."""

import functools
import shutil

import numpy as np
import pytest

from helpers import tiny
from helpers.tiny import CONFIG, SIZE, make_samples, walk, whole
from stajax import companions, networks
from stajax.eyetracking import read_tree
from stajax.inference import dataset
from stajax.inference.clip import Clip, joined, windows
from stajax.inference.predictor import load_predictor
from stajax.inference.reservoir import Fragments
from stajax.inference.senses import apply
from stajax.inference.tree_video import other_sound
from stajax.media.sound_windows import file_windows
from stajax.prepare.tree_files import write_fold_lists, write_video
from stajax.senses import Senses, parse

small_programs = tiny.small_programs
random_networks, model_folder, predictor = tiny.random_networks, tiny.model_folder, tiny.predictor
pytestmark = pytest.mark.usefixtures("small_programs")

OTHER, SILENT, STILL, ALONE = map(parse, ("sound=other", "sound=none", "motion=none", "companions=none"))
COUNTS = {"a": 5, "b": 30, "c": 7, "d": 3, "silent": 4}
"""The frames of the videos of the tree; b is longer than a window of the tests."""


@pytest.fixture(scope="module")
def senseless(model_folder):
  """A predictor of all ablations."""
  return load_predictor(model_folder, batch=16, senses=(OTHER, SILENT, STILL, ALONE, parse("sound=none,motion=none")))


@pytest.fixture(scope="module")
def unmoved(model_folder):
  """A predictor of those ablations that leave the sound as it is."""
  return load_predictor(model_folder, batch=16, senses=(STILL, ALONE))


@pytest.fixture
def tree(tmp_path, monkeypatch):
  monkeypatch.setattr(dataset, "WINDOW", 14)
  monkeypatch.setattr(dataset, "windows", functools.partial(windows, length=14))
  rng = np.random.default_rng(0)
  for number, (name, count) in enumerate(COUNTS.items()):
    frames = [rng.integers(0, 255, (24, 36, 3), dtype=np.uint8) for _ in range(count)]
    # Longer than any of the videos, so that every sound goes on to the end of each.
    samples = None if name == "silent" else np.sin(np.arange(16000 * 9) ** (1.1 + number / 10) / 10)
    write_video(tmp_path / "tree", "Tiny", name, frames, samples, None)
  write_fold_lists(tmp_path / "tree", "Tiny", [(name, count, 4.0) for name, count in COUNTS.items()])
  return tmp_path / "tree"


def read_videos(tree):
  return {video.name: video for video in read_tree(tree, need_annotations=False).videos}


def maps_of(predictor, tree, donors=None):
  """Returns {video: {method: maps}} of a tree."""
  videos = tuple(read_videos(tree).values())
  maps, found = dataset.method_maps(predictor, videos, donors), {}
  for video in videos:
    parts = [part for _, part in maps(video, range(video.num_frames))]
    found[video.name] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  return found


def choose(tree, seed=0):
  return dataset.find_donors(dataset.sounding_videos(tuple(read_videos(tree).values())), seed)


def test_maps_of_a_tree_are_those_of_a_tree_with_other_sound_or_without(predictor, senseless, tree, tmp_path):
  """Bit by bit, in windows with a reservoir as well as joined with other videos; usual maps stay as they are."""
  donors = choose(tree)
  ablated, usual = maps_of(senseless, tree, donors), maps_of(predictor, tree)
  exchanged, silent = tmp_path / "exchanged", tmp_path / "silent"
  shutil.copytree(tree, exchanged)
  for (_, name), donor in donors.items():
    shutil.copy(donor.sound, read_videos(exchanged)[name].sound)
  shutil.copytree(tree, silent)
  shutil.rmtree(silent / "video_audio")
  expected = {OTHER.suffix: maps_of(predictor, exchanged), SILENT.suffix: maps_of(predictor, silent)}
  for video, maps in ablated.items():
    for name, values in usual[video].items():
      np.testing.assert_array_equal(maps[name], values)
    for suffix, found in expected.items():
      for name in (*networks.STUDENTS, "final"):
        np.testing.assert_array_equal(maps[name + suffix], found[video][name], err_msg=f"{video} {name} {suffix}")
  assert not np.array_equal(ablated["b"]["final_other_sound"], usual["b"]["final"])
  assert not np.array_equal(ablated["b"]["final_no_sound"], ablated["b"]["final_other_sound"])
  np.testing.assert_array_equal(ablated["silent"]["final_other_sound"], usual["silent"]["final"])


def test_every_method_that_changes_has_a_row(senseless):
  (found,) = tiny.method_maps(senseless, [(frame, None) for frame, _ in make_samples(4)])
  students = (*networks.STUDENTS, "final")
  suffixes = ("_other_sound", "_no_sound", "_no_motion", "_no_companions", "_no_sound_no_motion")
  expected = {f"{name}{suffix}" for name in students for suffix in suffixes} - {"sta_no_companions"}
  assert set(found) - {*students, "final_no_switch", "spectral_residual"} == expected


def companions_by_hand(name, i, count):
  if name.endswith("short"):
    return [walk(i, side * 3, count) for side in (-1, 1)]
  return companions.long_companions(CONFIG.seed, 0, i, count, 4).tolist()


def test_without_motion_every_fragment_stands_still(unmoved, random_networks):
  """The nodes of the whole networks are videos of one frame each, as far from each other as usual."""
  samples = make_samples(9)
  (found,) = tiny.method_maps(unmoved, samples)
  switch = unmoved.show(Clip(samples)).switch
  still = [Clip([sample]).with_switch(switch[i : i + 1]) for i, sample in enumerate(samples)]
  for name in networks.STUDENTS:
    network, variables, size = random_networks[name]
    others = (lambda i, name=name: companions_by_hand(name, i, 9)) if network.num_nodes > 1 else lambda i: []
    groups = [[(still[at], 0) for at in (i, *others(i))] for i in range(9)]
    expected = whole(network, variables, groups, size)
    np.testing.assert_allclose(found[f"{name}_no_motion"], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found[f"{name}_no_motion"] - found[name]).max() > 1e-4


def test_without_companions_a_frame_is_its_own_companion(unmoved, random_networks):
  samples = make_samples(9)
  (found,) = tiny.method_maps(unmoved, samples)
  clip = unmoved.show(Clip(samples))
  for name in ("sta_plus_short", "sta_plus_long"):
    network, variables, size = random_networks[name]
    expected = whole(network, variables, [[(clip, i)] * 3 for i in range(9)], size)
    np.testing.assert_allclose(found[f"{name}_no_companions"], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found[f"{name}_no_companions"] - found[name]).max() > 1e-4


def test_companions_of_long_videos_are_ablated_too(unmoved, random_networks):
  """The reservoir's fragments stand still without motion, and are not used without companions."""
  samples, runs = make_samples(30, heard=1), [make_samples(3, seed=100 + i, heard=1) for i in range(9)]
  at = np.arange(9) * 31 // 9
  kept = unmoved.make_reservoir(lambda: Fragments([[(a, None), b, (c, None)] for (a, _), b, (c, _) in runs], at))
  parts = [unmoved.start_method_maps(clip, kept)() for clip in windows([(x, None) for x, _ in samples], length=14)]
  network, variables, size = random_networks["sta_plus_long"]
  video = Clip([(frame, None) for frame, _ in samples])
  fragments = unmoved.show(joined([[run[1]] for run in runs]))
  nodes = [(Clip([run[1]]).with_switch(fragments.switch[i : i + 1]), 0) for i, run in enumerate(runs)]
  chosen, _ = companions.far_items(CONFIG.seed, np.arange(30), at, 4)
  still = [[(Clip([video.samples[i]]), 0), *(nodes[p] for p in chosen[i])] for i in range(12)]
  alone = [[(video, i)] * 3 for i in range(12)]
  for suffix, groups in (("_no_motion", still), ("_no_companions", alone)):
    found = np.concatenate([part[f"sta_plus_long{suffix}"] for part in parts])[:12]
    np.testing.assert_allclose(found, whole(network, variables, groups, size), rtol=1e-4, atol=1e-5)


def test_frames_are_encoded_once_and_each_sound_once(model_folder, monkeypatch):
  """Four networks have encoders of their own here; three sounds each, in windows that share samples."""
  calls = tiny.count_calls(monkeypatch)
  samples = make_samples(30, heard=1)
  for senses, sounds in (((), 1), ((OTHER, SILENT, STILL, ALONE), 3)):
    ablating = load_predictor(model_folder, batch=8, senses=senses)
    calls.clear()
    others = [sound for _, sound in make_samples(30, seed=1, heard=1)]
    for clip in windows(samples, length=16, other_sound=others):
      ablating.start_method_maps(clip)()
    assert calls["encode_frames"] == 4 * 5 and calls["encode_sound"] == sounds * calls["encode_frames"]


def test_an_ablated_clip():
  """What is silent stays silent; the switch is on where there is still sound; frames and features are shared."""
  samples = make_samples(6, heard=0.5)
  others = [None, *(np.full((257, 98), i, np.float32) for i in range(1, 6))]
  clip = Clip(samples, 2, other_sound=others).with_switch(np.zeros(6))
  other, silent, still = (apply(senses, clip) for senses in (OTHER, SILENT, STILL))
  assert 0 < clip.has_sound.sum() < 6
  for i, (frame, sound) in enumerate(other.samples):
    assert frame is samples[i][0] and sound is (None if samples[i][1] is None else others[i])
  assert all(sound is None for _, sound in silent.samples) and not silent.switch.any()
  np.testing.assert_array_equal(other.switch, other.has_sound)
  assert still.samples is clip.samples and still.is_still and still.reach == 2
  assert other.features is silent.features is still.features is clip.features
  assert apply(Senses("none", "none"), clip).is_still
  with pytest.raises(ValueError, match="zip"):
    apply(OTHER, Clip(samples))


def test_a_short_sound_begins_again(tree, tmp_path):
  """The video lasts 7.5 seconds, the sound 2."""
  wave = np.random.default_rng(0).normal(0, 0.1, 32000)
  write_video(tmp_path / "short", "Tiny", "x", [np.zeros((8, 8, 3), np.uint8)], wave, None)
  write_fold_lists(tmp_path / "short", "Tiny", [("x", 1, 4.0)])
  video, (donor,) = read_videos(tree)["b"], read_videos(tmp_path / "short").values()
  seconds, found = (198 * 159 + 512) / 16000, list(other_sound(video, donor))
  assert len(found) == 30 and 1.99 < seconds <= 2
  for i, window in enumerate(found):
    fresh = file_windows(donor.sound, [])
    np.testing.assert_array_equal(window, fresh.window(i / 4 % seconds))
  assert found[20].shape == (257, 98) and not np.array_equal(found[7], found[8])


def test_videos_with_sound(tree):
  """Neither a missing nor a broken nor a silent sound counts."""
  videos = read_videos(tree)
  videos["a"].sound.write_bytes(b"no sound")
  write_video(tree, "Tiny", "c", [np.zeros((8, 8, 3), np.uint8)], np.zeros(16000), None)
  assert [video.name for video in dataset.sounding_videos(tuple(read_videos(tree).values()))] == ["b", "d"]
  assert {key[1]: donor.name for key, donor in choose(tree).items()} == {"b": "d", "d": "b"}
  videos["b"].sound.unlink()
  with pytest.raises(ValueError, match="found sound in one video, expected it in at least two"):
    choose(tree)
  read_videos(tree)["d"].sound.unlink()
  assert choose(tree) == {}


def test_final_maps_have_their_size(senseless):
  (found,) = tiny.method_maps(senseless, [(frame, None) for frame, _ in make_samples(2)])
  assert found["final_no_motion"].shape == (2, SIZE, SIZE)
