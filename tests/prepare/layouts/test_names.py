"""Names of clips that come from the paths of their files."""

from pathlib import PurePosixPath

from stajax.prepare.layouts.names import name_clips


def test_names_are_unique_plain_and_independent_of_the_order():
  paths = ["a b/c.mp4", "a_b/c.mp4", "a/b/c.mp4", "é/1:2.mp4", "x/y.mp4", "x/y.webm", "x/y.mp4.avi"]
  names = name_clips([PurePosixPath(path) for path in paths])
  assert len(set(names)) == len(names)
  assert names[3] == "é_1_2" and names[4:6] == ["x_y.mp4", "x_y.webm"]
  assert not any(set(name) & set("/ :#") for name in names)
  turned = name_clips([PurePosixPath(path) for path in reversed(paths)])
  assert turned == names[::-1]
