"""Crops that containers ask for, in files that are put together here element by element."""

import io
import shutil
import struct
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from stajax.media.crop import WHOLE, Crop, Cropper, read_crop
from stajax.media.keyframes import sampled_runs
from stajax.media.video import grid_frames, native_frames, probe
from tests.helpers.media_files import ramp, write_video

WIDTH, HEIGHT = 80, 64
CROP = Crop(left=16, top=8, right=4, bottom=20)
SHOWN = np.zeros((HEIGHT - 28, WIDTH - 20, 3), np.uint8) + np.array([40, 120, 200], np.uint8)
CODED = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
CODED[8 : HEIGHT - 20, 16 : WIDTH - 4] = SHOWN


def element(name: int, *content: bytes | int) -> bytes:
  """Returns an element of EBML."""
  parts = [part if isinstance(part, bytes) else part.to_bytes(2, "big") for part in content]
  body = b"".join(parts)
  return name.to_bytes((name.bit_length() + 7) // 8, "big") + (len(body) | 1 << 56).to_bytes(8, "big") + body


def write_matroska(path: Path, crops: dict[int, int], with_sound_first: bool = False) -> Path:
  """Writes ten JPEG pictures, a tenth of a second each, with crops by the numbers of their elements."""
  buffer = io.BytesIO()
  Image.fromarray(CODED).save(buffer, "JPEG", quality=100, subsampling=0)
  shown = [element(0x54B0, SHOWN.shape[1]), element(0x54BA, SHOWN.shape[0])]
  sides = [element(0xB0, WIDTH), element(0xBA, HEIGHT)]
  video = element(0xE0, *sides, *shown, *(element(name, size) for name, size in crops.items()))
  track = element(0xAE, element(0xD7, 1), element(0x73C5, 1), element(0x83, 1), element(0x86, b"V_MJPEG"), video)
  audio = element(0xE1, element(0xB5, struct.pack(">d", 8000.0)), element(0x9F, 1), element(0x6264, 8))
  sound = element(0xAE, element(0xD7, 2), element(0x73C5, 2), element(0x83, 2), element(0x86, b"A_PCM/INT/LIT"), audio)
  blocks = [element(0xA3, b"\x81", number * 100, b"\x80", buffer.getvalue()) for number in range(10)]
  tracks = element(0x1654AE6B, *([sound] if with_sound_first else []), track)
  info = element(0x1549A966, element(0x2AD7B1, (1_000_000).to_bytes(4, "big")))
  cluster = element(0x1F43B675, element(0xE7, 0), *blocks)
  head = element(0x1A45DFA3, element(0x4282, b"matroska"))
  path.write_bytes(head + element(0x18538067, element(0xEC, bytes(9)), info, tracks, cluster))
  return path


CROPS = {0x54CC: CROP.left, 0x54BB: CROP.top, 0x54DD: CROP.right, 0x54AA: CROP.bottom}


def write_mp4(path: Path, box: bytes) -> Path:
  """Writes an MP4 file with a box at the end of the description of its pictures."""
  write_video(path, np.broadcast_to(CODED, (10, *CODED.shape)), options={"crf": "1"}, pixels="yuv444p")
  data = bytearray(path.read_bytes())
  entry = data.index(b"avc1", data.index(b"stsd")) - 4
  end = entry + int.from_bytes(data[entry : entry + 4], "big")
  data[end:end] = box
  for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
    at = data.rindex(name, 0, end) - 4
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + len(box)).to_bytes(4, "big")
  path.write_bytes(data)
  return path


def clap(width: int, height: int, x: int, y: int) -> bytes:
  """Returns a box of a clean aperture; x and y are in halves of pixels."""
  return struct.pack(">I4sIIIIiIiI", 40, b"clap", width, 1, height, 1, x, 2, y, 2)


def check_shown(path: Path) -> None:
  info, frames = probe(path), list(native_frames(path))
  assert (info.width, info.height) == (60, 36) and info.pixel_aspect == 1
  assert len(frames) == 10 and [round(time, 3) for time, _ in frames] == [k / 10 for k in range(10)]
  assert all(frame.shape == SHOWN.shape and np.abs(frame.astype(int) - SHOWN).max() < 12 for _, frame in frames)
  _, square = next(grid_frames(path, 8.0, 16))
  assert np.abs(square.astype(int) - SHOWN[0, 0]).max() < 12
  ((_, run),) = sampled_runs(path, 1, 0.1, 16, 0)[:1]
  assert np.abs(np.stack(run).astype(int) - SHOWN[0, 0]).max() < 12
  if shutil.which("ffmpeg"):
    picture = path.with_suffix(".png")
    subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-frames:v", "1", picture], check=True)
    made = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    if made.shape == SHOWN.shape:  # before version 7.1 it does not crop
      assert np.abs(made - frames[0][1]).mean() < 2


@pytest.mark.parametrize("with_sound_first", [False, True])
def test_matroska_is_cropped(tmp_path, with_sound_first):
  path = write_matroska(tmp_path / "a.mkv", CROPS, with_sound_first)
  assert read_crop(path, 0) == CROP and read_crop(path, 1) == WHOLE
  check_shown(path)


def test_the_clean_aperture_of_mp4_is_shown(tmp_path):
  path = write_mp4(tmp_path / "a.mp4", clap(60, 36, 12, -12))
  assert read_crop(path, 0) == CROP
  check_shown(path)


@pytest.mark.parametrize("box", [b"", clap(80, 64, 0, 0), clap(90, 64, 0, 0), clap(60, 36, 80, 0)])
def test_pictures_without_a_sensible_aperture_are_whole(tmp_path, box):
  path = write_mp4(tmp_path / "a.mp4", box)
  assert read_crop(path, 0) == WHOLE and (probe(path).width, probe(path).height) == (80, 64)


def test_a_crop_of_everything_is_ignored():
  frame = av.VideoFrame(80, 64, "yuv420p")
  assert Cropper(Crop(40, 0, 40, 0)).cut(frame) is frame


def test_damaged_files_have_no_crop_or_a_small_one(tmp_path):
  rng = np.random.default_rng(0)
  originals = [write_matroska(tmp_path / "a.mkv", CROPS), write_mp4(tmp_path / "a.mp4", clap(60, 36, 12, -12))]
  for original in originals:
    data = original.read_bytes()
    for _ in range(100):
      damaged = bytearray(data)
      for at in rng.integers(0, len(data) if original.suffix == ".mp4" else 400, 6).tolist():
        damaged[at] = rng.integers(256)
      original.write_bytes(damaged[: rng.integers(len(data) + 1)])
      assert isinstance(read_crop(original, 0), Crop)
  write_video(tmp_path / "a.avi", ramp(2))
  assert read_crop(tmp_path / "a.avi", 0) == read_crop(tmp_path / "missing.mkv", 0) == WHOLE
