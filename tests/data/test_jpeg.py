"""Frames equal those of two other decoders; their memory is reused, but never too early."""

import gc
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow")

from stajax.data.frame_sides import decode_ratio, scaled_side
from stajax.data.jpeg import FrameDecoder, encode_jpeg
from stajax.data.jpeg_windows import make_decode_window
from stajax.data.tensorflow_cpu import tf


def noise(number, side, seed=0):
  images = np.random.default_rng(seed).integers(0, 256, (number, side, side, 3)).astype(np.uint8)
  return [encode_jpeg(image) for image in images]


def by_pillow(jpeg, ratio):
  with Image.open(io.BytesIO(jpeg)) as image:
    image.draft("RGB", (image.width // ratio, image.height // ratio))
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
@pytest.mark.parametrize("side", [64, 75])
@pytest.mark.parametrize("threads", [1, 3])
def test_pixels_equal_those_of_other_decoders(ratio, side, threads):
  jpegs = noise(13, side)
  frames = FrameDecoder(side, ratio, threads)(jpegs)
  assert frames.dtype == np.uint8 and frames.shape == (13, *[scaled_side(side, ratio)] * 2, 3)
  for jpeg, frame in zip(jpegs, frames, strict=True):
    np.testing.assert_array_equal(frame, by_pillow(jpeg, ratio))
    np.testing.assert_array_equal(frame, tf.io.decode_jpeg(jpeg, 3, ratio, dct_method="INTEGER_ACCURATE"))


def test_a_scaled_frame_is_not_shifted():
  """It is the mean of each 2×2 pixels of a smooth picture, within rounding, without a shift by half a pixel."""
  small = np.random.default_rng(1).integers(0, 256, (6, 6, 3)).astype(np.uint8)
  jpeg = encode_jpeg(np.asarray(Image.fromarray(small).resize((96, 96), Image.Resampling.BICUBIC)))
  (whole,), (half,) = FrameDecoder(96, 1)([jpeg]), FrameDecoder(96, 2)([jpeg])
  means = whole.reshape(48, 2, 48, 2, 3).mean(axis=(1, 3))
  assert np.abs(half - means).mean() < 0.6 and np.abs(half - means).max() <= 4
  assert np.abs(half[:, 1:] - means[:, :-1]).mean() > 2


def test_decode_ratio_is_the_largest_that_is_enough():
  assert [decode_ratio(512, size) for size in (512, 356, 257, 256, 128, 65, 64, 1)] == [1, 1, 1, 2, 4, 4, 8, 8]


def test_repeated_files_are_decoded_once(monkeypatch):
  jpegs = noise(3, 32)
  decoder, decoded, decode = FrameDecoder(32, 1, 2), [], FrameDecoder._decode

  def count(self, jpeg, frame):
    decoded.append(jpeg)
    decode(self, jpeg, frame)

  monkeypatch.setattr(FrameDecoder, "_decode", count)
  order = [1, 0, 1, 2, 2, 1]
  frames = decoder([jpegs[i] for i in order])
  assert sorted(decoded) == sorted(jpegs)
  np.testing.assert_array_equal(frames, FrameDecoder(32, 1)(jpegs)[order])


def test_memory_is_reused_only_when_all_views_are_gone():
  first, second = noise(4, 32), noise(4, 32, seed=1)
  decoder = FrameDecoder(32, 1, 2)
  expected = FrameDecoder(32, 1)(first)
  frames = decoder(first)
  address = frames.ctypes.data
  view = frames[1:, 4]
  del frames
  gc.collect()
  others = [decoder(second) for _ in range(3)]
  np.testing.assert_array_equal(view, expected[1:, 4])
  assert address not in [x.ctypes.data for x in others]
  del view
  gc.collect()
  assert decoder(second).ctypes.data == address


def test_several_threads_may_decode_at_once():
  decoder, sets = FrameDecoder(32, 1, 3), [noise(5, 32, seed) for seed in range(8)]
  expected = [FrameDecoder(32, 1, 1)(jpegs) for jpegs in sets]
  with ThreadPoolExecutor(8) as pool:
    for found, right in zip(pool.map(decoder, sets * 4), expected * 4, strict=True):
      np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("damage", [lambda x: x[:-200], lambda x: x[:100], lambda x: b"", lambda x: b"no picture"])
def test_damaged_files_are_errors(damage):
  (jpeg,) = noise(1, 32)
  with pytest.raises(ValueError):
    FrameDecoder(32, 1)([damage(jpeg)])


def test_a_frame_of_another_size_is_refused():
  """A frame of 72×72 in records of 64×64 is refused, whether it is decoded as a whole or in part."""
  right, wrong = (encode_jpeg(np.full((side, side, 3), 200, np.uint8)) for side in (64, 72))
  decode, window = make_decode_window(64, 1), tf.constant([8, 8, 20, 20])
  assert decode(right, window).shape == (64, 64, 3)
  with pytest.raises(tf.errors.InvalidArgumentError, match="frame size"):
    decode(wrong, window)
  decode = FrameDecoder(64, 2, 1)
  assert decode([right]).shape == (1, 32, 32, 3)
  with pytest.raises(ValueError, match="72×72 pixels, expected 64×64"):
    decode([right, wrong])
