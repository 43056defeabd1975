"""One clip of real media to what the records keep: grid frames as JPEG files and the log-spectrogram.

A video that is longer than a segment becomes several clips, so that memory does not grow with its length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stajax.data.image_folder import ImageFolder
from stajax.data.limits import Limits
from stajax.data.listing import Item
from stajax.data.media import Decoding, MediaError, audio_blocks, grid_frames, probe
from stajax.data.sound import SAMPLE_RATE, is_silent, log_spectrogram, spectrogram_blocks, statistics, until
from stajax.data.staging import PreparedClip, encode_jpeg

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
    if not 0 < self.rate <= 1000 or not 16 <= self.side <= 4096 or not self.segment * self.rate >= 1:
      raise ValueError(f"{self}: expected 0 < rate <= 1000, 16 <= side <= 4096, and a frame in a segment")


def prepared_clips(
  item: Item, settings: MediaSettings, limits: Limits, notes: list[str]
) -> Iterator[PreparedClip]:
  """Decodes one item; the same file gives the same clips on any machine with the same FFmpeg.

  Args:
    notes: receives a line for each thing that had to be left out.

  Yields:
    One clip of the item's name; or, of a long video, the segments `NAME#000`, `NAME#001` and so on.

  Raises:
    MediaError: the item cannot be used.
  """
  raise NotImplementedError
