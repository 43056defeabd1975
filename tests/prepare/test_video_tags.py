"""Tags from a table beside a tree: how they are read, and clips that learn from them (the paper's Table 4)."""

import pytest

from stajax.prepare.layouts.stavis import read_stavis
from stajax.prepare.listing import ListingError
from stajax.prepare.video_tags import TagTableError, read_tags, tags_of


def test_true_tags_are_read_from_the_table(tmp_path):
  categories = ("Bark", "Church bell", "Bus")
  assert read_tags(tmp_path, categories) == {}
  table = tmp_path / "clips.csv"
  table.write_text("video,tag,flags\na,Bark,foreign\nb,Church bell,\nc,Bus Bark,\nd,Train,\ne,,\nf,Bus Train,\n")
  assert read_tags(tmp_path, categories) == {"a": (0,), "b": (1,), "c": (2, 0)}
  assert read_tags(tmp_path / "elsewhere", categories, table) == read_tags(tmp_path, categories)
  table.write_text("name,label\na,Bark\n")
  with pytest.raises(TagTableError, match=r"clips.csv: found columns \['name', 'label'\], expected video and tag"):
    read_tags(tmp_path, categories)
  table.write_bytes(b"video,tag\na,\xff\xfe\n")
  with pytest.raises(TagTableError, match=r"clips.csv: not a table"):
    read_tags(tmp_path, categories)


def test_videos_of_two_databases_may_share_a_name(tmp_path):
  (tmp_path / "clips.csv").write_text('database,video,tag\nAVAD,a,"Male speech, man"\nDIEM,a,Bus|Bark\n,b,Bus\n')
  tags = read_tags(tmp_path, ("Bark", "Bus", "Male speech, man"))
  assert tags == {"AVAD/a": (2,), "DIEM/a": (1, 0), "b": (1,)}
  assert [tags_of(tags, *name) for name in (("AVAD", "a"), ("SumMe", "a"), ("SumMe", "b"))] == [(2,), None, (1,)]
  with pytest.raises(TagTableError, match=r"nowhere\.csv: not a table"):
    read_tags(tmp_path, (), tmp_path / "nowhere.csv")


def test_the_videos_of_a_train_list_become_tagged_clips(tmp_path):
  """One split of the six sets has 70% of their videos in its train lists, which the paper's Table 4 trains on."""
  for name in ("a", "b", "c"):
    (tmp_path / "video_frames" / "AVAD" / name).mkdir(parents=True)
    (tmp_path / "video_frames" / "AVAD" / name / "img_00001.jpg").touch()
  lists = tmp_path / "fold_lists"
  lists.mkdir()
  for split, (train, test) in enumerate((("ab", "c"), ("bc", "a")), 1):
    for part, names in (("train", train), ("test", test)):
      rows = "".join(f"{name} 1 25\n" for name in names)
      (lists / f"AVAD_list_{part}_{split}_fps.txt").write_text(rows)
  table = tmp_path / "tags.csv"
  table.write_text("database,video,tag\nAVAD,a,Guitar\nAVAD,b,News|Man speaking\n")

  def parts(**options):
    listing = read_stavis(tmp_path, **options)
    return listing.categories, {item.name: (item.part, item.tags) for item in listing.items}

  assert parts() == ((), {"AVAD/a": ("test", ()), "AVAD/b": ("train", ()), "AVAD/c": ("test", ())})
  categories, found = parts(split=1, tags=table)
  assert categories == ("Guitar", "Man speaking", "News")
  assert found["AVAD/a"] == ("train", ("Guitar",)) and found["AVAD/b"] == ("train", ("News", "Man speaking"))
  assert found["AVAD/c"] == ("test", ())
  assert parts(split=2, tags=table)[1] == {"AVAD/a": ("test", ("Guitar",)), "AVAD/b": found["AVAD/b"]}
  missing = [remark for remark in read_stavis(tmp_path, split=2, tags=table).remarks if remark.kind == "dropped"]
  assert [remark.file for remark in missing] == ["video_frames/AVAD/c"]  # nobody could learn from it
  with pytest.raises(ListingError, match="no list of split 3"):
    read_stavis(tmp_path, split=3)
