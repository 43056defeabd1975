"""The source `ave`: trees in its exact layout, the known problems of its files, and records made from them."""

from collections import Counter
from pathlib import Path

import pytest

from helpers.media_files import clicks, ramp, write_video
from stajax.prepare.__main__ import main
from stajax.prepare.layouts.ave import ANNOTATIONS, CATEGORIES, SPLITS, read_ave
from stajax.prepare.layouts.tagged import learn_from
from stajax.prepare.listing import Item, Listing, ListingError, Remark

HEADER = "Category&VideoID&Quality&StartTime&EndTime"
ROWS = {
  "Church bell&RUhOCu3LNXM&good&0&10": "train",
  "Male speech, man speaking&-5iqgBW_VLo&good&2&8": "train",
  "Truck&two_labels_&good&0&10": "train",
  "Bus&two_labels_&good&3&10": "train",
  "Bark&zero_length&good&4&4": "test",
  "Rodents, rats, mice&validation_&good&0&8": "val",
  "Frying (food)&tested_____&good&0&10": "test",
}


def make_ave(root: Path, rows: dict[str, str] = ROWS, header: bool = True, videos: str = "AVE") -> Path:
  """Writes a tree whose media files are empty."""
  (root / videos).mkdir(parents=True, exist_ok=True)
  (root / ANNOTATIONS).write_text("\n".join([HEADER] * header + list(rows)) + "\n")
  for part, name in SPLITS.items():
    (root / name).write_text("".join(f"{row}\n" for row, row_part in rows.items() if row_part == part))
  for row in rows:
    (root / videos / f"{row.split('&')[1]}.mp4").touch()
  return root


def parts_and_tags(listing) -> dict[str, tuple[str, tuple[str, ...]]]:
  return {item.name: (item.part, item.tags) for item in listing.items}


@pytest.mark.parametrize("header", [True, False])
def test_parts_and_tags_come_from_the_lists(tmp_path, header):
  listing = read_ave(make_ave(tmp_path / "AVE_Dataset", header=header))
  assert (listing.source, listing.categories) == ("ave", CATEGORIES)
  assert parts_and_tags(listing) == {
    "RUhOCu3LNXM": ("train", ("Church bell",)),
    "-5iqgBW_VLo": ("train", ("Male speech, man speaking",)),
    "two_labels_": ("train", ("Truck", "Bus")),
    "zero_length": ("test", ("Bark",)),
    "validation_": ("val", ("Rodents, rats, mice",)),
    "tested_____": ("test", ("Frying (food)",)),
  }
  path = tmp_path / "AVE_Dataset" / "AVE" / "tested_____.mp4"
  assert listing.items[0] == Item("tested_____", path, ("Frying (food)",), "test")
  line = 5 + header
  assert listing.remarks == (
    Remark(
      "doubtful",
      f"Annotations.txt, line {line}",
      "zero_length is 'Bark' from 4 to 4 s, which has no length; its tag is used",
    ),
  )


def test_categories_are_in_the_published_order():
  """Compares some of the 28 numbers in the authors' features, which are written out here again."""
  published = {
    0: "Church bell", 1: "Male speech, man speaking", 2: "Bark", 3: "Fixed-wing aircraft, airplane",
    7: "Violin, fiddle", 10: "Frying (food)", 13: "Motorcycle", 14: "Acoustic guitar", 17: "Banjo",
    19: "Baby cry, infant cry", 22: "Cat", 25: "Rodents, rats, mice", 27: "Mandolin",
  }  # fmt: skip
  assert len(CATEGORIES) == len(set(CATEGORIES)) == 28
  assert {number: CATEGORIES[number] for number in published} == published


def test_a_whole_set_has_the_published_counts(tmp_path):
  """The three split files have 4,143 rows for 4,097 videos, 46 of which have two labels."""
  rows = {}
  for number in range(4097):
    part = "train" if number < 3339 - 46 else "val" if number < 3339 - 46 + 402 else "test"
    for second in range(2 if number < 46 else 1):
      rows[f"{CATEGORIES[(number + second) % 28]}&{number:011d}&good&0&10"] = part
  listing = read_ave(make_ave(tmp_path, rows))
  assert len(rows) == 4143 and Counter(item.part for item in listing.items) == {"train": 3293, "val": 402, "test": 402}
  assert sum(len(item.tags) == 2 for item in listing.items) == 46 and not listing.remarks
  everything = learn_from(listing, ("train", "val", "test"))
  assert {item.part for item in everything.items} == {"train"}
  assert sum(len(item.tags) for item in everything.items) == 4143  # the sequences of §6.1
  assert learn_from(listing, ("train",)) == listing
  some = Counter(item.part for item in learn_from(listing, ("train", "val")).items)
  assert some == {"train": 3695, "test": 402}
  for parts, message in ((("training",), "part 'training': expected some of train, val, test"), ((), "no clip is in")):
    with pytest.raises(ListingError, match=message):
      learn_from(Listing("ave", tmp_path, (), tuple(x for x in listing.items if x.part != "train")), parts)


def test_missing_and_spare_files_are_named(tmp_path):
  root = make_ave(tmp_path)
  (root / "AVE" / "tested_____.mp4").unlink()
  (root / "AVE" / "two_labels_.mp4").rename(root / "AVE" / "two_labels_.webm")
  for name in ("nobody.mp4", "validation_.mkv", "notes.txt", ".hidden.mp4"):
    (root / "AVE" / name).touch()
  listing = read_ave(root)
  assert next(item for item in listing.items if item.name == "two_labels_").path.suffix == ".webm"
  assert listing.remarks[1:] == (
    Remark("missing", "AVE/tested_____.mp4", "test, Frying (food): listed in testSet.txt, line 2"),
    Remark("spare", "AVE/nobody.mp4", "no row of the lists names it"),
    Remark("spare", "AVE/validation_.mkv", "AVE/validation_.mp4 is used instead"),
  )


def test_a_video_in_two_parts_is_held_out(tmp_path):
  rows = {**ROWS, "Clock&tested_____&good&0&10": "train", "Cat&two_labels_&good&0&10": "val"}
  listing = read_ave(make_ave(tmp_path, rows))
  assert parts_and_tags(listing)["tested_____"] == ("test", ("Frying (food)", "Clock"))
  assert parts_and_tags(listing)["two_labels_"] == ("val", ("Cat", "Truck", "Bus"))
  reasons = [remark.reason for remark in listing.remarks if remark.kind == "doubtful"]
  assert "tested_____ is in train, but in test by testSet.txt, line 2: in test only, never in train" in reasons
  assert len(reasons) == 4


def test_without_split_files_everything_is_for_training(tmp_path):
  root = make_ave(tmp_path)
  for name in SPLITS.values():
    (root / name).unlink()
  listing = read_ave(root)
  assert {item.part for item in listing.items} == {"train"} and len(listing.items) == 6
  assert Remark("doubtful", "trainSet.txt, valSet.txt, testSet.txt", "no split file is there: all is in train") in (
    listing.remarks
  )
  (root / "testSet.txt").write_text("Frying (food)&tested_____&good&0&10\n")
  listing = read_ave(root)
  assert parts_and_tags(listing) == {"tested_____": ("test", ("Frying (food)",))}
  found = [(remark.kind, remark.file) for remark in listing.remarks]
  assert ("missing", "valSet.txt") in found and ("dropped", "Annotations.txt, line 2") in found
  assert not [remark for remark in listing.remarks if remark.kind == "spare"]


def test_rows_in_which_lists_disagree_are_doubtful(tmp_path):
  root = make_ave(tmp_path)
  (root / "trainSet.txt").write_text("Goat&RUhOCu3LNXM&good&0&10\nGoat&RUhOCu3LNXM&good&0&10\n")
  listing = read_ave(root)
  assert parts_and_tags(listing)["RUhOCu3LNXM"] == ("train", ("Goat", "Church bell"))
  found = {remark.file: remark for remark in listing.remarks}
  assert found["trainSet.txt, line 1"].reason == "RUhOCu3LNXM is not 'Goat' in Annotations.txt"
  assert found["trainSet.txt, line 2"].kind == "dropped"
  assert "is 'Church bell' here" in found["Annotations.txt, line 2"].reason
  (root / ANNOTATIONS).unlink()
  assert parts_and_tags(read_ave(root))["RUhOCu3LNXM"] == ("train", ("Goat",))


def test_lists_and_videos_may_lie_elsewhere(tmp_path):
  expected = {"RUhOCu3LNXM", "-5iqgBW_VLo", "two_labels_", "zero_length", "validation_", "tested_____"}
  inner = make_ave(tmp_path / "a" / "AVE_Dataset")
  above = read_ave(tmp_path / "a")
  assert {item.name for item in above.items} == expected and above.items[0].path.parent == inner / "AVE"
  assert "this folder is read" in next(r.reason for r in above.remarks if r.file == "AVE_Dataset")
  flat = read_ave(make_ave(tmp_path / "b", videos="."))
  assert {item.name for item in flat.items} == expected and "beside the lists" in flat.remarks[0].reason
  moved = make_ave(tmp_path / "c")
  (moved / "AVE").rename(tmp_path / "videos")
  apart = read_ave(moved, tmp_path / "videos")
  assert {item.name for item in apart.items} == expected and len(apart.remarks) == 1
  with pytest.raises(ListingError, match="they are in the folder above, give that"):
    read_ave(inner / "AVE")


@pytest.mark.parametrize(
  "row, message",
  [
    ("Church bells&RUhOCu3LNXM&good&0&10", "line 2: 'Church bells' is not a category, the nearest is 'Church bell'"),
    ("Cat&../../../secret&good&0&10", "line 2: '../../../secret' is not the name of a file"),
    ("Cat&/etc/passwd&good&0&10", "line 2: '/etc/passwd' is not the name of a file"),
  ],
)
def test_rows_with_unknown_categories_or_paths_are_refused(tmp_path, row, message, capsys):
  root = make_ave(tmp_path / "root")
  (root / ANNOTATIONS).write_text(f"{HEADER}\n{row}\n")
  assert main(["ave", "--root", str(root), "--check"]) == 2
  error = capsys.readouterr().err
  assert error.count("\n") == 1 and message in error and str(root / ANNOTATIONS) in error


def test_malformed_rows_are_dropped(tmp_path):
  root = make_ave(tmp_path)
  with (root / ANNOTATIONS).open("a") as file:
    file.write("\n\nCat&tested_____&good&0\nCat&tested_____&good&0&ten\nCat&tested_____&good&x&9\nCat, a, good, 0, 9")
  listing = read_ave(root)
  assert [remark.file for remark in listing.remarks] == [f"Annotations.txt, line {n}" for n in (11, 12, 13, 14, 6)]
  assert [remark.kind for remark in listing.remarks] == ["dropped"] * 4 + ["doubtful"]
  assert len(listing.items) == 6


def test_links_to_files_are_followed_and_folders_that_lead_out_are_named(tmp_path):
  root = make_ave(tmp_path / "root")
  (tmp_path / "other.mp4").touch()
  (root / "AVE" / "tested_____.mp4").unlink()
  (root / "AVE" / "tested_____.mp4").symlink_to(tmp_path / "other.mp4")
  assert "tested_____" in parts_and_tags(read_ave(root))
  (root / "AVE").rename(tmp_path / "elsewhere")
  (root / "AVE").symlink_to(tmp_path / "elsewhere")
  with pytest.raises(ListingError, match="AVE: leads out of"):
    read_ave(root)


def test_a_tree_becomes_records(tmp_path, capsys):
  tfds = pytest.importorskip("tensorflow_datasets")
  pytest.importorskip("pebble")
  from stajax.data.records import Records

  root = make_ave(
    tmp_path / "AVE_Dataset", {row: part for row, part in ROWS.items() if part != "val" and "zero" not in row}
  )
  for name in ("RUhOCu3LNXM", "two_labels_", "tested_____"):
    write_video(root / "AVE" / f"{name}.mp4", ramp(10), sound=clicks(1, [0.5]))
  command = ["ave", "--root", str(root), "--side", "32", "--processes", "1", "--parts", "train"]
  assert main([*command, "--check"]) == 0
  checked = capsys.readouterr().out.splitlines()
  assert "test: 1 clip" in checked and "       1 Frying (food)" in checked and "dropped" not in checked[-1]
  assert main([*command, "--out", str(tmp_path / "out")]) == 1  # because one file is empty
  assert "-5iqgBW_VLo.mp4: is empty" in capsys.readouterr().out
  train, test = (Records.open(tmp_path / "out" / part) for part in ("train", "test"))
  assert train.names == ("RUhOCu3LNXM", "two_labels_") and test.names == ("tested_____",)
  assert train.categories == test.categories == CATEGORIES
  assert [row.nonzero()[0].tolist() for row in train.tags] == [[0], [11, 20]] and train.has_sound.all()
  assert train.summary["remark_counts"] == {}
  builder = tfds.builder_from_directory(next((tmp_path / "out" / "train" / "clips").iterdir()))
  clips = list(builder.as_data_source(split="data"))
  assert [list(clip["tags"]) for clip in clips] == [[0], [11, 20]]
  assert builder.info.features["tags"].feature.names == list(CATEGORIES)
