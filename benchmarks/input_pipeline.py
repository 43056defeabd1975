"""Measures how fast the input pipeline feeds examples, against the plain decoding of the JPEG files that they need.

  python -m benchmarks.input_pipeline [--records DIR] [--only fine] [--seconds 1] [--rounds 5] [--json FILE]

Both are measured in turn, round after round, with the same number of threads, so that other users of the machine slow
both. Rates are medians over the rounds, and so are the two ratios: one by the clock, and one by the time of all
processors, which says more if others use them. The plain rate is that of TensorFlow's decoder at the same scale, on
files in memory and with nothing else to do: no reading, no sound, no batches.

Without --records, the benchmark makes clips of moving shapes and noise, whose frames are about as large as real ones
(70 kB).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from stajax.companions import Granularity
from stajax.data.batch_settings import HostShare, NetworkInputs, Sampling, TrainingSet
from stajax.data.batches import make_batches
from stajax.data.frame_sides import decode_ratio
from stajax.data.jpeg import encode_jpeg
from stajax.data.map_set import MapSet, MapWriter
from stajax.data.records import Records
from stajax.data.shards import read_bytes
from stajax.data.tensorflow_cpu import tf
from stajax.prepare.assembly import assemble
from stajax.prepare.clip_staging import ClipStaging, PreparedClip

TAGS = ("bell", "drum", "horn", "siren")
_CHUNK = 32
"""The number of images that are decoded plainly before the clock is read."""
_WARM_UP = 0.5
"""The seconds until everything that was read ahead is used up."""
_SOURCES = {"s": (1, False), "st": (3, False), "sa": (1, True)}
"""The frames of a fragment, and whether there is sound, by source."""
_COMPANIONS: tuple[Granularity, ...] = ("short", "long", "cross")


@dataclass(frozen=True)
class Case:
  """What one kind of network is trained with; see `stajax.data.batch_settings`.

  Attributes:
    stage: The stage of the method.
    source: The network.
    batch: The examples of a step.
    size: The side at which frames are decoded and to which they are scaled.
    num_times: The frames of a fragment.
    sound: Whether the network hears.
    companions: Which companions a target has.
    boxes: Whether frames are cropped.
    maps: Whether there are pseudo-fixations.
  """

  stage: str
  source: str
  batch: int
  size: int
  num_times: int
  sound: bool
  companions: Granularity | None = None
  boxes: bool = False
  maps: bool = False

  @property
  def frames_an_example(self) -> int:
    """The frames that an example has."""
    return (3 if self.companions else 1) * self.num_times


def _cases() -> Iterator[Case]:
  """Yields what the paper trains, with the batch and the size of each stage (`stajax.config`)."""
  for name, inputs in _SOURCES.items():
    yield Case("coarse", name, 20, 256, *inputs)
  for name, inputs in _SOURCES.items():
    yield Case("fine", name, 3, 512, *inputs, boxes=True)
  for companions in _COMPANIONS:
    for name, inputs in _SOURCES.items():
      if (name, companions) != ("sa", "short"):
        yield Case("plus", f"{name}_plus_{companions}", 16, 256, *inputs, companions)
  yield Case("student", "sta", 3, 356, 3, True, maps=True)
  for companions in _COMPANIONS[:2]:
    yield Case("student", f"sta_plus_{companions}", 3, 356, 3, True, companions, maps=True)


def make_records(folder: Path, num_clips: int, num_frames: int, side: int) -> Records:
  """Makes records of clips of moving shapes and noise, with sound."""
  generator = np.random.default_rng(0)
  staging = ClipStaging(folder / "staging")
  grain = generator.normal(0, 1.5, (side + 64, side + 64, 1)).astype(np.float32)
  keys = [f"{clip:05d}" for clip in range(num_clips)]
  for clip, key in enumerate(tqdm(keys, desc="making clips", disable=None)):
    coarse = generator.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    ends = [np.asarray(Image.fromarray(x).resize((side, side), Image.Resampling.BICUBIC), np.float32) for x in coarse]
    frames = []
    for time_ in np.linspace(0, 1, num_frames):
      row, column = generator.integers(0, 64, 2)
      picture = ends[0] * (1 - time_) + ends[1] * time_ + grain[row : row + side, column : column + side]
      frames.append(encode_jpeg(np.clip(picture, 0, 255).astype(np.uint8)))
    columns = generator.normal(-8, 3, (257, 100 * num_frames // 8)).astype(np.float16)
    tags, seconds = (TAGS[clip % len(TAGS)],), num_frames / 8
    staging.write(key, PreparedClip(key, tags, (), 8.0, side, side, seconds, -8.0, 3.0, frames, columns))
  assemble(staging, keys, folder / "data", TAGS, {"source": "benchmark", "provenance": "synthetic"})
  staging.remove()
  return Records.open(folder / "data")


def make_maps(folder: Path, records: Records) -> MapSet:
  """Makes a smooth map of 128×128 for every frame."""
  generator, writer = np.random.default_rng(1), MapWriter(folder / "maps", records)
  for clip in range(records.num_clips):
    small = generator.integers(0, 256, (int(records.num_frames[clip]), 8, 8)).astype(np.uint8)
    maps = [np.asarray(Image.fromarray(x).resize((128, 128), Image.Resampling.BICUBIC)) for x in small]
    writer.write(clip, np.stack(maps), np.ones(len(maps)))
  writer.finish({})
  return MapSet.open(folder / "maps", records)


def make_boxes(records: Records) -> np.ndarray:
  """Makes a crop for every frame, as the fine stage has them."""
  corners = np.random.default_rng(2).uniform(0, 0.4, (records.total_frames, 2))
  return np.concatenate([corners, corners + 0.6], axis=1).astype(np.float32)


def plain_decoding(jpegs: list[bytes], ratio: int, threads: int) -> Iterator[Any]:
  """Decodes JPEG files in memory, over and over; yields a chunk of `_CHUNK` images at a time."""

  def decode(jpeg: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_jpeg(jpeg, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")
    return image[0, 0, 0]  # all other pixels are dropped at once

  options = tf.data.Options()
  options.deterministic = False
  options.autotune.enabled = False
  options.threading.private_threadpool_size = threads
  options.threading.max_intra_op_parallelism = 1
  dataset = tf.data.Dataset.from_tensor_slices(jpegs).repeat().map(decode, num_parallel_calls=threads)
  return dataset.batch(_CHUNK).with_options(options).as_numpy_iterator()


def _rate(iterator: Iterator[Any], size: int, seconds: float) -> tuple[float, float]:
  """Returns how many items an iterator yields in a second, in batches of `size`, and in a second of processor time."""
  _wait_for_rest()
  begin = time.perf_counter()
  while time.perf_counter() - begin < _WARM_UP:
    next(iterator)
  begin, used, count = time.perf_counter(), time.process_time(), 0
  while (passed := time.perf_counter() - begin) < seconds or not count:
    next(iterator)
    count += size
  return count / passed, count / (time.process_time() - used)


def _wait_for_rest() -> None:
  """Waits until the pipeline that was measured before has stopped reading ahead."""
  before, now = -1.0, time.process_time()
  while now - before > 0.02:
    time.sleep(0.1)
    before, now = now, time.process_time()


def measure(case: Case, records: Records, maps: MapSet, arguments: argparse.Namespace) -> dict[str, Any]:
  """Measures one case; returns its medians."""
  ratio = decode_ratio(records.side, case.size)
  everything = read_bytes(records.frames, np.arange(min(records.total_frames, 1000)), "image")
  plain = plain_decoding(everything, ratio, arguments.threads)
  batches = make_batches(
    TrainingSet(records, maps=maps if case.maps else None, boxes=make_boxes(records) if case.boxes else None),
    NetworkInputs(case.num_times, case.sound, case.size, case.size, case.companions),
    Sampling(seed=0, global_batch=case.batch, flip=True),
    range(2**40),
    HostShare(num_threads=arguments.threads),
  )
  rounds = []  # each is (plain, fed, plain)
  half = arguments.seconds / 2
  for _ in range(arguments.rounds):
    rounds.append((
      _rate(plain, _CHUNK, half), _rate(batches, case.batch, arguments.seconds), _rate(plain, _CHUNK, half),
    ))  # fmt: skip
  batches.close()
  measured = np.asarray(rounds)  # (rounds, 3, 2); the last axis is by the clock and by processor time
  frames = case.frames_an_example
  decoded = measured[:, ::2].mean(axis=1)
  ratios = measured[:, 1] * frames / decoded
  examples, plain_rate = np.median(measured[:, 1, 0]), np.median(decoded[:, 0])
  return {
    "stage": case.stage, "source": case.source, "batch": case.batch, "size": case.size,
    "decoded_side": -(-records.side // ratio), "frames_an_example": frames, "examples_a_second": round(examples, 1),
    "frames_a_second": round(examples * frames, 1), "plain_frames_a_second": round(plain_rate, 1),
    "ratio": round(np.median(ratios[:, 0]), 3), "processor_ratio": round(np.median(ratios[:, 1]), 3),
    "ratios": ratios[:, 0].round(3).tolist(),
  }  # fmt: skip


_COLUMNS = {
  "stage": "stage",
  "source": "source",
  "batch": "batch",
  "decoded_side": "side",
  "examples_a_second": "examples/s",
  "frames_a_second": "frames/s",
  "plain_frames_a_second": "plain",
  "ratio": "ratio",
  "processor_ratio": "by processor",
}
"""The heads of the printed table by what `measure` returns."""
_LINE = "{:8} {:16} {:>5} {:>5} {:>11} {:>9} {:>8} {:>7} {:>13}"


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code, which is 1 where a ratio is under `--least`."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--records", type=Path, help="a prepared data set in place of clips that are made")
  parser.add_argument("--clips", type=int, default=24, help="how many clips are made, of 40 frames each")
  parser.add_argument("--side", type=int, default=512, help="the side of the frames that are made")
  parser.add_argument("--only", default="", help="measure only cases with this in their stage or source")
  parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of both sides")
  parser.add_argument("--seconds", type=float, default=1.0, help="how long a measurement takes")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--least", type=float, default=0.0, help="the ratio that every case must reach")
  parser.add_argument("--json", type=Path, help="file for the numbers")
  arguments = parser.parse_args(argv)
  with tempfile.TemporaryDirectory() as folder:
    if arguments.records is None:
      records = make_records(Path(folder), arguments.clips, 40, arguments.side)
    else:
      records = Records.open(arguments.records)
    maps = make_maps(Path(folder), records)
    sizes = [len(record) for record in records.frames.read_range(0, min(500, len(records.frames)))]
    kilobytes = statistics.mean(sizes) / 1000
    print(
      f"{records.num_clips} clips, {records.total_frames} frames of {records.side} pixels, {kilobytes:.0f} kB each; "
      f"{arguments.threads} threads, {platform.machine()}"
    )
    print(_LINE.format(*_COLUMNS.values()))
    results = []
    for case in _cases():
      if arguments.only in case.stage or arguments.only in case.source:
        results.append(row := measure(case, records, maps, arguments))
        print(_LINE.format(*(row[column] for column in _COLUMNS)), flush=True)
  if arguments.json:
    facts = {
      "threads": arguments.threads, "seconds": arguments.seconds, "rounds": arguments.rounds, "side": records.side,
      "kilobytes_a_frame": round(kilobytes, 1), "made": arguments.records is None, "cases": results,
    }  # fmt: skip
    arguments.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
  return int(any(row["ratio"] < arguments.least for row in results))


if __name__ == "__main__":
  sys.exit(main())
