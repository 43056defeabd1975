"""Turns one item of real media into what the records keep: grid frames as JPEG files and the log-spectrogram.

A video that is longer than a segment becomes several clips, so that memory does not grow with its length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import floor

import numpy as np

from stajax.data.jpeg import encode_jpeg
from stajax.media.audio import SAMPLE_RATE
from stajax.media.image_folder import ImageFolder
from stajax.media.limits import Limits
from stajax.media.sound_windows import is_audible
from stajax.media.spectrogram import NUM_BINS, log_spectrogram, spectrogram_blocks, statistics
from stajax.media.video import GRID_TOLERANCE, MediaInfo, grid_frames, probe_picture
from stajax.prepare.clip_staging import PreparedClip
from stajax.prepare.item_media import check_bytes, cut_frames, decode_sound, make_decoding
from stajax.prepare.listing import Item

SOUND_BEYOND = 1.0  # seconds of sound that are kept after the picture, for the windows of its last frames


@dataclass(frozen=True)
class MediaSettings:
  """The grid and the segments that media is turned into.

  Attributes:
    rate: The frames per second of the grid.
    side: The side of the square frames in pixels.
    segment: The length in seconds of the clips that a longer video is cut into. A rest shorter than half a segment
      belongs to the last clip.
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


def prepare_clips(item: Item, settings: MediaSettings, limits: Limits, notes: list[str]) -> Iterator[PreparedClip]:
  """Decodes one item; the same file gives the same clips on every machine that has the same FFmpeg.

  Args:
    item: The item.
    settings: The grid and the segments.
    limits: The limits for a file.
    notes: Receives a line for each thing that had to be left out.

  Yields:
    One clip with the item's name or, for a long video, the segments `NAME#000`, `NAME#001` and so on. The mean and the
    deviation are those of the whole sound.

  Raises:
    MediaError: The item cannot be used.
  """
  check_bytes(item, limits)
  picture = _picture(item, limits, notes)
  if isinstance(picture, ImageFolder):
    timed = picture.frames(settings.rate, settings.side)
  else:
    timed = grid_frames(item.path, settings.rate, settings.side, notes, make_decoding(limits))
  samples, mean, deviation = _sound(item, picture.duration, limits, notes)
  frames = (frame for _, frame in cut_frames(timed, limits, notes))
  start, is_whole = 0, True
  for jpegs, is_last in _segments(frames, settings):
    is_whole &= is_last
    end = start + len(jpegs)
    heard = cut_segment_sound(samples, start, end, is_last, settings.rate)
    columns = log_spectrogram(heard).astype(np.float16) if len(heard) else np.zeros((NUM_BINS, 0), np.float16)
    yield PreparedClip(
      name=item.name if is_whole else f"{item.name}#{start // count_segment_frames(settings):03d}",
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


def decode_item_sound(item: Item, limits: Limits) -> np.ndarray:
  """Returns the sound of one item as `prepare_clips` decodes it.

  Returns:
    (m,) float32 at 16 kHz in [-1, 1]; m = 0 without usable sound.

  Raises:
    MediaError: The item cannot be used.
  """
  check_bytes(item, limits)
  return _sound(item, _picture(item, limits, []).duration, limits, [])[0]


def cut_segment_sound(samples: np.ndarray, start: int, end: int, is_last: bool, rate: float) -> np.ndarray:
  """Returns the samples that belong to a range of an item's grid frames; after its last frame, `SOUND_BEYOND` more.

  Args:
    samples: (m,) The item's sound.
    start: The first frame.
    end: The frame after the last one.
    is_last: Whether the item ends with these frames.
    rate: The frames per second of the grid.
  """
  reach = end / rate + (SOUND_BEYOND if is_last else 0)
  return samples[round(start / rate * SAMPLE_RATE) : round(reach * SAMPLE_RATE)]


def count_segment_frames(settings: MediaSettings) -> int:
  """Returns the number of grid frames of each segment except the last."""
  return floor(settings.segment * settings.rate + GRID_TOLERANCE)


def _picture(item: Item, limits: Limits, notes: list[str]) -> ImageFolder | MediaInfo:
  if item.rate is not None:
    return ImageFolder(item.path, item.rate, make_decoding(limits), notes)
  return probe_picture(item.path, make_decoding(limits))


def _sound(item: Item, end: float | None, limits: Limits, notes: list[str]) -> tuple[np.ndarray, float, float]:
  """Returns (m,) float32 samples, and the mean and deviation of their spectrogram; m = 0 without usable sound."""
  blocks = decode_sound(item, limits, notes, end)
  mean, deviation, _ = whole = statistics(spectrogram_blocks(blocks))
  return (np.concatenate(blocks), mean, deviation) if is_audible(whole, notes) else (np.zeros(0, np.float32), 0.0, 0.0)


def _segments(frames: Iterable[np.ndarray], settings: MediaSettings) -> Iterator[tuple[list[bytes], bool]]:
  """Yields the JPEG files of each segment, and whether it is the last one."""
  length = count_segment_frames(settings)
  jpegs: list[bytes] = []
  shown = None
  for frame in frames:
    jpegs.append(jpegs[-1] if frame is shown else encode_jpeg(frame))
    shown = frame
    if len(jpegs) == length + max(1, length // 2):
      yield jpegs[:length], False
      jpegs = jpegs[length:]
  yield jpegs, True
