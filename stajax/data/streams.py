"""The streams of a run's steps that `stajax.data.batches` joins: frames, maps, stored features, and all else.

A stream goes over groups of successive steps (k,); one Python call reads what is needed for the k·b targets of each.
Legend: b examples of this host, n fragments of a group, t frames of a fragment, S decoded side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from stajax.data import sampler
from stajax.data.feature_set import FeatureSet
from stajax.data.jpeg import FrameDecoder, scaled_side
from stajax.data.look_up import LookUp
from stajax.data.shards import RecordError
from stajax.data.tensorflow_cpu import tf
from stajax.media.spectrogram import NUM_BINS, WINDOW_COLUMNS

_CALLS_AT_ONCE = 3  # of a stream: while one reads and one decodes, a finished one may wait for the other streams

Views = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


@dataclass(frozen=True)
class Streams:
  """Streams of the same draws.

  Attributes:
    look_up: finds what belongs to targets.
    items: frame ids that an epoch visits.
    seed: of the run.
    global_batch, host, num_hosts: as of `stajax.data.batches.batches`.
    nodes: n.
    views: positions (b,) to boxes (b, 4) and flips (b,); None for whole frames as they are.
    steps: a data set of numbers of steps, groups (k,).
    steps_at_once: the largest k.
    num_threads: of decoding.
    failures: what Python has raised, filled while streams are read.
    decoders: to be closed when the streams have been read.
  """

  look_up: LookUp
  items: np.ndarray
  seed: int
  global_batch: int
  host: int
  num_hosts: int
  nodes: int
  views: Views
  steps: tf.data.Dataset
  steps_at_once: int
  num_threads: int
  failures: list[Exception] = field(default_factory=list)
  decoders: list[FrameDecoder] = field(default_factory=list)

  def numbers(self) -> tf.data.Dataset:
    """All but images and features, each (k, b, n, …), `flip` (k, b)."""
    features = _features(self.look_up)

    def make(step: tf.Tensor) -> dict[str, tf.Tensor]:
      position = self._positions(step)
      found = self._read(lambda x: list(self.look_up.numbers(x).values()), position, [x for x, _ in features.values()])
      made = {
        name: tf.ensure_shape(value, [None, self.nodes, *shape])
        for value, (name, (_, shape)) in zip(found, features.items(), strict=True)
      }
      if self.look_up.num_times:
        crops, made["flip"] = self.views(position)
        made["box"] = sampler.crop_inside(made["box"], crops)
      return {name: tf.reshape(value, (-1, self._local, *value.shape[1:])) for name, value in made.items()}

    return self.steps.map(make, num_parallel_calls=_CALLS_AT_ONCE)

  def features(self, stored: FeatureSet, stages: dict[str, int]) -> tf.data.Dataset:
    """Each of the stored stages, (k, b, n, t, …)."""
    forms = {stage: stored.clip(0, stage) for stage in stages}

    def make(step: tf.Tensor) -> dict[str, tf.Tensor]:
      position = self._positions(step)
      view = sampler.choose_view(position, self.seed, stored.num_views)

      def find(target: np.ndarray, view: np.ndarray) -> list[np.ndarray]:
        return self.look_up.stored(target, view, stored, stages)

      found = self._read(find, position, [tf.as_dtype(form.dtype) for form in forms.values()], view)
      return {
        stage: tf.reshape(x, (-1, self._local, self.nodes, stages[stage], *forms[stage].shape[2:]))
        for x, stage in zip(found, stages, strict=True)
      }

    return self.steps.map(make, num_parallel_calls=_CALLS_AT_ONCE)

  def frames(self, ratio: int, scaled_to: int | None) -> tf.data.Dataset:
    """Frames (k, b, n, t, S, S, 3) uint8, decoded at 1/ratio; see `stajax.data.batches.batches` about scaled_to."""
    records, form = self.look_up.records, (self.nodes, self.look_up.num_times)
    side = scaled_side(records.side, ratio)
    if scaled_to is not None:
      number = self.steps_at_once * self._local * math.prod(form)
      files, decode = self._windows(side, scaled_to), make_decode_window(records.side, ratio)
      windows = self.steps.map(files, num_parallel_calls=_CALLS_AT_ONCE).unbatch()
      windows = windows.map(decode, num_parallel_calls=2 * self.num_threads)
      return windows.batch(number).map(lambda frames: tf.reshape(frames, (-1, self._local, *form, side, side, 3)))
    # One more than cores: a thread waits for Python's lock after each frame.
    decode = FrameDecoder(records.side, ratio, self.num_threads + 1)
    self.decoders.append(decode)

    def find(target: np.ndarray) -> list[np.ndarray]:
      jpegs = self.look_up.frames(target)
      try:
        return [decode(jpegs)]
      except ValueError as error:
        raise RecordError(f"{records.frames.folder}: a record cannot be decoded ({error})") from error

    def make(step: tf.Tensor) -> tf.Tensor:
      (frames,) = self._read(find, self._positions(step), [tf.uint8])
      return tf.reshape(frames, (-1, self._local, *form, side, side, 3))

    return self.steps.map(make, num_parallel_calls=_CALLS_AT_ONCE)

  def _windows(self, side: int, scaled_to: int) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Steps (k,) to JPEG files of frames and the windows of them that are seen."""

    def find(target: np.ndarray) -> list[np.ndarray]:
      return [np.asarray(self.look_up.frames(target), object), self.look_up.frame_boxes(target)]

    def files(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
      position = self._positions(step)
      jpegs, boxes = self._read(find, position, [tf.string, tf.float32])
      boxes = tf.ensure_shape(boxes, [None, self.nodes, self.look_up.num_times, 4])
      boxes = sampler.crop_inside(boxes, self.views(position)[0])
      return tf.ensure_shape(jpegs, [None]), seen_windows(tf.reshape(boxes, [-1, 4]), side, scaled_to)

    return files

  def maps(self) -> tf.data.Dataset:
    """Maps (k, b, n, h, w) uint8."""

    def make(step: tf.Tensor) -> tf.Tensor:
      (maps,) = self._read(lambda x: [self.look_up.pseudo_fixations(x)], self._positions(step), [tf.uint8])
      return tf.reshape(maps, (-1, self._local, self.nodes, *self.look_up.maps.size))

    return self.steps.map(make, num_parallel_calls=_CALLS_AT_ONCE)

  @property
  def _local(self) -> int:
    return self.global_batch // self.num_hosts

  def _positions(self, step: tf.Tensor) -> tf.Tensor:
    return sampler.positions(step, self.global_batch, self.host, self.num_hosts)

  def _read(
    self, find: Callable[..., Sequence], position: tf.Tensor, types: Sequence[tf.DType], *drawn: tf.Tensor
  ) -> list[tf.Tensor]:
    """What Python finds for what is drawn at positions (b,)."""

    @tf.autograph.experimental.do_not_convert
    def call(item: np.ndarray, *drawn: np.ndarray) -> list[np.ndarray]:
      try:
        return find(self.items[item], *drawn)
      except Exception as error:
        self.failures.append(error)
        raise

    return tf.numpy_function(call, [sampler.draw_items(position, self.seed, self.items.size), *drawn], types)


def _features(look_up: LookUp) -> dict[str, tuple[tf.DType, tuple[int, ...]]]:
  """Types of what `look_up.numbers` gives, and shapes after (b, n), in its order."""
  num_labels = len(look_up.records.categories) if look_up.labels is None else look_up.labels.shape[1]
  features = {
    "switch": (tf.float32, ()), "tags": (tf.float32, (num_labels,)), "clip": (tf.int32, ()), "frame": (tf.int32, ()),
  }  # fmt: skip
  if look_up.num_times:
    features["box"] = (tf.float32, (look_up.num_times, 4))
  if look_up.sound:
    features["sound"] = (tf.float16, (NUM_BINS, WINDOW_COLUMNS))
    features |= {"sound_mean": (tf.float32, ()), "sound_deviation": (tf.float32, ())}
  if look_up.maps is not None:
    features["weight"] = (tf.float32, ())
  return features


def seen_windows(boxes: tf.Tensor, side: int, scaled_to: int) -> tf.Tensor:
  """The pixels of frames that are read where boxes are scaled, bilinear and antialiased.

  Args:
    boxes: (m, 4) float32, (y0, x0, y1, x1) in [0, 1].
    side: of the frames.
    scaled_to: to which side boxes are scaled.

  Returns:
    (m, 4) int32: first row and column, height and width; at least one pixel each.
  """
  begin, end = boxes[:, :2] * side, boxes[:, 2:] * side
  # The filter's reach around a point inside of the box, and one for rounding.
  margin = tf.maximum((end - begin) / scaled_to, 1) + 1
  first = tf.clip_by_value(tf.cast(tf.floor(begin - margin), tf.int32), 0, side - 1)
  last = tf.clip_by_value(tf.cast(tf.math.ceil(end + margin), tf.int32), first + 1, side)
  return tf.concat([first, last - first], axis=1)


def make_decode_window(stored_side: int, ratio: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
  """JPEG file and window (4,) int32, as of `seen_windows` → (S, S, 3) uint8, 0 outside of the window."""
  side = scaled_side(stored_side, ratio)

  def decode(jpeg: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    # Asked before decoding, so that a damaged or hostile record cannot take unbounded memory.
    stored = tf.io.extract_jpeg_shape(jpeg)
    right = tf.reduce_all(stored == [stored_side, stored_side, 3])
    # `tf.debugging.assert_equal` would put a conditional around it, which takes longer than all else but decoding.
    with tf.control_dependencies([tf.raw_ops.Assert(condition=right, data=["frame size", stored])]):
      part = tf.io.decode_and_crop_jpeg(jpeg, window, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")
    return tf.ensure_shape(_place(part, window, side), (side, side, 3))

  return decode


def _place(part: tf.Tensor, window: tf.Tensor, side: int) -> tf.Tensor:
  """Puts a part of an image where it was in the whole, which is 0 elsewhere."""
  y, x, height, width = tf.unstack(window)
  # Whole rows are copied at once; `tf.pad` goes from value to value.
  left, right = (tf.zeros([height, number, 3], tf.uint8) for number in (x, side - x - width))
  above, below = (tf.zeros([number, side, 3], tf.uint8) for number in (y, side - y - height))
  return tf.concat([above, tf.concat([left, part, right], axis=1), below], axis=0)
