"""Batches: exact resume, the same for any number of hosts, right content, and nothing read that is not needed."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from fake_records import fake_records

pytest.importorskip("tensorflow")

from stajax.data import sampler
from stajax.data.map_set import MapSet, MapWriter
from stajax.data.pipeline import batches, trainable_items
from stajax.data.records import Records
from stajax.data.shards import RecordError, ShardReader
from stajax.data.sound import normalise, window_columns


@pytest.fixture(scope="module")
def records(tmp_path_factory):
  return fake_records(tmp_path_factory.mktemp("pipeline"), side=64)


@pytest.fixture(scope="module")
def maps(records, tmp_path_factory):
  """The map of frame id i has value i; ids divisible by 3 have weight 0, others i / 10."""
  path = tmp_path_factory.mktemp("maps") / "scam"
  writer = MapWriter(path, records)
  for clip in range(records.num_clips):
    ids = records.first_frame[clip] + np.arange(records.num_frames[clip])
    images = np.broadcast_to(ids[:, None, None], (len(ids), 5, 5)).astype(np.uint8)
    writer.write(clip, images, np.where(ids % 3, ids / 10, 0))
  writer.finish({})
  return MapSet.open(path, records)


def run(records, start=0, stop=4, **changes):
  arguments = dict(seed=3, global_batch=8, num_times=3, sound=True, decode_size=64, min_scale=0.7, flip=True)
  return list(batches(records, start_step=start, stop_step=stop, **(arguments | changes)))


def assert_equal(left, right):
  assert left.keys() == right.keys()
  for name, value in left.items():
    np.testing.assert_array_equal(value, right[name], err_msg=name)


def test_resuming_gives_the_tail(records, maps):
  whole = run(records, maps=maps)
  tail = run(records, start=2, maps=maps, num_threads=1)
  assert len(whole) == 4 and len(tail) == 2
  for left, right in zip(whole[2:], tail, strict=True):
    assert_equal(left, right)
  assert (whole[0]["frame"] != run(records, stop=1, seed=4)[0]["frame"]).any()


@pytest.mark.parametrize("num_hosts", [2, 4])
def test_global_batch_is_the_same_for_any_number_of_hosts(records, maps, num_hosts):
  hosts = [run(records, stop=2, maps=maps, host=host, num_hosts=num_hosts) for host in range(num_hosts)]
  for whole, *parts in zip(run(records, stop=2, maps=maps), *hosts, strict=True):
    assert_equal(whole, {name: np.concatenate([part[name] for part in parts]) for name in whole})


def test_an_epoch_visits_every_item_once(records, maps):
  def visited(epochs, **changes):
    seen = np.concatenate([batch["clip"] * 100 + batch["frame"] for batch in run(records, sound=False, **changes)])
    return np.split(seen[:, 0], epochs)

  frames = [100 * clip + frame for clip in range(4) for frame in range(records.num_frames[clip])]
  for epoch in visited(4, global_batch=7, stop=12):  # 21 frames, so three batches an epoch
    assert sorted(epoch.tolist()) == frames
  items = trainable_items(records, maps)
  assert items.tolist() == [i for i in range(21) if i % 3]
  for epoch in visited(3, global_batch=14, stop=3, maps=maps):
    assert sorted(epoch.tolist()) == [frames[i] for i in items]
  assert set(visited(1, stop=1, items=np.asarray([6]))[0].tolist()) == {200}


def test_content_is_that_of_the_records(records, maps):
  silent = np.flatnonzero(~records.has_sound)
  seen = Counter()
  for batch in run(records, stop=5, maps=maps, items=np.arange(records.total_frames)):
    assert batch["frames"].shape == (8, 1, 3, 64, 64, 3) and batch["frames"].dtype == np.uint8
    assert batch["sound"].shape == (8, 1, 257, 98) and batch["map"].shape == (8, 1, 5, 5)
    for i in range(8):
      clip, frame = int(batch["clip"][i, 0]), int(batch["frame"][i, 0])
      seen[clip] += 1
      near = sampler.fragment_frames(np.asarray([[frame]]), records.num_frames[[clip]][None], 3)[0, 0]
      np.testing.assert_array_equal(batch["frames"][i, 0], records.clip_frames(clip)[near])
      np.testing.assert_array_equal(batch["tags"][i], records.tags[clip])
      assert batch["switch"][i, 0] == (clip not in silent)
      if clip in silent:
        assert not batch["sound"][i].any()
      else:
        columns = records.clip_columns(clip)
        window = columns[:, window_columns(frame / records.rate[clip], columns.shape[1])].astype(np.float32)
        expected = normalise(window, records.sound_mean[clip], records.sound_std[clip])
        np.testing.assert_allclose(batch["sound"][i, 0], expected, rtol=1e-5, atol=1e-6)
      frame_id = records.first_frame[clip] + frame
      assert (batch["map"][i] == frame_id).all()
      assert batch["weight"][i, 0] == np.float32(frame_id / 10 if frame_id % 3 else 0)
  assert set(seen) == {0, 1, 2, 3}


@pytest.mark.parametrize(("decode_size", "side"), [(8, 8), (9, 16), (32, 32), (33, 64), (100, 64)])
def test_frames_are_decoded_no_larger_than_needed(records, decode_size, side):
  (batch,) = run(records, stop=1, sound=False, num_times=1, decode_size=decode_size)
  assert "sound" not in batch and batch["frames"].shape == (8, 1, 1, side, side, 3)
  clip, frame = batch["clip"][0, 0], batch["frame"][0, 0]
  np.testing.assert_array_equal(batch["frames"][0, 0, 0], records.clip_frames(clip, decode_size)[frame])


def test_only_needed_records_are_read(records, maps, monkeypatch):
  reads = Counter()
  read_shard = ShardReader._read_shard

  def count(self, shard, positions):
    begin = self._ends[shard - 1] if shard else 0
    reads.update((self.folder.parent.name, int(begin + position)) for position in positions)
    return read_shard(self, shard, positions)

  monkeypatch.setattr(ShardReader, "_read_shard", count)
  (batch,) = run(records, stop=1, num_times=3, maps=maps)
  clip, frame = batch["clip"][:, 0], batch["frame"][:, 0]
  near = sampler.fragment_frames(frame, records.num_frames[clip], 3) + records.first_frame[clip][:, None]
  heard = records.has_sound[clip]
  parts, _ = sampler.sound_windows(frame[heard], records.rate[clip][heard], records.num_columns[clip][heard])
  sounds = parts + records.first_sound[clip][heard][:, None]
  wanted = {("frames", i) for i in near.ravel()} | {("sounds", i) for i in sounds.ravel()}
  wanted |= {("scam", i) for i in frame + records.first_frame[clip]}
  assert set(reads) == wanted and set(reads.values()) == {1}


def test_a_damaged_shard_is_named(tmp_path):
  records = fake_records(tmp_path)
  shard = records.frames.shards[2]
  shard.write_bytes(shard.read_bytes()[:-1000])
  with pytest.raises(RecordError, match=shard.name):
    run(Records.open(records.path), stop=9)


def test_arguments_are_checked(records):
  for changes, message in (
    ({"global_batch": 9, "num_hosts": 2}, "cannot be divided among 2 hosts"),
    ({"items": np.asarray([21])}, "frame ids in"),
    ({"items": np.asarray([], int)}, "no frame to train on"),
    ({"num_times": 2}, "odd"),
  ):
    with pytest.raises(ValueError, match=message):
      run(records, **changes)


def test_a_process_that_stops_midway_keeps_its_exit_code(records):
  """TensorFlow's threads abort a process that ends with an exception while they read ahead."""
  code = f"""
from stajax.data.pipeline import batches
from stajax.data.records import Records
made = batches(Records.open({str(records.path)!r}), seed=0, global_batch=4, start_step=0, stop_step=10**6, num_times=1,
               sound=True, decode_size=64)
next(made)
raise SystemExit(3)
"""
  assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120).returncode == 3
