"""A folder of numbered images as a video: the image with number n is shown at (n - first) / rate seconds."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stajax.files import numbered_files
from stajax.media.file import Decoding, MediaError
from stajax.media.video import GRID_TOLERANCE, native_frames, probe_picture
from stajax.screen import counted

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def numbered_images(folder: Path) -> dict[int, Path]:
  """Returns the images of a folder by number, in order; of several with the same number, the first by name."""
  return {number: paths[0] for number, paths in numbered_files(folder, IMAGE_SUFFIXES).items()}


class ImageFolder:
  """The frames of a folder on a constant grid; only the images that the grid shows are decoded.

  Attributes:
    width: The width of the first image that can be decoded, in pixels.
    height: Its height, likewise.
    duration: The duration in seconds.
  """

  def __init__(self, folder: Path, rate: float, decoding: Decoding, notes: list[str]) -> None:
    """Finds the images of a folder.

    Args:
      folder: A folder of images whose names end in a number.
      rate: The number of images per second.
      decoding: The limits of the decoder.
      notes: Receives a line for each thing that had to be left out.

    Raises:
      MediaError: There are no such images, or none of them can be decoded.
    """
    if not folder.is_dir():
      raise MediaError(f"{folder}: {'is not a folder' if folder.exists() else 'no such folder'}")
    found = numbered_images(folder)
    if not found:
      raise MediaError(f"{folder}: holds no numbered images")
    self._folder, self._decoding, self._notes = folder, decoding, notes
    self._images = list(found.values())
    places = _places(list(found), notes)
    self._times, self.duration = places / rate, float(places[-1] + 1) / rate
    self.width, self.height = self._size()

  def frames(self, rate: float, side: int) -> Iterator[tuple[float, np.ndarray]]:
    """Yields frames as `stajax.media.video.grid_frames` does; the last image replaces one that cannot be decoded."""
    index, tried, shown, damaged = 0, -1, None, 0
    while index == 0 or index / rate + GRID_TOLERANCE < self.duration:
      wanted = int(np.searchsorted(self._times, index / rate + GRID_TOLERANCE, side="right")) - 1
      while tried < wanted or shown is None:  # until one can be decoded, the next one is tried
        tried = max(tried + 1, wanted)
        try:
          _, shown = next(native_frames(self._images[tried], (side, side), decoding=self._decoding))
        except MediaError:
          damaged += 1
      yield index / rate, shown
      index += 1
    if damaged:
      self._notes.append(f"picture: {counted(damaged, 'damaged image')} skipped")

  def _size(self) -> tuple[int, int]:
    reason = ""
    for image in self._images:
      try:
        info = probe_picture(image, self._decoding)
        return info.width, info.height
      except MediaError as error:
        reason = reason or str(error)
    raise MediaError(f"{self._folder}: none of {len(self._images)} images can be decoded ({reason})")


def _places(numbers: list[int], notes: list[str]) -> np.ndarray:
  """Returns the place of each image in the video, counted from 0; `notes` receives a line about gaps."""
  places = np.asarray(numbers) - numbers[0]
  if places[-1] >= 2 * len(places):  # the numbers do not count frames, or only every n-th frame is there
    notes.append(f"picture: images are numbered {numbers[0]} to {numbers[-1]} with gaps, shown one after the other")
    return np.arange(len(places))
  if missing := int(places[-1]) + 1 - len(places):
    notes.append(f"picture: {counted(missing, 'image')} missing, the one before is shown")
  return places
