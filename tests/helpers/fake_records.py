"""Tiny data sets for tests of what reads records."""

from pathlib import Path

import numpy as np

from stajax.data.jpeg import encode_jpeg
from stajax.data.records import Records
from stajax.data.staging import staging_key
from stajax.prepare.assembly import assemble
from stajax.prepare.clip_staging import ClipStaging, PreparedClip

CATEGORIES = ("bell", "drum", "horn")
NUM_FRAMES = (5, 1, 12, 3, 20, 2)
NUM_COLUMNS = (260, 40, 0, 100, 500, 130)  # 40 is less than a window, 0 is silence, 100 is exactly one record
TAGS = (("bell", "drum"), ("horn",), ("bell",), (), ("bell",), ("drum",))  # the first four: only two share one
FLAGS = ((), ("foreign",), ("foreign", "repeat"), (), (), ())
RATES = (8.0, 25 / 3, 2.0, 30.0, 8.0, 4.0)


def fake_clips(side: int = 32, seed: int = 0, number: int = 4) -> list[PreparedClip]:
  """Returns four to six clips that differ in everything; frames are smooth so that JPEG keeps them."""
  generator = np.random.default_rng(seed)
  clips = []
  for i in range(number):
    rows, columns = np.mgrid[:side, :side] / side
    frames = [
      np.stack([255 * rows, 255 * columns, np.full((side, side), 20 * i + 5 * j)], axis=-1).astype(np.uint8)
      for j in range(NUM_FRAMES[i])
    ]
    clips.append(
      PreparedClip(
        name=f"clip {i}",
        tags=TAGS[i],
        flags=FLAGS[i],
        rate=RATES[i],
        width=640 + i,
        height=480 - i,
        duration=NUM_FRAMES[i] / 3,
        frames=[encode_jpeg(frame) for frame in frames],
        columns=generator.normal(-8, 3, (257, NUM_COLUMNS[i])).astype(np.float16),
        sound_mean=-8.25 if NUM_COLUMNS[i] else 0.0,
        sound_std=3.0 if NUM_COLUMNS[i] else 0.0,
      )
    )
  return clips


def stage(folder: Path, clips: list[PreparedClip]) -> tuple[ClipStaging, list[str]]:
  """Stages clips and returns the folder and their keys, in order."""
  staging = ClipStaging(folder)
  keys = [staging_key(clip.name, {"side": 32}) for clip in clips]
  for key, clip in zip(keys, clips, strict=True):
    staging.write(key, clip)
  return staging, keys


def fake_records(folder: Path, side: int = 32, max_shard_bytes: int = 6000, number: int = 4) -> Records:
  """Returns the records of `fake_clips`, in several shards."""
  staging, keys = stage(folder / "staging", fake_clips(side, number=number))
  summary = {"source": "test", "provenance": "synthetic", "skipped": []}
  assemble(staging, keys, folder / "data", CATEGORIES, summary, max_shard_bytes)
  return Records.open(folder / "data")


def contents(folder: Path) -> dict[str, bytes]:
  """Returns all files of a folder by name, for comparisons byte by byte; MATLAB's without the date in their header."""
  return {
    str(path.relative_to(folder)): path.read_bytes()[116 if path.suffix == ".mat" else 0 :]
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }
