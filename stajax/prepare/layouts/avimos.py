"""AViMoS, the set of the NTIRE 2026 challenge on video saliency: 2,000 videos with sound, seen by over 70 viewers each.

TrainTestSplit.json                         {part: [video, …]}: train, public_test and private_test
Videos/…/VIDEO.mp4
SaliencyTest/…/VIDEO.mp4                    the density, one grey frame a frame, up to 10 bits; SaliencyTrain likewise
FixationsTest/…/VIDEO/fixations.json        for each frame a list of [row, column]; FixationsTrain likewise

A pixel that several viewers fixate is in the list several times. The challenge's archives may be unpacked to any depth
below these folders.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stajax.eyetracking import AVIMOS_SPLIT
from stajax.media.file import Decoding, MediaError
from stajax.media.grey_video import grey_frames
from stajax.prepare.constant_rate import ShownFrames
from stajax.prepare.fixations import Annotation
from stajax.prepare.listing import (
  Item,
  Listing,
  ListingError,
  Remark,
  check_file_name,
  display_path,
  find_media_files,
  read_lines,
)

FIXATIONS_FILE = "fixations.json"
_DEEP = 257
"""Brings 8 bits to 16: 255 becomes 65535."""


@dataclass(frozen=True)
class AvimosAnnotations:
  """The annotations of one video.

  Attributes:
    fixations: The file with the fixations of all frames.
    saliency: The video of their densities.
  """

  fixations: Path
  saliency: Path

  def files(self) -> list[Path]:
    """Returns the files that the annotations are read from."""
    return [self.fixations, self.saliency]

  def identity(self) -> dict[str, Any]:
    """Returns what the annotations depend on besides the files, as JSON values."""
    return {"annotations": "AvimosAnnotations", "sigma": None, "first_frame": None}

  def read(self, frames: ShownFrames, notes: list[str]) -> Iterator[Annotation | None]:
    """Yields how often each pixel of a frame is fixated, and the density uint16; None for a frame without fixations.

    Args:
      frames: The frames of the video.
      notes: Receives a line for each thing that is left out.

    Raises:
      ListingError: The fixations are in another form; this is raised at once, before the first frame.
    """
    return self._read(read_fixation_lists(self.fixations), frames, notes)

  def _read(self, lists: list[np.ndarray], frames: ShownFrames, notes: list[str]) -> Iterator[Annotation | None]:
    numbers, at, values, num_outside = frames.numbers.tolist(), -1, None, 0
    decoded = self._densities(notes)
    for number in numbers:
      while at < number and (values is not None or at < 0):
        at, values = at + 1, next(decoded, None)
      if values is None or number >= len(lists):
        yield None
        continue
      counts, outside = count_fixations(lists[number], values.shape)
      num_outside += outside
      yield (counts, values) if counts.any() else None
    if values is None or next(decoded, None) is not None or len(lists) != len(numbers):
      notes.append(f"annotation: {len(lists)} lists of fixations for {len(numbers)} frames, or another number of maps")
    if num_outside:
      notes.append(f"fixations: {num_outside} outside of the picture left out")

  def _densities(self, notes: list[str]) -> Iterator[np.ndarray]:
    try:
      for values in grey_frames(self.saliency, notes, Decoding(threads=1)):
        yield values if values.dtype == np.uint16 else values.astype(np.uint16) * _DEEP
    except MediaError as error:
      notes.append(f"annotation: frames left out ({error})")


def read_fixation_lists(path: Path) -> list[np.ndarray]:
  """Returns the fixations (k, 2) int64 of each frame, as row and column.

  Raises:
    ListingError: The file is not a list of lists of pairs of whole numbers.
  """
  lists = _read_json(path)
  if not isinstance(lists, list):
    raise ListingError(f"{path}: found {type(lists).__name__}, expected a list with the fixations of each frame")
  found = []
  for number, pairs in enumerate(lists, start=1):
    try:
      values = np.asarray(pairs, np.float64).reshape(-1, 2) if isinstance(pairs, list) else None
    except (ValueError, TypeError):
      values = None
    if values is None or len(values) != len(pairs) or not np.array_equal(values, np.floor(values)):
      raise ListingError(f"{path}: frame {number}: {str(pairs)[:60]}, expected a list of [row, column], whole numbers")
    found.append(values.astype(np.int64))
  return found


def count_fixations(pairs: np.ndarray, size: tuple[int, ...]) -> tuple[np.ndarray, int]:
  """Returns how often each pixel of a frame (H, W) is fixated, int64, and how many of the pairs (k, 2) lie outside."""
  is_inside = ((pairs >= 0) & (pairs < np.array(size))).all(axis=1)
  counts = np.zeros(size, np.int64)
  np.add.at(counts, tuple(pairs[is_inside].T), 1)
  return counts, int((~is_inside).sum())


def read_avimos(root: Path, parts: Collection[str] = ()) -> tuple[Listing, dict[str, AvimosAnnotations]]:
  """Lists the videos of some parts, and finds their annotations.

  Args:
    root: The folder of the challenge's files.
    parts: The parts, as TrainTestSplit.json names them; by default all but those that are called train.

  Returns:
    The videos, and the annotations of those that have any, by the names of the videos.

  Raises:
    ListingError: The folder is another one, has no such part, or has no video of it.
  """
  root = Path(root)
  split = _read_split(root / AVIMOS_SPLIT)
  unknown = [part for part in parts if part not in split]
  if unknown:
    raise ListingError(f"{root / AVIMOS_SPLIT}: no part {unknown[0]}, expected some of {', '.join(split)}")
  chosen = [part for part in split if (part in parts if parts else part.lower() != "train")]
  videos, saliency, fixations = _find_videos(root, "Videos"), _find_videos(root, "Saliency"), _find_fixations(root)
  items: list[Item] = []
  annotations: dict[str, AvimosAnnotations] = {}
  remarks: list[Remark] = []
  for part in chosen:
    for name in split[part]:
      if name not in videos:
        remarks.append(Remark("missing", f"Videos/{name}.mp4", f"of the part {part}"))
        continue
      items.append(Item(name, videos[name], (), part))
      if name in saliency and name in fixations:
        annotations[name] = AvimosAnnotations(fixations[name], saliency[name])
      else:
        lacking = "Saliency…" if name not in saliency else f"Fixations…/{name}/{FIXATIONS_FILE}"
        reason = f"not in {lacking}: it can be predicted, but not scored"
        remarks.append(Remark("missing", display_path(videos[name], root), reason))
  if not items:
    raise ListingError(f"{root / 'Videos'}: has no video of {', '.join(chosen) or 'any part'}")
  return Listing("avimos", root, (), tuple(items), tuple(remarks)), annotations


def _folders(root: Path, kind: str) -> list[Path]:
  """Returns the folders of a kind, such as SaliencyTest and SaliencyTrain."""
  return sorted(path for path in root.iterdir() if path.is_dir() and path.name.startswith(kind))


def _find_videos(root: Path, kind: str) -> dict[str, Path]:
  """Returns the videos in the folders of a kind by their names."""
  return {path.stem: path for folder in _folders(root, kind) for path in reversed(find_media_files(folder))}


def _find_fixations(root: Path) -> dict[str, Path]:
  """Returns the files of fixations by the names of their videos, without a look at the pictures beside them."""
  found: dict[str, Path] = {}
  for folder in _folders(root, "Fixations"):
    for path, folders, files in os.walk(folder):
      folders.sort()
      if FIXATIONS_FILE in files:
        folders.clear()
        found.setdefault(Path(path).name, Path(path) / FIXATIONS_FILE)
  return found


def _read_split(path: Path) -> Mapping[str, list[str]]:
  split = _read_json(path)
  is_split = isinstance(split, dict) and all(
    isinstance(names, list) and all(isinstance(name, str) for name in names) for names in split.values()
  )
  if not is_split:
    raise ListingError(f"{path}: expected {{part: [name of a video, …]}}")
  return {part: [check_file_name(name, str(path)) for name in names] for part, names in split.items()}


def _read_json(path: Path) -> Any:
  try:
    return json.loads("\n".join(read_lines(path)))
  except (ValueError, RecursionError) as error:
    if isinstance(error, ListingError):
      raise
    raise ListingError(f"{path}: not JSON ({' '.join(str(error).split())[:80]})") from None
