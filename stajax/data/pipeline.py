"""Batches for a training step, from records, by tf.data.

Three streams of the same draws are joined: images of frames, images of maps, and all else. For a batch, or for some
where they are small, one Python call a stream reads what is needed, each shard once; decoding runs in TensorFlow's
threads. An image is an element of its own until it gets its place in the batch, so that it is copied once: what
surrounds decoding must cost little beside it. Cropping, mirroring and resizing are the training step's, on its device.
Legend: b examples of this host, n fragments of a group, t frames of a fragment, S decoded side, c categories.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

import numpy as np

from stajax import groups
from stajax.data import sampler
from stajax.data.feature_set import FeatureSet
from stajax.data.look_up import LookUp
from stajax.data.map_set import MapSet
from stajax.data.records import Records, decode_ratio, scaled_side
from stajax.data.shards import RecordError
from stajax.data.sound import NUM_BINS, WINDOW_COLUMNS
from stajax.data.tensorflow_cpu import tf

Batch = dict[str, np.ndarray]
# Batches of few images are made some at a time: a call of Python, and an element of a data set, take as long as some
# images. Not too many: they wait in memory, three times.
_IMAGES_AT_ONCE = 32
_BYTES_AT_ONCE = 12 * 2**20
_open_batches: weakref.WeakSet[Generator] = weakref.WeakSet()


@atexit.register
def _close_open_batches() -> None:
  """Stops TensorFlow's threads while there still is an interpreter: otherwise they abort a process that is exiting."""
  for generator in list(_open_batches):
    with contextlib.suppress(ValueError):  # running in another thread
      generator.close()


def trainable_items(records: Records, maps: MapSet | None = None) -> np.ndarray:
  """Frame ids (num_items,) int64 that an epoch visits: all grid frames, or those whose map has weight."""
  return np.arange(records.total_frames) if maps is None else np.flatnonzero(maps.weights > 0)


def batches(
  records: Records,
  *,
  seed: int,
  global_batch: int,
  start_step: int,
  stop_step: int,
  num_times: int,
  sound: bool,
  decode_size: int,
  granularity: groups.Granularity | None = None,
  min_scale: float = 1.0,
  flip: bool = False,
  maps: MapSet | None = None,
  items: np.ndarray | None = None,
  partners: np.ndarray | None = None,
  boxes: np.ndarray | None = None,
  switch: np.ndarray | None = None,
  labels: np.ndarray | None = None,
  views: tuple[np.ndarray, np.ndarray] | None = None,
  features: FeatureSet | None = None,
  stages: Mapping[str, int] | None = None,
  host: int = 0,
  num_hosts: int = 1,
  num_threads: int | None = None,
) -> Generator[Batch, None, None]:
  """Batches of the steps [start_step, stop_step): the same for every start, and one global batch for any num_hosts.

  `close()` it when it is dropped before its end, so that reading ahead stops.

  Args:
    records: what to learn from.
    seed: of the run.
    global_batch: examples of all hosts in a step; a multiple of num_hosts.
    start_step, stop_step: number of the first batch, and of the one after the last.
    num_times: t, 1 or 3; 0 to read no frames.
    sound: whether to read sound.
    decode_size: smallest side of the decoded frames that will do; S is the stored side over 1, 2, 4 or 8.
    granularity: which companions follow each target, the same ones in every epoch; None for targets alone.
    min_scale: smallest side of the random square boxes as a part of the frame, or of its box; 1 for all of it.
    flip: whether half of the examples are to be mirrored.
    maps: learning targets.
    items: frame ids that an epoch visits; `trainable_items` by default.
    partners: (num_clips,) bool, clips that cross companions may be of; all by default.
    boxes: (total_frames, 4) float32, (y0, x0, y1, x1) in [0, 1] of every frame id to crop it to; None for whole frames.
    switch: (total_frames,) uint8, 0 where the sound of a frame id is not to be heard.
    labels: (total_frames, k) float32 of every frame id, in place of its clip's tags.
    views: boxes (K, 4) and flips (K,) of `sampler.stored_views` to choose from, in place of min_scale and flip.
    features: what a frozen backbone makes of each of these views, read in place of frames.
    stages: which stages of it, and of how many of a fragment's frames: t, or 1 for the middle one.
    host, num_hosts: this process and how many there are; each yields its contiguous part of the global batch.
    num_threads: of reading and decoding; the number of usable cores by default.

  Yields:
    Of b groups of n nodes (`groups.num_nodes`), the target first. All but `flip` are of each node itself.
    Unless num_times is 0: frames (b, n, t, S, S, 3) uint8, or each stage (b, n, its t, h, w, c) of the features;
    box (b, n, t, 4) float32, (y0, x0, y1, x1) in [0, 1], and flip (b,) bool: what the step is to do to frames and
    maps, one crop of their boxes for all. sound (b, n, 257, 98) float32 if `sound`, normalised, 0 for clips
    without; switch (b, n) float32, 1 where the clip has sound and `switch` is not 0; tags (b, n, c) float32 of the
    clips, or the frames' labels (b, n, k); map (b, n, h, w) uint8 and weight (b, n) float32 if `maps`; clip and
    frame (b, n) int32, index of the clip and of the frame in it.

  Raises:
    ValueError: an argument out of range.
    RecordError: nothing to train on; or, while iterating, a shard is damaged.
  """
  items = trainable_items(records, maps) if items is None else np.asarray(items, np.int64)
  if items.size == 0:
    raise RecordError(f"{records.path}: no frame to train on" + (f" has weight in {maps.path}" if maps else ""))
  if items.min() < 0 or items.max() >= records.total_frames:
    raise ValueError(f"{records.path}: items must be frame ids in [0, {records.total_frames})")
  if global_batch % num_hosts or not 0 <= host < num_hosts:
    raise ValueError(f"a global batch of {global_batch} cannot be divided among {num_hosts} hosts (this is {host})")
  if (num_times % 2 == 0 and num_times) or num_times < 0 or not 0 < min_scale <= 1:
    raise ValueError(f"num_times must be odd or 0 and min_scale in (0, 1], got {num_times} and {min_scale}")
  if not num_times and (granularity or not sound):
    raise ValueError("without frames (num_times 0) there must be sound, and no granularity")
  _check_tables(records, boxes, switch, labels)
  num_threads = num_threads or _num_cores()
  tags = records.tags if partners is None else records.tags * partners[:, None]
  draw_group = sampler.make_draw_group(granularity, seed, num_times, tags, records.num_frames)
  look_up = LookUp(records, maps, num_times, sound, draw_group, boxes, switch, labels)
  local, nodes = global_batch // num_hosts, groups.num_nodes(granularity)
  ratio = decode_ratio(records.side, decode_size)
  side = scaled_side(records.side, ratio)
  images_at_once = min(_IMAGES_AT_ONCE, _BYTES_AT_ONCE // (3 * side**2))
  steps_at_once = 1 if features else max(1, images_at_once // (local * nodes * max(1, num_times)))
  steps = tf.data.Dataset.range(start_step, stop_step).batch(steps_at_once)
  failures: list[Exception] = []

  def read(
    find: Callable[..., Sequence], position: tf.Tensor, types: Sequence[tf.DType], *drawn: tf.Tensor
  ) -> list[tf.Tensor]:
    """What Python finds for what is drawn at positions (b,)."""

    @tf.autograph.experimental.do_not_convert
    def call(item: np.ndarray, *drawn: np.ndarray) -> list[np.ndarray]:
      try:
        return find(items[item], *drawn)
      except Exception as error:
        failures.append(error)
        raise

    return tf.numpy_function(call, [sampler.draw_items(position, seed, items.size), *drawn], types)

  def positions(step: tf.Tensor) -> tf.Tensor:
    return sampler.positions(step, global_batch, host, num_hosts)

  def images(
    find: Callable[[np.ndarray], list[bytes]], decode: Callable[[tf.Tensor], tf.Tensor], form: tuple[int, ...]
  ) -> tf.data.Dataset:
    """Images (k, b, *form, …), decoded, of the steps (k,)."""

    def files(step: tf.Tensor) -> tf.Tensor:
      (found,) = read(lambda target: [np.asarray(find(target), object)], positions(step), [tf.string])
      return tf.ensure_shape(found, [None])

    return (
      steps.map(files, num_parallel_calls=2)
      .unbatch()
      .map(decode, num_parallel_calls=2 * num_threads)
      .batch(steps_at_once * local * math.prod(form))
      .map(lambda images: tf.reshape(images, (-1, local, *form, *images.shape[1:])))
    )

  def numbers(step: tf.Tensor) -> Batch:
    """All else of the steps (k,), (k, b, n, …)."""
    position, features = positions(step), _features(look_up)
    found = read(lambda x: list(look_up.numbers(x).values()), position, [dtype for dtype, _ in features.values()])
    made = {
      name: tf.ensure_shape(value, [None, nodes, *shape])
      for value, (name, (_, shape)) in zip(found, features.items(), strict=True)
    }
    if num_times:
      if views is None:
        crops, made["flip"] = sampler.draw_views(position, seed, min_scale, flip)
      else:
        view = sampler.choose_view(position, seed, len(views[1]))
        crops, made["flip"] = (tf.gather(tf.constant(of_view), view) for of_view in views)
      made["box"] = sampler.crop_inside(made["box"], crops)
    return {name: tf.reshape(value, (-1, local, *value.shape[1:])) for name, value in made.items()}

  def stored(step: tf.Tensor) -> Batch:
    """The features of the steps (k,), each stage (k, b, n, t, …)."""
    position = positions(step)
    view = sampler.choose_view(position, seed, features.num_views)

    def find(target: np.ndarray, view: np.ndarray) -> list[np.ndarray]:
      return look_up.stored(target, view, features, stages)

    forms = {stage: features.clip(0, stage) for stage in stages}
    found = read(find, position, [tf.as_dtype(form.dtype) for form in forms.values()], view)
    return {
      stage: tf.reshape(x, (-1, local, nodes, stages[stage], *forms[stage].shape[2:]))
      for x, stage in zip(found, stages, strict=True)
    }

  parts = {"numbers": steps.map(numbers, num_parallel_calls=2)}
  if features is not None:
    parts["numbers"] = tf.data.Dataset.zip(parts["numbers"], steps.map(stored, num_parallel_calls=2)).map(
      lambda numbers, stored: {**numbers, **stored}
    )
  elif num_times:
    parts["frames"] = images(look_up.frames, _make_decode_frame(records.side, ratio), (nodes, num_times))
  if maps is not None:
    parts["map"] = images(look_up.pseudo_fixations, _make_decode_map(maps), (nodes,))
  dataset = tf.data.Dataset.zip(parts).map(lambda parts: {**parts.pop("numbers"), **parts}).prefetch(2)
  options = tf.data.Options()
  options.deterministic = True
  options.autotune.enabled = False
  options.threading.private_threadpool_size = num_threads
  options.threading.max_intra_op_parallelism = 1
  iterator = dataset.with_options(options).as_numpy_iterator()
  generator = _with_plain_errors(iterator, records, failures)
  _open_batches.add(generator)
  return generator


def _check_tables(
  records: Records, boxes: np.ndarray | None, switch: np.ndarray | None, labels: np.ndarray | None
) -> None:
  tables = (("boxes", boxes, (4,)), ("switch", switch, ()), ("labels", labels, np.shape(labels)[1:2] or (1,)))
  for name, table, shape in tables:
    expected = (records.total_frames, *shape)
    if table is not None and table.shape != expected:
      raise ValueError(f"{records.path}: {name} are {table.shape}, expected one for every frame, {expected}")
  if boxes is not None:
    valid = (boxes >= 0) & (boxes <= 1) & (boxes[:, :2] < boxes[:, 2:])[:, [0, 1, 0, 1]]
    if not valid.all():
      row = int(np.argmin(valid.all(axis=1)))
      raise ValueError(f"{records.path}: box {boxes[row].tolist()} of frame {row} is not y0 < y1, x0 < x1 in [0, 1]")


def _num_cores() -> int:
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _with_plain_errors(
  iterator: Iterator[Batch], records: Records, failures: list[Exception]
) -> Generator[Batch, None, None]:
  """Gives the errors of reading their own class and message back, which TensorFlow wraps in a traceback."""
  try:
    for steps in iterator:
      for k in range(len(steps["clip"])):
        yield {name: values[k] for name, values in steps.items()}
  except (tf.errors.OpError, UnicodeDecodeError) as error:  # the latter where a message quotes a record's bytes
    if failures:
      raise failures[0] from None
    reason = str(getattr(error, "message", error)).partition("\n")[0]
    raise RecordError(f"{records.path}: a record cannot be decoded ({reason})") from error


def _features(look_up: LookUp) -> dict[str, tuple[tf.DType, tuple[int, ...]]]:
  """Types of what `look_up.numbers` gives, and shapes after (b, n), in its order."""
  num_labels = len(look_up.records.categories) if look_up.labels is None else look_up.labels.shape[1]
  features = {
    "switch": (tf.float32, ()), "tags": (tf.float32, (num_labels,)), "clip": (tf.int32, ()), "frame": (tf.int32, ()),
  }  # fmt: skip
  if look_up.num_times:
    features["box"] = (tf.float32, (look_up.num_times, 4))
  if look_up.sound:
    features["sound"] = (tf.float32, (NUM_BINS, WINDOW_COLUMNS))
  if look_up.maps is not None:
    features["weight"] = (tf.float32, ())
  return features


def _make_decode_frame(stored_side: int, ratio: int) -> Callable[[tf.Tensor], tf.Tensor]:
  """JPEG file → (S, S, 3) uint8."""
  side = scaled_side(stored_side, ratio)

  def decode(jpeg: tf.Tensor) -> tf.Tensor:
    # Asked before decoding, so that a damaged or hostile record cannot take unbounded memory.
    stored = tf.io.extract_jpeg_shape(jpeg)
    right = tf.reduce_all(stored == [stored_side, stored_side, 3])
    # `tf.debugging.assert_equal` would put a conditional around it, which takes longer than all else but decoding.
    with tf.control_dependencies([tf.raw_ops.Assert(condition=right, data=["frame size", stored])]):
      image = tf.io.decode_jpeg(jpeg, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")
    return tf.ensure_shape(image, (side, side, 3))

  return decode


def _make_decode_map(maps: MapSet) -> Callable[[tf.Tensor], tf.Tensor]:
  """PNG file → (h, w) uint8."""

  def decode(png: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(tf.io.decode_png(png, channels=1)[..., 0], maps.size)

  return decode
