"""Tests of the options of `stajax predict`: what is written, what is left as it is, and what is refused."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from helpers.media_files import write_video
from stajax.media import isolated
from stajax.predict.__main__ import main
from tests.predict import test_outputs
from tests.predict.test_outputs import spot

model = test_outputs.model


@pytest.fixture
def run(tmp_path, model):
  """Runs the command on folder `in`, which has a video and a folder with another one."""
  for name in ("a.mp4", "day1/b.mp4"):
    (tmp_path / "in" / name).parent.mkdir(exist_ok=True, parents=True)
    write_video(tmp_path / "in" / name, spot(6), rate=8)

  def call(*options: str, inputs: str = "in") -> int:
    return main([str(tmp_path / inputs), "--model", str(model), "--out", str(tmp_path / "out"), *options])

  return call


def written(folder) -> list[str]:
  return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_formats_agree(run, tmp_path):
  assert run("--format", "csv,png,json,npz", "--smooth", "0.1", "--fps", "4") == 0
  names = [f"a.maps/{time:010.3f}.png" for time in (0, 0.25, 0.5)]
  assert written(tmp_path / "out") == ["a.csv", "a.json", "a.maps-000.npz", *names]
  stored = np.load(tmp_path / "out" / "a.maps-000.npz")
  for number, name in enumerate(names):
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / name)), stored["maps"][number])
  assert stored["rate"] == 4
  with (tmp_path / "out" / "a.csv").open(newline="") as file:
    rows = list(csv.DictReader(file))
  for row, entry in zip(rows, json.loads((tmp_path / "out" / "a.json").read_text())["frames"], strict=True):
    assert [float(row["peak_x"]), float(row["peak_y"])] == entry["peak"] and int(row["frame"]) == entry["frame"]
    assert [float(row["centroid_x"]), float(row["centroid_y"])] == entry["centroid"]
    assert (float(row["time"]), float(row["spread"])) == (entry["time"], entry["spread"])


def test_a_folder_is_resumed_and_nothing_is_overwritten_silently(run, tmp_path, capsys):
  assert run("--format", "npz") == 0
  header = json.loads((tmp_path / "out" / "a.json").read_text())
  assert header["frames"] == [] and header["maps"] == 6
  before = (tmp_path / "out" / "a.json").stat().st_mtime_ns
  capsys.readouterr()
  assert run("--format", "npz", "--recursive") == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].endswith("a.mp4: done before, left as it is")
  assert "b.mp4: 6 frames, 6 maps in" in lines[1] and lines[1].endswith("day1/b.json")
  assert lines[2].startswith("1 of 2 videos, 1 were done before, 6 frames, 6 maps in")
  assert written(tmp_path / "out") == ["a.json", "a.maps-000.npz", "day1/b.json", "day1/b.maps-000.npz"]
  assert (tmp_path / "out" / "a.json").stat().st_mtime_ns == before

  assert run("--format", "png") == 2  # other files are asked for
  line = capsys.readouterr().err
  assert "a.json: was made with other settings (format npz there, png now); expected --overwrite or another" in line
  assert run("--format", "npz", "--fps", "4") == 2
  assert "(fps not given there, 4.0 now)" in capsys.readouterr().err
  assert run("--format", "png", "--overwrite") == 0
  assert {name.split("/")[0] for name in written(tmp_path / "out")} == {"a.json", "a.maps", "day1"}
  (tmp_path / "out" / "a.json").write_text('{"video": "a.mp4", "frames": []}')
  assert run("--format", "png") == 2 and "does not say how it was made" in capsys.readouterr().err


@pytest.mark.parametrize("options, message", [
  (["--format", "npz,gif"], "--format npz,gif: found 'gif', expected one of npz, png"),
  (["--format", ""], "--format : found '', expected one of npz"),
  (["--opacity", "2"], "opacity 2: expected 0 to 1"), (["--colormap", "warm"], "colormap warm: expected one of"),
  (["--fps", "0"], "fps 0: expected more than 0"), (["--every", "0"], "every 0: expected at least 1"),
  (["--every", "2", "--every-frame"], "--every-frame and --every 2: expected one of them"),
  (["--smooth", "-1"], "smooth -1: expected 0 to 60 seconds"),
])  # fmt: skip
def test_options_of_other_forms_are_one_line(tmp_path, options, message, capsys):
  (tmp_path / "a.mp4").write_text("not read")
  try:
    code = main([str(tmp_path / "a.mp4"), "--out", str(tmp_path / "out"), *options])
  except SystemExit as stop:
    code = stop.code
  lines = capsys.readouterr().err.splitlines()
  assert code == 2 and len(lines) == 1 and lines[0].startswith("stajax predict: ") and message in lines[0]


@pytest.mark.parametrize("times", [
  [0.0], [number / 25 for number in range(13)], [0, 0.1, 0.125, 0.15, 0.9, 2.0, 2.01, 2.02], [0, 0.02, 0.04, 7.0],
])  # fmt: skip
def test_without_pictures_a_video_is_decoded_once(tmp_path, model, monkeypatch, times):
  """The numbers of all native frames are those of a run that draws them."""
  write_video(tmp_path / "a.mkv", spot(len(times)), times)
  command = [str(tmp_path / "a.mkv"), "--model", str(model)]
  assert main([*command, "--out", str(tmp_path / "drawn")]) == 0
  monkeypatch.setattr(isolated, "frame_times", lambda *_: pytest.fail("decodes the video again"))
  for options in ((), ("--smooth", "0.3")):
    assert main([*command, "--out", str(tmp_path / "out"), "--no-overlay", "--overwrite", *options]) == 0
    found, drawn = (json.loads((tmp_path / name / "a.json").read_text()) for name in ("out", "drawn"))
    assert len(found["frames"]) == len(times) and found["maps"] == drawn["maps"]
    assert options or found["frames"] == drawn["frames"]


def test_without_pictures_damage_is_told_as_with_them(tmp_path, model, capsys):
  path = write_video(tmp_path / "a.mp4", spot(30), rate=10)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  both = [main([str(path), "--model", str(model), "--out", str(tmp_path / name), *options])
          for name, options in (("a", ()), ("b", ("--no-overlay",)))]  # fmt: skip
  lines = capsys.readouterr().err.splitlines()
  assert both[0] == both[1] and (both == [0, 0] or lines[0] == lines[1])
