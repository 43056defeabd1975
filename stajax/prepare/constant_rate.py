"""The frames of a video at a constant rate, which trees in the STAViS layout need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stajax.media.limits import Limits
from stajax.media.video import GRID_TOLERANCE, MediaInfo, frame_times, native_frames
from stajax.prepare.item_media import cut_frames, make_decoding

SAME_RATE = 1e-3  # the largest relative difference between a file's stated rate and the rate of its frames' times


@dataclass(frozen=True)
class ShownFrames:
  """The frames that a tree shows; frame k is shown from k / rate seconds on.

  Attributes:
    rate: The frames per second.
    numbers: (n,) int, ascending: the number in the media file of each frame; tables may count frames by it.
    height: The picture's height in pixels.
    width: The picture's width in pixels.
    pixel_aspect: The width of a displayed pixel over its height.
    is_cut: Whether the video is longer than what is shown.
  """

  rate: float
  numbers: np.ndarray
  height: int
  width: int
  pixel_aspect: float = 1.0
  is_cut: bool = False

  def __len__(self) -> int:
    return len(self.numbers)


def choose_frames(info: MediaInfo, limits: Limits, notes: list[str]) -> ShownFrames:
  """Chooses the frames of a video: each of its own once or, if its rate varies, those that a viewer sees on a grid.

  Args:
    info: The video. The rate that the file states is used if its frames' times agree with it.
    limits: The limits for a file.
    notes: Receives a line if frames are left out or repeated.
  """
  untimed = ((time, None) for time in frame_times(info.path, make_decoding(limits)))
  before = len(notes)
  times = np.asarray([time for time, _ in cut_frames(untimed, limits, notes)])
  about = info.height, info.width, float(info.pixel_aspect), len(notes) > before
  if len(times) == 1:
    return ShownFrames(info.rate, np.zeros(1, np.int64), *about)
  own = (len(times) - 1) / float(times[-1])
  for rate in (info.rate, own) if abs(info.rate / own - 1) < SAME_RATE else (own,):
    if np.abs(times * rate - np.arange(len(times))).max() <= 0.5:
      return ShownFrames(rate, np.arange(len(times)), *about)
  usual = float(np.median(np.diff(times)))
  count = int(np.floor(times[-1] / usual + 0.5)) + 1
  numbers = np.searchsorted(times, np.arange(count) * usual + GRID_TOLERANCE, side="right") - 1
  notes.append(f"picture: its rate varies, shown at {1 / usual:g} frames a second: {len(times)} frames become {count}")
  return ShownFrames(1 / usual, numbers, *about)


def decode_pictures(info: MediaInfo, frames: ShownFrames, limits: Limits, notes: list[str]) -> Iterator[np.ndarray]:
  """Yields every shown frame (height, width, 3) uint8; `notes` receives a line for whatever had to be left out."""
  decoded = native_frames(info.path, (frames.height, frames.width), notes, make_decoding(limits))
  at, (_, picture) = 0, next(decoded)
  for number in frames.numbers.tolist():
    while at < number:
      at, (_, picture) = at + 1, next(decoded)
    yield picture
