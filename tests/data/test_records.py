"""Records and map sets: they are read as they were written, also by TensorFlow Datasets, and damage is named."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from helpers.fake_records import CATEGORIES, fake_clips, fake_records, stage

tfds = pytest.importorskip("tensorflow_datasets")

from stajax.data import damage, shards  # noqa: E402
from stajax.data.damage import describe_damage, open_intact  # noqa: E402
from stajax.data.map_set import MapSet, MapWriter  # noqa: E402
from stajax.data.protos import Encoder  # noqa: E402
from stajax.data.records import Records  # noqa: E402
from stajax.data.schema import INTEGERS, set_features  # noqa: E402
from stajax.data.shards import RecordError  # noqa: E402
from stajax.prepare.assembly import assemble  # noqa: E402


def pixels(jpeg):
  return np.asarray(Image.open(io.BytesIO(jpeg)))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
  return fake_records(tmp_path_factory.mktemp("records"))


def test_tfds_reads_what_was_staged(records):
  sets = {name: tfds.builder_from_directory(records.path / name / "1.0.0") for name in ("clips", "frames", "sounds")}
  clips, frames, sounds = (builder.as_data_source("data") for builder in sets.values())
  assert sets["clips"].info.features["tags"].feature.names == list(CATEGORIES)
  frame = sound = 0
  for row, clip in zip(clips, fake_clips(), strict=True):
    assert row["name"].decode() == clip.name
    assert tuple(CATEGORIES[tag] for tag in row["tags"]) == clip.tags
    assert tuple(flag.decode() for flag in row["flags"]) == clip.flags
    assert (row["rate"], row["duration"]) == (clip.rate, clip.duration)  # to the last bit
    assert (row["width"], row["height"], row["has_sound"]) == (clip.width, clip.height, clip.has_sound)
    assert (row["first_frame"], row["first_sound"], row["num_columns"]) == (frame, sound, clip.columns.shape[1])
    for i, jpeg in enumerate(clip.frames):
      assert frames[frame]["key"].decode() == f"{clip.name}/{i:06d}"
      np.testing.assert_array_equal(frames[frame]["image"], pixels(jpeg))
      frame += 1
    pieces = [sounds[sound + i]["columns"] for i in range(row["num_sounds"])]
    if pieces:
      joined = np.concatenate(pieces, axis=1)
      assert joined.dtype == np.float16 and joined.shape[1] % 100 == 0
      np.testing.assert_array_equal(joined[:, : row["num_columns"]], clip.columns)
      assert not joined[:, row["num_columns"] :].any()
    sound += row["num_sounds"]
  assert (frame, sound) == (len(frames), len(sounds))


def test_records_equal_those_of_tfds():
  features = {
    **set_features("clips", 32, CATEGORIES),
    "image": tfds.features.Image(shape=(4, 4, 1), dtype=np.uint8),
    "other": tfds.features.Tensor(shape=(3,), dtype=np.float32),
  }
  encode = Encoder(features)
  serializer = tfds.core.example_serializer.ExampleSerializer(encode.features.get_serialized_info())
  example = {
    "name": "née " + "x" * 200, "tags": ["horn", "bell"], "flags": ["a", "ß"], "rate": 25 / 3, "duration": 0.1,
    **dict(zip(INTEGERS, (0, 1, 127, 128, -1, 2**40, -(2**63)), strict=True)), "sound_mean": -8.25, "sound_std": 1e-30,
    "has_sound": True, "image": np.arange(16, dtype=np.uint8).reshape(4, 4, 1), "other": np.float32([1, -2, 3]),
  }  # fmt: skip
  for changes in ({}, {"tags": [], "flags": [], "name": "", "has_sound": False}):
    proto = serializer.get_tf_example(encode.features.encode_example(example | changes))
    assert encode(example | changes) == proto.SerializeToString(deterministic=True)


def test_records_give_clips_back(records):
  assert len(records.frames.shards) > 2 and len(records.sounds.shards) > 2
  assert (records.side, records.provenance, records.num_clips) == (32, "synthetic", 4)
  np.testing.assert_array_equal(records.tags, [[1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]])
  np.testing.assert_array_equal(records.clip_of_frame, np.repeat([0, 1, 2, 3], [5, 1, 12, 3]))
  assert records.summary["counts"]["clips_without_sound"] == 1
  for i, clip in enumerate(fake_clips()):
    assert (records.names[i], records.flags[i], records.rate[i]) == (clip.name, clip.flags, clip.rate)
    np.testing.assert_array_equal(records.clip_frames(i), [pixels(jpeg) for jpeg in clip.frames])
    np.testing.assert_array_equal(records.clip_columns(i), clip.columns)
  everything = records.frames.read(range(records.total_frames))
  ids = np.random.default_rng(0).integers(0, records.total_frames, 50)
  assert records.frames.read(ids) == [everything[i] for i in ids]
  with pytest.raises(IndexError):
    records.frames.read([records.total_frames])


@pytest.mark.parametrize(("most", "calls"), [(60, [[3], [0], [1]]), (-1, [[3], [0, 1]])])
def test_a_list_is_read_one_by_one_or_at_once(monkeypatch, most, calls):
  """The records are the same, whether they come from memory or have to be waited for."""

  class Reader:
    def __init__(self):
      self.calls = []

    def read(self, positions):
      self.calls.append(positions)
      return [bytes([position]) for position in positions]

  monkeypatch.setattr(shards, "_SECONDS_FROM_MEMORY", most)
  reader = Reader()
  assert shards._read_records(reader, [3, 0, 1]) == [b"\3", b"\0", b"\1"] and reader.calls == calls
  assert shards._read_records(reader, [2]) == [b"\2"] and shards._read_records(reader, []) == []


@pytest.mark.parametrize("damage", ["empty", "half", "flip", "gone"])
def test_damaged_shard_is_named(tmp_path, damage):
  records = fake_records(tmp_path)
  shard = records.frames.shards[1]
  data = bytearray(shard.read_bytes())
  if damage == "flip":
    data[data.index(b"\xff\xd8") + 100] ^= 4
  if damage == "gone":
    shard.unlink()
  else:
    shard.write_bytes({"empty": b"", "half": data[: len(data) // 2], "flip": data}[damage])
  with pytest.raises(RecordError, match=shard.name):
    Records.open(records.path).frames.read(range(records.total_frames))


def damage_shard(shard, how):
  """Cuts a shard short, deletes it, or flips a bit in the middle of its first record."""
  if how == "gone":
    return shard.unlink()
  data = bytearray(shard.read_bytes())
  data[200] ^= 4  # under 100 bytes of headers
  shard.write_bytes(data if how == "flip" else data[: len(data) // 2])


@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_damaged_clips_are_left_out_by_choice(tmp_path, monkeypatch, how):
  """Of six clips, the first two share a damaged shard of frames, and the fourth has one of sounds."""
  whole = fake_records(tmp_path, number=6, max_shard_bytes=8000)
  contents = [(whole.clip_frames(clip), whole.clip_columns(clip)) for clip in range(6)]
  assert open_intact(whole.path).damaged == {}
  damage_shard(whole.frames.shards[0], how)
  damage_shard(whole.sounds.shards[2], how)
  records = open_intact(whole.path)
  lost = [0, 3] if how == "flip" else [0, 1, 3]
  kept = [clip for clip in range(6) if clip not in lost]
  assert list(records.damaged) == [whole.names[clip] for clip in lost]
  assert whole.frames.shards[0].name in records.damaged["clip 0"]
  assert whole.sounds.shards[2].name in records.damaged["clip 3"]
  assert f"{len(lost)} of 6 clips are left out" in describe_damage(records)
  assert records.names == tuple(f"clip {clip}" for clip in kept)
  assert records.total_frames == len(records.frames) == sum(len(contents[clip][0]) for clip in kept)
  np.testing.assert_array_equal(records.tags, whole.tags[kept])
  for i, clip in enumerate(kept):
    np.testing.assert_array_equal(records.clip_frames(i), contents[clip][0])
    np.testing.assert_array_equal(records.clip_columns(i), contents[clip][1])
  with pytest.raises(IndexError):
    records.frames.read([records.total_frames])
  with monkeypatch.context() as patch:  # what has been found is not looked for again
    patch.setattr(damage, "ThreadPoolExecutor", None)
    assert open_intact(whole.path).damaged == records.damaged
  if how == "gone":
    with pytest.raises(RecordError, match="shard missing"):
      Records.open(whole.path)
  else:
    with pytest.raises(RecordError, match=whole.frames.shards[0].name):
      Records.open(whole.path).clip_frames(0)


def test_damaged_tables_and_sets_without_intact_clips_are_refused(tmp_path, monkeypatch):
  path = fake_records(tmp_path).path
  monkeypatch.setattr(damage, "write_json", lambda *_, **__: (_ for _ in ()).throw(OSError("read-only")))
  assert open_intact(path).num_clips == 4 and not (path / damage.FILE).exists()
  for shard in Records.open(path).frames.shards:
    damage_shard(shard, "cut")
  with pytest.raises(RecordError, match="records of every clip are damaged"):
    open_intact(path)
  damage_shard(next((path / "clips" / "1.0.0").glob("*array_record*")), "flip")
  with pytest.raises(RecordError, match="clips-data"):
    open_intact(path)


def test_sets_that_do_not_belong_together_are_refused(tmp_path):
  with pytest.raises(RecordError, match="not a prepared data set"):
    Records.open(tmp_path)
  path = fake_records(tmp_path).path
  summary = (path / "summary.json").read_text()
  (path / "summary.json").write_text(summary[:-5])
  with pytest.raises(RecordError, match=r"summary\.json: not JSON"):
    Records.open(path)
  (path / "summary.json").write_text(summary)
  staging, keys = stage(tmp_path / "other", fake_clips()[:2])
  assemble(staging, keys, tmp_path / "few", CATEGORIES, json.loads(summary))
  (path / "frames").rename(path / "gone")
  with pytest.raises(RecordError, match="frames"):
    Records.open(path)
  (tmp_path / "few" / "frames").rename(path / "frames")
  with pytest.raises(RecordError, match="6 records, but the clips name 21"):
    Records.open(path)


def write_maps(writer, records, clips):
  """Writes maps: that of frame id i has the value i everywhere and the weight i / 2."""
  for clip in clips:
    ids = records.first_frame[clip] + np.arange(records.num_frames[clip])
    writer.write(clip, np.broadcast_to(ids[:, None, None], (len(ids), 6, 8)).astype(np.uint8), ids / 2)


def test_maps_are_read_by_frame_id(tmp_path, records):
  path = tmp_path / "scam"
  writer = MapWriter(path, records)
  write_maps(writer, records, [2, 0])
  with pytest.raises(ValueError, match="2 clips have no maps yet, the first is clip 1"):
    writer.finish({})
  with pytest.raises(ValueError, match="clip 1"):
    writer.write(1, np.zeros((2, 6, 8), np.uint8), np.zeros(2))
  writer = MapWriter(path, records)  # as after an interruption
  assert [writer.has(clip) for clip in range(4)] == [True, False, True, False]
  write_maps(writer, records, [1, 3])
  writer.finish({"stage": "scam"}, max_shard_bytes=500)
  maps = MapSet.open(path, records)
  assert len(maps.maps.shards) > 2 and maps.size == (6, 8) and maps.summary["stage"] == "scam"
  ids = np.arange(records.total_frames)
  np.testing.assert_array_equal(maps.weights, ids / 2)
  np.testing.assert_array_equal(maps.read(ids[::-1]), np.broadcast_to(ids[::-1, None, None], (21, 6, 8)))
  np.testing.assert_array_equal(maps.clip_maps(records, 2)[0][:, 0, 0], ids[6:18])
  source = tfds.builder_from_directory(path / "1.0.0").as_data_source("data")
  frames = tfds.builder_from_directory(records.path / "frames" / "1.0.0").as_data_source("data")
  assert [row["key"] for row in source] == [row["key"] for row in frames]
  assert (source[7]["map"].shape, source[7]["map"].max(), source[7]["weight"]) == ((6, 8, 1), 7, 3.5)
  assert not list(tmp_path.glob(".*"))


def test_map_set_of_other_records_is_refused(tmp_path, records):
  writer = MapWriter(tmp_path / "scam", records)
  write_maps(writer, records, range(4))
  writer.finish({})
  staging, keys = stage(tmp_path / "staging", fake_clips()[::-1])
  assemble(staging, keys, tmp_path / "other", CATEGORIES, {})
  with pytest.raises(RecordError, match="maps of other records"):
    MapSet.open(tmp_path / "scam", Records.open(tmp_path / "other"))
