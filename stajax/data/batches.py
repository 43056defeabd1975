"""Makes batches for training steps from records, by tf.data.

Streams with the same draws are joined: images of frames, images of maps, and everything else. For each batch, or for
several small ones, one Python call per stream reads what is needed, and each shard once. Whole frames are decoded
directly into the batch (`stajax.data.jpeg`). Parts of frames are decoded in TensorFlow's threads, each as an element of
its own that is then copied into the batch, so that the work around decoding must be cheap. The training step crops,
mirrors and resizes frames and normalises sound on its device.
Legend: b examples of this host, n fragments of a group, t frames of a fragment, S decoded side, c categories.
"""

from __future__ import annotations

import atexit
import contextlib
import weakref
from collections.abc import Callable, Generator, Iterator
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
  """Stops TensorFlow's threads while the interpreter still exists; otherwise they abort a process that is exiting."""
  for generator in list(_open_batches):
    with contextlib.suppress(ValueError):  # it may be running in another thread
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
  number of hosts. Call `close()` on a generator that is dropped before its end, so that reading ahead stops.

  Args:
    training_set: The frames to learn from.
    inputs: The inputs of the network. The companions of a frame are the same in every epoch.
    sampling: The random draws.
    steps: The numbers of the steps.
    share: The share of this process.

  Yields:
    Arrays by name for b groups of n nodes (`stajax.companions.num_nodes`), of which the target is the first:

    - switch (b, n) float32, 1 if the clip has sound and the frame's switch is not 0; tags (b, n, c) float32 of clips,
      or labels (b, n, k) of frames; clip and frame (b, n) int32, the indices of the clip and of the frame in it.
    - With maps: map (b, n, h, w) uint8 and weight (b, n) float32.
    - With sound: sound (b, n, 257, 98) float16, 0 for clips without sound, and sound_mean and sound_deviation (b, n)
      float32, with which the step normalises it.
    - Unless num_times is 0: frames (b, n, t, S, S, 3) uint8, where S is the stored side over 1, 2, 4 or 8, and pixels
      that `scaled_to` leaves out are 0; or each of the stored stages (b, n, t or 1, h, w, c). The step crops and
      mirrors frames and maps by box (b, n, t, 4) float32, (y0, x0, y1, x1) in [0, 1], and by flip (b,) bool, which
      holds for a whole group.
    - With a batch that is filled up (see `HostShare`): counts (b,) float32, 0 for what fills it up, and for examples
      the number of examples in the batch of all hosts.

  Raises:
    RecordError: A shard is damaged (raised while iterating).
  """
  streams = Streams(training_set, inputs, sampling, share, steps)
  options = tf.data.Options()
  options.deterministic = True
  options.autotune.enabled = False
  # Two more threads than cores, because calls wait in them until the decoder's own threads have decoded.
  options.threading.private_threadpool_size = share.threads + 2
  options.threading.max_intra_op_parallelism = 1
  iterator = streams.joined().prefetch(2).with_options(options).as_numpy_iterator()
  fill = _make_fill(share, sampling.global_batch)
  generator = _read_batches(cast(Iterator[Batch], iterator), training_set, streams, fill)
  _open_batches.add(generator)
  return generator


def _make_fill(share: HostShare, global_batch: int) -> Callable[[Batch], Batch]:
  """Makes the function that fills the examples of a host up to its slots; all hosts do, or none."""
  slots, num_examples = share.slots_of(global_batch), len(share.examples_of(global_batch))
  num_slots = len(slots) * share.num_hosts
  if num_slots == global_batch:
    return lambda batch: batch
  counts = np.where(np.array(slots) < global_batch, global_batch, 0).astype(np.float32)
  # Nothing of an example is unusual, as zeros would be: a gradient that is multiplied by 0 must be finite.
  repeated = np.minimum(np.arange(len(slots)), num_examples - 1)
  return lambda batch: {**{name: values[repeated] for name, values in batch.items()}, "counts": counts}


def _read_batches(
  iterator: Iterator[Batch], training_set: TrainingSet, streams: Streams, fill: Callable[[Batch], Batch]
) -> Generator[Batch, None, None]:
  """Yields the batches; raises errors of reading as they were before TensorFlow wrapped them."""
  try:
    for steps in iterator:
      for k in range(len(steps["clip"])):
        yield fill({name: values[k] for name, values in steps.items()})
  except (tf.errors.OpError, UnicodeDecodeError) as error:  # UnicodeDecodeError if a message quotes a record's bytes
    if streams.failures:
      raise streams.failures[0] from None
    reason = str(getattr(error, "message", error)).partition("\n")[0]
    raise RecordError(f"{training_set.records.path}: a record cannot be decoded ({reason})") from error
  finally:
    del iterator  # its unfinished calls need the decoders
    for decoder in streams.decoders:
      decoder.close()
