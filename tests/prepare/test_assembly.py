"""Assembly writes whole clips into planned shards, always with the same bytes, and refuses clips that do not fit."""

import json
import os
import subprocess
import sys
from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from helpers.fake_records import CATEGORIES, contents, fake_clips, stage

tfds = pytest.importorskip("tensorflow_datasets")

from stajax.data.records import Records  # noqa: E402
from stajax.prepare import assembly  # noqa: E402
from stajax.prepare.assembly import assemble, finish_assembly, plan_assembly, plan_shards, write_planned, write_shards  # noqa: E402
from stajax.prepare.clip_staging import ClipStaging  # noqa: E402

SUMMARY = {"source": "test", "provenance": "synthetic"}


@pytest.mark.parametrize("seed", range(20))
def test_shards_are_as_full_as_whole_clips_allow(seed):
  generator = np.random.default_rng(seed)
  sizes = (generator.integers(0, 12, generator.integers(1, 15)) * generator.integers(0, 2)).tolist()
  shards = plan_shards(sizes, 10)
  assert [clip for shard in shards for clip in shard] == list(range(len(sizes)))
  held = [[sizes[clip] for clip in shard if sizes[clip]] for shard in shards]
  assert all(sum(shard) <= 10 or len(shard) == 1 for shard in held)
  assert all(held) or shards == [range(len(sizes))]
  for shard, following in pairwise(held):
    assert sum(shard) + following[0] > 10


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
  return stage(tmp_path_factory.mktemp("staging"), fake_clips(number=6))


@pytest.fixture(scope="module")
def whole(staged, tmp_path_factory):
  out = tmp_path_factory.mktemp("whole") / "data"
  staging, keys = staged
  assemble(staging, keys, out, CATEGORIES, SUMMARY, max_shard_bytes=12_000)
  return out


def test_shards_hold_whole_clips_up_to_the_limit(whole):
  facts = {}
  for name in ("frames", "sounds", "clips"):
    splits = json.loads((whole / name / "1.0.0" / "dataset_info.json").read_text())["splits"]
    builder = tfds.builder_from_directory(whole / name / "1.0.0")
    lengths = builder.info.splits["data"].shard_lengths
    keys = [row.get("key", row.get("name")).decode().split("/")[0] for row in builder.as_data_source("data")]
    assert sum(lengths) == len(keys)
    shards = [set(part) for part in np.split(keys, np.cumsum(lengths)[:-1])]
    assert sum(map(len, shards)) == len(set(keys))  # no clip is in two shards
    facts[name] = ([sorted(int(key.split()[-1]) for key in shard) for shard in shards], int(splits[0]["numBytes"]))
  assert facts["clips"][0] == [[0, 1, 2, 3, 4, 5]]
  assert facts["sounds"][0] == [[0], [1], [3], [4], [5]]  # one record is larger than a shard; clip 2 is silent
  assert len(facts["frames"][0]) > 2
  records = Records.open(whole)
  sizes = [len(record) for record in records.frames.read(range(records.total_frames))]
  assert sum(sizes) == facts["frames"][1]
  ends = np.append(records.first_frame, len(sizes))
  for shard in facts["frames"][0]:
    assert sum(sizes[ends[shard[0]] : ends[shard[-1] + 1]]) <= 12_000 or len(shard) == 1


def test_shards_may_be_written_in_any_order_and_twice(staged, whole, tmp_path):
  staging, keys = staged
  plan = plan_assembly(staging, keys, tmp_path / "data", CATEGORIES, SUMMARY, max_shard_bytes=12_000)
  written = {shard: write_planned(shard) for shard in (*plan.shards[::-1], *plan.shards[2:4])}
  assert not (tmp_path / "data").exists()
  finish_assembly(plan, [written[shard] for shard in plan.shards])
  assert contents(tmp_path / "data") == contents(whole)


def test_another_process_writes_the_same_bytes(staged, whole, tmp_path):
  """In the other process strings have other hashes, so that sets are in another order."""
  staging, keys = staged
  code = f"""
from pathlib import Path
from stajax.prepare.assembly import assemble
from stajax.prepare.clip_staging import ClipStaging
out = Path({str(tmp_path / "data")!r})
assemble(ClipStaging(Path({str(staging.folder)!r})), {keys!r}, out, {CATEGORIES!r}, {SUMMARY!r}, 12_000)
"""
  subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
  assert contents(tmp_path / "data") == contents(whole)


def test_children_may_write_the_shards(staged, whole, tmp_path, monkeypatch):
  asked = []

  def run_in_children(function, tasks, processes):
    asked.append(processes)
    for index, arguments in list(enumerate(tasks))[::-1]:
      yield index, function(*arguments)

  monkeypatch.setattr(assembly, "run_in_children", run_in_children)
  staging, keys = staged
  for out in ("small", "large"):
    assemble(staging, keys, tmp_path / out, CATEGORIES, SUMMARY, 12_000, partial(write_shards, processes=3))
    assert contents(tmp_path / out) == contents(whole)
    monkeypatch.setattr(assembly, "BYTES_A_PROCESS", 1)
  assert asked == [1, 3]


def test_assembling_again_gives_the_same_bytes(tmp_path, monkeypatch):
  staging, keys = stage(tmp_path / "staging", fake_clips())
  assemble(staging, keys, tmp_path / "whole", CATEGORIES, SUMMARY)
  read = ClipStaging.read_frames

  def fail_late(self, key):
    if key == keys[2]:
      raise KeyboardInterrupt
    return read(self, key)

  with monkeypatch.context() as patch:
    patch.setattr(ClipStaging, "read_frames", fail_late)
    with pytest.raises(KeyboardInterrupt):
      assemble(staging, keys, tmp_path / "resumed", CATEGORIES, SUMMARY)
  assert not (tmp_path / "resumed").exists()
  assemble(staging, keys, tmp_path / "resumed", CATEGORIES, SUMMARY)
  assert contents(tmp_path / "whole") == contents(tmp_path / "resumed")
  with pytest.raises(FileExistsError):
    assemble(staging, keys, tmp_path / "whole", CATEGORIES, SUMMARY)


def test_assemble_refuses_clips_that_do_not_fit(tmp_path):
  clips = fake_clips()
  staging, keys = stage(tmp_path / "staging", clips)
  with pytest.raises(ValueError, match="'horn' is not one of the categories"):
    assemble(staging, keys, tmp_path / "a", CATEGORIES[:2], {})
  with pytest.raises(ValueError, match="clip 0: two clips"):
    assemble(staging, [keys[0], *keys], tmp_path / "a", CATEGORIES, {})
  with pytest.raises(ValueError, match="no clip to write"):
    assemble(staging, [], tmp_path / "a", CATEGORIES, {})
  staging.write(keys[2], fake_clips(side=48)[2])
  with pytest.raises(ValueError, match=r"clip 2: a frame is JPEG \(48, 48\)"):
    assemble(staging, keys, tmp_path / "a", CATEGORIES, {})
  staging.path(keys[1]).write_bytes(b"PK\x03\x04 not a zip")
  with pytest.raises(ValueError, match=keys[1]):
    assemble(staging, keys, tmp_path / "a", CATEGORIES, {})
  assert not (tmp_path / "a").exists()
