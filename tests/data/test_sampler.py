"""The sampler: permutations, purity, and windows compared with slow transcriptions."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from stajax import companions  # noqa: E402
from stajax.data import sampler  # noqa: E402
from stajax.media.spectrogram import window_columns  # noqa: E402


def bounce(index, size):
  """Walks from 0 to an index that may be outside, turning round at the ends."""
  place, step = 0, 1
  for _ in range(abs(index)):
    if size == 1:
      return 0
    if not 0 <= place + step < size:
      step = -step
    place += step
  return place


@pytest.mark.parametrize("num_items", [1, 2, 3, 7, 100, 1000])
def test_an_epoch_has_every_item_once(num_items):
  position = tf.range(3 * num_items, dtype=tf.int64)
  epochs = sampler.draw_items(position, 5, num_items).numpy().reshape(3, num_items)
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(num_items))
  if num_items >= 100:
    assert (epochs[0] != epochs[1]).any() and (epochs[1] != epochs[2]).any()
    assert (sampler.draw_items(position, 6, num_items).numpy()[:num_items] != epochs[0]).any()
    assert abs(np.corrcoef(epochs[0], np.arange(num_items))[0, 1]) < 0.3


def test_items_equal_those_of_the_public_shuffle():
  position = tf.range(90, 130, dtype=tf.int64)
  expected = [
    tf.random.experimental.index_shuffle(p % 50, seed=tf.constant([7, p // 50], tf.int64), max_index=49).numpy()
    for p in range(90, 130)
  ]
  np.testing.assert_array_equal(sampler.draw_items(position, 7, 50), expected)


def test_views_are_square_boxes_inside_the_frame():
  position = tf.range(600, dtype=tf.int64)
  boxes, flips = (part.numpy() for part in tf.function(sampler.draw_views)(position, 3, 0.6, True))
  height, width = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
  np.testing.assert_allclose(height, width, atol=1e-6)
  assert boxes.min() >= 0 and boxes.max() <= 1 + 1e-6 and height.min() >= 0.6 - 1e-6
  assert abs(height.mean() - 0.8) < 0.02 and abs(flips.mean() - 0.5) < 0.08
  free = boxes[:, :2] / np.maximum(1 - height, 1e-6)[:, None]  # uniform, whatever the side
  assert abs(free.mean(axis=0) - 0.5).max() < 0.05 and abs(np.corrcoef(free.T)[0, 1]) < 0.15
  boxes, flips = sampler.draw_views(position[:20], 3, 1.0, False)
  np.testing.assert_array_equal(boxes, [[0, 0, 1, 1]] * 20)
  assert not flips.numpy().any()


def test_draws_depend_on_seed_and_position_alone():
  def draw(position, seed):
    return [sampler.draw_items(position, seed, 37), *sampler.draw_views(position, seed, 0.5, True)]

  whole = draw(tf.range(40, dtype=tf.int64), 1)
  parts = [draw(sampler.positions(step, 8, range(4 * host, 4 * host + 4)), 1) for step in range(5) for host in range(2)]
  graph = tf.function(draw)(tf.range(40, dtype=tf.int64), 1)
  for i, expected in enumerate(whole):
    np.testing.assert_array_equal(np.concatenate([part[i] for part in parts]), expected)
    np.testing.assert_array_equal(graph[i], expected)
  assert (draw(tf.range(40, dtype=tf.int64), 2)[1].numpy() != whole[1].numpy()).any()


def test_a_crop_inside_boxes_equals_two_successive_crops():
  """Compares with an image of coordinates that is cropped by hand at whole pixels."""
  image = np.stack(np.mgrid[:64, :48], axis=-1)
  boxes = np.asarray([[[0.25, 0.5, 0.75, 1], [0, 0, 1, 1], [0.5, 0, 1, 0.5]]], np.float32)
  views = np.asarray([[0.25, 0.5, 0.5, 0.75]], np.float32)

  def crop(image, box):
    y0, x0, y1, x1 = (np.asarray(box) * (*image.shape[:2], *image.shape[:2])).astype(int)
    return image[y0:y1, x0:x1]

  for box, result in zip(boxes[0], sampler.crop_inside(boxes[:, None], views).numpy()[0, 0], strict=True):
    np.testing.assert_array_equal(crop(image, result), crop(crop(image, box), views[0]))
  whole, _ = sampler.draw_views(tf.range(50, dtype=tf.int64), 1, 0.4, False)
  same = sampler.crop_inside(tf.constant([[[[0.0, 0.0, 1.0, 1.0]] * 3]] * 50), whole).numpy()
  np.testing.assert_array_equal(same[:, 0], np.repeat(whole.numpy()[:, None], 3, axis=1))


def test_groups_are_targets_and_their_companions():
  num_frames, tags = np.asarray([20, 9, 4]), np.asarray([[1, 0], [1, 0], [0, 1]])
  clip, frame = np.asarray([0, 0, 1, 2]), np.asarray([3, 19, 0, 3])

  def draw(granularity, num_times):
    return sampler.make_draw_group(granularity, 5, num_times, tags, num_frames)(clip, frame)

  for granularity, num_times in ((None, 1), ("short", 1), ("short", 3), ("long", 3), ("cross", 3)):
    clips, frames = draw(granularity, num_times)
    assert clips.shape == frames.shape == (4, 3 if granularity else 1)
    np.testing.assert_array_equal(clips[:, 0], clip)
    np.testing.assert_array_equal(frames[:, 0], frame)
  assert draw("short", 3)[1].tolist() == [[3, 0, 6], [19, 16, 16], [0, 3, 3], [3, 0, 0]]
  assert draw("short", 1)[1].tolist() == [[3, 2, 4], [19, 18, 18], [0, 1, 1], [3, 2, 2]]
  assert (draw("long", 3)[0] == clip[:, None]).all() and (draw("short", 3)[0] == clip[:, None]).all()
  np.testing.assert_array_equal(draw("long", 3)[1][:, 1:], companions.long_companions(5, clip, frame, num_frames[clip]))
  assert draw("cross", 3)[0][:, 1:].tolist() == [[1, 1], [1, 1], [0, 0], [2, 2]]
  for both, short, long in zip(*(draw(granularity, 3) for granularity in ("short_long", "short", "long")), strict=True):
    np.testing.assert_array_equal(both[:, :3], short)
    np.testing.assert_array_equal(both[:, [0, 3, 4]], long)


@pytest.mark.parametrize("num_times", [1, 3, 9])
def test_fragments_reflect_at_the_ends(num_times):
  num_frames = np.repeat([1, 2, 3, 8], [1, 2, 3, 8])
  frame = np.concatenate([np.arange(n) for n in (1, 2, 3, 8)])
  half = num_times // 2
  expected = [[bounce(f + d, n) for d in range(-half, half + 1)] for f, n in zip(frame, num_frames, strict=True)]
  got = sampler.fragment_frames(frame[:, None], num_frames[:, None], num_times)
  np.testing.assert_array_equal(got[:, 0], expected)


@pytest.mark.parametrize("num_columns", [1, 2, 40, 98, 99, 100, 101, 250, 1000])
def test_sound_windows_are_two_successive_records(num_columns):
  frame, rate = np.arange(0, 90, dtype=np.int64), 25 / 3
  size = np.full_like(frame, num_columns)
  records, columns = sampler.sound_windows(frame[:, None], np.full((90, 1), rate), size[:, None])
  last = (num_columns - 1) // 100
  for i, f in enumerate(frame):
    first = round((f / rate * 16000 - 256) / 159) - 49
    expected = [bounce(column, num_columns) for column in range(first, first + 98)]
    joined = np.concatenate([100 * record + np.arange(100) for record in records[i, 0]])
    np.testing.assert_array_equal(joined[columns[i, 0]], expected)
    np.testing.assert_array_equal(window_columns(f / rate, num_columns), expected)  # what prediction uses
    assert records[i, 0, 1] in (records[i, 0, 0] + 1, last) and records[i, 0, 0] <= last
