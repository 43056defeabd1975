"""The source `vggsound`: its tables in both forms, their known problems, and records made from them."""

import csv
from pathlib import Path

import pytest

from helpers.media_files import clicks, ramp, write_video
from stajax.prepare.__main__ import main
from stajax.prepare.layouts.vggsound import read_vggsound
from stajax.prepare.listing import Item, ListingError, Remark

ROWS = [
  ("---g-f_I2yQ", 1, "people marching", "test"),
  ("--0PQM4-hqg", 30, "waterfall burbling", "train"),
  ("5AjnVLjvJQ0", 0, "female speech, woman speaking", "train"),
  ("zzzzzzzzzzz", 123456, "people marching", "train"),
]
OTHERS = {"airplane", "Zonkey braying", *(f"label {number}" for number in range(304))}
LABELS = sorted({label for _, _, label, _ in ROWS} | OTHERS)


def write_rows(path: Path, rows) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("w", newline="") as file:
    csv.writer(file).writerows(rows)


def make_vggsound(root: Path, rows=ROWS, folder: str = "video", stat: bool = True) -> Path:
  """Writes a table and empty media files, as download scripts leave them."""
  write_rows(root / "vggsound.csv", rows)
  if stat:
    write_rows(root / "stat.csv", [(label, 7, "group, of it") for label in reversed(LABELS)])
  (root / folder).mkdir(parents=True, exist_ok=True)
  for video, start, *_ in rows:
    (root / folder / f"{video}_{start:06d}.mp4").touch()
  return root


def test_rows_become_clips(tmp_path):
  root = make_vggsound(tmp_path)
  assert '"female speech, woman speaking"' in (root / "vggsound.csv").read_text()
  listing = read_vggsound(root)
  assert (listing.source, listing.categories, len(LABELS)) == ("vggsound", tuple(LABELS), 309)
  assert listing.categories.index("Zonkey braying") == 0  # sorted by code point, as in Python
  assert not listing.remarks
  path = root / "video" / "---g-f_I2yQ_000001.mp4"
  assert listing.items[0] == Item("---g-f_I2yQ_000001", path, ("people marching",), "test")
  assert [(item.name, item.tags) for item in listing.items[1:]] == [
    ("--0PQM4-hqg_000030", ("waterfall burbling",)),
    ("5AjnVLjvJQ0_000000", ("female speech, woman speaking",)),
    ("zzzzzzzzzzz_123456", ("people marching",)),
  ]


def test_without_stat_csv_the_categories_come_from_the_rows(tmp_path):
  listing = read_vggsound(make_vggsound(tmp_path, stat=False))
  assert listing.categories == ("female speech, woman speaking", "people marching", "waterfall burbling")
  assert [(remark.kind, remark.file) for remark in listing.remarks] == [
    ("missing", "stat.csv"), ("doubtful", "vggsound.csv")
  ]  # fmt: skip
  assert "has 3 labels, VGGSound has 309" in listing.remarks[1].reason
  write_rows(tmp_path / "data" / "stat.csv", [("label", "count", "group"), *[(label, 1, "x") for label in LABELS]])
  assert read_vggsound(tmp_path).categories == tuple(LABELS)


@pytest.mark.parametrize("folder", [".", "videos", "train/part 1", "test"])
def test_files_are_found_in_any_folder(tmp_path, folder):
  listing = read_vggsound(make_vggsound(tmp_path, folder=folder))
  assert len(listing.items) == 4 and not listing.remarks


def test_files_with_other_names_and_suffixes_are_found(tmp_path):
  root = make_vggsound(tmp_path)
  names = ["--0PQM4-hqg_30.webm", "5AjnVLjvJQ0_0_10000.mkv", "zzzzzzzzzzz_123456.000_123466.000.mp4"]
  for (video, start, *_), name in zip(ROWS[1:], names):
    (root / "video" / f"{video}_{start:06d}.mp4").rename(root / "video" / name)
  (root / "video" / "---g-f_I2yQ_000001.mkv").touch()
  listing = read_vggsound(root)
  assert [item.path.name for item in listing.items] == ["---g-f_I2yQ_000001.mp4", *names]
  assert listing.remarks == (
    Remark("spare", "video/---g-f_I2yQ_000001.mkv", "video/---g-f_I2yQ_000001.mp4 is used instead"),
  )


def test_missing_spare_and_repeated_clips_are_named(tmp_path):
  repeated = [ROWS[0], (*ROWS[1][:2], "airplane", "train"), (*ROWS[2][:3], "test")]
  repeated.append(("gone_______", 7, "airplane", "test"))
  root = make_vggsound(tmp_path, [*ROWS, *repeated])
  (root / "video" / "gone________000007.mp4").rename(root / "video" / "nobody_____000007.mp4")
  listing = read_vggsound(root)
  assert {item.name: (item.part, item.tags) for item in listing.items} == {
    "---g-f_I2yQ_000001": ("test", ("people marching",)),
    "--0PQM4-hqg_000030": ("train", ("waterfall burbling", "airplane")),
    "5AjnVLjvJQ0_000000": ("test", ("female speech, woman speaking",)),
    "zzzzzzzzzzz_123456": ("train", ("people marching",)),
  }
  assert [(remark.kind, remark.file) for remark in listing.remarks] == [
    ("dropped", "vggsound.csv, line 5"),
    ("doubtful", "vggsound.csv, line 6"),
    ("doubtful", "vggsound.csv, line 7"),
    ("missing", "gone________000007.mp4"),
    ("spare", "video/nobody_____000007.mp4"),
  ]
  assert "line 8" in listing.remarks[3].reason and "in test only, never in train" in listing.remarks[2].reason


def test_tables_in_the_form_of_the_repository_are_read(tmp_path):
  root = make_vggsound(tmp_path)
  (root / "vggsound.csv").unlink()
  write_rows(root / "data" / "test.csv", [("---g-f_I2yQ_000001.mp4", "people marching")])
  listing = read_vggsound(root)
  assert [(item.name, item.part) for item in listing.items] == [("---g-f_I2yQ_000001", "test")]
  assert [remark.kind for remark in listing.remarks] == ["spare"] * 3
  write_rows(root / "data" / "train.csv", [("--0PQM4-hqg_000030", "waterfall burbling")])
  assert [item.part for item in read_vggsound(root).items] == ["test", "train"]
  (root / "data" / "test.csv").rename(root / "other.csv")
  with pytest.raises(ListingError, match=r"other\.csv, line 1: has no split, expected a file named train\.csv or test"):
    read_vggsound(root, root / "other.csv")


def test_table_and_videos_may_lie_elsewhere(tmp_path):
  root = make_vggsound(tmp_path / "root")
  (root / "vggsound.csv").rename(tmp_path / "table.csv")
  (root / "video").rename(tmp_path / "videos")
  with pytest.raises(ListingError, match=r"has neither vggsound\.csv nor train\.csv or test\.csv"):
    read_vggsound(root)
  listing = read_vggsound(root, tmp_path / "table.csv", tmp_path / "videos")
  assert len(listing.items) == 4 and not listing.remarks
  for arguments in ((tmp_path / "no",), (root, tmp_path / "table.csv", tmp_path / "no")):
    with pytest.raises(ListingError, match="no: no such folder, expected"):
      read_vggsound(*arguments)


@pytest.mark.parametrize(
  "row, message",
  [
    (("abc", 30, "people marchin", "test"), "'people marchin' is not a category, the nearest is 'people marching'"),
    (("../../abc", 30, "airplane", "test"), "is not the name of a file"),
    (("/abc", 30, "airplane", "test"), "is not the name of a file"),
    (("abc", 30, "airplane", "validation"), "split 'validation', expected train or test"),
    (("abc", "half past", "airplane", "test"), "expected YouTubeID,start_seconds,label,train|test"),
    (("abc", 30, "female speech", " woman speaking", "test"), "expected YouTubeID,start_seconds,label,train|test"),
    (("abc", 30), "expected YouTubeID"),
  ],
)
def test_bad_rows_are_refused_in_one_line(tmp_path, capsys, row, message):
  root = make_vggsound(tmp_path)
  write_rows(root / "vggsound.csv", [*ROWS, row])
  assert main(["vggsound", "--root", str(root), "--check"]) == 2
  error = capsys.readouterr().err
  assert error.count("\n") == 1 and message in error and f"{root / 'vggsound.csv'}, line 5: " in error


def test_a_header_line_is_skipped_and_tables_without_rows_are_refused(tmp_path):
  root = make_vggsound(tmp_path)
  write_rows(root / "vggsound.csv", [("youtube_id", "start", "label", "split"), *ROWS])
  assert len(read_vggsound(root).items) == 4
  (root / "vggsound.csv").write_text('"\n' + "x" * 200_000)
  with pytest.raises(ListingError, match=r"vggsound\.csv, line 2: field larger than field limit"):
    read_vggsound(root)
  (root / "stat.csv").write_text("")
  with pytest.raises(ListingError, match=r"stat\.csv: has no rows"):
    read_vggsound(root)


def test_a_tree_becomes_records(tmp_path):
  tfds = pytest.importorskip("tensorflow_datasets")
  pytest.importorskip("pebble")
  from stajax.data.records import Records

  root = make_vggsound(tmp_path / "root")
  for name in ("---g-f_I2yQ_000001", "--0PQM4-hqg_000030", "5AjnVLjvJQ0_000000"):
    write_video(root / "video" / f"{name}.mp4", ramp(10), sound=clicks(1, [0.5]))
  (root / "video" / "zzzzzzzzzzz_123456.mp4").unlink()
  command = ["vggsound", "--root", str(root), "--side", "32", "--processes", "1"]
  assert main([*command, "--check"]) == 1  # because a file is missing
  assert main([*command, "--out", str(tmp_path / "out")]) == 0
  train = Records.open(tmp_path / "out" / "train")
  assert train.names == ("--0PQM4-hqg_000030", "5AjnVLjvJQ0_000000") and train.categories == tuple(LABELS)
  labels = [LABELS.index(label) for label in ("waterfall burbling", "female speech, woman speaking")]
  assert train.tags.argmax(1).tolist() == labels and train.has_sound.all() and train.num_frames.tolist() == [8, 8]
  builder = tfds.builder_from_directory(next((tmp_path / "out" / "test" / "clips").iterdir()))
  (clip,) = builder.as_data_source(split="data")
  assert clip["name"].decode() == "---g-f_I2yQ_000001" and list(clip["tags"]) == [LABELS.index("people marching")]
