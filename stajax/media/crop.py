"""Crops that a container asks for: the edges of the coded picture that are not shown.

Matroska has them as PixelCrop elements, MP4 and MOV as the box `clap` (clean aperture). FFmpeg's programs apply them,
its libraries only report them, and PyAV does not pass that on; so the few bytes are read here. A file that is damaged
or unusual has no crop: nothing here can make it unreadable.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import av.filter

MAX_ELEMENTS = 10_000  # the largest number of elements that are looked at, for damaged files
MAX_TRACKS = 2**20  # the largest size of a description of tracks in bytes
SEGMENT = 0x18538067
_TRACKS, _TRACK, _VIDEO, _TRACK_TYPE = 0x1654AE6B, 0xAE, 0xE0, 0x83
_CROPS = {0x54CC: "left", 0x54BB: "top", 0x54DD: "right", 0x54AA: "bottom"}
_UNKNOWN_SIZE = -1


@dataclass(frozen=True)
class Crop:
  """How many pixels of the coded picture, before it is turned, are not shown at each edge."""

  left: int = 0
  top: int = 0
  right: int = 0
  bottom: int = 0


WHOLE = Crop()


def read_crop(path: Path, number: int) -> Crop:
  """Returns the crop of a video stream, which is the `number`-th one of its file, counted from 0."""
  try:
    with path.open("rb") as file:
      start = file.read(12)
      if start[:4] == b"\x1aE\xdf\xa3":
        crops = list(_matroska_crops(file))
      elif start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        crops = list(_mp4_crops(file))
      else:
        return WHOLE
  except (OSError, ValueError, IndexError, ArithmeticError, struct.error):
    return WHOLE
  return crops[number] if number < len(crops) else WHOLE


class Cropper:
  """Cuts the edges off decoded frames, without copying them."""

  def __init__(self, crop: Crop) -> None:
    self._crop = crop
    self._graph: av.filter.Graph | None = None
    self._source: tuple[int, int, str] | None = None

  def cut(self, frame: av.VideoFrame) -> av.VideoFrame:
    """Returns what is shown of a frame; the whole frame if nothing would be left of it."""
    crop = self._crop
    width, height = frame.width - crop.left - crop.right, frame.height - crop.top - crop.bottom
    if crop == WHOLE or width < 1 or height < 1:
      return frame
    source = (frame.width, frame.height, frame.format.name)
    if self._graph is None or source != self._source:
      self._graph, self._source = _crop_graph(frame, f"{width}:{height}:{crop.left}:{crop.top}:exact=1"), source
    time_base, frame.time_base = frame.time_base, Fraction(1, 1000)  # the filter shall not change times
    self._graph.push(frame)
    cut = self._graph.vpull()
    if time_base is not None:  # the last frames of a decoder lack it
      cut.time_base = frame.time_base = time_base
    return cut


def _crop_graph(frame: av.VideoFrame, arguments: str) -> av.filter.Graph:
  graph = av.filter.Graph()
  buffer = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000))
  graph.link_nodes(buffer, graph.add("crop", arguments), graph.add("buffersink")).configure()
  return graph


def _matroska_crops(file: BinaryIO) -> Iterator[Crop]:
  """Yields the crop of each video track of a Matroska file."""
  end = file.seek(0, 2)
  for name, start, size in elements(file, 0, end):
    if name != SEGMENT:
      continue
    segment_end = end if size == _UNKNOWN_SIZE else min(end, start + size)
    for inner, inner_start, inner_size in elements(file, start, segment_end):
      if inner == _TRACKS and 0 <= inner_size <= MAX_TRACKS:
        for track, track_start, track_size in elements(file, inner_start, inner_start + inner_size):
          if track == _TRACK:
            yield from _matroska_crop(file, track_start, track_size)
        return
      if inner_size == _UNKNOWN_SIZE:  # of a live stream, whose tracks come first
        return


def _matroska_crop(file: BinaryIO, start: int, size: int) -> Iterator[Crop]:
  """Yields the crop of a track if it is one of video."""
  is_video, found = False, {}
  for name, at, length in elements(file, start, start + size):
    if name == _TRACK_TYPE:
      is_video = _number(file, at, length) == 1
    elif name == _VIDEO:
      for inner, inner_at, inner_length in elements(file, at, at + length):
        if inner in _CROPS:
          found[_CROPS[inner]] = _number(file, inner_at, inner_length)
  if is_video:
    yield Crop(**found)


def elements(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, int]]:
  """Yields the identifier, the place of the content and its size of each EBML element in a part of a file."""
  for _ in range(MAX_ELEMENTS):
    if not 0 <= start < end:
      return
    file.seek(start)
    head = file.read(12)
    name_length = 9 - head[0].bit_length()
    size_length = 9 - head[name_length].bit_length()
    name = int.from_bytes(head[:name_length], "big")
    size = int.from_bytes(head[name_length : name_length + size_length], "big") - (1 << 7 * size_length)
    content = start + name_length + size_length
    if name_length > 4 or size_length > 8 or len(head) < name_length + size_length:
      return
    is_unknown = size == (1 << 7 * size_length) - 1
    yield name, content, _UNKNOWN_SIZE if is_unknown else size
    if is_unknown:
      return
    start = content + size


def _number(file: BinaryIO, start: int, size: int) -> int:
  file.seek(start)
  return int.from_bytes(file.read(min(size, 8)), "big")


def _mp4_crops(file: BinaryIO) -> Iterator[Crop]:
  """Yields the crop of each video track of an MP4 or MOV file."""
  for _, start, end in _boxes(file, b"moov", 0, file.seek(0, 2)):
    for _, track, track_end in _boxes(file, b"trak", start, end):
      for _, media, media_end in _boxes(file, b"mdia", track, track_end):
        handlers = [at for _, at, _ in _boxes(file, b"hdlr", media, media_end)]
        if handlers and _bytes(file, handlers[0] + 8, 4) == b"vide":
          yield _clean_aperture(file, media, media_end)


def _clean_aperture(file: BinaryIO, start: int, end: int) -> Crop:
  """Returns the crop that the first description of a video track's samples asks for."""
  places = [(start, end)]
  for name in (b"minf", b"stbl", b"stsd"):
    places = [box[1:] for place in places for box in _boxes(file, name, *place)][:1]
  for start, end in places:
    for _, entry, entry_end in _boxes(file, None, start + 8, end):
      width, height = struct.unpack(">HH", _bytes(file, entry + 24, 4))
      for _, at, _ in _boxes(file, b"clap", entry + 78, entry_end):
        return _aperture_crop(_bytes(file, at, 32), width, height)
      return WHOLE
  return WHOLE


def _aperture_crop(box: bytes, width: int, height: int) -> Crop:
  """Returns the crop of a clean aperture, which is given by its size and the distance of its centre from the middle."""
  numbers = struct.unpack(">IIIIiIiI", box)
  shown_width, shown_height, x, y = (Fraction(a, b) for a, b in zip(numbers[::2], numbers[1::2]))
  left, top = (width - shown_width) / 2 + x, (height - shown_height) / 2 + y
  edges = [round(edge) for edge in (left, top, width - shown_width - left, height - shown_height - top)]
  return Crop(*edges) if min(edges) >= 0 else WHOLE


def _boxes(file: BinaryIO, wanted: bytes | None, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
  """Yields the name of each box with a wanted name in a part of a file, and where its content begins and ends."""
  for _ in range(MAX_ELEMENTS):
    if not 0 <= start <= end - 8:
      return
    size, name = struct.unpack(">I4s", _bytes(file, start, 8))
    header = 8
    if size == 1:
      size, header = struct.unpack(">Q", _bytes(file, start + 8, 8))[0], 16
    size = size or end - start
    if size < header:
      return
    if wanted in (None, name):
      yield name, start + header, min(end, start + size)
    start += size


def _bytes(file: BinaryIO, start: int, size: int) -> bytes:
  file.seek(start)
  return file.read(size)
