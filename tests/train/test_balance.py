"""Epochs in which every tag has the same share."""

from types import SimpleNamespace

import numpy as np

from stajax.train import balance


def records(tags, num_frames):
  clip_of_frame = np.repeat(np.arange(len(num_frames)), num_frames)
  return SimpleNamespace(tags=np.asarray(tags, np.float32), clip_of_frame=clip_of_frame, num_clips=len(num_frames))


def test_a_rare_tag_is_drawn_as_often_as_a_common_one():
  """Nine clips of one tag, one of another, two of a third; lengths differ, too."""
  tags = np.eye(3)[[0] * 9 + [1] + [2] * 2]
  num_frames = [4, 20, 7, 13, 9, 30, 5, 11, 6, 10, 3, 40]
  made = records(tags, num_frames)
  items = np.arange(sum(num_frames))
  drawn = balance.balanced(items, made)
  assert set(drawn) == set(items)
  frames = np.bincount(made.clip_of_frame[drawn], minlength=12)
  by_tag = frames @ tags
  assert by_tag.max() < 1.1 * by_tag.min()
  np.testing.assert_allclose(frames[:9], frames[:9].mean(), rtol=0.35)  # each frame is repeated a whole number of times
  np.testing.assert_allclose(frames[10:], frames[10:].mean(), rtol=0.1)


def test_a_clip_with_several_tags_counts_for_the_rarest():
  tags = [[1, 0, 0]] * 6 + [[1, 1, 0]] * 2 + [[0, 0, 0]]
  made = records(tags, [10] * 9)
  frames = np.bincount(made.clip_of_frame[balance.balanced(np.arange(90), made)], minlength=9)
  np.testing.assert_allclose([frames[:6].sum(), frames[6:8].sum(), frames[8]], 3 * [frames[:6].sum()], rtol=0.1)


def test_clips_that_are_left_out_do_not_count():
  tags = np.eye(2)[[0, 0, 0, 1]]
  made = records(tags, [10] * 4)
  assert balance.balanced(np.arange(20, 40), made).tolist() == list(range(20, 40))
