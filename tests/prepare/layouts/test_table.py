"""The source `csv`: the clips that a table lists, its remarks, and paths that leave the root."""

import unicodedata
from pathlib import Path

import pytest

from helpers.media_files import touch
from stajax.prepare.__main__ import main
from stajax.prepare.layouts.table import read_table
from stajax.prepare.listing import Item, ListingError, Remark


def table(tmp_path: Path, text: str, *names: str) -> tuple[Path, Path]:
  """Writes a table, and empty files with the given names in a folder of their own; returns both."""
  root = tmp_path / "root"
  root.mkdir()
  for name in names:
    touch(root / name)
  path = tmp_path / "table.csv"
  path.write_text(text, encoding="utf-8-sig")
  return path, root


def test_rows_of_a_table_become_clips(tmp_path):
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


def test_a_table_may_have_tabs(tmp_path):
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
def test_bad_tables_are_refused_in_one_line(tmp_path, text, message):
  path, root = table(tmp_path, text, "a.mp4")
  touch(tmp_path / "secret" / "s.mp4")
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


def test_check_lists_every_remark_and_counts_the_clips(tmp_path, capsys):
  path, root = table(tmp_path, "path,tags,part\na.mp4,dog;cat,\ngone.mp4,dog,test\nb.mp4,dog,val\n", "a.mp4", "b.mp4")
  assert main(["csv", "--table", str(path), "--root", str(root), "--check"]) == 1  # because a file is missing
  assert capsys.readouterr().out.splitlines() == [
    "missing  gone.mp4: listed in table.csv, line 3, is not there",
    "train: 1 clip",
    "       1 cat",
    "       1 dog",
    "val: 1 clip",
    "       0 cat",
    "       1 dog",
    f"{root}: csv, 2 clips, 2 categories; 1 missing",
  ]
  assert main(["csv", "--table", str(path), "--check"]) == 2  # paths are relative to the table's folder
  assert "names no file that is there" in capsys.readouterr().err


def test_paths_of_windows_and_other_forms_of_accents_are_found(tmp_path):
  nfc, nfd = (unicodedata.normalize(form, "café/é ü.mp4") for form in ("NFC", "NFD"))
  for name in (nfd, "dog/a.mp4", "back\\slash.mp4"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
  table = tmp_path / "t.csv"
  table.write_text(
    f"path,tags\n{nfc},é\ndog\\a.mp4,{unicodedata.normalize('NFD', 'é')}\nback\\slash.mp4,x\nno\\b.mp4,x\n"
  )
  listing = read_table(table, tmp_path)
  assert {item.path.relative_to(tmp_path).as_posix() for item in listing.items} == {nfd, "dog/a.mp4", "back\\slash.mp4"}
  assert listing.categories == ("x", "é") and [remark.file for remark in listing.remarks] == ["no\\b.mp4"]
  for name in ("..\\a.mp4", "dog\\..\\..\\a.mp4", "C:\\a.mp4", "\\\\host\\a.mp4"):
    table.write_text(f"path,tags\n{name},x\n")
    with pytest.raises(ListingError, match="is not a path inside this folder"):
      read_table(table, tmp_path)
