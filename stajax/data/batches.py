"""Batches for a training step, from records, by tf.data.

Streams of the same draws are joined: images of frames, images of maps, and all else. For a batch, or for some where
they are small, one Python call a stream reads what is needed, each shard once. Whole frames are decoded straight into
the batch (`stajax.data.jpeg`), parts of frames in TensorFlow's threads, where each is an element of its own until it is
copied into the batch: what surrounds decoding must cost little beside it. Cropping, mirroring, resizing and normalising
sound are the training step's, on its device.
Legend: b examples of this host, n fragments of a group, t frames of a fragment, S decoded side, c categories.
"""

from __future__ import annotations

import atexit
import contextlib
import weakref
from collections.abc import Generator, Iterator
from typing import cast

import numpy as np

from stajax.data.batch_settings import ALONE, HostShare, NetworkInputs, Sampling, TrainingSet
from stajax.data.shards import RecordError
from stajax.data.streams import Streams
from stajax.data.tensorflow_cpu import tf

Batch = dict[str, np.ndarray]
_open_batches: weakref.WeakSet[Generator[Batch, None, None]] = weakref.WeakSet()


@atexit.register
def _close_open_batches() -> None:
  """Stops TensorFlow's threads while there still is an interpreter: otherwise they abort a process that is exiting."""
  for generator in list(_open_batches):
    with contextlib.suppress(ValueError):  # running in another thread
      generator.close()


def make_batches(
  training_set: TrainingSet,
  inputs: NetworkInputs,
  sampling: Sampling,
  steps: range,
  share: HostShare = ALONE,
) -> Generator[Batch, None, None]:
  """Returns a generator of the batches of some steps.

  A batch depends on its step alone: it is the same wherever `steps` begins, and the global batch is the same for any
  number of hosts. `close()` the generator where it is dropped before its end, so that reading ahead stops.

  Args:
    training_set: The frames to learn from.
    inputs: What a network takes of them. The companions of a frame are the same in every epoch.
    sampling: What is drawn at random.
    steps: The numbers of the steps, one after the other.
    share: This process among those that train together.

  Yields:
    Arrays by name, of b groups of n nodes (`stajax.companions.num_nodes`), the target first. Of each node:

    - switch (b, n) float32, 1 where the clip has sound and its frame's switch is not 0; tags (b, n, c) float32 of the
      clips, or the frames' labels (b, n, k); clip and frame (b, n) int32, index of the clip and of the frame in it.
    - With maps: map (b, n, h, w) uint8 and weight (b, n) float32.
    - With sound: sound (b, n, 257, 98) float16, 0 for clips without, and sound_mean and sound_deviation (b, n) float32,
      by which the step normalises it.
    - Unless num_times is 0: frames (b, n, t, S, S, 3) uint8, where S is the stored side over 1, 2, 4 or 8, and pixels
      are 0 which `scaled_to` leaves out; or each of the stored stages (b, n, t or 1, h, w, c). What the step is to do
      to frames and maps: box (b, n, t, 4) float32, (y0, x0, y1, x1) in [0, 1], and flip (b,) bool, which is that of the
      group.

  Raises:
    ValueError: The global batch cannot be divided among the hosts.
    RecordError: A shard is damaged (raised while iterating).
  """
  streams = Streams(training_set, inputs, sampling, share, steps)
  options = tf.data.Options()
  options.deterministic = True
  options.autotune.enabled = False
  # Two more than cores, because calls wait in these threads until the decoder's own have decoded.
  options.threading.private_threadpool_size = share.threads + 2
  options.threading.max_intra_op_parallelism = 1
  iterator = streams.joined().prefetch(2).with_options(options).as_numpy_iterator()
  generator = _read_batches(cast(Iterator[Batch], iterator), training_set, streams)
  _open_batches.add(generator)
  return generator


def _read_batches(
  iterator: Iterator[Batch], training_set: TrainingSet, streams: Streams
) -> Generator[Batch, None, None]:
  """Yields one batch after the other; errors of reading are raised as they were before TensorFlow wrapped them."""
  try:
    for steps in iterator:
      for k in range(len(steps["clip"])):
        yield {name: values[k] for name, values in steps.items()}
  except (tf.errors.OpError, UnicodeDecodeError) as error:  # the latter where a message quotes a record's bytes
    if streams.failures:
      raise streams.failures[0] from None
    reason = str(getattr(error, "message", error)).partition("\n")[0]
    raise RecordError(f"{training_set.records.path}: a record cannot be decoded ({reason})") from error
  finally:
    del iterator  # what it has begun needs the decoders
    for decoder in streams.decoders:
      decoder.close()
