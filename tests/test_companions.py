"""Companions equal those of slow loops over small clips, and draws are pure, even and independent."""

import numpy as np
import pytest

from stajax import companions

SIZES = (1, 2, 3, 4, 6, 7, 9, 10, 11, 30)


def all_frames(num_frames):
  """Returns clip and frame of every frame of clips of these lengths, and the length of the clip."""
  clip = np.repeat(np.arange(len(num_frames)), num_frames)
  frame = np.concatenate([np.arange(n) for n in num_frames])
  return clip, frame, np.asarray(num_frames)[clip]


def assert_even(drawn, number):
  """Asserts that the counts of values in [0, number) are within five deviations of equal ones."""
  counts = np.bincount(np.ravel(drawn), minlength=number)
  assert len(counts) == number
  expected = counts.sum() / number
  assert np.abs(counts - expected).max() < 5 * expected**0.5


def test_short_companions_touch_the_target_and_reflect():
  assert companions.short_companions(np.asarray([7, 0, 19]), np.full(3, 20), 3).tolist() == [[4, 10], [3, 3], [16, 16]]
  _, frame, num_frames = all_frames(SIZES)
  for spacing in (1, 3):
    for t, n, pair in zip(frame, num_frames, companions.short_companions(frame, num_frames, spacing), strict=True):
      padded = np.pad(np.arange(n), spacing, mode="reflect")
      assert pair.tolist() == [padded[t], padded[t + 2 * spacing]]


def test_there_may_be_another_number_of_companions():
  for number in range(1, 5):
    found = companions.short_companions(np.asarray(7), np.asarray(20), 1, number)
    assert found.tolist() == [6, 8, 5, 9][:number]

    def draw(seed):
      return companions.long_companions(seed, 3, np.arange(20), 20)

    drawn = companions.repeat_draw(draw, 5, number)
    assert drawn.shape == (20, number)
    np.testing.assert_array_equal(drawn[:, :2], draw(5)[:, :number])
    assert (np.abs(drawn - np.arange(20)[:, None]) > companions.LONG_GAP).all()
  assert (drawn[:, 2:] != drawn[:, :2]).any()


def test_long_companions_are_far_or_the_farthest():
  clip, frame, num_frames = all_frames(SIZES)
  for seed in range(20):
    pairs = companions.long_companions(seed, clip, frame, num_frames)
    for t, n, (first, second) in zip(frame.tolist(), num_frames.tolist(), pairs.tolist(), strict=True):
      far = {u for u in range(n) if abs(u - t) > 4}
      distances = sorted((abs(u - t) for u in range(n) if u != t), reverse=True)
      if len(far) >= 2:
        assert first != second and {first, second} <= far
      elif n >= 3:
        assert first != second and [abs(first - t), abs(second - t)] == distances[:2]
      else:
        assert first == second == (1 - t if n == 2 else 0)
      assert 0 <= first < n and 0 <= second < n


def test_long_companions_are_drawn_evenly():
  # Far are 0…3 and 13…19.
  first, second = np.stack([companions.long_companions(seed, 3, 8, 20) for seed in range(2000)]).T
  for drawn in (first, second):
    assert_even(np.where(drawn < 4, drawn, drawn - 9), 11)
  pairs = np.stack([first, second])
  assert len(np.unique(pairs, axis=1).T) == 11 * 10  # in any combination and order
  # Draws are as even between clips and frames as between seeds.
  assert_even(companions.long_companions(0, np.arange(4000), 0, 16) - 5, 11)
  frames = np.arange(4000)
  drawn = companions.long_companions(0, 0, frames, 5000)
  assert_even(np.floor_divide(drawn, 500), 10)
  assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.06
  assert abs(np.corrcoef(drawn[1:, 0], drawn[:-1, 0])[0, 1]) < 0.06


TAGS = np.asarray([
  [1, 0, 0, 0, 0],
  [1, 1, 0, 0, 0],  # tag 0 has four clips, tag 1 two
  [1, 0, 0, 0, 0],
  [1, 0, 0, 0, 0],
  [0, 1, 0, 0, 0],  # one partner
  [0, 0, 1, 0, 0],  # alone in its tag
  [0, 0, 0, 0, 0],  # no tag
  [0, 0, 0, 1, 1],  # two tags with two partners each
  [0, 0, 0, 1, 0],
  [0, 0, 0, 1, 0],
  [0, 0, 0, 0, 1],
  [0, 0, 0, 0, 1],
])  # fmt: skip
NUM_FRAMES = np.asarray([5, 1, 12, 3, 20, 30, 2, 6, 4, 8, 10, 1])


def test_cross_companions_are_of_other_clips_with_the_same_tag():
  tags = companions.TagGroups(TAGS.astype(np.float32), NUM_FRAMES)
  alone = [not any((TAGS[k] & TAGS[j]).any() for j in range(12) if j != k) for k in range(12)]
  assert tags.is_alone.tolist() == alone and np.flatnonzero(alone).tolist() == [5, 6]
  clip, frame, num_frames = all_frames(NUM_FRAMES)
  long = [companions.long_companions(seed, clip, frame, num_frames) for seed in range(40)]
  for seed in range(40):
    clips, frames = tags.cross_companions(seed, clip, frame)
    assert (frames >= 0).all() and (frames < NUM_FRAMES[clips]).all()
    for i, k in enumerate(clip):
      first, second = clips[i]
      if alone[k]:
        assert first == second == k and (frames[i] == long[seed][i]).all()
        continue
      shared = TAGS[k] & TAGS[first] & TAGS[second]
      assert k not in (first, second) and shared.any()
      if k == 4:  # only clip 1 has its tag, and one frame
        assert first == second == 1 and frames[i].tolist() == [0, 0]
      else:
        assert first != second
  # Two frames of the only partner differ where it has two.
  pair = companions.TagGroups(np.ones((2, 1)), np.asarray([1, 4]))
  clips, frames = pair.cross_companions(3, np.zeros(50, int), np.arange(50))
  assert (clips == 1).all() and (frames[:, 0] != frames[:, 1]).all() and set(frames.ravel()) == {0, 1, 2, 3}


def test_cross_companions_are_drawn_evenly():
  tags = companions.TagGroups(TAGS, NUM_FRAMES)
  clips, frames = np.stack([tags.cross_companions(seed, 7, 5) for seed in range(1500)], axis=1)
  by_tag = np.where(clips < 10, 0, 1)
  assert (by_tag[:, 0] == by_tag[:, 1]).all()
  assert_even(by_tag[:, 0], 2)
  for node in range(2):
    assert_even(clips[:, node] - 8, 4)
    assert_even(frames[clips[:, node] == 9, node], 8)
    assert_even(frames[clips[:, node] == 10, node], 10)
  three, _ = tags.cross_companions(0, np.zeros(3000, int), np.arange(3000))  # clips 1, 2 and 3 in all orders
  assert_even(three[:, 0] - 1, 3)
  assert_even((three[:, 1] - three[:, 0]) % 3 - 1, 2)


def test_without_partners_cross_companions_are_long_ones():
  for tags in (np.eye(3), np.zeros((3, 2))):
    clips, frames = companions.TagGroups(tags, np.asarray([9, 12, 1])).cross_companions(5, np.arange(3), 0)
    assert clips.tolist() == [[0, 0], [1, 1], [2, 2]]
    np.testing.assert_array_equal(frames, companions.long_companions(5, np.arange(3), 0, np.asarray([9, 12, 1])))


def test_draws_depend_on_seed_clip_and_frame_alone():
  tags = companions.TagGroups(TAGS, NUM_FRAMES)
  clip, frame, _ = all_frames(NUM_FRAMES)

  def draw(clip, frame, seed=7):
    return [companions.long_companions(seed, clip, frame, NUM_FRAMES[clip]), *tags.cross_companions(seed, clip, frame)]

  whole = draw(clip, frame)
  order = np.random.default_rng(0).permutation(len(clip))
  for drawn, expected in zip(draw(clip[order].reshape(2, -1), frame[order].reshape(2, -1)), whole, strict=True):
    np.testing.assert_array_equal(drawn.reshape(-1, 2), expected[order])
  for i in (0, 30, 60):
    for drawn, expected in zip(draw(clip[i], frame[i]), whole, strict=True):
      np.testing.assert_array_equal(drawn, expected[i])
  for seed in (8, -1, 2**63 - 1):
    assert any((drawn != expected).any() for drawn, expected in zip(draw(clip, frame, seed), whole, strict=True))


def test_random_bits_equal_those_of_splitmix64():
  """Compares the first outputs from 0 that are published; the state grows by the golden ratio."""
  state = np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
  expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
  assert companions._hash(state).tolist() == expected


def test_pools_have_items_of_distinct_clips_of_every_tag():
  tags = np.zeros((50, 4))
  tags[:, 0] = 1
  tags[3:8, 1] = tags[7, 2] = 1
  num_frames = np.arange(50) + 1
  chosen = []
  for seed in range(300):
    pools = companions.pool_items(tags, num_frames, seed, size=6)
    assert [len(pool) for pool in pools] == [6, 5, 1, 0]
    for tag, pool in enumerate(pools):
      clips, frames = pool.T
      assert len(set(clips.tolist())) == len(clips) and tags[clips, tag].all()
      assert (frames >= 0).all() and (frames < num_frames[clips]).all()
    chosen.append(pools[0])
  clips, frames = np.concatenate(chosen).T
  assert_even(clips, 50)
  assert set(frames[clips == 9].tolist()) == set(range(10))
  np.testing.assert_array_equal(
    companions.pool_items(tags, num_frames, 4)[0], companions.pool_items(tags, num_frames, 4)[0]
  )
  assert len(companions.pool_items(tags, num_frames, 4)[0]) == 8


@pytest.mark.parametrize("clip", [-1, 4, 9])
def test_pool_companions_are_of_two_other_clips(clip):
  pool = np.asarray([9, 4, 2, 9, 7])  # clip 9 appears for two of its tags
  frames = np.arange(3000)
  drawn = companions.pool_companions(1, clip, frames, pool)
  assert drawn.shape == (3000, 2)
  clips = pool[drawn]
  assert (clips != clip).all() and (clips[:, 0] != clips[:, 1]).all()
  others = np.setdiff1d(pool, clip)
  for node in range(2):
    assert_even(np.searchsorted(others, clips[:, node]), len(others))
  np.testing.assert_array_equal(companions.pool_companions(1, clip, frames[::-7], pool), drawn[::-7])


def test_small_pools_repeat_items_or_have_none():
  frames = np.arange(4)
  assert (companions.pool_companions(0, 3, frames, np.asarray([3, 5])) == 1).all()
  for pool in ([3], [3, 3], []):
    assert (companions.pool_companions(0, 3, frames, np.asarray(pool)) == -1).all()


def test_items_are_far_different_and_drawn_evenly():
  items = np.array([3, 4, 10, 11, 30, 31, 50])
  frames = np.arange(60)
  chosen, are_two = companions.far_items(7, frames, items, 4)
  assert are_two.all() and chosen.shape == (60, 2) and (chosen[:, 0] != chosen[:, 1]).all()
  assert (np.abs(items[chosen] - frames[:, None]) > 4).all()
  np.testing.assert_array_equal(companions.far_items(7, frames[20:30], items, 4)[0], chosen[20:30])
  assert not np.array_equal(companions.far_items(8, frames, items, 4)[0], chosen)
  far = companions.far_items(0, np.arange(100, 4000), items, 4)[0]
  np.testing.assert_allclose(np.bincount(far.ravel(), minlength=7) / far.size, 1 / 7, atol=0.02)
  assert companions.far_items(0, np.array([3, 12]), np.array([4, 9, 14]), 4)[1].tolist() == [True, False]
  assert companions.far_items(0, np.array([3]), np.zeros(0, int), 4)[1].tolist() == [False]
