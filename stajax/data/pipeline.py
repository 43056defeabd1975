"""Batches for a training step, from records, by tf.data.

One Python call a batch looks up what was drawn and reads the needed records, each shard once; parsing and decoding run
in TensorFlow's threads. Cropping, mirroring and resizing are the training step's, on its device.
Legend: b examples of this host, n fragments of a group, t frames of a fragment, S decoded side, c categories.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from collections.abc import Callable, Generator, Iterator

import numpy as np

from stajax import groups
from stajax.data import sampler
from stajax.data.map_set import MapSet
from stajax.data.records import Records, decode_ratio, parse, scaled_side
from stajax.data.schema import SOUND_COLUMNS
from stajax.data.shards import RecordError
from stajax.data.sound import NUM_BINS, WINDOW_COLUMNS
from stajax.data.tensorflow_cpu import tf

Batch = dict[str, np.ndarray]
_WHOLE = (0.0, 0.0, 1.0, 1.0)  # the box of a whole frame
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
  boxes: np.ndarray | None = None,
  switch: np.ndarray | None = None,
  labels: np.ndarray | None = None,
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
    granularity: which two companions follow each target, the same ones in every epoch; None for targets alone.
    min_scale: smallest side of the random square boxes as a part of the frame, or of its box; 1 for all of it.
    flip: whether half of the examples are to be mirrored.
    maps: learning targets.
    items: frame ids that an epoch visits; `trainable_items` by default.
    boxes: (total_frames, 4) float32, (y0, x0, y1, x1) in [0, 1] of every frame id to crop it to; None for whole frames.
    switch: (total_frames,) uint8, 0 where the sound of a frame id is not to be heard.
    labels: (total_frames, k) float32 of every frame id, in place of its clip's tags.
    host, num_hosts: this process and how many there are; each yields its contiguous part of the global batch.
    num_threads: of reading and decoding; the number of usable cores by default.

  Yields:
    Of b groups of n nodes, the target first; n is 1, or 3 with a granularity. All but `flip` are of each node itself.
    Unless num_times is 0: frames (b, n, t, S, S, 3) uint8, box (b, n, t, 4) float32, (y0, x0, y1, x1) in [0, 1], and
    flip (b,) bool: what the step is to do to frames and maps, one crop of their boxes for all. sound (b, n, 257, 98)
    float32 if `sound`, normalised, 0 for clips without; switch (b, n) float32, 1 where the clip has sound and `switch`
    is not 0; tags (b, n, c) float32 of the clips, or the frames' labels (b, n, k); map (b, n, h, w) uint8 and weight
    (b, n) float32 if `maps`; clip and frame (b, n) int32, index of the clip and of the frame in it.

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
  failures: list[Exception] = []
  look_up, features = _make_look_up(records, maps, num_times, sound, granularity, seed, boxes, switch, labels)
  read = _make_read(look_up, features, items, groups.NUM_NODES if granularity else 1, failures)

  def draw_and_read(step: tf.Tensor) -> dict[str, tf.Tensor]:
    position = sampler.positions(step, global_batch, host, num_hosts)
    views, flips = sampler.draw_views(position, seed, min_scale, flip)
    example = read(sampler.draw_items(position, seed, items.size))
    if not num_times:
      return example
    return {**example, "box": sampler.crop_inside(example["box"], views), "flip": flips}

  dataset = (
    tf.data.Dataset.range(start_step, stop_step)
    .map(draw_and_read, num_parallel_calls=2)
    .unbatch()
    .map(_make_decode(records, maps, decode_size), num_parallel_calls=num_threads)
    .batch(global_batch // num_hosts, drop_remainder=True)
    .prefetch(2)
  )
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
    yield from iterator
  except (tf.errors.OpError, UnicodeDecodeError) as error:  # the latter where a message quotes a record's bytes
    if failures:
      raise failures[0] from None
    reason = str(getattr(error, "message", error)).partition("\n")[0]
    raise RecordError(f"{records.path}: a record cannot be decoded ({reason})") from error


def _make_look_up(
  records: Records,
  maps: MapSet | None,
  num_times: int,
  sound: bool,
  granularity: groups.Granularity | None,
  seed: int,
  boxes: np.ndarray | None,
  switch: np.ndarray | None,
  labels: np.ndarray | None,
) -> tuple[Callable[[np.ndarray], dict[str, np.ndarray]], dict[str, tuple[tf.DType, tuple[int, ...]]]]:
  """frame ids (b,) of targets → serialized records and numbers (b, n, …), and their types and shapes after (b, n)."""
  silence = records.sounds.features.serialize_example(
    {"key": "", "columns": np.zeros((NUM_BINS, SOUND_COLUMNS), np.float16)}
  )
  draw_group = sampler.make_draw_group(granularity, seed, num_times, records.tags, records.num_frames)

  def look_up(target: np.ndarray) -> dict[str, np.ndarray]:
    clip = records.clip_of_frame[target]
    clip, frame = draw_group(clip, target - records.first_frame[clip])
    first_frame, has_sound = records.first_frame[clip], records.has_sound[clip]
    frame_id = first_frame + frame
    heard = has_sound if switch is None else has_sound & (switch[frame_id] != 0)
    result = {
      "switch": heard.astype(np.float32),
      "tags": records.tags[clip] if labels is None else labels[frame_id].astype(np.float32),
      "clip": clip.astype(np.int32),
      "frame": frame.astype(np.int32),
    }
    if num_times:
      needed = first_frame[..., None] + sampler.fragment_frames(frame, records.num_frames[clip], num_times)
      result["frames"] = _read_array(records.frames.read, needed)
      result["box"] = np.broadcast_to(_WHOLE if boxes is None else boxes[needed], (*needed.shape, 4)).astype(np.float32)
    if sound:
      parts, columns = sampler.sound_windows(frame, records.rate[clip], records.num_columns[clip])
      sounds = records.first_sound[clip][..., None] + parts
      serialized = np.empty(sounds.shape, object)
      serialized.fill(silence)  # np.full would drop the bytes' trailing zeros
      serialized[has_sound] = _read_array(records.sounds.read, sounds[has_sound])
      result |= {
        "sounds": serialized,
        "columns": columns,
        "sound_mean": np.where(has_sound, records.sound_mean[clip], 0).astype(np.float32),
        "sound_std": np.where(has_sound, records.sound_std[clip], 1).astype(np.float32),
      }
    if maps is not None:
      result |= {"map": _read_array(maps.maps.read, frame_id), "weight": maps.weights[frame_id]}
    return result

  num_labels = len(records.categories) if labels is None else labels.shape[1]
  features = {
    "switch": (tf.float32, ()), "tags": (tf.float32, (num_labels,)), "clip": (tf.int32, ()), "frame": (tf.int32, ()),
  }  # fmt: skip
  if num_times:
    features |= {"frames": (tf.string, (num_times,)), "box": (tf.float32, (num_times, 4))}
  if sound:
    features |= {
      "sounds": (tf.string, (2,)), "columns": (tf.int32, (WINDOW_COLUMNS,)), "sound_mean": (tf.float32, ()),
      "sound_std": (tf.float32, ()),
    }  # fmt: skip
  if maps is not None:
    features |= {"map": (tf.string, ()), "weight": (tf.float32, ())}
  return look_up, features


def _make_read(
  look_up: Callable[[np.ndarray], dict[str, np.ndarray]],
  features: dict[str, tuple[tf.DType, tuple[int, ...]]],
  items: np.ndarray,
  num_nodes: int,
  failures: list[Exception],
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
  """items (b,) → what is looked up, as tensors; the only Python that runs for a batch."""

  def call(item: np.ndarray) -> list[np.ndarray]:
    try:
      result = look_up(items[item])
      return [result[name] for name in features]
    except Exception as error:
      failures.append(error)
      raise

  def read(item: tf.Tensor) -> dict[str, tf.Tensor]:
    found = tf.numpy_function(call, [item], [dtype for dtype, _ in features.values()])
    tensors = dict(zip(features, found, strict=True))
    for name, tensor in tensors.items():
      tensor.set_shape((item.shape[0], num_nodes, *features[name][1]))
    for name, feature in (("frames", "image"), ("sounds", "columns"), ("map", "map")):
      if name in tensors:
        serialized = tensors[name]
        tensors[name] = tf.reshape(parse(tf.reshape(serialized, [-1]), feature), serialized.shape)
    return tensors

  return read


def _read_array(read: Callable[[np.ndarray], list[bytes]], ids: np.ndarray) -> np.ndarray:
  """Records of an array of ids, as an object array of its shape."""
  array = np.empty(ids.size, object)
  array[:] = read(ids.ravel())
  return array.reshape(ids.shape)


def _make_decode(
  records: Records, maps: MapSet | None, decode_size: int
) -> Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]:
  """One example's serialized images and columns → arrays."""
  ratio = decode_ratio(records.side, decode_size)
  side = scaled_side(records.side, ratio)

  def decode_frame(jpeg: tf.Tensor) -> tf.Tensor:
    # Asked before decoding, so that a damaged or hostile record cannot take unbounded memory.
    stored = tf.debugging.assert_equal(tf.io.extract_jpeg_shape(jpeg), [records.side, records.side, 3], "frame size")
    with tf.control_dependencies([stored]):
      image = tf.io.decode_jpeg(jpeg, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")
    return tf.ensure_shape(image, (side, side, 3))

  def decode_sound(example: dict[str, tf.Tensor]) -> tf.Tensor:
    windows = []
    for node in range(example["columns"].shape[0]):
      pieces = tf.reshape(tf.io.decode_raw(example["sounds"][node], tf.float16), (2, NUM_BINS, SOUND_COLUMNS))
      window = tf.gather(tf.concat([pieces[0], pieces[1]], axis=1), example["columns"][node], axis=1)
      deviation = example["sound_std"][node] + 1e-9
      windows.append((tf.cast(window, tf.float32) - example["sound_mean"][node]) / deviation)
    return tf.stack(windows)

  def decode(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    example = dict(example)
    if "frames" in example:
      nodes, times = example["frames"].shape
      frames = [[decode_frame(example["frames"][node, time]) for time in range(times)] for node in range(nodes)]
      example["frames"] = tf.stack([tf.stack(fragment) for fragment in frames])
    if "sounds" in example:
      example["sound"] = decode_sound(example)
      for name in ("sounds", "columns", "sound_mean", "sound_std"):
        del example[name]
    if maps is not None:
      nodes = example["map"].shape[0]
      decoded = [tf.io.decode_png(example["map"][node], channels=1)[..., 0] for node in range(nodes)]
      example["map"] = tf.ensure_shape(tf.stack(decoded), (nodes, *maps.size))
    return example

  return decode
