"""The streams of a run's steps that are joined to batches: frames, maps, stored features, and everything else.

A stream goes through groups of successive steps (k,). For each group, one Python call of each stream reads what is
needed for the k·b targets.
Legend: b examples of this host, n fragments of a group, t frames of a fragment, S decoded side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stajax.companions import num_nodes
from stajax.data import sampler
from stajax.data.batch_settings import HostShare, NetworkInputs, Sampling, StoredStages, TrainingSet
from stajax.data.frame_sides import decode_ratio, scaled_side
from stajax.data.jpeg import FrameDecoder
from stajax.data.jpeg_windows import make_decode_window, seen_windows
from stajax.data.lookup import Lookup
from stajax.data.map_set import MapSet
from stajax.data.shards import RecordError
from stajax.data.tensorflow_cpu import tf
from stajax.media.spectrogram import NUM_BINS, WINDOW_COLUMNS

_CALLS_AT_ONCE = 3  # of a stream, so that one may read and one decode while a finished one waits for the other streams
# Several batches of few images are made at a time, because a Python call and an element of a data set take as long as
# three images. Their number is limited, because up to five such groups wait in memory.
_IMAGES_AT_ONCE = 128
_BYTES_AT_ONCE = 64 * 2**20


class Streams:
  """Streams of the same draws.

  Attributes:
    failures: The exceptions that Python raised while the streams were read.
    decoders: The decoders of frames, which must be closed after the streams have been read.
  """

  def __init__(
    self, training_set: TrainingSet, inputs: NetworkInputs, sampling: Sampling, share: HostShare, steps: range
  ) -> None:
    """Prepares the streams of some steps, see `stajax.data.batches.make_batches`."""
    self._set, self._inputs, self._sampling, self._share = training_set, inputs, sampling, share
    self._slots, self._nodes = share.examples_of(sampling.global_batch), num_nodes(inputs.companions)
    self._local = len(self._slots)
    self._lookup = Lookup(training_set, inputs, sampling.seed)
    self._ratio = decode_ratio(training_set.records.side, inputs.decode_size)
    self._side = scaled_side(training_set.records.side, self._ratio)
    self._steps_at_once = self._count_steps_at_once()
    self._steps = tf.data.Dataset.range(steps.start, steps.stop).batch(self._steps_at_once)
    self.failures: list[Exception] = []
    self.decoders: list[FrameDecoder] = []

  def joined(self) -> tf.data.Dataset:
    """Returns a data set of dictionaries with the arrays (k, b, …) of a group of steps."""
    parts = {"numbers": self._numbers()}
    if self._inputs.stored is not None:
      parts["features"] = self._features(self._inputs.stored)
    elif self._inputs.num_times:
      is_cropped = self._set.boxes is not None or self._sampling.views is not None or self._sampling.min_scale < 1
      scaled_to = self._inputs.scaled_to if is_cropped else None
      parts["frames"] = self._whole_frames() if scaled_to is None else self._frame_windows(scaled_to)
    if self._set.maps is not None:
      parts["map"] = self._maps(self._set.maps)
    return tf.data.Dataset.zip(parts).map(_merge)

  def _count_steps_at_once(self) -> int:
    if self._inputs.stored is not None:
      return 1
    images = min(_IMAGES_AT_ONCE, _BYTES_AT_ONCE // (3 * self._side**2))
    return max(1, images // (self._local * self._nodes * max(1, self._inputs.num_times)))

  def _numbers(self) -> tf.data.Dataset:
    """Returns everything except images and features, each (k, b, n, …), and `flip` (k, b)."""
    features = self._number_features()

    def make(step: tf.Tensor) -> dict[str, tf.Tensor]:
      position = self._positions(step)
      types = [kind for kind, _ in features.values()]
      found = self._read(lambda x: list(self._lookup.numbers(x).values()), position, types)
      made = {
        name: tf.ensure_shape(value, [None, self._nodes, *shape])
        for value, (name, (_, shape)) in zip(found, features.items(), strict=True)
      }
      if self._inputs.num_times:
        crops, made["flip"] = self._draw_views(position)
        made["box"] = sampler.crop_inside(made["box"], crops)
      return {name: tf.reshape(value, (-1, self._local, *value.shape[1:])) for name, value in made.items()}

    return self._map_steps(make)

  def _number_features(self) -> dict[str, tuple[tf.DType, tuple[int, ...]]]:
    """Returns the types of the arrays of `Lookup.numbers`, in its order, and their shapes after (b, n)."""
    labels = self._set.labels
    num_labels = len(self._set.records.categories) if labels is None else labels.shape[1]
    features: dict[str, tuple[tf.DType, tuple[int, ...]]] = {
      "switch": (tf.float32, ()), "tags": (tf.float32, (num_labels,)), "clip": (tf.int32, ()), "frame": (tf.int32, ()),
    }  # fmt: skip
    if self._inputs.num_times:
      features["box"] = (tf.float32, (self._inputs.num_times, 4))
    if self._inputs.sound:
      features["sound"] = (tf.float16, (NUM_BINS, WINDOW_COLUMNS))
      features |= {"sound_mean": (tf.float32, ()), "sound_deviation": (tf.float32, ())}
    if self._set.maps is not None:
      features["weight"] = (tf.float32, ())
    return features

  def _features(self, stored: StoredStages) -> tf.data.Dataset:
    """Returns each of the stored stages, (k, b, n, t, …)."""
    forms = {stage: stored.features.clip(0, stage) for stage in stored.num_times}

    def make(step: tf.Tensor) -> dict[str, tf.Tensor]:
      position = self._positions(step)
      view = sampler.choose_view(position, self._sampling.seed, stored.features.num_views)
      types = [tf.as_dtype(form.dtype) for form in forms.values()]
      found = self._read(lambda target, view: self._lookup.stored(target, view, stored), position, types, view)
      return {
        stage: tf.reshape(x, (-1, self._local, self._nodes, stored.num_times[stage], *forms[stage].shape[2:]))
        for x, stage in zip(found, stored.num_times, strict=True)
      }

    return self._map_steps(make)

  def _whole_frames(self) -> tf.data.Dataset:
    """Returns frames (k, b, n, t, S, S, 3) uint8."""
    records = self._set.records
    # One more thread than cores, because a thread waits for Python's lock after each frame.
    decode = FrameDecoder(records.side, self._ratio, self._share.threads + 1)
    self.decoders.append(decode)

    def find(target: np.ndarray) -> list[np.ndarray]:
      jpegs = self._lookup.frames(target)
      try:
        return [decode(jpegs)]
      except ValueError as error:
        raise RecordError(f"{records.frames.folder}: a record cannot be decoded ({error})") from error

    def make(step: tf.Tensor) -> tf.Tensor:
      (frames,) = self._read(find, self._positions(step), [tf.uint8])
      return self._in_groups(frames)

    return self._map_steps(make)

  def _frame_windows(self, scaled_to: int) -> tf.data.Dataset:
    """Returns frames (k, b, n, t, S, S, 3) uint8; pixels that scaling their boxes does not read are 0."""
    num_times = self._inputs.num_times

    def find(target: np.ndarray) -> list[np.ndarray]:
      return [np.asarray(self._lookup.frames(target), object), self._lookup.frame_boxes(target)]

    def files(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
      position = self._positions(step)
      jpegs, boxes = self._read(find, position, [tf.string, tf.float32])
      boxes = tf.ensure_shape(boxes, [None, self._nodes, num_times, 4])
      boxes = sampler.crop_inside(boxes, self._draw_views(position)[0])
      return tf.ensure_shape(jpegs, [None]), seen_windows(tf.reshape(boxes, [-1, 4]), self._side, scaled_to)

    decode = make_decode_window(self._set.records.side, self._ratio)
    windows = self._map_steps(files).unbatch().map(decode, num_parallel_calls=2 * self._share.threads)
    number = self._steps_at_once * self._local * self._nodes * num_times
    return windows.batch(number).map(self._in_groups)

  def _maps(self, maps: MapSet) -> tf.data.Dataset:
    """Returns maps (k, b, n, h, w) uint8."""

    def make(step: tf.Tensor) -> tf.Tensor:
      (found,) = self._read(lambda x: [self._lookup.pseudo_fixations(x)], self._positions(step), [tf.uint8])
      return tf.reshape(found, (-1, self._local, self._nodes, *maps.size))

    return self._map_steps(make)

  def _map_steps(self, make: Callable[[tf.Tensor], Any]) -> tf.data.Dataset:
    return self._steps.map(make, num_parallel_calls=_CALLS_AT_ONCE)

  def _in_groups(self, frames: tf.Tensor) -> tf.Tensor:
    return tf.reshape(frames, (-1, self._local, self._nodes, self._inputs.num_times, self._side, self._side, 3))

  def _positions(self, step: tf.Tensor) -> tf.Tensor:
    return sampler.positions(step, self._sampling.global_batch, self._slots)

  def _draw_views(self, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns boxes (b, 4) and flips (b,) at positions (b,)."""
    views, seed = self._sampling.views, self._sampling.seed
    if views is None:
      return sampler.draw_views(position, seed, self._sampling.min_scale, self._sampling.flip)
    view = sampler.choose_view(position, seed, len(views[1]))
    clip_of_item = tf.constant(self._set.records.clip_of_frame[self._set.epoch], tf.int64)
    clip = tf.gather(clip_of_item, sampler.draw_items(position, seed, self._set.epoch.size))
    boxes, flips = (tf.constant(of_view) for of_view in views)
    return tf.gather_nd(boxes, tf.stack([clip, view], axis=1)), tf.gather(flips, view)

  def _read(
    self, find: Callable[..., list[np.ndarray]], position: tf.Tensor, types: Sequence[tf.DType], *drawn: tf.Tensor
  ) -> list[tf.Tensor]:
    """Returns what the Python function `find` returns for the items drawn at positions (b,)."""
    epoch = self._set.epoch

    @tf.autograph.experimental.do_not_convert
    def call(item: np.ndarray, *drawn: np.ndarray) -> list[np.ndarray]:
      try:
        return find(epoch[item], *drawn)
      except Exception as error:
        self.failures.append(error)
        raise

    item = sampler.draw_items(position, self._sampling.seed, epoch.size)
    return tf.numpy_function(call, [item, *drawn], types)


def _merge(parts: dict[str, Any]) -> dict[str, tf.Tensor]:
  return {**parts.pop("numbers"), **parts.pop("features", {}), **parts}
