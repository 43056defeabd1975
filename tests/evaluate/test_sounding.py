"""Whether maps move with the sound and towards what sounds: the numbers, without a network."""

import math

import numpy as np
import pytest

from stajax.evaluate import sounding


def test_the_moved_share_is_what_has_to_be_carried_elsewhere():
  maps = np.zeros((3, 2, 4))
  maps[:, 0, 0] = 2.0
  others = maps.copy()
  others[1] = 0
  others[1, 1, 3] = 7.0  # all of it is elsewhere, whatever the scale
  others[2, 0, :] = 1.0  # three quarters of it are
  others[2, 0, 0] = 1.0
  assert sounding.moved_share(maps, others).tolist() == [0.0, 1.0, 0.75]


def test_the_share_at_the_left():
  maps = np.zeros((3, 2, 4))
  maps[0, :, :2] = 1
  maps[1] = 1
  assert sounding.share_at_left(maps).tolist() == [1.0, 0.5, 0.5]


def test_halves_are_side_by_side_with_either_sound():
  frames = np.arange(2 * 3 * 8 * 8 * 3).reshape(2, 3, 8, 8, 3)
  clips = [[(frame, f"{name} {i}") for i, frame in enumerate(clip)] for name, clip in zip("ab", frames, strict=True)]
  for heard, name in ((0, "a"), (1, "b")):
    found = sounding.side_by_side(clips[0], clips[1][:2], heard)
    assert [sound for _, sound in found] == [f"{name} 0", f"{name} 1"]
    np.testing.assert_array_equal(found[1][0], np.concatenate([frames[0, 1][:, 2:6], frames[1, 1][:, 2:6]], axis=1))


def test_pairs_have_different_tags():
  tags = np.array([[1, 0, 1], [0, 1, 1], [1, 0, 1], [0, 0, 1]])
  assert sounding.choose_pairs(tags, {0: 1, 1: 2, 2: 0, 3: 1}) == [(0, 1), (1, 2)]


def test_results_are_a_table():
  clip = {"final": {"other": 0.25, "none": 0.5}}
  text = sounding.format_results({"a": clip, "b": {"final": {"other": 0.75, "none": 0.5}}}, {"a | b": {"final": 0.1}})
  row = text.splitlines()[-1]
  assert "50.0% ± 25.0%" in row and "50.0% ± 0.0%" in row and "+10.0% ± nan%" in row and "1 of 1 pairs" in row
  found = sounding.summarise([1.0, 2.0, 4.0, -1.0])
  assert (found.mean, found.positive, found.count) == (1.5, 3, 4)
  assert found.error == pytest.approx(math.sqrt(np.var([1, 2, 4, -1], ddof=1) / 4))
