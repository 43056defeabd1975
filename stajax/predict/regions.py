"""What encoders take, as outputs of a prediction: boxes, weights of blocks, and the encoded video itself."""

import contextlib
import json
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np

from stajax.files import atomic_file
from stajax.maps.pseudo import resize
from stajax.maps.regions import BoxTracker, block_weights, merge_blocks, qp_offsets
from stajax.media import isolated
from stajax.media.encoding import Encoding
from stajax.media.roi import Region
from stajax.media.video_writer import VideoWriter
from stajax.predict.crop import CropWindows
from stajax.predict.outputs import Frame, Output, Provenance, to_uint8
from stajax.predict.per_video import MapInterpolator, Pictures

FRAMES_PER_PART = 1000
_BLOCK, _ACROSS = 16, 40  # the pixels of a block's side, and the blocks of a row, where regions are merged
_KEPT = 32  # the side of the maps that are kept until the path of a crop is known


class BoxLines(Output):
  """At most a number of boxes of every native frame, as JSON lines."""

  def __init__(self, path: Path, count: int, provenance: Provenance) -> None:
    self._path, self._tracker = path, BoxTracker(count, provenance.size)

  @contextlib.contextmanager
  def opened(self) -> Generator[None]:
    """Opens the file."""
    with atomic_file(self._path) as partial, partial.open("w", encoding="utf-8") as self._file:
      yield

  def add_frame(self, frame: Frame) -> None:
    """Writes a line."""
    boxes = self._tracker.add(frame.time, frame.saliency).tolist()
    named = [dict(zip("xywh", box, strict=True)) for box in boxes if box[2]]
    self._file.write(json.dumps({"t": round(frame.time, 6), "boxes": named}) + "\n")


class BlockFiles(Output):
  """The weight of every block of every native frame: as text, as npz files, and as bytes for encoders.

  The bytes of a frame are the numbers of columns and rows as 32-bit integers, and a signed byte for each block, row by
  row: what is added to its quantisation parameter.
  """

  def __init__(self, folder: Path, name: str, side: int, provenance: Provenance) -> None:
    self._folder, self._name, self._side, self._provenance = folder, name, side, provenance
    self._weights: list[np.ndarray] = []
    self._times: list[float] = []
    self._num_parts = 0

  @contextlib.contextmanager
  def opened(self) -> Generator[None]:
    """Opens the text and the bytes, and writes the last npz file."""
    text, raw = (self._folder / f"{self._name}.blocks.{ending}" for ending in ("txt", "bin"))
    with (
      atomic_file(text) as text_partial,
      atomic_file(raw) as raw_partial,
      text_partial.open("w", encoding="utf-8") as self._text,
      raw_partial.open("wb") as self._raw,
    ):
      yield
      if self._times:
        self._write_part()

  def add_frame(self, frame: Frame) -> None:
    """Writes the blocks of a frame."""
    weights = block_weights(frame.saliency[None], self._provenance.size, self._side)[0]
    columns = " ".join(f"{weight:.3f}" for weight in weights.ravel().tolist())
    self._text.write(f"{frame.time:.6f} {weights.shape[1]} {weights.shape[0]} {columns}\n")
    self._raw.write(np.array(weights.shape[::-1], "<i4").tobytes() + qp_offsets(weights).tobytes())
    self._weights.append(to_uint8(weights))
    self._times.append(frame.time)
    if len(self._times) == FRAMES_PER_PART:
      self._write_part()

  def _write_part(self) -> None:
    path = self._folder / f"{self._name}.blocks-{self._num_parts:03d}.npz"
    with atomic_file(path) as partial, partial.open("wb") as file:
      fields = {"weights": np.stack(self._weights), "times": np.array(self._times), "side": self._side}
      np.savez_compressed(file, **fields, **self._provenance.fields())
    self._num_parts += 1
    self._weights, self._times = [], []


class EncodedVideo(Output):
  """The video, encoded with its sound and with more bits where people look; cropped if it is given windows.

  The windows are only known in the end. Then the video is read again, so their output has to be completed before this
  one; maps are kept in a size that is enough for regions.
  """

  def __init__(
    self,
    path: Path,
    encoding: Encoding,
    provenance: Provenance,
    crop: CropWindows | None = None,
    pictures: Pictures | None = None,
  ) -> None:
    self._encoding, self._crop, self._pictures, self._info = encoding, crop, pictures, provenance.info
    self._size = provenance.size if crop is None else crop.window
    about = path, provenance.info, provenance.notes, isolated.add_sound
    self._writer = VideoWriter(*about, encoding=encoding, size=self._size)
    self._maps: list[tuple[float, np.ndarray]] = []
    self.needs_pictures = crop is None

  @contextlib.contextmanager
  def opened(self) -> Generator[None]:
    """Opens the video, and writes it in the end if it is cropped."""
    with self._writer:
      yield
      for frame, (x, y, width, height) in self._again():
        assert frame.picture is not None
        part = cut(frame.saliency, (x, y, width, height), frame.size)
        self._write(frame.time, frame.picture[y : y + height, x : x + width], part)

  def add_map(self, time: float, saliency: np.ndarray) -> None:
    """Keeps the map if the video is written later."""
    if self._crop is not None:
      small = resize(saliency[None], (_KEPT, _KEPT))[0]
      self._maps.append((time, to_uint8(small)))

  def add_frame(self, frame: Frame) -> None:
    """Writes the frame, unless the video is written later."""
    if self._crop is None:
      assert frame.picture is not None
      self._write(frame.time, frame.picture, frame.saliency)

  def _write(self, time: float, picture: np.ndarray, saliency: np.ndarray) -> None:
    self._writer.write(time, picture, regions_of(saliency, self._size, self._encoding.strength))

  def _again(self) -> Iterator[tuple[Frame, list[int]]]:
    """Yields the frames and their windows, if the video is cropped."""
    if self._crop is None:
      return
    maps = MapInterpolator((time, saliency.astype(np.float32) / 255) for time, saliency in self._maps)
    info, given = self._info, self._pictures
    pictures = isolated.native_frames(info.path, decoding=info.decoding) if given is None else given()
    windows = self._crop.found.windows.tolist()
    for number, ((time, picture), window) in enumerate(zip(pictures, windows, strict=True)):
      yield Frame(number, time, picture, maps.at(time), (self._info.width, self._info.height)), window


def regions_of(saliency: np.ndarray, size: tuple[int, int], strength: int) -> list[Region]:
  """Returns the regions of a frame with their offsets of the quantisation parameter, in steps of two.

  Args:
    saliency: The map (h, w), float in [0, 1].
    size: The (width, height) of the frame in pixels. Blocks are larger in large frames.
    strength: That of `stajax.maps.regions.qp_offsets`; with 0 there are no regions.
  """
  side = _BLOCK * max(1, -(-max(size) // (_BLOCK * _ACROSS)))
  offsets = qp_offsets(block_weights(saliency[None], size, side)[0], strength)
  return merge_blocks(2 * (offsets // 2), side, size)


def cut(saliency: np.ndarray, window: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
  """Returns the part of a map (h, w) that is in a window (x, y, width, height) of a frame of `size` (width, height)."""
  (height, width), (x, y, w, h) = saliency.shape, window
  columns = slice(x * width // size[0], max(x * width // size[0] + 1, -(-(x + w) * width // size[0])))
  rows = slice(y * height // size[1], max(y * height // size[1] + 1, -(-(y + h) * height // size[1])))
  return saliency[rows, columns]
