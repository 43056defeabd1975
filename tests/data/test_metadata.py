"""Metadata of record sets, which may come from anybody, lead nowhere else and are refused in one line."""

import json

import numpy as np
import pytest

pytest.importorskip("tensorflow_datasets")

import tensorflow_datasets as tfds

from stajax.data.shards import VERSION, RecordError, ShardReader, ShardWriter

DEEP = "[" * 100_000


@pytest.fixture
def folder(tmp_path):
  writer = ShardWriter(tmp_path / "set", "things", {"key": tfds.features.Text(), "number": np.int64})
  for number in range(5):
    writer.write({"key": f"thing {number}", "number": number})
  writer.close("a test")
  return tmp_path / "set"


def edit(folder, file, change):
  path = folder / VERSION / file
  if isinstance(change, str):
    path.write_text(change)
    return path
  about = json.loads(path.read_text())
  change(about)
  path.write_text(json.dumps(about))
  return path


def split(**changes):
  return lambda about: about["splits"][0].update(changes)


def feature(**changes):
  return lambda about: about["featuresDict"]["features"]["key"].update(changes)


def test_what_was_written_is_read(folder):
  reader = ShardReader(folder)
  assert len(reader) == 5 and len(reader.read([4, 0])) == 2


@pytest.mark.parametrize(
  ("file", "change", "message"),
  [
    ("dataset_info.json", split(filepathTemplate="/etc/passwd"), "filepathTemplate is '/etc/passwd'"),
    ("dataset_info.json", split(filepathTemplate="../{DATASET}-{SPLIT}.x-{SHARD_X_OF_Y}"), "filepathTemplate is '../"),
    ("dataset_info.json", split(shardLengths=["-1"]), "shardLengths"),
    ("dataset_info.json", split(shardLengths=[]), "shardLengths"),
    ("dataset_info.json", split(shardLengths=[1.5]), "shardLengths"),
    ("dataset_info.json", split(shardLengths="5"), "shardLengths"),
    ("dataset_info.json", split(shardLengths=["9" * 13] * 9), "more than"),
    ("dataset_info.json", split(name="../data"), "the name of a split is '../data'"),
    ("dataset_info.json", lambda about: about.update(name="../../things"), "name is '../../things'"),
    ("dataset_info.json", lambda about: about.update(fileFormat="tfrecord"), "fileFormat is 'tfrecord'"),
    ("dataset_info.json", lambda about: about.update(splits=7), "has no splits"),
    ("dataset_info.json", DEEP, "not JSON"),
    ("dataset_info.json", "7", "found int"),
    ("dataset_info.json", "", "not JSON"),
    ("features.json", feature(pythonClassName="antigravity.Feature"), "a feature of type 'antigravity.Feature'"),
    ("features.json", lambda about: about.update(type="this.that"), "a feature of type 'this.that'"),
    ("features.json", lambda about: about.update(numClasses="1" * 20), "numClasses"),
    ("features.json", DEEP, "not JSON"),
  ],
)
def test_what_leads_out_of_the_folder_is_refused(folder, file, change, message):
  path = edit(folder, file, change)
  with pytest.raises(RecordError) as error:
    ShardReader(folder)
  assert str(error.value).startswith(f"{path}: ") and message in str(error.value) and "\n" not in str(error.value)
