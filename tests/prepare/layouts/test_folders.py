"""The sources `folders` and `csv`: which clips they list, what they remark, and paths that leave their root."""

import os
from pathlib import Path, PurePosixPath

import pytest

from stajax.prepare.__main__ import main
from stajax.prepare.layouts.folders import read_folders
from stajax.prepare.layouts.names import name_clips
from stajax.prepare.layouts.table import read_table
from stajax.prepare.listing import Item, ListingError, Remark


def files(root: Path, *names: str) -> Path:
  """Files that hold their own names: nothing is decoded here."""
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(name)
  return root


def test_folders_are_tags(tmp_path):
  root = files(
    tmp_path / "root", "horn/b.MP4", "horn/deep/er/a.webm", "church bell/x.mkv", "church bell/.x.mp4", ".git/a.mp4",
    "horn/.hidden/a.mp4", "church bell/x.avi", "horn/readme.txt", "list.csv", "empty/notes.md",
  )  # fmt: skip
  listing = read_folders(root)
  assert (listing.source, listing.categories, listing.parts) == ("folders", ("church bell", "horn"), ("train",))
  assert listing.items == (
    Item("church_bell_x.avi", root / "church bell" / "x.avi", ("church bell",)),
    Item("church_bell_x.mkv", root / "church bell" / "x.mkv", ("church bell",)),
    Item("horn_b", root / "horn" / "b.MP4", ("horn",)),
    Item("horn_deep_er_a", root / "horn" / "deep" / "er" / "a.webm", ("horn",)),
  )
  assert listing.remarks == (
    Remark("dropped", "empty", "no media file is in this folder: no category"),
    Remark("spare", "empty/notes.md", "not named as a media file"),
    Remark("spare", "horn/readme.txt", "not named as a media file"),
    Remark("spare", "list.csv", "lies in no folder of a tag"),
  )


def test_doubtful_folders(tmp_path):
  listing = read_folders(files(tmp_path / "a", "dog/same.mp4", "cat/same.mp4", "cat/other.mp4"))
  (remark,) = listing.remarks
  assert (remark.kind, remark.file) == ("doubtful", "dog/same.mp4") and "cat/same.mp4" in remark.reason
  (remark,) = read_folders(files(tmp_path / "b", "train/1.mp4", "val/2.mp4")).remarks
  assert remark.kind == "doubtful" and "the tags are train, val" in remark.reason


def test_links_do_not_lead_out_of_the_folder(tmp_path):
  files(tmp_path, "secret/s.mp4", "root/dog/a.mp4")
  root = tmp_path / "root"
  (root / "dog" / "s.mp4").symlink_to(tmp_path / "secret" / "s.mp4")
  (root / "dog" / "inside.mp4").symlink_to(root / "dog" / "a.mp4")
  (root / "dog" / "broken.mp4").symlink_to(root / "dog" / "gone.mp4")
  (root / "dog" / "linked").symlink_to(tmp_path / "secret")
  (root / "cat").symlink_to(tmp_path / "secret")
  listing = read_folders(root)
  assert [item.name for item in listing.items] == ["dog_a", "dog_inside"]
  assert Remark("spare", "dog/s.mp4", "a link out of the folder") in listing.remarks
  assert Remark("spare", "cat", "a link out of the folder") in listing.remarks
  assert Remark("missing", "dog/broken.mp4", "a broken link, or no regular file") in listing.remarks


@pytest.mark.parametrize("names, message", [((), "no such folder"), (("a.mp4", "tag/a.txt"), "no media file in its")])
def test_folders_without_clips_are_refused(tmp_path, names, message):
  with pytest.raises(ListingError, match=message):
    read_folders(files(tmp_path / "root", *names))


def test_names_of_files_need_not_be_text(tmp_path):
  root = files(tmp_path / "root", "dog/a.mp4")
  for name in (b"dog/\xff.mp4", b"dog/\xfe.txt"):
    try:
      (root / os.fsdecode(name)).touch()
    except OSError:
      pytest.skip("this file system takes UTF-8 only")
  listing = read_folders(root)
  assert [item.name for item in listing.items] == ["dog__", "dog_a"]
  assert listing.remarks[0].file == "dog/\\udcfe.txt"
  (root / os.fsdecode(b"\xff")).mkdir()
  with pytest.raises(ListingError, match="is not UTF-8, expected a tag"):
    read_folders(root)


def test_names_are_unique_and_plain():
  paths = ["a b/c.mp4", "a_b/c.mp4", "a/b/c.mp4", "é/1:2.mp4", "x/y.mp4", "x/y.webm", "x/y.mp4.avi"]
  names = name_clips([PurePosixPath(path) for path in paths])
  assert len(set(names)) == len(names)
  assert names[3] == "é_1_2" and names[4:6] == ["x_y.mp4", "x_y.webm"]
  assert not any(set(name) & set("/ :#") for name in names)
  turned = name_clips([PurePosixPath(path) for path in reversed(paths)])
  assert turned == names[::-1]


def table(tmp_path: Path, text: str, *names: str) -> tuple[Path, Path]:
  root = files(tmp_path / "root", *names)
  root.mkdir(exist_ok=True)
  path = tmp_path / "table.csv"
  path.write_text(text, encoding="utf-8-sig")
  return path, root


def test_table_rows_are_clips(tmp_path):
  listing = read_table(*table(
    tmp_path,
    'Path , Tags, extra,part\n"x/a.mp4",dog; cat,1,test\nb.mkv,"speech, woman|dog",2,\n\nb.mkv,horse,3,train\n'
    "c.webm,,4,val\nx/a.mp4,dog,5,train\ngone.mp4,cat,6,val\n,dog,,\nx,dog\n",
    "x/a.mp4", "b.mkv", "c.webm",
  ))  # fmt: skip
  root = tmp_path / "root"
  assert listing.source == "csv" and listing.categories == ("cat", "dog", "horse", "speech, woman")
  assert listing.items == (
    Item("x_a", root / "x" / "a.mp4", ("dog", "cat"), "test"),
    Item("b", root / "b.mkv", ("speech, woman", "dog", "horse"), "train"),
    Item("x_a", root / "x" / "a.mp4", ("dog",), "train"),
    Item("c", root / "c.webm", (), "val"),
  )
  assert listing.remarks == (
    Remark("doubtful", "table.csv, line 5", "b.mkv is listed before: its tags are joined"),
    Remark("doubtful", "table.csv, line 6", "c.webm has no tag"),
    Remark("doubtful", "table.csv, line 7", "x/a.mp4 is in test and in train"),
    Remark("missing", "gone.mp4", "listed in table.csv, line 8, is not there"),
    Remark("dropped", "table.csv, line 9", "has no path"),
    Remark("missing", "x", "listed in table.csv, line 10, is not a file"),
  )


def test_table_with_tabs(tmp_path):
  listing = read_table(*table(tmp_path, "tags\tpath\ndog, barking\ta.mp4\n", "a.mp4"))
  assert listing.items == (Item("a", tmp_path / "root" / "a.mp4", ("dog, barking",)),)


@pytest.mark.parametrize(
  "text, message",
  [
    ("", "the first line is 'nothing', expected column names with one 'path'"),
    ("a.mp4,dog\n", "the first line is 'a.mp4, dog'"),
    ("path,tag\na.mp4,dog\n", "expected column names with one 'tags'"),
    ("path,tags\n../a.mp4,dog\n", "line 2: .*'../a.mp4' is not a path inside"),
    ("path,tags\na.mp4,x\n/etc/passwd,dog\n", "line 3: .*'/etc/passwd' is not a path inside"),
    ("path,tags\nC:\\a.mp4,dog\n", "is not a path inside"),
    ("path,tags\nout/s.mp4,dog\n", "line 2: .*leads out of"),
    ("path,tags,part\na.mp4,dog,training\n", "line 2: part 'training', expected train, val, test or nothing"),
    ("path,tags\na.mp4,dog,cat\n", "line 2: 3 fields, expected 2"),
    ("path,tags\nb.mp4,dog\n", "names no file that is there"),
    ("path,tags\n" + "a" * 200000 + ",dog\n", "line 2: field larger than field limit"),
    ("path,tags\na.mp4\0,dog\n", "line (contains NUL|2)"),
  ],
)
def test_tables_that_are_refused(tmp_path, text, message):
  path, root = table(tmp_path, text, "a.mp4")
  files(tmp_path, "secret/s.mp4")
  (root / "out").symlink_to(tmp_path / "secret")
  with pytest.raises(ListingError, match=message) as error:
    read_table(path, root)
  assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_unreadable_tables_are_refused(tmp_path):
  path, root = table(tmp_path, "path,tags\n")
  path.write_bytes(b"path,tags\n\xff\xfe,dog\n")
  for table_path, folder in ((path, root), (tmp_path / "gone.csv", root), (path, tmp_path / "gone")):
    with pytest.raises(ListingError):
      read_table(table_path, folder)


def test_check_lists_every_remark_and_counts(tmp_path, capsys):
  path, root = table(tmp_path, "path,tags,part\na.mp4,dog;cat,\ngone.mp4,dog,test\nb.mp4,dog,val\n", "a.mp4", "b.mp4")
  assert main(["csv", "--table", str(path), "--root", str(root), "--check"]) == 1  # something is missing
  assert capsys.readouterr().out.splitlines() == [
    "missing  gone.mp4: listed in table.csv, line 3, is not there",
    "train: 1 clips",
    "       1 cat",
    "       1 dog",
    "val: 1 clips",
    "       0 cat",
    "       1 dog",
    f"{root}: csv, 2 clips, 2 categories; 1 missing",
  ]
  assert main(["csv", "--table", str(path), "--check"]) == 2  # paths are relative to the table's folder
  assert "names no file that is there" in capsys.readouterr().err
