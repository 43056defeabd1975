"""The colours of decoded frames: which matrix and range they have, and HDR tone-mapped to what the model has learned.

Models are trained on 8-bit pictures for usual displays (BT.709). Untagged pictures in HD size have BT.709's matrix and
smaller ones BT.601's, as players take them. HDR (PQ and HLG of BT.2100) and wide gamuts (BT.2020, P3) go through a
table of colours that is computed here from the standards; FFmpeg's filter `lut3d` looks colours up in it.
"""

import functools
import os
import tempfile
from dataclasses import dataclass
from fractions import Fraction

import av
import av.filter
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from stajax.media.orientation import side_data

# Numbers of ISO/IEC 23091-2, as FFmpeg uses them.
BT709, UNKNOWN, FCC, BT470BG, SMPTE170M, SMPTE240M, BT2020, BT2020_CONSTANT = 1, 2, 4, 5, 6, 7, 9, 10
PQ, HLG = 16, 18
P3_DCI, P3_D65 = 11, 12
MATRICES = {BT709: 1, FCC: 4, BT470BG: 5, SMPTE170M: 5, SMPTE240M: 7, BT2020: 9, BT2020_CONSTANT: 9}
"""FFmpeg's scaler's number of each matrix that it knows; that of constant luminance is only near."""

PEAK = 1000.0  # cd/m², of the display that HDR is mastered for; brighter parts are white
WHITE = 203.0  # cd/m², of diffuse white in HDR (ITU-R BT.2408), which becomes the white of a usual display
GAMMA = 2.4  # of usual displays (ITU-R BT.1886)
TABLE_SIDE = 33  # colours along each axis of the table
_TO_XYZ = {  # RGB with a white of D65 to XYZ, from the primaries in ITU-R BT.709, BT.2020 and SMPTE RP 431
  BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
  BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
  P3_D65: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_D65 = (0.3127, 0.3290)
_DEEP = av.VideoFormat("gbrp16le")
_LIMITED_TO_FULL = np.clip(np.round((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)
"""For grey pictures, which FFmpeg's scaler always takes to have the full range."""


@dataclass(frozen=True)
class Colour:
  """How the values of a frame stand for colours.

  Attributes:
    matrix: The scaler's number of the matrix; None for pictures that have no such matrix, such as RGB.
    is_full: Whether values use the full range.
    transfer: The curve from light to values; only PQ and HLG matter, others are as on a usual display.
    primaries: BT.709, or a wide gamut: BT.2020 or P3.
  """

  matrix: int | None
  is_full: bool
  transfer: int = BT709
  primaries: int = BT709

  @property
  def is_usual(self) -> bool:
    """Whether a usual display shows the values rightly."""
    return self.transfer == self.primaries == BT709


def colour_of(frame: av.VideoFrame) -> Colour:
  """Returns what a decoded frame says about its colours, and what is usual where it says nothing."""
  matrix, primaries = frame.colorspace, P3_D65 if frame.color_primaries == P3_DCI else frame.color_primaries
  transfer = frame.color_trc if frame.color_trc in (PQ, HLG) else BT709
  if primaries == UNKNOWN and (transfer != BT709 or matrix in (BT2020, BT2020_CONSTANT)):
    primaries = BT2020
  if primaries not in _TO_XYZ:
    primaries = BT709
  name, stated_range = frame.format.name, frame.color_range
  if frame.format.is_rgb or name.startswith(("pal", "xyz", "bayer", "mono")):
    return Colour(None, True, transfer, primaries)
  is_full = name.startswith("yuvj") or stated_range == ColorRange.JPEG or (_is_grey(frame) and not stated_range)
  if matrix not in MATRICES:
    is_hd = max(frame.width, frame.height) >= 1280 or min(frame.width, frame.height) > 576
    matrix = BT2020 if transfer != BT709 else BT709 if is_hd else SMPTE170M
  return Colour(MATRICES[matrix], is_full, transfer, primaries)


def _is_grey(frame: av.VideoFrame) -> bool:
  return frame.format.name.startswith(("gray", "ya"))


def colour_note(frame: av.VideoFrame) -> str | None:
  """Returns a line for people if the colours of a decoded frame are changed or not known, or None."""
  colour, matrix = colour_of(frame), frame.colorspace
  name = {PQ: "PQ", HLG: "HLG"}.get(colour.transfer)
  if name is not None:
    return f"picture: HDR ({name}) is tone-mapped to the range of a usual display"
  if not colour.is_usual:
    return f"picture: the wide gamut ({'BT.2020' if colour.primaries == BT2020 else 'P3'}) is converted to BT.709"
  carried = side_data(frame)
  if carried.get("DOVI_METADATA") or carried.get("DOVI_RPU_BUFFER"):
    return "picture: Dolby Vision without HDR10 or HLG is not converted, its colours are wrong"
  if colour.matrix is not None and matrix not in (*MATRICES, 0, UNKNOWN, 3):
    return f"picture: its colours are coded by a matrix that is not known (number {matrix}), they may be wrong"
  return None


class RgbConverter:
  """Turns decoded frames into arrays of a usual display's colours."""

  def __init__(self, threads: int) -> None:
    """Makes a converter with a number of threads."""
    self._threads, self._scaler, self._last_step = threads, VideoReformatter(), VideoReformatter()
    self._table: _Table | None = None

  def convert(self, frame: av.VideoFrame, width: int, height: int, interpolation: Interpolation) -> np.ndarray:
    """Returns a frame in a size, as it is stored (not upright), (height, width, 3) uint8 RGB."""
    colour = colour_of(frame)
    if colour.is_usual:
      picture: np.ndarray = self._scale(frame, width, height, "rgb24", interpolation, colour).to_ndarray()
      return picture if colour.is_full or not _is_grey(frame) else _LIMITED_TO_FULL[picture]
    scaled = self._scale(frame, width, height, _DEEP.name, interpolation, colour)
    key = (colour.transfer, colour.primaries, width, height)
    if self._table is None or self._table.key != key:
      self._table = _Table(key, self._threads)
    mapped = self._table.look_up(scaled)
    return self._last_step.reformat(mapped, format="rgb24", threads=self._threads).to_ndarray()

  def _scale(
    self, frame: av.VideoFrame, width: int, height: int, pixels: str, interpolation: Interpolation, colour: Colour
  ) -> av.VideoFrame:
    options = {"interpolation": interpolation, "threads": self._threads}
    if colour.matrix is not None:
      source_range = ColorRange.JPEG if colour.is_full else ColorRange.MPEG
      options |= {"src_colorspace": colour.matrix, "src_color_range": source_range, "dst_color_range": ColorRange.JPEG}
    return self._scaler.reformat(frame, width, height, pixels, **options)


class _Table:
  """A graph of filters that looks up colours of pictures of one size in a table."""

  def __init__(self, key: tuple[int, int, int, int], threads: int) -> None:
    self.key = transfer, primaries, width, height = key
    self._graph = av.filter.Graph()
    self._graph.threads = threads
    buffer = self._graph.add_buffer(width=width, height=height, format=_DEEP, time_base=Fraction(1, 1000))
    file, name = tempfile.mkstemp(".cube", "stajax-")  # the filter reads tables only from files
    try:
      with os.fdopen(file, "w") as table:
        table.write(_cube_text(transfer, primaries))
      lookup = self._graph.add("lut3d", f"file={name}:interp=tetrahedral")
      self._graph.link_nodes(buffer, lookup, self._graph.add("buffersink")).configure()
    finally:
      os.unlink(name)

  def look_up(self, frame: av.VideoFrame) -> av.VideoFrame:
    """Returns a frame with the colours of the table."""
    frame.pts = None
    self._graph.push(frame)
    return self._graph.vpull()


@functools.cache
def _cube_text(transfer: int, primaries: int) -> str:
  axis = np.linspace(0, 1, TABLE_SIDE)
  blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")  # red changes fastest in such files
  colours = usual_colours(np.stack([red, green, blue], -1).reshape(-1, 3), transfer, primaries)
  return f"LUT_3D_SIZE {TABLE_SIDE}\n" + "\n".join(
    " ".join(f"{value:.6f}" for value in colour) for colour in colours.tolist()
  )


def usual_colours(values: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
  """Returns the values that show colours on a usual display.

  Args:
    values: (n, 3) float64 in [0, 1], R'G'B'.
    transfer: PQ, HLG, or another number for the curve of a usual display.
    primaries: The number of the primaries.

  Returns:
    (n, 3) float64 in [0, 1], R'G'B' with BT.709's primaries.
  """
  if transfer == PQ:
    light = tone_mapped(pq_light(values)) / WHITE
  elif transfer == HLG:
    light = tone_mapped(hlg_light(values)) / WHITE
  else:
    light = values**GAMMA
  to_usual = np.linalg.inv(_xyz_matrix(BT709)) @ _xyz_matrix(primaries)
  return np.clip(light @ to_usual.T, 0, 1) ** (1 / GAMMA)


def pq_light(values: np.ndarray) -> np.ndarray:
  """Returns the light in cd/m² of PQ values in [0, 1] (SMPTE ST 2084, ITU-R BT.2100 table 4)."""
  m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
  root = np.asarray(values, np.float64) ** (1 / m2)
  return 10000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)


def pq_values(light: np.ndarray) -> np.ndarray:
  """Returns the PQ values of light in cd/m²; the inverse of `pq_light`."""
  m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
  power = (np.asarray(light, np.float64) / 10000) ** m1
  return ((c1 + c2 * power) / (1 + c3 * power)) ** m2


def hlg_light(values: np.ndarray) -> np.ndarray:
  """Returns the light in cd/m² of HLG values (n, 3) in [0, 1] on a display of `PEAK` (ITU-R BT.2100 table 5)."""
  a = 0.17883277
  b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
  scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
  luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
  return PEAK * luminance[:, None] ** 0.2 * scene  # the system gamma of a display of 1,000 cd/m² is 1.2


def tone_mapped(light: np.ndarray) -> np.ndarray:
  """Returns light (n, 3) from 0 to `PEAK` mapped into 0 to `WHITE` by the curve of ITU-R BT.2390, section 5.4.

  The curve acts on the largest of R, G and B, so that hues stay. Dark and middle parts stay as they are.
  """
  largest = light.max(-1, keepdims=True)
  top = float(pq_values(np.array(PEAK)))
  limit = float(pq_values(np.array(WHITE))) / top
  value = np.clip(pq_values(largest) / top, 0, 1)
  knee = 1.5 * limit - 0.5
  t = (value - knee) / (1 - knee)
  bent = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * limit
  mapped = pq_light(np.where(value < knee, value, bent) * top)
  return light * mapped / np.maximum(largest, 1e-9)


def _xyz_matrix(primaries: int) -> np.ndarray:
  """Returns the matrix (3, 3) from linear RGB to XYZ, where white has the luminance 1."""

  def xyz(place: tuple[float, float]) -> np.ndarray:
    x, y = place
    return np.array([x / y, 1.0, (1 - x - y) / y])

  columns = np.stack([xyz(place) for place in _TO_XYZ[primaries]], 1)
  return columns * np.linalg.solve(columns, xyz(_D65))
