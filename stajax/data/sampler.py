"""The draws of a training step: pure functions of (seed, step, slot), so that only the step has to be saved.

position = step * global_batch + slot. An epoch is a permutation of all items (`index_shuffle`, which needs no table);
boxes and flips are stateless random numbers of (seed, position), and companions of (seed, clip, frame). TensorFlow
draws items, boxes and flips inside the input pipeline; companions and what follows from them are plain NumPy.
Legend: b examples, n fragments of a group, t frames of a fragment.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stajax import companions
from stajax.data.schema import SOUND_COLUMNS
from stajax.data.tensorflow_cpu import tf
from stajax.grid import reflect
from stajax.media.spectrogram import window_columns

INDEX_SHUFFLE_PADDING = 498247692  # the number with which TensorFlow extends a seed of two parts to three
AUGMENTATION = 1  # the second half of the seed of boxes and flips, which makes them independent of the shuffle


def positions(step: int | tf.Tensor, global_batch: int, slots: range) -> tf.Tensor:
  """Returns the positions (b,) int64 of one host's contiguous slots in steps.

  Args:
    step: () or (k,), the numbers of the steps.
    global_batch: The examples of all hosts in a step.
    slots: The slots of this host, numbered over all hosts.
  """
  first = tf.cast(step, tf.int64) * global_batch
  return tf.reshape(tf.expand_dims(first, -1) + tf.range(slots.start, slots.stop, dtype=tf.int64), [-1])


def draw_items(position: tf.Tensor, seed: int, num_items: int) -> tf.Tensor:
  """Draws items (b,) int64 in [0, num_items) at positions (b,) int64; num_items positions draw each item once."""
  epoch = position // num_items
  # This is what `tf.random.experimental.index_shuffle` calls for one seed, here with a seed for each position.
  parts = [tf.fill(tf.shape(epoch), tf.constant(value, tf.int64)) for value in (INDEX_SHUFFLE_PADDING, seed)]
  seeds, last = tf.stack([*parts, epoch], axis=1), tf.constant(num_items - 1, tf.int64)
  return tf.raw_ops.RandomIndexShuffle(
    index=tf.math.floormod(position, num_items), seed=seeds, max_index=last, rounds=4
  )


def draw_views(position: tf.Tensor, seed: int, min_scale: float, flip: bool) -> tuple[tf.Tensor, tf.Tensor]:
  """Draws how each example is cropped and mirrored.

  Args:
    position: (b,) int64.
    seed: The seed of the run.
    min_scale: The smallest side of a box as a fraction of the frame's; 1 gives whole frames.
    flip: Whether half of the examples are mirrored.

  Returns:
    boxes (b, 4) float32, square, (y0, x0, y1, x1) in [0, 1]; flips (b,) bool.
  """
  numbers = _uniform(position, seed)
  side = min_scale + (1 - min_scale) * numbers[:, :1]
  corner = numbers[:, 1:3] * (1 - side)
  flips = numbers[:, 3] < (0.5 if flip else 0.0)
  return tf.concat([corner, corner + side], axis=1), flips


def stored_views(
  number: int, min_scale: float, max_scale: float, seed: int, num_clips: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the views in which features of frames are stored, the same for all frames of a clip.

  Args:
    number: K; the views are the whole frame, and then random crops, every second of which, from the first on, is
      mirrored.
    min_scale: The smallest side of a crop as a fraction of the frame's.
    max_scale: The largest one; a crop of more than 1 contains the frame.
    seed: The seed of the crops.
    num_clips: The number of clips; each has other crops.

  Returns:
    boxes (num_clips, K, 4) float32, square, (y0, x0, y1, x1) as fractions of the frame; flips (K,) bool.
  """
  random = np.random.default_rng(seed)
  side = random.uniform(min_scale, max_scale, (num_clips, number, 1))
  side[:, 0] = 1
  corner = random.uniform(size=(num_clips, number, 2)) * (1 - side)
  return np.concatenate([corner, corner + side], axis=-1).astype(np.float32), np.arange(number) % 2 == 1


def choose_view(position: tf.Tensor, seed: int, number: int) -> tf.Tensor:
  """Draws one of `number` stored views for each example: (b,) int64 at positions (b,)."""
  drawn = tf.cast(_uniform(position, seed)[:, 0] * number, tf.int64)
  return tf.minimum(drawn, number - 1)  # the largest number below 1 may be rounded to `number`


def crop_inside(boxes: tf.Tensor, views: tf.Tensor) -> tf.Tensor:
  """Crops boxes further, in the same way for all frames of a group.

  Args:
    boxes: (b, n, t, 4) float32, (y0, x0, y1, x1) as fractions of the frame.
    views: (b, 4) float32, the part of each box that is kept, as fractions of the box.

  Returns:
    (b, n, t, 4) float32, as fractions of the frame.
  """
  begin, end = tf.split(boxes, 2, axis=-1)
  extent = end - begin
  return tf.concat([begin, begin], -1) + tf.concat([extent, extent], -1) * views[:, None, None]


def _uniform(position: tf.Tensor, seed: int) -> tf.Tensor:
  """Draws four random numbers in [0, 1) for each position: (b, 4) float32 at positions (b,) int64 near each other.

  The generator, Philox, makes four numbers from a key and a counter, which is the position here. One call makes the
  numbers of all positions from the first to the last, because a call for each would take as long as decoding frames.
  """
  key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=tf.constant([seed, AUGMENTATION], tf.int64))
  first, last = tf.reduce_min(position), tf.reduce_max(position)
  counter = tf.stack([tf.cast(first, tf.uint64), counter[1]])
  shape = tf.stack([last - first + 1, 4])
  philox = tf.random.Algorithm.PHILOX.value
  numbers = tf.raw_ops.StatelessRandomUniformV2(shape=shape, key=key, counter=counter, alg=philox, dtype=tf.float32)
  return tf.gather(numbers, position - first)


def make_draw_group(
  granularity: companions.Granularity | None, seed: int, num_times: int, tags: np.ndarray, num_frames: np.ndarray
) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
  """Makes the function that adds companions to targets.

  Args:
    granularity: The kind of companions, or None for none.
    seed: The seed of the run.
    num_times: t, the frames of a fragment.
    tags: (C, c), not 0 where a clip has the tag.
    num_frames: (C,) frames of the clips.

  Returns:
    A pure function from clips and frames (b,) of targets to clips and frames (b, n) of groups, the target first.
  """
  if granularity == "cross":
    tag_groups = companions.TagGroups(tags, num_frames)

    def draw_cross(clip: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
      clips, frames = tag_groups.cross_companions(seed, clip, frame)
      return np.column_stack([clip, clips]), np.column_stack([frame, frames])

    return draw_cross

  def draw_same_clip(clip: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    drawn = [frame]
    if granularity in ("short", "short_long"):
      drawn.append(companions.short_companions(frame, num_frames[clip], num_times))
    if granularity in ("long", "short_long"):
      drawn.append(companions.long_companions(seed, clip, frame, num_frames[clip]))
    frames = np.column_stack(drawn)
    return np.repeat(clip[:, None], frames.shape[1], axis=1), frames

  return draw_same_clip


def fragment_frames(frame: np.ndarray, num_frames: np.ndarray, num_times: int) -> np.ndarray:
  """Returns the frames of fragments: the middle one and its neighbours, reflected at the clip's ends.

  Args:
    frame: (b, n) middle frames, indices in their clips.
    num_frames: (b, n) frames of those clips.
    num_times: t, odd.

  Returns:
    (b, n, t) indices in the clips.
  """
  return reflect(frame[..., None] + np.arange(num_times) - num_times // 2, num_frames[..., None])


def sound_windows(frame: np.ndarray, rate: np.ndarray, num_columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns where the second of sound around a frame is stored: in columns of at most two successive records.

  A window that is reflected at an end of the sound is still one stretch of columns.

  Args:
    frame: (b, n) frames, indices in their clips.
    rate: (b, n) frames per second.
    num_columns: (b, n) spectrogram columns of the clips; 0 is taken as 1.

  Returns:
    The numbers (b, n, 2) of the two records in the clip, or the last record twice; and the columns (b, n, 98) int32 in
    [0, 200) of the two records joined.
  """
  num_columns = np.maximum(num_columns, 1)
  columns = window_columns(frame / rate, num_columns)
  record = columns.min(axis=-1) // SOUND_COLUMNS
  last = (num_columns - 1) // SOUND_COLUMNS
  records = np.stack([record, np.minimum(record + 1, last)], axis=-1)
  return records, (columns - record[..., None] * SOUND_COLUMNS).astype(np.int32)
