"""What was prepared is a data set of TensorFlow Datasets that can be named, with parts as splits."""

import json

import numpy as np
import pytest

from helpers.fake_records import CATEGORIES, fake_clips, stage

tfds = pytest.importorskip("tensorflow_datasets")

import stajax.data.tfds_builders  # noqa: E402, F401
from stajax.data.records import Records  # noqa: E402
from stajax.data.shards import RecordError  # noqa: E402
from stajax.prepare.assembly import assemble  # noqa: E402


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """Returns a folder as `stajax prepare ave` leaves it: two parts, and one that was stopped."""
  folder = tmp_path_factory.mktemp("ave")
  for part, number in (("train", 4), ("test", 2)):
    staging, keys = stage(folder / f"{part}.staging", fake_clips(number=number))
    summary = {"source": "ave", "provenance": "ave", "skipped": []}
    assemble(staging, keys, folder / part, CATEGORIES, summary, max_shard_bytes=6000)
  (folder / ".val.partial/clips").mkdir(parents=True)
  (folder / ".val.partial/summary.json").write_text("{}")
  return folder


def test_load_gives_what_records_have(prepared):
  sets = tfds.load("stajax_ave", data_dir=prepared)
  assert set(sets) == {"train", "test"}
  for part, dataset in sets.items():
    records, rows = Records.open(prepared / part), list(tfds.as_numpy(dataset))
    assert [row["name"].decode() for row in rows] == list(records.names)
    assert [row["num_frames"] for row in rows] == records.num_frames.tolist()
    assert [set(row["tags"]) for row in rows] == [set(np.flatnonzero(tags)) for tags in records.tags]


def test_frames_and_sounds_are_configurations(prepared):
  records = Records.open(prepared / "train")
  frames, info = tfds.load("stajax_ave/frames", split="train", data_dir=prepared, with_info=True)
  images = np.array([row["image"] for row in tfds.as_numpy(frames)], int)
  # TensorFlow decodes JPEG by another transform than stajax, which rounds differently.
  np.testing.assert_allclose(images, np.concatenate([records.clip_frames(clip) for clip in range(4)]), atol=6)
  assert info.splits["train"].num_examples == records.total_frames and len(records.frames.shards) > 1
  sounds = tfds.load("stajax_ave/sounds", split="train", data_dir=prepared)
  columns = [row["columns"] for row in tfds.as_numpy(sounds)]
  np.testing.assert_array_equal(columns, records.sound_columns(np.arange(len(records.sounds))))


def test_slices_batches_shuffling_and_decoders(prepared):
  def keys(split, **options):
    loaded = tfds.load("stajax_ave/frames", split=split, data_dir=prepared, **options)
    return [key for row in tfds.as_numpy(loaded) for key in np.ravel(row["key"]).tolist()]

  everything = keys("train")
  assert keys("train[:50%]") + keys("train[50%:]") == everything
  assert keys("train", batch_size=4) == everything
  shuffled = keys("train", shuffle_files=True, read_config=tfds.ReadConfig(shuffle_seed=1))
  assert shuffled != everything and sorted(shuffled) == sorted(everything)
  decoders = {"image": tfds.decode.SkipDecoding()}
  jpegs = tfds.load("stajax_ave/frames", split="test", data_dir=prepared, decoders=decoders)
  stored = [jpeg for clip in fake_clips(number=2) for jpeg in clip.frames]
  assert [row["image"] for row in tfds.as_numpy(jpegs)] == stored


def test_random_access_and_one_part(prepared):
  source = tfds.data_source("stajax_ave/frames", split="test", data_dir=prepared)
  assert source[3]["key"] == b"clip 0/000003"
  assert list(tfds.load("stajax_ave", data_dir=prepared / "test")) == ["test"]
  from_folder = tfds.builder_from_directory(prepared / "test/frames/1.0.0").as_data_source("data")
  np.testing.assert_array_equal(from_folder[3]["image"], source[3]["image"])


@pytest.mark.parametrize("source", ["ave", "vggsound", "folders", "csv", "stavis", "dhf1k", "synthetic"])
def test_every_source_has_a_name(source):
  assert f"stajax_{source}" in tfds.list_builders()


def test_wrong_folders_are_one_line(prepared, tmp_path):
  with pytest.raises(RecordError, match=r"records of the source ave, expected vggsound"):
    tfds.builder("stajax_vggsound", data_dir=prepared)
  with pytest.raises(RecordError, match=r"no records .*stajax prepare ave"):
    tfds.builder("stajax_ave", data_dir=tmp_path / "absent")
  with pytest.raises(RecordError, match=r"expected data_dir"):
    tfds.builder("stajax_ave")
  (tmp_path / "train/clips").mkdir(parents=True)
  (tmp_path / "train/summary.json").write_text(json.dumps({"no": "source"}))
  with pytest.raises(RecordError, match=r"train/summary.json: not the summary"):
    tfds.builder("stajax_ave", data_dir=tmp_path)
