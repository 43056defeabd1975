"""Tables of small values of every grid frame: written clip by clip, resumed, and refused when they do not fit."""

import numpy as np
import pytest

from helpers.fake_records import fake_records

pytest.importorskip("tensorflow")

from stajax.data.frame_table import FrameTableWriter, read_frame_table
from stajax.data.shards import RecordError


@pytest.fixture(scope="module")
def records(tmp_path_factory):
  return fake_records(tmp_path_factory.mktemp("records"))  # clips of 5, 1, 12 and 3 frames


def values_of(records, clip):
  """Returns boxes that say which clip and frame they belong to."""
  numbers = np.arange(records.num_frames[clip], dtype=np.float32)
  return np.stack([np.full_like(numbers, clip), numbers, numbers / 7, -numbers], axis=1)


def write_all(path, records, summary=None, order=(2, 0, 3, 1)):
  writer = FrameTableWriter(path, records)
  for clip in order:
    writer.write(clip, values_of(records, clip))
  writer.finish(summary or {})
  return path


def test_values_are_in_the_order_of_the_frame_ids(tmp_path, records):
  found = read_frame_table(write_all(tmp_path / "boxes", records), records)
  assert found.dtype == np.float32 and type(found) is np.ndarray
  for clip in range(records.num_clips):
    first = records.first_frame[clip]
    np.testing.assert_array_equal(found[first : first + records.num_frames[clip]], values_of(records, clip))
  assert [path.name for path in tmp_path.iterdir()] == ["boxes"]


@pytest.mark.parametrize("values", [np.uint8([0, 1, 1, 0, 1]), np.eye(5, dtype=np.float32), np.zeros((5, 2, 3), bool)])
def test_type_and_shape_are_kept(tmp_path, records, values):
  writer = FrameTableWriter(tmp_path / "x", records)
  for clip, count in enumerate(records.num_frames):
    writer.write(clip, np.resize(values, (count, *values.shape[1:])))
  writer.finish({})
  found = read_frame_table(tmp_path / "x", records)
  np.testing.assert_array_equal(found[:5], values)
  assert (found.dtype, found.shape) == (values.dtype, (21, *values.shape[1:]))


def test_an_interrupted_table_goes_on_and_ends_with_the_same_bytes(tmp_path, records):
  path = tmp_path / "boxes"
  writer = FrameTableWriter(path, records)
  writer.write(1, values_of(records, 1))
  writer.write(3, values_of(records, 3))
  staging = tmp_path / ".boxes.staging"
  (staging / "00000002.0123.partial").write_bytes(b"half of a clip that a killed process left")
  (tmp_path / ".boxes.partial").mkdir()
  (tmp_path / ".boxes.partial" / "values.npy").write_bytes(b"half of a table that a killed process left")
  before = {file: file.stat().st_mtime_ns for file in staging.glob("*.npz")}

  again = FrameTableWriter(path, records)
  assert [again.has(clip) for clip in range(4)] == [False, True, False, True]
  for clip in (0, 2):
    again.write(clip, values_of(records, clip))
  assert {file: file.stat().st_mtime_ns for file in before} == before
  again.finish({"by": "a test"})
  whole = write_all(tmp_path / "whole", records, {"by": "a test"})
  assert {file.name: file.read_bytes() for file in path.iterdir()} == {
    file.name: file.read_bytes() for file in whole.iterdir()
  }
  assert sorted(file.name for file in tmp_path.iterdir()) == ["boxes", "whole"]


def test_several_processes_share_the_work(tmp_path, records):
  writers = [FrameTableWriter(tmp_path / "boxes", records) for _ in range(2)]
  for clip in range(4):
    writers[clip % 2].write(clip, values_of(records, clip))
  writers[0].finish({})
  assert len(read_frame_table(tmp_path / "boxes", records)) == 21


def test_missing_clips_and_wrong_numbers_of_values_are_one_line(tmp_path, records):
  writer = FrameTableWriter(tmp_path / "boxes", records)
  writer.write(0, values_of(records, 0))
  writer.write(2, values_of(records, 2))
  with pytest.raises(RecordError, match=r"boxes: 2 clips have no values yet, the first is clip 1$"):
    writer.finish({})
  with pytest.raises(ValueError, match=r"^clip 3: 12 values for 3 frames$"):
    writer.write(3, values_of(records, 2))
  assert not (tmp_path / "boxes").exists()


def test_damaged_staged_values_are_one_line(tmp_path, records):
  writer = FrameTableWriter(tmp_path / "boxes", records)
  for clip in range(4):
    writer.write(clip, values_of(records, clip))
  file = tmp_path / ".boxes.staging" / "00000002.npz"
  file.write_bytes(file.read_bytes()[:-40])
  with pytest.raises(RecordError, match="delete the file and run again") as error:
    writer.finish({})
  assert str(error.value).startswith(str(file)) and not (tmp_path / "boxes").exists()
  file.unlink()
  writer.write(2, values_of(records, 2))
  writer.finish({})
  assert len(read_frame_table(tmp_path / "boxes", records)) == 21


def test_a_table_of_other_records_is_refused(tmp_path, records):
  others = fake_records(tmp_path / "others", number=5)
  path = write_all(tmp_path / "boxes", records)
  with pytest.raises(RecordError, match="other records") as error:
    read_frame_table(path, others)
  assert str(error.value).startswith(f"{path}: ") and str(others.path) in str(error.value)


def header(descr, shape):
  text = repr({"descr": descr, "fortran_order": False, "shape": shape}).ljust(117) + "\n"
  return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
  ("file", "content", "message"),
  [
    ("values.npy", None, "No such file"),
    ("values.npy", b"", "not a table of frames"),
    ("values.npy", b"text", "not a table of frames"),
    ("values.npy", -1, "not a table of frames"),
    ("values.npy", header("|O", (21,)) + b"x" * 168, "not a table of frames"),
    ("values.npy", header("<f8", (2**40, 2**10)) + bytes(64), "not a table of frames"),
    ("values.npy", header("<f8", ()) + bytes(8), "expected 21 values"),
    ("values.npy", header("<f8", (20,)) + bytes(160), "expected 21 values"),
    ("summary.json", None, "No such file"),
    ("summary.json", b"{", "not a table of frames"),
    ("summary.json", b"\xff\xfe", "not a table of frames"),
    ("summary.json", b"[]", "other records"),
    ("summary.json", b"{}", "other records"),
  ],
)
def test_a_damaged_table_is_one_line(tmp_path, records, file, content, message):
  path = write_all(tmp_path / "boxes", records)
  damaged = path / file
  if content is None:
    damaged.unlink()
  else:
    damaged.write_bytes(damaged.read_bytes()[:content] if isinstance(content, int) else content)
  with pytest.raises(RecordError, match=message) as error:
    read_frame_table(path, records)
  assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_table_is_one_line(tmp_path, records):
  with pytest.raises(RecordError, match="not a table of frames"):
    read_frame_table(tmp_path / "nowhere", records)
