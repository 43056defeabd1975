"""A folder of numbered images as a video: image number n is shown at (n - first) / rate seconds."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stajax.eyetracking import numbered_files
from stajax.media.file import Decoding, MediaError
from stajax.media.video import GRID_TOLERANCE, native_frames, probe

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def numbered_images(folder: Path) -> list[tuple[int, Path]]:
  """The images of a folder with their numbers, sorted by these; the first in alphabetical order of one number."""
  return [(number, paths[0]) for number, paths in numbered_files(folder, IMAGE_SUFFIXES).items()]


class ImageFolder:
  """Frames of a folder on a constant grid; only images that the grid shows are decoded."""

  def __init__(self, folder: Path, rate: float, decoding: Decoding, notes: list[str]):
    """Args:
    folder: holds images whose names end in a number.
    rate: images a second.
    decoding: what a decoder may take.
    notes: receives a line for each thing that had to be left out.

    Raises:
      MediaError: there are no such images, or none can be decoded.
    """
    if not folder.is_dir():
      raise MediaError(f"{folder}: {'is not a folder' if folder.exists() else 'no such folder'}")
    self._folder, self._decoding, self._notes = folder, decoding, notes
    numbers, self._images = zip(*numbered_images(folder) or [(0, None)])
    if self._images[0] is None:
      raise MediaError(f"{folder}: holds no numbered images")
    places = np.asarray(numbers) - numbers[0]
    if places[-1] >= 2 * len(places):  # numbers that are no frame numbers, or of every n-th frame
      notes.append(f"picture: images are numbered {numbers[0]} to {numbers[-1]} with gaps, shown one after the other")
      places = np.arange(len(places))
    elif missing := int(places[-1]) + 1 - len(places):
      notes.append(f"picture: {missing} image{'s' * (missing > 1)} missing, the one before is shown")
    self._times, self.duration = places / rate, float(places[-1] + 1) / rate
    self.width, self.height = self._size()

  def frames(self, rate: float, side: int) -> Iterator[tuple[float, np.ndarray]]:
    """As `stajax.media.video.grid_frames`; an image that cannot be decoded is replaced by the one before."""
    index, tried, shown, damaged = 0, -1, None, 0
    while index == 0 or index / rate + GRID_TOLERANCE < self.duration:
      wanted = int(np.searchsorted(self._times, index / rate + GRID_TOLERANCE, side="right")) - 1
      while tried < wanted or shown is None:  # before the first one that can be decoded, the next is tried
        tried = max(tried + 1, wanted)
        try:
          _, shown = next(native_frames(self._images[tried], (side, side), decoding=self._decoding))
        except MediaError:
          damaged += 1
      yield index / rate, shown
      index += 1
    if damaged:
      self._notes.append(f"picture: {damaged} damaged image{'s' * (damaged > 1)} skipped")

  def _size(self) -> tuple[int, int]:
    reason = ""
    for image in self._images:
      try:
        info = probe(image, self._decoding)
        return info.width, info.height
      except MediaError as error:
        reason = reason or str(error)
    raise MediaError(f"{self._folder}: none of {len(self._images)} images can be decoded ({reason})")
