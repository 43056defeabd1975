"""Names of clips that come from the paths of their files."""

import re
import unicodedata
from pathlib import PurePosixPath

from stajax.files.names import comparable_name
from stajax.prepare.layouts.names import name_clips


def test_names_are_unique_plain_and_independent_of_the_order():
  paths = ["a b/c.mp4", "a_b/c.mp4", "a/b/c.mp4", "é/1:2.mp4", "x/y.mp4", "x/y.webm", "x/y.mp4.avi"]
  names = name_clips([PurePosixPath(path) for path in paths])
  assert len(set(names)) == len(names)
  assert names[3] == "é_1_2" and names[4:6] == ["x_y.mp4", "x_y.webm"]
  assert not any(set(name) & set("/ :#") for name in names)
  turned = name_clips([PurePosixPath(path) for path in reversed(paths)])
  assert turned == names[::-1]


def test_long_names_and_names_that_are_one_file_elsewhere():
  nfc, nfd = (unicodedata.normalize(form, "é.mp4") for form in ("NFC", "NFD"))
  paths = [
    PurePosixPath(name) for name in (f"1/{nfc}", f"1/{nfd}", "A.mp4", "a.mp4", "x" * 244 + ".mp4", "x" * 244 + ".mkv")
  ]
  names = name_clips(paths)
  assert len({comparable_name(name) for name in names}) == len(paths)
  assert all(len(name.encode()) <= 200 and re.fullmatch(r"[\w.-]+", name) for name in names)
