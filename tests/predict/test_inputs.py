"""The videos that folders hold, also behind links."""

import pytest

from stajax.predict.inputs import find_videos


def test_linked_folders_are_entered_once(tmp_path):
  for name in ("disk/b.mp4", "videos/a.mp4", "videos/deep/c.mp4", "videos/.hidden/d.mp4"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  videos = tmp_path / "videos"
  (videos / "day2").symlink_to(tmp_path / "disk")
  (videos / "again").symlink_to(tmp_path / "disk")
  (videos / "deep" / "round").symlink_to(videos)
  (videos / "gone").symlink_to(tmp_path / "missing")
  found = find_videos([videos], tmp_path / "out")
  assert [(path.relative_to(videos).as_posix(), name) for path, name in found] == [
    ("a.mp4", "a"), ("again/b.mp4", "b"), ("deep/c.mp4", "c"),
  ]  # fmt: skip
  (tmp_path / "links").mkdir()
  (tmp_path / "links" / "day2").symlink_to(tmp_path / "disk")
  assert [name for _, name in find_videos([tmp_path / "links"], tmp_path / "out")] == ["b"]


def test_folders_without_videos_are_refused(tmp_path):
  (tmp_path / "round").symlink_to(tmp_path)
  with pytest.raises(FileNotFoundError, match="holds no videos"):
    find_videos([tmp_path], tmp_path / "out")
