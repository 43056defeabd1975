"""One clip of real media to what the records keep: grid frames as JPEG files and the log-spectrogram.

A video that is longer than a segment becomes several clips, so that memory does not grow with its length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import floor

import numpy as np

from stajax.data.jpeg import encode_jpeg
from stajax.media.audio import SAMPLE_RATE, audio_blocks
from stajax.media.file import Decoding, MediaError
from stajax.media.image_folder import ImageFolder, numbered_images
from stajax.media.limits import Limits
from stajax.media.spectrogram import NUM_BINS, is_used, log_spectrogram, spectrogram_blocks, statistics, until
from stajax.media.video import GRID_TOLERANCE, MediaInfo, grid_frames, probe
from stajax.prepare.clip_staging import PreparedClip
from stajax.prepare.listing import Item

SOUND_BEYOND = 1.0  # seconds of sound that are kept after the picture; windows of its last frames reach into it


@dataclass(frozen=True)
class MediaSettings:
  """What clips are turned into.

  Attributes:
    rate: frames a second of the grid.
    side: of the square frames, pixels.
    segment: seconds; longer videos become several clips. A rest of less than half of it stays with the last.
  """

  rate: float = 8.0
  side: int = 512
  segment: float = 60.0

  def __post_init__(self) -> None:
    if not 0 < self.rate <= 1000:
      raise ValueError(f"rate is {self.rate} frames a second, expected more than 0, at most 1000")
    if not 16 <= self.side <= 4096:
      raise ValueError(f"side is {self.side} pixels, expected 16 to 4096")
    if not self.segment * self.rate >= 1:
      raise ValueError(f"segment is {self.segment} s, which has no frame at {self.rate} a second")


def prepared_clips(item: Item, settings: MediaSettings, limits: Limits, notes: list[str]) -> Iterator[PreparedClip]:
  """Decodes one item; the same file gives the same clips on every machine that has the same FFmpeg.

  Args:
    notes: receives a line for each thing that had to be left out.

  Yields:
    One clip of the item's name; or, of a long video, the segments `NAME#000`, `NAME#001` and so on. Mean and
    deviation are those of the whole sound.

  Raises:
    MediaError: the item cannot be used.
  """
  _check_bytes(item, limits)
  decoding, picture = _decoding(limits), _picture(item, limits, notes)
  if isinstance(picture, ImageFolder):
    frames = picture.frames(settings.rate, settings.side)
  else:
    frames = grid_frames(item.path, settings.rate, settings.side, notes, decoding)
  samples, mean, deviation = _sound(item, picture.duration, limits, decoding, notes)
  start, is_whole = 0, True
  for jpegs, is_last in _segments(_first(frames, limits, notes), settings):
    is_whole &= is_last
    end = start + len(jpegs)
    heard = segment_sound(samples, start, end, is_last, settings.rate)
    columns = log_spectrogram(heard).astype(np.float16) if len(heard) else np.zeros((NUM_BINS, 0), np.float16)
    yield PreparedClip(
      name=item.name if is_whole else f"{item.name}#{start // segment_frames(settings):03d}",
      tags=item.tags,
      flags=(),
      rate=settings.rate,
      width=picture.width,
      height=picture.height,
      duration=len(jpegs) / settings.rate,
      frames=jpegs,
      columns=columns,
      sound_mean=mean if len(heard) else 0.0,
      sound_std=deviation if len(heard) else 0.0,
    )
    start = end


def item_sound(item: Item, limits: Limits) -> np.ndarray:
  """The sound of one item as `prepared_clips` decodes it: (m,) float32 at 16 kHz in [-1, 1]; m = 0: none to use.

  Raises:
    MediaError: as `prepared_clips`.
  """
  _check_bytes(item, limits)
  picture = _picture(item, limits, [])
  return _sound(item, picture.duration, limits, _decoding(limits), [])[0]


def segment_sound(samples: np.ndarray, start: int, end: int, is_last: bool, rate: float) -> np.ndarray:
  """The samples of an item's grid frames from `start` to before `end`; of the last ones, what their windows reach."""
  reach = end / rate + (SOUND_BEYOND if is_last else 0)
  return samples[round(start / rate * SAMPLE_RATE) : round(reach * SAMPLE_RATE)]


def segment_frames(settings: MediaSettings) -> int:
  """Grid frames of each segment but the last."""
  return floor(settings.segment * settings.rate + GRID_TOLERANCE)


def _decoding(limits: Limits) -> Decoding:
  return Decoding(threads=1, max_pixels=limits.max_pixels)


def _picture(item: Item, limits: Limits, notes: list[str]) -> ImageFolder | MediaInfo:
  if item.rate is not None:
    return ImageFolder(item.path, item.rate, _decoding(limits), notes)
  return probe(item.path, _decoding(limits))


def _check_bytes(item: Item, limits: Limits) -> None:
  try:
    files = [path for _, path in numbered_images(item.path)] if item.rate is not None else [item.path]
    size = sum(path.stat().st_size for path in [*files, *filter(None, (item.wav,))] if path.exists())
  except OSError as error:
    raise MediaError(f"{item.path}: {error.strerror}") from error
  if size > limits.max_bytes:
    raise MediaError(f"{item.path}: has {size} bytes, at most {limits.max_bytes} are taken")


def _sound(
  item: Item, end: float | None, limits: Limits, decoding: Decoding, notes: list[str]
) -> tuple[np.ndarray, float, float]:
  """(n,) float32 samples, mean and deviation of their spectrogram; no samples where there is no sound to use."""
  path = item.wav if item.wav is not None or item.rate is not None else item.path
  nothing = np.zeros(0, np.float32), 0.0, 0.0
  if path is None:
    return nothing
  try:
    blocks = list(_first_samples(until(audio_blocks(path, notes, decoding), end), limits))
  except MediaError as error:
    if item.wav is None:
      raise
    notes.append(f"sound: {str(error).removeprefix(f'{path}: ')}")  # the picture is fine
    return nothing
  whole = statistics(spectrogram_blocks(blocks))
  return (np.concatenate(blocks), *whole[:2]) if is_used(whole, notes) else nothing


def _first_samples(blocks: Iterable[np.ndarray], limits: Limits) -> Iterator[np.ndarray]:
  left = round(min(limits.max_seconds, 1e9) * SAMPLE_RATE)
  for block in blocks:
    yield block[:left]
    left -= len(block)
    if left <= 0:
      return


def _first(frames: Iterable[tuple[float, np.ndarray]], limits: Limits, notes: list[str]) -> Iterator[np.ndarray]:
  """The frames before the time where a clip is cut."""
  for time, frame in frames:
    if time > 0 and time + GRID_TOLERANCE >= limits.max_seconds:
      notes.append(f"longer than {limits.max_seconds:g} s, cut there")
      return
    yield frame


def _segments(frames: Iterable[np.ndarray], settings: MediaSettings) -> Iterator[tuple[list[bytes], bool]]:
  """JPEG files of each segment, and whether it is the last."""
  length = segment_frames(settings)
  jpegs: list[bytes] = []
  shown = None
  for frame in frames:
    jpegs.append(jpegs[-1] if frame is shown else encode_jpeg(frame))
    shown = frame
    if len(jpegs) == length + max(1, length // 2):
      yield jpegs[:length], False
      jpegs = jpegs[length:]
  yield jpegs, True
