"""Colours of decoded frames against the matrices and curves of the standards, worked out here one number at a time.

PQ, HLG and the roll-off are also checked at points that the standards print.
"""

import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation

from stajax.media.colour import (
  HLG,
  PQ,
  RgbConverter,
  colour_note,
  colour_of,
  hlg_light,
  pq_light,
  pq_values,
  tone_mapped,
)
from stajax.media.video import grid_frames, native_frames, probe
from stajax.media.video_writer import VideoWriter
from tests.helpers.media_files import CLOCK, ramp, write_video

UNTAGGED = 2
WEIGHTS = {  # of red and blue in luma, by the number of the matrix in ISO/IEC 23091-2
  1: (0.2126, 0.0722),
  4: (0.30, 0.11),
  5: (0.299, 0.114),
  6: (0.299, 0.114),
  7: (0.212, 0.087),
  9: (0.2627, 0.0593),
}
PLACES = list(itertools.product(WEIGHTS, (1, 2), (("yuv420p", 8), ("yuv444p", 8), ("yuv420p10le", 10))))
LUMA, BLUE, RED = 120, 90, 170  # 8-bit values of a colour that is in range with all matrices


def plain(pixels: str, values: tuple[int, ...], width: int = 64, height: int = 48, **tags: int) -> av.VideoFrame:
  """Returns a frame of one colour."""
  frame = av.VideoFrame(width, height, pixels)
  kind = np.uint16 if any(bits in pixels for bits in ("10", "12", "16")) else np.uint8
  for plane, value in zip(frame.planes, values):
    plane.update(np.full(plane.buffer_size // kind().itemsize, value, kind).tobytes())
  for name, value in tags.items():
    setattr(frame, name, value)
  return frame


def expected(matrix: int, is_full: bool, luma: float = LUMA, blue: float = BLUE, red: float = RED) -> np.ndarray:
  """Returns R'G'B' in [0, 1] of 8-bit Y'CbCr, by the definition of Y', Cb and Cr."""
  kr, kb = WEIGHTS[matrix]
  y, cb, cr = (
    (luma / 255, (blue - 128) / 255, (red - 128) / 255)
    if is_full
    else ((luma - 16) / 219, (blue - 128) / 224, (red - 128) / 224)
  )
  r, b = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
  return np.clip([r, (y - kr * r - kb * b) / (1 - kr - kb), b], 0, 1)


def converted(frame: av.VideoFrame, width: int = 64, height: int = 48) -> np.ndarray:
  return RgbConverter(1).convert(frame, width, height, Interpolation.AREA)[height // 2, width // 2].astype(float)


@pytest.mark.parametrize("matrix, stated_range, pixels", PLACES)
def test_matrix_and_range_are_those_that_are_stated(matrix, stated_range, pixels):
  scale = 2 ** (pixels[1] - 8)
  frame = plain(pixels[0], (LUMA * scale, BLUE * scale, RED * scale), colorspace=matrix, color_range=stated_range)
  if matrix == 9:
    frame.color_primaries = 1  # a test of the matrix alone
  np.testing.assert_allclose(converted(frame), 255 * expected(matrix, stated_range == 2), atol=2.6)
  assert colour_note(frame) is None


@pytest.mark.parametrize(
  "width, height, matrix",
  [(640, 480, 5), (720, 576, 5), (1024, 576, 5), (960, 640, 1), (1280, 720, 1), (720, 1280, 1), (360, 640, 5)],
)
def test_untagged_pictures_have_the_matrix_of_their_size(width, height, matrix):
  frame = plain("yuv420p", (LUMA, BLUE, RED), width, height)
  assert (frame.colorspace, frame.color_range) == (UNTAGGED, 0)
  np.testing.assert_allclose(converted(frame), 255 * expected(matrix, False), atol=2.6)


def test_full_range_by_the_format_and_grey_pictures():
  np.testing.assert_allclose(converted(plain("yuvj420p", (LUMA, BLUE, RED))), 255 * expected(5, True), atol=2.6)
  assert converted(plain("gray", (120,))).tolist() == converted(plain("gray", (120,), color_range=2)).tolist()
  np.testing.assert_array_equal(converted(plain("gray", (120,), color_range=2)), 120)
  np.testing.assert_allclose(converted(plain("gray", (120,), color_range=1)), (120 - 16) / 219 * 255, atol=0.51)


def test_pq_and_hlg_agree_with_the_standards():
  # ITU-R BT.2408, table 1: reference white and 18% grey in PQ and HLG, and the ends of the scales.
  np.testing.assert_allclose(pq_light(np.array([0.0, 0.58, 0.75, 1.0])), [0, 203, 983, 10000], rtol=0.01)
  np.testing.assert_allclose(pq_light(pq_values(np.array([0.005, 0.1, 100, 1000]))), [0.005, 0.1, 100, 1000], rtol=1e-6)
  grey = hlg_light(np.array([[0.75] * 3, [0.38] * 3, [1.0] * 3, [0.0] * 3]))[:, 0]
  np.testing.assert_allclose(grey, [203, 26, 1000, 0], rtol=0.02, atol=1e-9)
  # Colours keep the share of the channels: E = E'²/3 for E' ≤ 1/2, scaled by luminance to the power of 0.2.
  red = hlg_light(np.array([[0.4, 0.2, 0.1]]))[0]
  scene = np.array([0.4, 0.2, 0.1]) ** 2 / 3
  np.testing.assert_allclose(red, 1000 * (scene @ [0.2627, 0.678, 0.0593]) ** 0.2 * scene, rtol=1e-9)


def test_the_roll_off_is_that_of_bt_2390():
  light = np.linspace(0, 1000, 1001)[:, None] * [1, 0.5, 0.25]
  mapped = tone_mapped(light)
  source, limit = float(pq_values(np.array(1000.0))), float(pq_values(np.array(203.0)))
  knee = 1.5 * limit / source - 0.5
  largest = []
  for value in light[:, 0]:
    e1 = float(pq_values(np.array(value))) / source
    t = (e1 - knee) / (1 - knee)
    p = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * limit / source
    largest.append(float(pq_light(np.array((e1 if e1 < knee else p) * source))))
  np.testing.assert_allclose(mapped[:, 0], largest, rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(mapped[1:] / mapped[1:, :1], np.broadcast_to([1, 0.5, 0.25], (1000, 3)), rtol=1e-6)
  assert (
    (np.diff(mapped[:, 0]) > 0).all() and mapped[-1, 0] == pytest.approx(203) and mapped[60, 0] == pytest.approx(60)
  )


XYZ = {  # the matrices that the standards print, rounded to four places: BT.709, BT.2020, P3 with D65
  1: [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]],
  9: [[0.6370, 0.1446, 0.1689], [0.2627, 0.6780, 0.0593], [0.0000, 0.0281, 1.0610]],
  12: [[0.4866, 0.2657, 0.1982], [0.2290, 0.6917, 0.0793], [0.0000, 0.0451, 1.0439]],
}
HDR = list(itertools.product(((PQ, 9), (HLG, 9), (1, 9), (14, 9), (1, 12)), ((100, 128, 128), (120, 100, 150))))


@pytest.mark.parametrize("tags, values", [*HDR, ((PQ, UNTAGGED), (120, 110, 140))])
def test_hdr_and_wide_gamuts_become_usual_colours(tags, values):
  transfer, primaries = tags
  matrix = 1 if primaries == 12 else 9
  wide = tuple(4 * value for value in values)
  stated = {"colorspace": matrix if primaries != UNTAGGED else UNTAGGED, "color_range": 1}
  frame = plain("yuv420p10le", wide, color_trc=transfer, color_primaries=primaries, **stated)
  rgb = expected(matrix, False, *values)[None]
  if transfer == PQ:
    light = tone_mapped(pq_light(rgb)) / 203
  else:
    light = tone_mapped(hlg_light(rgb)) / 203 if transfer == HLG else rgb**2.4
  usual = np.linalg.inv(XYZ[1]) @ np.array(XYZ[9 if primaries == UNTAGGED else primaries]) @ light[0]
  np.testing.assert_allclose(converted(frame), 255 * np.clip(usual, 0, 1) ** (1 / 2.4), atol=3.5)
  note = colour_note(frame)
  words = {PQ: "HDR (PQ) is tone-mapped", HLG: "HDR (HLG) is tone-mapped"}
  assert note is not None and words.get(transfer, "wide gamut (P3)" if primaries == 12 else "gamut (BT.2020)") in note


def test_an_unknown_matrix_is_said():
  assert "number 8" in str(colour_note(plain("yuv420p", (1, 1, 1), colorspace=8)))


def write_tagged(path: Path, matrix: int, stated_range: int, transfer: int, primaries: int) -> Path:
  """Writes a file of three frames of one colour (10 bits), whose tags are in its streams."""
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx265" if path.suffix == ".mp4" else "ffv1", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
    context = stream.codec_context
    context.time_base = stream.time_base = CLOCK
    context.colorspace, context.color_range = matrix, stated_range
    context.color_trc, context.color_primaries = transfer, primaries
    context.options = {"x265-params": "log-level=none:lossless=1"} if path.suffix == ".mp4" else {}
    packets = []
    for number in range(3):
      frame = plain("yuv420p10le", (480, 440, 560), colorspace=matrix, color_range=stated_range)
      frame.color_trc, frame.color_primaries = transfer, primaries
      frame.pts, frame.time_base = 100 * number, CLOCK
      packets += stream.encode(frame)
    for packet in packets + stream.encode(None):
      container.mux(packet)
  return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("stated_range, transfer, primaries", [(1, PQ, 9), (1, HLG, 9), (2, 1, 1)])
def test_files_in_prediction_overlay_and_records(tmp_path, suffix, stated_range, transfer, primaries):
  matrix = 9 if primaries == 9 else 1
  path = write_tagged(tmp_path / f"a{suffix}", matrix, stated_range, transfer, primaries)
  frame = plain("yuv420p10le", (480, 440, 560), colorspace=matrix, color_range=stated_range)
  frame.color_trc, frame.color_primaries = transfer, primaries
  right, notes = converted(frame), list[str]()
  shown = [picture for _, picture in native_frames(path, notes=notes)]
  np.testing.assert_allclose(np.array([picture[20, 20] for picture in shown]), np.stack([right] * 3), atol=2)
  assert len(notes) == (transfer != 1) and all("HDR" in note for note in notes)
  _, square = next(grid_frames(path, 8.0, 16))  # as prediction and records read it
  np.testing.assert_allclose(square[8, 8], right, atol=2)
  with VideoWriter(tmp_path / "overlay.mp4", probe(path)) as writer:
    for number, picture in enumerate(shown):
      writer.write(number / 10, picture)
  with av.open(str(tmp_path / "overlay.mp4")) as container:
    written = next(container.decode(video=0))
    assert (written.colorspace, written.color_range, written.color_trc, written.color_primaries) == (1, 1, 1, 1)
    planes = [int(plane[20, 20]) for plane in _planes(written)]
  np.testing.assert_allclose(255 * expected(1, False, *planes), right, atol=6)


def _planes(frame: av.VideoFrame) -> list[np.ndarray]:
  """Returns the three planes of a frame in yuv420p in its full size, whatever its tags say."""
  found = []
  for plane, step in zip(frame.planes, (1, 2, 2)):
    rows = np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
    found.append(rows.repeat(step, 0).repeat(step, 1))
  return found


def test_interlaced_frames_keep_their_colours(tmp_path):
  path = write_video(tmp_path / "a.mp4", ramp(3), options={"x264-params": "tff=1:colormatrix=bt709:fullrange=on"})
  with av.open(str(path)) as container:
    frame = next(container.decode(video=0))
    assert frame.interlaced_frame and colour_of(frame).matrix == 1 and colour_of(frame).is_full
  luma = _planes(frame)[0][20, 20]
  np.testing.assert_allclose(next(native_frames(path))[1][20, 20], luma, atol=2)
