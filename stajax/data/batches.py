"""Batches for a training step, from records, by tf.data.

Three streams of the same draws are joined: images of frames, images of maps, and all else. For a batch, or for some
where they are small, one Python call a stream reads what is needed, each shard once. Whole frames are decoded straight
into the batch (`stajax.data.jpeg`), parts of frames in TensorFlow's threads, where each is an element of its own
until it is copied into the batch: what surrounds decoding must cost little beside it. Cropping, mirroring, resizing and
normalising sound are the training step's, on its device.
Legend: b examples of this host, n fragments of a group, t frames of a fragment, S decoded side, c categories.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import numpy as np

from stajax import companions
from stajax.data import sampler
from stajax.data.feature_set import FeatureSet
from stajax.data.jpeg import decode_ratio, scaled_side
from stajax.data.look_up import LookUp
from stajax.data.map_set import MapSet
from stajax.data.records import Records
from stajax.data.shards import RecordError
from stajax.data.streams import Streams
from stajax.data.tensorflow_cpu import tf

Batch = dict[str, np.ndarray]
# Batches of few images are made some at a time: a call of Python, and an element of a data set, take as long as three
# images. Not too many: they wait in memory, up to five times.
_IMAGES_AT_ONCE = 128
_BYTES_AT_ONCE = 64 * 2**20
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
  granularity: companions.Granularity | None = None,
  min_scale: float = 1.0,
  flip: bool = False,
  maps: MapSet | None = None,
  items: np.ndarray | None = None,
  partners: np.ndarray | None = None,
  boxes: np.ndarray | None = None,
  switch: np.ndarray | None = None,
  labels: np.ndarray | None = None,
  views: tuple[np.ndarray, np.ndarray] | None = None,
  scaled_to: int | None = None,
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
    scaled_to: side to which the step scales the boxes; only those pixels are decoded then that this reads. None: all.
    features: what a frozen backbone makes of each of these views, read in place of frames.
    stages: which stages of it, and of how many of a fragment's frames: t, or 1 for the middle one.
    host, num_hosts: this process and how many there are; each yields its contiguous part of the global batch.
    num_threads: of reading and decoding; the number of usable cores by default.

  Yields:
    Of b groups of n nodes (`groups.num_nodes`), the target first. All but `flip` are of each node itself.
    Unless num_times is 0: frames (b, n, t, S, S, 3) uint8, 0 where scaled_to leaves pixels out, or each stage (b, n,
    its t, h, w, c) of the features; box (b, n, t, 4) float32, (y0, x0, y1, x1) in [0, 1], and flip (b,) bool: what
    the step is to do to frames and maps, one crop of their boxes for all. If `sound`, sound (b, n, 257, 98) float16,
    0 for clips without, and sound_mean and sound_deviation (b, n) float32, by which the step normalises it; switch
    (b, n) float32, 1 where the clip has sound and `switch` is not 0; tags (b, n, c) float32 of the clips, or the
    frames' labels (b, n, k); map (b, n, h, w) uint8 and weight (b, n) float32 if `maps`; clip and frame (b, n) int32,
    index of the clip and of the frame in it.

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
  tags = records.tags if partners is None else records.tags * partners[:, None]
  draw_group = sampler.make_draw_group(granularity, seed, num_times, tags, records.num_frames)
  look_up = LookUp(records, maps, num_times, sound, draw_group, boxes, switch, labels)
  local, nodes = global_batch // num_hosts, companions.num_nodes(granularity)
  ratio = decode_ratio(records.side, decode_size)
  images_at_once = min(_IMAGES_AT_ONCE, _BYTES_AT_ONCE // (3 * scaled_side(records.side, ratio) ** 2))
  steps_at_once = 1 if features else max(1, images_at_once // (local * nodes * max(1, num_times)))

  def draw(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    if views is None:
      return sampler.draw_views(position, seed, min_scale, flip)
    view = sampler.choose_view(position, seed, len(views[1]))
    return tuple(tf.gather(tf.constant(of_view), view) for of_view in views)

  streams = Streams(
    look_up,
    items,
    seed,
    global_batch,
    host,
    num_hosts,
    nodes,
    views=draw,
    steps=tf.data.Dataset.range(start_step, stop_step).batch(steps_at_once),
    steps_at_once=steps_at_once,
    num_threads=num_threads or _num_cores(),
  )
  parts = {"numbers": streams.numbers()}
  if features is not None:
    parts["features"] = streams.features(features, stages)
  elif num_times:
    crops = boxes is not None or views is not None or min_scale < 1
    parts["frames"] = streams.frames(ratio, scaled_to if crops else None)
  if maps is not None:
    parts["map"] = streams.maps()
  dataset = tf.data.Dataset.zip(parts).map(_flat).prefetch(2)
  options = tf.data.Options()
  options.deterministic = True
  options.autotune.enabled = False
  # Two more than cores, because calls wait in these threads until the decoder's own have decoded.
  options.threading.private_threadpool_size = streams.num_threads + 2
  options.threading.max_intra_op_parallelism = 1
  iterator = dataset.with_options(options).as_numpy_iterator()
  generator = _with_plain_errors(iterator, records, streams)
  _open_batches.add(generator)
  return generator


def _flat(parts: dict[str, Any]) -> Batch:
  return {**parts.pop("numbers"), **parts.pop("features", {}), **parts}


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


def _with_plain_errors(iterator: Iterator[Batch], records: Records, streams: Streams) -> Generator[Batch, None, None]:
  """Gives the errors of reading their own class and message back, which TensorFlow wraps in a traceback."""
  try:
    for steps in iterator:
      for k in range(len(steps["clip"])):
        yield {name: values[k] for name, values in steps.items()}
  except (tf.errors.OpError, UnicodeDecodeError) as error:  # the latter where a message quotes a record's bytes
    if streams.failures:
      raise streams.failures[0] from None
    reason = str(getattr(error, "message", error)).partition("\n")[0]
    raise RecordError(f"{records.path}: a record cannot be decoded ({reason})") from error
  finally:
    del iterator  # what it has begun needs the decoders
    for decoder in streams.decoders:
      decoder.close()
