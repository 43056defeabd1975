"""Folders of images whose EXIF data turn or mirror them, against PIL, as records and as predictions read them."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from stajax.inference.tree_video import _read_frame
from stajax.media.file import Decoding
from stajax.media.image_folder import ImageFolder

PICTURE = np.zeros((32, 48, 3), np.uint8)
PICTURE[:12, :12], PICTURE[:12, 36:] = 255, 128  # no orientation but the right one looks like it


def write(path: Path, number: int) -> np.ndarray:
  """Writes an image with an orientation from 1 to 8; returns how it is shown, squashed to 16×16."""
  image, exif = Image.fromarray(PICTURE), Image.Exif()
  exif[0x0112] = number
  if path.suffix == ".tiff":
    image.save(path, tiffinfo={0x0112: number})
  else:
    image.save(path, exif=exif, **({"quality": 95} if path.suffix == ".jpg" else {"lossless": True}))
  upright = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
  return np.asarray(upright.resize((16, 16), Image.Resampling.BOX)).astype(int)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
def test_images_are_upright_in_records_and_prediction(tmp_path, suffix):
  expected = [write(tmp_path / f"img_{number:05d}{suffix}", number) for number in range(1, 9)]
  folder = ImageFolder(tmp_path, 10.0, Decoding(threads=1), [])
  shown = [frame for _, frame in folder.frames(10.0, 16)]
  assert (folder.width, folder.height) == (48, 32) and len(shown) == 8
  for number, frame, right in zip(itertools.count(1), shown, expected):
    assert np.abs(frame - right).mean() < 8, number
    predicted = _read_frame(tmp_path / f"img_{number:05d}{suffix}", 16)
    assert np.abs(predicted - right).mean() < 12, number
