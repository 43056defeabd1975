"""Batches: exact resuming, the same content for any number of hosts, and no unnecessary reads."""

import threading
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
from einops import rearrange

from helpers.fake_records import CATEGORIES, fake_clips, fake_records, stage

pytest.importorskip("tensorflow")

from stajax.data import sampler
from stajax.data.batch_settings import HostShare, NetworkInputs, Sampling, TrainingSet, trainable_items
from stajax.data.batches import make_batches
from stajax.data.damage import open_intact
from stajax.data.jpeg import encode_jpeg
from stajax.data.map_set import MapSet, MapWriter
from stajax.data.records import Records
from stajax.data.shards import RecordError, ShardReader
from stajax.media.spectrogram import normalise, window_columns
from stajax.nets.images import to_size
from stajax.prepare.assembly import assemble


@pytest.fixture(scope="module")
def records(tmp_path_factory):
  return fake_records(tmp_path_factory.mktemp("pipeline"), side=64)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
  """Returns records of six clips: three have one tag in common, two another one, and two have no partner."""
  return fake_records(tmp_path_factory.mktemp("many"), side=64, number=6)


def write_maps(path, records):
  """Writes maps: that of frame id i has the value i and the weight i / 10, or 0 where 3 divides i."""
  writer = MapWriter(path, records)
  for clip in range(records.num_clips):
    ids = records.first_frame[clip] + np.arange(records.num_frames[clip])
    images = np.broadcast_to(ids[:, None, None], (len(ids), 5, 5)).astype(np.uint8)
    writer.write(clip, images, np.where(ids % 3, ids / 10, 0))
  writer.finish({})
  return MapSet.open(path, records)


@pytest.fixture(scope="module")
def maps(records, tmp_path_factory):
  return write_maps(tmp_path_factory.mktemp("maps") / "scam", records)


@pytest.fixture(scope="module")
def many_maps(many, tmp_path_factory):
  return write_maps(tmp_path_factory.mktemp("many_maps") / "scam", many)


def begin(records, start=0, stop=4, **changes):
  """Returns batches of settings that are given by the names of their fields."""
  settings = {"seed": 3, "global_batch": 8, "num_times": 3, "sound": True, "decode_size": 64, "min_scale": 0.7}
  settings |= {"flip": True, "records": records} | changes
  parts = [
    kind(**{field.name: settings.pop(field.name) for field in fields(kind) if field.name in settings})
    for kind in (TrainingSet, NetworkInputs, Sampling, HostShare)
  ]
  assert not settings
  return make_batches(*parts[:3], range(start, stop), parts[3])


def run(records, **settings):
  return list(begin(records, **settings))


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


@pytest.mark.parametrize(("num_hosts", "granularity"), [(2, None), (4, None), (2, "long"), (4, "cross")])
def test_global_batch_is_the_same_for_any_number_of_hosts(many, many_maps, num_hosts, granularity):
  options = {"stop": 2, "maps": many_maps, "companions": granularity}
  hosts = [run(many, host=host, num_hosts=num_hosts, **options) for host in range(num_hosts)]
  for whole, *parts in zip(run(many, **options), *hosts, strict=True):
    assert_equal(whole, {name: np.concatenate([part[name] for part in parts]) for name in whole})


def test_groups_of_both_kinds_join_those_of_each_kind(many, many_maps):
  """This holds for everything that a step sees, and the views are the same."""
  options = {"stop": 2, "maps": many_maps}
  kinds = (run(many, companions=kind, **options) for kind in ("short_long", "short", "long"))
  for both, *alone in zip(*kinds, strict=True):
    assert both["frames"].shape[:3] == (8, 5, 3) and both["map"].shape[1] == both["sound"].shape[1] == 5
    for nodes, batch in zip(([0, 1, 2], [0, 3, 4]), alone, strict=True):
      assert_equal({name: x if name == "flip" else x[:, nodes] for name, x in both.items()}, batch)


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


@pytest.mark.parametrize("granularity", [None, "short", "long", "cross"])
def test_batches_have_the_content_of_the_records(many, many_maps, granularity):
  """Checks every node against a slow reading of its whole clip."""
  nodes, seen = 3 if granularity else 1, set()
  all_frames = np.arange(many.total_frames)
  for batch in run(many, stop=7, maps=many_maps, items=all_frames, companions=granularity):
    assert batch["frames"].shape == (8, nodes, 3, 64, 64, 3) and batch["frames"].dtype == np.uint8
    assert batch["sound"].shape == (8, nodes, 257, 98) and batch["map"].shape == (8, nodes, 5, 5)
    integers = {"frames", "map", "clip", "frame", "flip"}
    assert {name for name in batch if batch[name].dtype != np.float32} == integers | {"sound"}
    assert (batch["clip"].dtype, batch["flip"].shape, batch["weight"].shape) == (np.int32, (8,), (8, nodes))
    for i, node in np.ndindex(8, nodes):
      clip, frame = int(batch["clip"][i, node]), int(batch["frame"][i, node])
      seen.add(clip)
      near = sampler.fragment_frames(np.asarray([[frame]]), many.num_frames[[clip]][None], 3)[0, 0]
      np.testing.assert_array_equal(batch["frames"][i, node], many.clip_frames(clip)[near])
      np.testing.assert_array_equal(batch["tags"][i, node], many.tags[clip])
      assert batch["switch"][i, node] == many.has_sound[clip]
      if clip == 2:
        assert not batch["sound"][i, node].any()
      else:
        columns = many.clip_columns(clip)
        window = columns[:, window_columns(frame / many.rate[clip], columns.shape[1])].astype(np.float32)
        expected = normalise(window, many.sound_mean[clip], many.sound_std[clip])
        sound, mean, deviation = (batch[f"sound{part}"][i, node] for part in ("", "_mean", "_deviation"))
        assert sound.dtype == np.float16
        np.testing.assert_allclose((sound.astype(np.float32) - mean) / deviation, expected, rtol=1e-5, atol=1e-6)
      frame_id = many.first_frame[clip] + frame
      assert (batch["map"][i, node] == frame_id).all()
      assert batch["weight"][i, node] == np.float32(frame_id / 10 if frame_id % 3 else 0)
  assert seen == {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("granularity", ["short", "long", "cross"])
def test_companions_are_the_same_in_every_epoch_and_batch(many, granularity):
  def groups_of(global_batch, stop):
    options = {"num_times": 1, "sound": False, "companions": granularity, "global_batch": global_batch}
    drawn = run(many, stop=stop, **options)
    return Counter(map(bytes, np.concatenate([np.stack([x["clip"], x["frame"]], axis=1) for x in drawn])))

  two_epochs = groups_of(43, 2)
  assert len(two_epochs) == 43 and set(two_epochs.values()) == {2}
  assert groups_of(2, 43) == two_epochs


def test_companions_are_short_long_and_cross(many):
  def nodes(**options):
    drawn = run(many, stop=6, sound=False, **options)
    return (np.concatenate([batch[name] for batch in drawn]) for name in ("clip", "frame"))

  for num_times, spacing in ((1, 1), (3, 3)):
    clip, frame = nodes(companions="short", num_times=num_times)
    assert (clip == clip[:, :1]).all()
    inside = (frame[:, 0] >= spacing) & (frame[:, 0] < many.num_frames[clip[:, 0]] - spacing)
    assert inside.sum() > 5
    assert (frame[inside] - frame[inside, :1] == [0, -spacing, spacing]).all()
  clip, frame = nodes(companions="long")
  assert (clip == clip[:, :1]).all() and (frame[:, 1:] < many.num_frames[clip[:, 1:]]).all()
  longest = clip[:, 0] == 4
  assert (np.abs(frame - frame[:, :1])[longest, 1:] > 4).all() and longest.sum() > 5
  clip, frame = nodes(companions="cross")
  partners = {0: {2, 4, 5}, 1: {1}, 2: {0, 4}, 3: {3}, 4: {0, 2}, 5: {0}}
  for target, *others in clip.tolist():
    assert set(others) <= partners[target] and (len(set(others)) == min(2, len(partners[target])))


def test_boxes_are_cropped_further_alike_for_all_nodes(many):
  corners = np.random.default_rng(0).uniform(0, 0.4, (many.total_frames, 2))
  boxes = np.concatenate([corners, corners + np.asarray([0.5, 0.3])], axis=1).astype(np.float32)
  options = {"stop": 2, "companions": "cross", "sound": False, "num_times": 3}

  def fragments(batch):
    near = batch["frame"][..., None] + np.arange(-1, 2)
    last = many.num_frames[batch["clip"]][..., None] - 1
    near = np.where(near < 0, np.minimum(1, last), np.where(near > last, np.maximum(last - 1, 0), near))
    return many.first_frame[batch["clip"]][..., None] + near

  for batch, whole in zip(run(many, boxes=boxes, **options), run(many, **options), strict=True):
    assert batch["box"].shape == (8, 3, 3, 4) and batch["box"].dtype == np.float32
    assert (whole["box"] == whole["box"][:, :1, :1]).all()  # the view alone
    own = boxes[fragments(batch)]
    corner, size = own[..., :2], own[..., 2:] - own[..., :2]
    for part, view in ((batch["box"][..., :2], whole["box"][..., :2]), (batch["box"][..., 2:], whole["box"][..., 2:])):
      np.testing.assert_allclose(part, corner + size * view, atol=1e-6)
    assert_equal({**batch, "box": 0}, {**whole, "box": 0})
  (batch,) = run(many, boxes=boxes, min_scale=1.0, **(options | {"stop": 1}))
  np.testing.assert_allclose(batch["box"], boxes[fragments(batch)], atol=1e-6)


def test_switch_and_labels_belong_to_the_frames(many):
  generator = np.random.default_rng(1)
  switch = generator.integers(0, 2, many.total_frames).astype(np.uint8)
  labels = generator.uniform(size=(many.total_frames, 1)).astype(np.float32)
  seen = set()
  for batch in run(many, stop=6, switch=switch, labels=labels, companions="long"):
    frame_id = many.first_frame[batch["clip"]] + batch["frame"]
    sounding = many.has_sound[batch["clip"]]
    np.testing.assert_array_equal(batch["switch"], switch[frame_id] * sounding)
    np.testing.assert_array_equal(batch["tags"], labels[frame_id])
    assert (batch["sound"].any(axis=(2, 3)) == sounding).all()  # there, whatever the switch
    seen |= set(zip(switch[frame_id].ravel().tolist(), sounding.ravel().tolist(), strict=True))
  assert len(seen) == 4


def test_without_frames_none_are_read(many, monkeypatch):
  expected = run(many, stop=2, num_times=1)
  monkeypatch.setattr(many.frames, "read", None)
  for batch, whole in zip(run(many, stop=2, num_times=0), expected, strict=True):
    assert batch.keys() == whole.keys() - {"frames", "box", "flip"}
    assert_equal(batch, {name: whole[name] for name in batch})


@pytest.mark.parametrize(("decode_size", "side"), [(8, 8), (9, 16), (32, 32), (33, 64), (100, 64)])
def test_frames_are_decoded_no_larger_than_needed(records, decode_size, side):
  (batch,) = run(records, stop=1, sound=False, num_times=1, decode_size=decode_size)
  assert "sound" not in batch and batch["frames"].shape == (8, 1, 1, side, side, 3)
  clip, frame = batch["clip"][0, 0], batch["frame"][0, 0]
  np.testing.assert_array_equal(batch["frames"][0, 0, 0], records.clip_frames(clip, decode_size)[frame])


@pytest.mark.parametrize("granularity", [None, "cross"])
def test_only_needed_records_are_read(many, many_maps, monkeypatch, granularity):
  reads = Counter()
  calls = Counter()
  read_shard = ShardReader._read_shard

  def count(self, shard, positions):
    begin = self._ends[shard - 1] if shard else 0
    calls[self.folder.parent.name, shard] += 1
    reads.update((self.folder.parent.name, int(begin + position)) for position in positions)
    return read_shard(self, shard, positions)

  monkeypatch.setattr(ShardReader, "_read_shard", count)
  (batch,) = run(many, stop=1, num_times=3, maps=many_maps, companions=granularity)
  clip, frame = batch["clip"].ravel(), batch["frame"].ravel()
  near = sampler.fragment_frames(frame, many.num_frames[clip], 3) + many.first_frame[clip][:, None]
  heard = many.has_sound[clip]
  parts, _ = sampler.sound_windows(frame[heard], many.rate[clip][heard], many.num_columns[clip][heard])
  sounds = parts + many.first_sound[clip][heard][:, None]
  wanted = {("frames", i) for i in near.ravel()} | {("sounds", i) for i in sounds.ravel()}
  wanted |= {("scam", i) for i in frame + many.first_frame[clip]}
  assert set(reads) == wanted and set(reads.values()) == set(calls.values()) == {1}


def test_a_damaged_shard_is_named(tmp_path):
  records = fake_records(tmp_path)
  shard = records.frames.shards[2]
  shard.write_bytes(shard.read_bytes()[:-1000])
  with pytest.raises(RecordError, match=shard.name):
    run(Records.open(records.path), stop=9)


@pytest.mark.parametrize("granularity", ["long", "cross"])
def test_leaving_out_damaged_clips_equals_a_set_without_them(tmp_path, granularity):
  path = fake_records(tmp_path / "all", number=6, max_shard_bytes=1).path
  for clip in (1, 4):
    shard = Records.open(path).frames.shards[clip]
    shard.write_bytes(shard.read_bytes()[:-1000])
  left = [clip for clip in fake_clips(number=6) if clip.name not in ("clip 1", "clip 4")]
  assemble(*stage(tmp_path / "staging", left), tmp_path / "few", CATEGORIES, {})
  view, few = open_intact(path), Records.open(tmp_path / "few")
  assert view.names == few.names and list(view.damaged) == ["clip 1", "clip 4"]
  options = {"companions": granularity, "decode_size": 32}
  for batch, expected in zip(run(view, **options), run(few, **options), strict=True):
    assert_equal(batch, expected)


def test_arguments_are_checked(records):
  for changes, message in (
    ({"host": 2, "num_hosts": 2}, r"host must be in \[0, 2\)"),
    ({"num_hosts": 2, "num_devices": 3}, "3 devices are not the same number on each of 2 hosts"),
    ({"items": np.asarray([21])}, "frame ids in"),
    ({"items": np.asarray([], int)}, "no frame to train on"),
    ({"num_times": 2}, "odd"),
    ({"num_times": -1}, "odd"),
    ({"num_times": 0, "sound": False}, "there must be sound"),
    ({"num_times": 0, "companions": "long"}, "no companions"),
    ({"boxes": np.zeros((20, 4))}, r"boxes are \(20, 4\), expected one for every frame, \(21, 4\)"),
    ({"boxes": np.tile([0, 0.5, 1, 0.5], (21, 1))}, r"box \[0.0, 0.5, 1.0, 0.5\] of frame 0 is not y0 < y1"),
    ({"boxes": np.tile([0, 0, 1, np.nan], (21, 1))}, "of frame 0"),
    ({"switch": np.ones((21, 1))}, "switch are"),
    ({"labels": np.ones(21)}, "labels are"),
  ):
    with pytest.raises(ValueError, match=message):
      run(records, **changes)


def noise_records(path, side):
  """Returns records of frames of noise: every pixel differs from its neighbours, and from 0."""
  generator = np.random.default_rng(5)
  (clip,) = fake_clips(side, number=1)
  noise = generator.integers(1, 256, (len(clip.frames), side, side, 3)).astype(np.uint8)
  assemble(*stage(path / "staging", [replace(clip, frames=[*map(encode_jpeg, noise)])]), path / "data", CATEGORIES, {})
  return Records.open(path / "data")


@pytest.mark.parametrize(("side", "decode_size", "scaled_to"), [(64, 64, 64), (75, 75, 20), (75, 30, 30), (64, 64, 3)])
def test_pixels_that_are_not_decoded_are_not_used(tmp_path, side, decode_size, scaled_to):
  """A step gets the same result from frames of which only boxes are decoded as from whole frames."""
  records = noise_records(tmp_path, side)
  generator = np.random.default_rng(6)
  corners = generator.uniform(0, 0.7, (records.total_frames, 2))
  ends = corners + generator.uniform(0.02, 0.3, corners.shape)
  boxes = np.concatenate([corners, ends], axis=1).astype(np.float32)
  boxes[:3] = [0, 0, 1, 1], [0.5, 0.25, 0.75, 0.5], [0, 0.9, 0.01, 1]  # all, on the decoder's blocks, in a corner
  options = {"boxes": boxes, "decode_size": decode_size, "stop": 8, "num_times": 1, "sound": False, "min_scale": 0.6}
  parts = []
  for batch, whole in zip(run(records, scaled_to=scaled_to, **options), run(records, **options), strict=True):
    assert_equal(batch | {"frames": 0}, whole | {"frames": 0})
    frames, all_pixels, box, flip = (
      rearrange(x, "b 1 1 ... -> b ...") if x.ndim > 1 else x
      for x in (batch["frames"], whole["frames"], batch["box"], batch["flip"])
    )
    np.testing.assert_array_equal(to_size(frames, scaled_to, box, flip), to_size(all_pixels, scaled_to, box, flip))
    decoded = frames.any(axis=-1)
    np.testing.assert_array_equal(frames[decoded], all_pixels[decoded])
    parts += decoded.mean(axis=(1, 2)).tolist()
  assert scaled_to == 3 or (min(parts) < 0.1 and np.mean(parts) < 0.6)


def test_a_part_of_a_batch_may_be_kept(records):
  """Memory of frames is used again, but not while anything refers to it."""
  expected = run(records, stop=30)
  kept = []
  for batch in begin(records, stop=30):
    kept.append(batch["frames"][5, 0, 1])
    del batch
  for frame, batch in zip(kept, expected, strict=True):
    np.testing.assert_array_equal(frame, batch["frames"][5, 0, 1])


@pytest.mark.parametrize("changes", [{"min_scale": 1.0}, {"scaled_to": 32}])
def test_a_frame_that_cannot_be_decoded_is_named(tmp_path, changes):
  """This holds whether the frame is decoded as a whole or in part."""
  (clip,) = fake_clips(64, number=1)
  frames = [clip.frames[0], clip.frames[1][: len(clip.frames[1]) * 2 // 3], *clip.frames[2:]]
  assemble(*stage(tmp_path / "staging", [replace(clip, frames=frames)]), tmp_path / "data", CATEGORIES, {})
  with pytest.raises(RecordError, match="cannot be decoded") as caught:
    run(Records.open(tmp_path / "data"), **changes)
  assert str(tmp_path / "data") in str(caught.value) and "\n" not in str(caught.value)


def test_reading_leaves_no_threads(records):
  """This holds for batches that are read to the end and for those that are left early."""

  def decoding():
    return {thread for thread in threading.enumerate() if thread.name.startswith("decoding")}

  before = decoding()
  run(records)
  early = begin(records, stop=50, min_scale=1.0)
  next(early)
  assert decoding() - before
  early.close()
  for thread in decoding() - before:
    thread.join(timeout=20)
  assert not decoding() - before
