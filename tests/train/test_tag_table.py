"""The table of tags and classes: how it is guessed, written and read, and what is wrong with a row."""

import csv

import pytest

from helpers.fake_records import CATEGORIES
from helpers.paths import CONFIGS

pytest.importorskip("tensorflow")

from stajax.config import ConfigError
from stajax.prepare.layouts import ave
from stajax.train import tag_table

CLASSES = ("Bell", "Church bell", "Drums", "Music", "Silence")
TABLES = CONFIGS / "tags"


def test_guesses_are_classes_of_the_same_name():
  classes = ("Violin, fiddle", "Frying (food)", "Dog", "Canidae, dogs, wolves", "Drum kit", "Glass", "Silence")
  tags = ("Violins", "fiddle", "frying_food", "frying", "dog", "DRUM-KIT", "drum", "glas")
  assert tag_table.guess_rows(tags, classes) == [
    ("Violins", "Violin, fiddle"),
    ("fiddle", "Violin, fiddle"),
    ("frying_food", "Frying (food)"),
    ("frying", "Frying (food)"),
    ("dog", "Dog"),
    ("dog", "Canidae, dogs, wolves"),
    ("DRUM-KIT", "Drum kit"),
    ("drum", ""),
    ("glas", ""),
    ("", "Silence"),
  ]
  assert tag_table.guess_rows(("silence", "a"), ("a", "Silence")) == [("silence", "Silence"), ("a", "a")]


def test_a_table_is_read_as_it_is_written(tmp_path):
  path, tags = tmp_path / "folder" / "tags.csv", ("a, b", 'say "c"', "ü")
  classes = ("one, two", "three", "four")
  tag_table.write_table(path, [("a, b", "one, two"), ("a, b", "four"), ('say "c"', ""), ("ü", "four"), ("", "three")])
  members, text, _ = tag_table.read_table(path, tags, classes)
  assert [member.tolist() for member in members] == [[0, 2], [], [2], [1]]
  assert text == path.read_text() and text.startswith('tag,class\n"a, b","one, two"\n')
  path.write_bytes(b"\xef\xbb\xbftag, class\r\n\r\n  " + 'ü ,"one, two"\r\n\r\n'.encode())  # of a spreadsheet
  assert [member.tolist() for member in tag_table.read_table(path, tags, classes)[0]] == [[], [], [0], []]


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", ": is empty, expected tag,class"),
    ("bell,Bell\n", ", line 1: found 'bell,Bell', expected tag,class"),
    ("tag,class\n,Bell\nbel,Bell\n", ", line 3: 'bel' is not a tag of the clips, the nearest is 'bell'"),
    ("tag,class\nbell,bells\n", ", line 2: 'bells' is not a class of the tagger, the nearest is 'Bell'"),
    (
      "tag,class\nbell,Violin, fiddle\n",
      ", line 2: found 3 columns, expected tag,class; put a name with a comma in",
    ),
    ("tag,class\nbell\n", ", line 2: found 1 columns"),
    ("tag,class\nbell,\xff\n", ": cannot be read as text"),
    (None, ": cannot be read as text"),
  ],
)
def test_a_wrong_row_is_one_line(tmp_path, text, message):
  path = tmp_path / "tags.csv"
  if text is not None:
    path.write_bytes(text.encode("latin-1"))
  with pytest.raises(ConfigError) as error:
    tag_table.read_table(path, CATEGORIES, CLASSES)
  assert str(error.value).startswith(f"{path}{message}") and "\n" not in str(error.value)


def test_the_tables_for_ave_cover_its_categories(shared):
  labels = (shared / "weights" / "yamnet_labels.txt").read_text().splitlines()
  members, *_ = tag_table.read_table(TABLES / "ave_yamnet.csv", ave.CATEGORIES, labels)
  assert len(members) == 29 and all(len(member) for member in members)
  with (TABLES / "ave_vggsound.csv").open(newline="") as file:
    rows = list(csv.reader(file))[1:]
  assert {tag for tag, _ in rows} == set(ave.CATEGORIES)
  assert [tag for tag, name in rows if not name] == ["Frying (food)", "Truck"]  # VGGSound has no such class


def test_a_table_may_have_tags_that_no_clip_has(tmp_path):
  path = tmp_path / "tags.csv"
  path.write_text("tag,class\nsiren,Bell\nbell,Bell\nhorn,\n,Bell\n")
  members, text, spare = tag_table.read_table(path, ("bell", "dog"), ("Bark", "Bell"))
  assert ([member.tolist() for member in members], spare) == ([[1], [], [1]], ("siren", "horn"))
  assert text == path.read_text()


def test_the_table_for_real_clips_covers_the_tags_of_the_clips_at_hand(shared):
  labels = (shared / "weights" / "yamnet_labels.txt").read_text().splitlines()
  folders = [path.name for name in ("clips", "clips2") for path in (shared / "data" / name).iterdir() if path.is_dir()]
  tags = sorted({*folders, "people"})
  found = tag_table.read_table(TABLES / "clips_yamnet.csv", tags, labels)
  assert len(tags) == 43 and not found.spare and all(len(member) for member in found.members)
