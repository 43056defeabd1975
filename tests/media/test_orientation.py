"""Decoded frames are shown upright: the eight orientations of videos and of photos, against PIL and against ffmpeg."""

import itertools
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from stajax.media.orientation import UPRIGHT, Orientation, from_matrix
from stajax.media.video import grid_frames, native_frames, probe

TURNS = list(itertools.product((0, 90, 180, 270), (False, True), (False, True)))
PICTURE = np.zeros((24, 32, 3), np.uint8)
PICTURE[:8, :8], PICTURE[:8, 24:] = 255, 128  # no orientation but the right one looks like it


def write_turned(path: Path, turn: int, hflip: bool, vflip: bool) -> Path:
  """Writes a video that shall be turned counterclockwise and mirrored then."""
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=10)
    stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
    stream.set_display_rotation(turn, hflip, vflip)
    frame = av.VideoFrame.from_ndarray(PICTURE, format="rgb24").reformat(format="yuv420p")
    for packet in stream.encode(frame) + stream.encode(None):
      container.mux(packet)
  return path


@pytest.mark.parametrize("turn, hflip, vflip", TURNS)
def test_videos_are_turned_and_mirrored(tmp_path, turn, hflip, vflip):
  path = write_turned(tmp_path / "a.mp4", turn, hflip, vflip)
  expected = np.rot90(PICTURE, turn // 90)
  expected = expected[:: -1 if vflip else 1, :: -1 if hflip else 1].astype(int)
  (_, shown), info = next(native_frames(path)), probe(path)
  assert (info.height, info.width) == shown.shape[:2] == expected.shape[:2]
  assert np.abs(shown - expected).mean() < 3
  _, square = next(grid_frames(path, 8.0, 16))
  assert (
    np.abs(square.astype(int) - np.asarray(Image.fromarray(shown).resize((16, 16), Image.Resampling.BOX))).mean() < 9
  )
  if shutil.which("ffmpeg"):
    command = ["ffmpeg", "-v", "error", "-i", path, "-frames:v", "1", tmp_path / "a.png"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    assert np.abs(np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int) - shown).mean() < 1


@pytest.mark.parametrize("number", range(1, 9))
def test_photos_are_turned_and_mirrored(tmp_path, number):
  exif = Image.Exif()
  exif[0x0112] = number
  Image.fromarray(PICTURE).save(tmp_path / "a.jpg", exif=exif, quality=95)
  _, shown = next(native_frames(tmp_path / "a.jpg"))
  expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg")))
  assert shown.shape == expected.shape and np.abs(shown.astype(int) - expected).mean() < 1


def test_oblique_and_empty_matrices_give_the_nearest_orientation():
  def turned(degrees: float) -> Orientation:
    angle = np.deg2rad(degrees)
    matrix = np.zeros((3, 3))
    matrix[:2, :2] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    return from_matrix((matrix * 2**16).astype(np.int32))

  assert turned(10) == turned(0) == from_matrix(np.zeros((3, 3), np.int32)) == UPRIGHT
  assert turned(80) == turned(90) == turned(100) != turned(-90)
  assert turned(170) == turned(180) == Orientation(False, True, True)
