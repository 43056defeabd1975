"""Examples that are made of two, against a transcription that goes through them one by one."""

import numpy as np
import pytest

from stajax.train import mixing

B, N, WIDTH, TAGS = 5, 2, 10, 4


def middle(picture, length, axis):
  start = (picture.shape[axis] - length) // 2
  return np.take(picture, range(start, start + length), axis=axis)


def pair(pictures, at):
  """Returns the two halves of the mixed picture `at`, and the axis along which they are joined."""
  own, other = pictures[at], pictures[(at + 1) % len(pictures)]
  axis = -1 if at in (0, 1) else -2
  extent = own.shape[axis]
  first, second = (own, other) if at % 2 == 0 else (other, own)
  return middle(first, extent // 2, axis), middle(second, extent - extent // 2, axis), axis


@pytest.fixture
def random():
  return np.random.default_rng(0)


@pytest.mark.parametrize("width", [10, 7])
def test_pictures_are_joined_side_by_side_and_one_above_the_other(random, width):
  pictures = random.normal(size=(B, N, 5, width)).astype(np.float32)
  mixed = np.asarray(mixing.join(pictures, 4, height_axis=2))
  for at in range(B):
    *halves, axis = pair(pictures, at)
    expected = np.concatenate(halves, axis=axis) if at < 4 else pictures[at]
    np.testing.assert_array_equal(mixed[at], expected)


def test_tags_and_maps_are_of_the_half_that_is_heard(random):
  tags = (random.uniform(size=(B, N, TAGS)) < 0.4).astype(np.float32)
  maps = random.uniform(size=(B, N, 6, WIDTH)).astype(np.float32)
  heard = np.array([[1, 1], [0, 0], [1, 0], [0, 1], [1, 1]], np.float32)
  found = np.asarray(mixing.join_tags(tags, heard, 4))
  mixed = np.asarray(mixing.join_maps(maps, heard, 4))
  for at in range(B):
    for node in range(N):
      expected, own = maps[at, node], tags[at, node]
      if at < 4:
        first, second, axis = pair(maps[:, node], at)
        if heard[at, node]:
          first, second = (first, 0 * second) if at % 2 == 0 else (0 * first, second)
        else:
          own = np.maximum(own, tags[(at + 1) % B, node])
        expected = np.concatenate([first, second], axis=axis)
      np.testing.assert_array_equal(mixed[at, node], expected)
      np.testing.assert_array_equal(found[at, node], own)


def test_exchanged_sounds_are_labelled_by_what_is_heard_in_them(random):
  """A dog's picture with the sound of another dog belongs together, one with that of a car does not."""
  dog, car = [1, 0], [0, 1]
  tags, heard = np.array([dog, dog, car, dog]), np.array([dog, dog, car, car])
  batch = {
    "tags": np.concatenate([tags, heard], axis=1)[:, None].astype(np.float32),
    "sound": random.normal(size=(4, 1, 3, 2)),
    "sound_mean": random.normal(size=(4, 1)),
    "sound_deviation": random.normal(size=(4, 1)),
    "clip": np.arange(4)[:, None],
  }
  found = mixing.exchange_sounds(batch, 3)
  assert np.asarray(found["tags"])[:, 0, 0].tolist() == [1, 0, 1, 0]
  for name in ("sound", "sound_mean", "sound_deviation"):
    np.testing.assert_allclose(found[name], batch[name][[1, 2, 3, 3]], rtol=1e-6)
  np.testing.assert_array_equal(found["clip"], batch["clip"])
  assert np.asarray(mixing.exchange_sounds(batch, 0)["tags"])[:, 0, 0].tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize(("share", "batch", "count"), [(0, 8, 0), (0.5, 8, 4), (0.25, 20, 5), (1, 8, 7), (1, 1, 0)])
def test_the_last_example_is_never_mixed(share, batch, count):
  assert mixing.count_mixed(share, batch) == count
