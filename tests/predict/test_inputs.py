"""The videos that folders hold, also behind links."""

import json
import os
import unicodedata
from pathlib import Path

import pytest

from stajax.files.names import comparable_name
from stajax.media.file import MediaError
from stajax.media.video import probe
from stajax.predict import __main__ as command
from stajax.predict.__main__ import main
from stajax.predict.api import SaliencyModel
from stajax.predict.inputs import describe_left_out, find_videos
from stajax.predict.job import Job
from stajax.predict.names import identify


def test_linked_folders_are_entered_once(tmp_path):
  for name in ("disk/b.mp4", "videos/a.mp4", "videos/deep/c.mp4", "videos/.hidden/d.mp4"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  videos = tmp_path / "videos"
  (videos / "day2").symlink_to(tmp_path / "disk")
  (videos / "again").symlink_to(tmp_path / "disk")
  (videos / "deep" / "round").symlink_to(videos)
  (videos / "gone").symlink_to(tmp_path / "missing")
  found = find_videos([videos], tmp_path / "out", recursive=True)
  assert [(path.relative_to(videos).as_posix(), name) for path, name in found] == [
    ("a.mp4", "a"), ("again/b.mp4", "again/b"), ("deep/c.mp4", "deep/c"),
  ]  # fmt: skip
  (tmp_path / "links").mkdir()
  (tmp_path / "links" / "day2").symlink_to(tmp_path / "disk")
  assert [name for _, name in find_videos([tmp_path / "links"], tmp_path / "out", True)] == ["day2/b"]


def test_folders_without_videos_are_refused(tmp_path):
  (tmp_path / "round").symlink_to(tmp_path)
  with pytest.raises(FileNotFoundError, match="holds no videos"):
    find_videos([tmp_path], tmp_path / "out")


def files(folder: Path, *names: str) -> list[Path]:
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(name.encode())  # every file has its own content
  return [folder / name for name in names]


def named(inputs: list[Path], out: Path) -> dict[str, str]:
  return {path.name: name for path, name in find_videos(inputs, out)}


def test_small_copies_of_cameras_are_left_out_or_come_last(tmp_path):
  paths = files(tmp_path / "v", "GOPR0001.LRV", "GOPR0001.MP4", "GOPR0001.THM", "DJI_1.LRF", "DJI_1.MP4")
  assert named([tmp_path / "v"], tmp_path / "out") == {"GOPR0001.MP4": "GOPR0001", "DJI_1.MP4": "DJI_1"}
  left_out = [f"{paths[at]} is a camera's small copy and left out" for at in (3, 0)]
  assert describe_left_out([tmp_path / "v", paths[1]]) == left_out
  assert named(paths[:2], tmp_path / "out") == {"GOPR0001.LRV": "GOPR0001.LRV", "GOPR0001.MP4": "GOPR0001"}
  assert named(paths[:1], tmp_path / "out") == {"GOPR0001.LRV": "GOPR0001"}  # if it is asked for by its name


def test_what_folders_leave_out_is_said(tmp_path, monkeypatch):
  folder, scan = tmp_path / "v", os.scandir
  files(folder, "a.mp4", "notes.txt", "day1/b.mp4", "day1/c.txt", "closed/d.mp4")
  (folder / "gone.mp4").symlink_to(tmp_path / "missing.mp4")
  (tmp_path / "disk").mkdir()
  files(tmp_path, "disk/e.mp4")
  (folder / "day2").symlink_to(tmp_path / "disk")

  def guarded(path):
    if Path(path).name == "closed":
      raise PermissionError(13, "Permission denied", str(path))
    return scan(path)

  monkeypatch.setattr(os, "scandir", guarded)
  always = [f"{folder / 'gone.mp4'} is a link that leads nowhere, left out",
            f"{folder / 'closed'} cannot be read, left out"]  # fmt: skip
  assert describe_left_out([folder], recursive=True) == always
  assert describe_left_out([folder]) == [*always, f"{folder}: 2 videos in its folders left out (see --recursive)"]
  assert [name for _, name in find_videos([folder], tmp_path / "out")] == ["a"]


def test_names_that_some_systems_take_for_one_get_numbers(tmp_path):
  nfc, nfd = (unicodedata.normalize(form, "é.mp4") for form in ("NFC", "NFD"))
  paths = files(tmp_path, f"1/{nfc}", f"2/{nfd}", "3/A.mp4", "4/a.mp4", "5/a.mkv")
  names = [name for _, name in find_videos(paths, tmp_path / "out")]
  assert names == [nfc[:-4], nfd, "A", "a.mp4", "a.mkv"]
  assert len({comparable_name(name) for name in names}) == 5


def test_very_long_names_have_outputs(tmp_path):
  paths = files(tmp_path, "x" * 240 + ".mp4", "x" * 240 + ".mkv", "д" * 120 + ".avi")
  names = [name for _, name in find_videos(paths, tmp_path / "out")]
  assert len(set(names)) == 3 and all(len(os.fsencode(name)) <= 200 for name in names)


def test_outputs_of_another_video_are_not_replaced(tmp_path):
  first, second = files(tmp_path, "1/v.mp4", "2/v.mp4")
  out = tmp_path / "out"
  out.mkdir()
  (out / "v.json").write_text(json.dumps({"video": "v.mp4", "source": identify(first), "frames": []}))
  assert [name for _, name in find_videos([first], out)] == ["v"]  # the same again
  assert [name for _, name in find_videos([second], out)] == ["v.mp4"]
  (out / "v.mp4.json").write_text(json.dumps({"video": "v.mp4", "source": identify(second), "frames": []}))
  assert [name for _, name in find_videos([second, first], out)] == ["v.mp4", "v"]
  first.write_bytes(b"cut anew")  # the same place, other content
  moved = tmp_path / "3" / "v.mp4"
  moved.parent.mkdir()
  second.rename(moved)  # the same content, another place
  assert [name for _, name in find_videos([first, moved], out)] == ["v", "v.mp4"]
  (out / "v.json").write_text('{"video": "v.mp4", "frames": []}')  # of an older version
  assert [name for _, name in find_videos([moved], out)] == ["v"]


@pytest.mark.parametrize("given", ["https://example.org/v.mp4", "gs://bucket/folder", "rtsp://camera/1"])
def test_addresses_are_refused_in_clear_words(tmp_path, given, capsys):
  with pytest.raises(FileNotFoundError, match="is an address, expected a local file or folder: download it first"):
    find_videos([Path(given)], tmp_path)
  with pytest.raises(MediaError, match="is an address"):
    probe(given)
  with pytest.raises(SystemExit) as stop:
    main(["--model", "m", "--out", "o", given])
  assert stop.value.code == 2 and "stajax predict: " in (line := capsys.readouterr().err) and "is an address" in line


def test_an_out_that_is_a_file_is_refused(tmp_path, capsys):
  (video,) = files(tmp_path, "v.mp4")
  (tmp_path / "model").mkdir()
  for out, found in ((video, video), (video / "deeper", video)):
    assert main(["--model", str(tmp_path / "model"), "--out", str(out), str(video)]) == 2
    assert f"--out {out}: {found} is a file, expected a folder" in capsys.readouterr().err


def test_structure_is_kept_where_folders_are_searched_deeply(tmp_path):
  files(
    tmp_path / "in", "a.mp4", "day1/a.mp4", "day1/b.mov", "day2/deep/a.mp4", "day2/a.overlay.mp4", "x/a.encoded.mp4"
  )
  deep = {path.relative_to(tmp_path / "in").as_posix(): name for path, name in
          find_videos([tmp_path / "in"], tmp_path / "out", recursive=True)}  # fmt: skip
  assert deep == {"a.mp4": "a", "day1/a.mp4": "day1/a", "day1/b.mov": "day1/b", "day2/deep/a.mp4": "day2/deep/a"}
  assert [name for _, name in find_videos([tmp_path / "in"], tmp_path / "out")] == ["a"]
  with pytest.raises(FileNotFoundError, match=r"day2: holds no videos, but its folders do: see --recursive"):
    find_videos([tmp_path / "in" / "day2"], tmp_path / "out")
  (tmp_path / "out" / "day1").mkdir(parents=True)
  (tmp_path / "out" / "day1" / "a.json").write_text('{"video": "a.mp4", "source": "0-0", "frames": []}')
  assert "day1/a.mp4" in [name for _, name in find_videos([tmp_path / "in"], tmp_path / "out", recursive=True)]


@pytest.mark.parametrize("pattern, expected", [
  ("day*/*.mp4", ["day1/a", "day2/a"]), ("*/a.*", ["day1/a", "day1/a.mp4", "day2/a"]),
  ("day?", ["day1/a", "day1/a.mp4", "day2/a"]), ("**/*.mov", ["day1/a"]), ("day1/*", ["a", "a.mp4"]),
])  # fmt: skip
def test_patterns_keep_the_folders_that_they_fit(tmp_path, pattern, expected):
  files(tmp_path, "day1/a.mp4", "day1/a.mov", "day1/notes.txt", "day2/a.mp4", ".hidden/a.mp4")
  assert sorted(name for _, name in find_videos([tmp_path / pattern], tmp_path / "out")) == expected
  with pytest.raises(FileNotFoundError, match=r"day1/\*\.avi: fits no videos"):
    find_videos([tmp_path / "day1" / "*.avi"], tmp_path / "out")


def test_names_with_brackets_are_names(tmp_path):
  (path,) = files(tmp_path, "walk [1].mp4")
  assert find_videos([path], tmp_path / "out") == [(path, "walk [1]")]


def test_names_of_dots_do_not_lead_out_of_the_folder(tmp_path):
  paths = files(tmp_path, "..mp4", "...mp4")
  assert [name for _, name in find_videos(paths, tmp_path / "out")] == ["..mp4", "...mp4"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_in_the_place_of_a_video_is_not_read(tmp_path):
  (path,) = files(tmp_path, "v.mp4")
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "v.json").write_text(json.dumps({"source": identify(path), "frames": []}))
  path.unlink()
  os.mkfifo(path)
  assert find_videos([path], tmp_path / "out") == [(path, "v")]  # reading it would not end
  with pytest.raises(OSError, match="no regular file"):
    identify(path)


def test_line_breaks_in_names_leave_messages_on_one_line(tmp_path, capsys):
  (path,) = files(tmp_path, "new\nline.mp4")
  (tmp_path / "out").mkdir()
  command._predict_videos(Job(tmp_path / "out"), [(path, "new\nline")], {"new\nline"}, SaliencyModel(None))  # type: ignore
  assert capsys.readouterr().out.splitlines()[0] == f"{tmp_path}/new\\nline.mp4: done before, left as it is"
