"""The files that a prediction is written to while a video is read: maps, numbers for every frame, an overlay.

An output is a class here and a row of `make_outputs`. A new one needs nothing else, unless users are to choose it: then
it also needs an option of the command.
"""

import contextlib
import json
import re
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stajax.files import atomic_file
from stajax.maps.statistics import frame_statistics
from stajax.media import isolated
from stajax.media.video import MediaInfo
from stajax.media.video_writer import VideoWriter
from stajax.report.overlay import caption, heat_overlay

MAPS_PER_PART = 1000


@dataclass(frozen=True)
class Provenance:
  """What was predicted, and by what.

  Attributes:
    info: The video.
    has_sound: Whether the model hears it.
    model: The model's name, for people.
    trained_on: What the model was trained on, `synthetic` for the embedded clips.
    rate: Maps a second.
    every_frame: Whether every native frame has a map of its own, instead of one between those on the model's grid.
    notes: A line for each thing that had to be left out. The list grows while the video is read and written.
    source: The identity of the video's file, as `stajax.predict.names.identify` gives it.
  """

  info: MediaInfo
  has_sound: bool
  model: str
  trained_on: str
  rate: float
  every_frame: bool
  notes: list[str]
  source: str = ""

  @property
  def size(self) -> tuple[int, int]:
    """Width and height of the video's frames, pixels."""
    return self.info.width, self.info.height

  def fields(self) -> dict[str, Any]:
    """Returns what every file says about itself."""
    about = {"video": self.info.path.name, "source": self.source, "model": self.model, "trained_on": self.trained_on}
    return {**about, "rate": self.rate, "size": list(self.size)}


@dataclass(frozen=True)
class Frame:
  """A native frame of a video.

  Attributes:
    number: The frame's index from 0.
    time: Seconds.
    picture: (H, W, 3) uint8 RGB; None where no output needs it.
    saliency: The map (h, w) float32 at this time, at most 1.
  """

  number: int
  time: float
  picture: np.ndarray | None
  saliency: np.ndarray


class Output:
  """A file, or several, that a prediction is written to. This one ignores everything that it is given."""

  needs_pictures = False

  @contextlib.contextmanager
  def opened(self) -> Generator[None]:
    """Prepares the output, and completes it when the block ends without an exception."""
    yield

  def add_map(self, time: float, saliency: np.ndarray) -> None:
    """Takes a map (h, w) float32 that the model has computed for a time in seconds; its maximum is 1, or it is 0."""

  def add_frame(self, frame: Frame) -> None:
    """Takes a native frame. All maps up to its time have been given before."""


def make_outputs(folder: Path, name: str, provenance: Provenance, has_overlay: bool = True) -> list[Output]:
  """Returns the outputs of a video in the order in which they are opened.

  They are completed in reverse order, so that the JSON file comes last and shows that everything is complete.

  Args:
    folder: The folder for the files, which exists.
    name: What the files' names begin with.
    provenance: What is predicted.
    has_overlay: Whether the overlay video is written.
  """
  outputs: list[Output] = [FrameNumbers(folder / f"{name}.json", provenance)]
  if has_overlay:
    outputs.append(OverlayVideo(folder / f"{name}.overlay.mp4", provenance))
  return [*outputs, MapParts(folder, name, provenance)]


class MapParts(Output):
  """The maps as npz files of at most `MAPS_PER_PART` maps, each written as soon as it is full.

  The first one removes whatever an earlier run left.
  """

  def __init__(self, folder: Path, name: str, provenance: Provenance):
    self._folder, self._name, self._provenance = folder, name, provenance
    self._num_parts = 0
    self._maps: np.ndarray | None = None  # holds a whole part: many small arrays would leave gaps in memory
    self._times: list[float] = []

  @contextlib.contextmanager
  def opened(self) -> Generator[None]:
    """Writes the last part when the block ends."""
    yield
    self._write()

  def add_map(self, time: float, saliency: np.ndarray) -> None:
    """Keeps a map, and writes a part when it is full."""
    if self._maps is None:
      self._maps = np.empty((MAPS_PER_PART, *saliency.shape), np.uint8)
    self._maps[len(self._times)] = to_uint8(saliency)
    self._times.append(time)
    if len(self._times) == MAPS_PER_PART:
      self._write()

  def _write(self) -> None:
    if self._maps is None or not self._times:
      return
    if self._num_parts == 0:
      self._remove_earlier()
    path = self._folder / f"{self._name}.maps-{self._num_parts:03d}.npz"
    write_maps(path, self._maps[: len(self._times)], self._times, self._provenance)
    self._num_parts += 1
    self._times = []

  def _remove_earlier(self) -> None:
    # The JSON file goes first, because it says that the others belong together.
    (self._folder / f"{self._name}.json").unlink(missing_ok=True)
    (self._folder / f"{self._name}.overlay.mp4").unlink(missing_ok=True)
    part = re.compile(re.escape(self._name) + r"\.maps-\d{3,}\.npz")
    for path in self._folder.iterdir():
      if part.fullmatch(path.name):
        path.unlink()


def to_uint8(saliency: np.ndarray) -> np.ndarray:
  """Returns maps in [0, 1] as uint8 from 0 to 255."""
  return np.round(saliency * 255).astype(np.uint8)


def write_maps(path: Path, maps: np.ndarray, times: list[float] | np.ndarray, provenance: Provenance) -> None:
  """Writes maps (n, h, w) uint8 and their times, in seconds, as an npz file."""
  with atomic_file(path) as partial, partial.open("wb") as file:
    np.savez_compressed(file, maps=maps, times=np.asarray(times, np.float64), **provenance.fields())


class FrameNumbers(Output):
  """A JSON object whose list `frames` says, in four numbers for each native frame, where people look."""

  def __init__(self, path: Path, provenance: Provenance):
    self._path, self._provenance = path, provenance
    self._num_maps = 0

  @contextlib.contextmanager
  def opened(self) -> Generator[None]:
    """Writes what comes before the list of frames, and what comes after it."""
    # A file name that is not UTF-8 becomes a JSON escape.
    with (
      atomic_file(self._path) as partial,
      partial.open("w", encoding="utf-8", errors="backslashreplace") as self._file,
    ):
      fields = {**self._provenance.fields(), "every_frame": self._provenance.every_frame}
      self._file.write(_dumps(fields)[:-1] + ', "frames": [')
      yield
      self._file.write("\n], " + _dumps({"maps": self._num_maps, "notes": self._provenance.notes})[1:] + "\n")

  def add_map(self, time: float, saliency: np.ndarray) -> None:
    """Counts the map."""
    self._num_maps += 1

  def add_frame(self, frame: Frame) -> None:
    """Writes an entry of the list."""
    numbers = frame_statistics(frame.saliency, self._provenance.size)
    entry = {"frame": frame.number, "time": round(frame.time, 6), **numbers}
    self._file.write(("\n" if frame.number == 0 else ",\n") + _dumps(entry))


class OverlayVideo(Output):
  """The video with its sound and the maps drawn over it, labelled `synthetic` if the model knows only such clips."""

  needs_pictures = True

  def __init__(self, path: Path, provenance: Provenance):
    self._writer = VideoWriter(path, provenance.info, provenance.notes, isolated.add_sound)
    self._label = "synthetic" if provenance.trained_on == "synthetic" else ""

  @contextlib.contextmanager
  def opened(self) -> Generator[None]:
    """Opens the video."""
    with self._writer:
      yield

  def add_frame(self, frame: Frame) -> None:
    """Draws the map over the frame."""
    assert frame.picture is not None
    drawn = heat_overlay(frame.picture, frame.saliency)
    self._writer.write(frame.time, caption(drawn, self._label) if self._label else drawn)


def _dumps(fields: dict[str, Any]) -> str:
  return json.dumps(fields, ensure_ascii=False, allow_nan=False)
