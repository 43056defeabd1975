"""The files that a prediction is written to while a video is read: maps, numbers for every frame, an overlay.

An output is a class here, or in a module beside this one, and a row of `stajax.predict.wanted.make_outputs`.
"""

import contextlib
import csv
import functools
import json
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stajax.files import atomic_file, atomic_folder
from stajax.maps.confidence import Confidence
from stajax.maps.statistics import frame_statistics
from stajax.media import isolated
from stajax.media.video import MediaInfo
from stajax.media.video_writer import VideoWriter
from stajax.predict.names import FRAMES
from stajax.report.overlay import USUAL, Look, caption, heat_overlay

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
    settings: What the command's files depend on besides the video, as flat values for JSON; {} in Python.
    confidence: What the model's maps can be expected to gain over the centre prior; None where it was not measured.
    title: What files call the video; "" for its file's name.
  """

  info: MediaInfo
  has_sound: bool
  model: str
  trained_on: str
  rate: float
  every_frame: bool
  notes: list[str]
  source: str = ""
  settings: dict[str, Any] = field(default_factory=dict[str, Any])
  confidence: Confidence | None = None
  title: str = ""

  @property
  def size(self) -> tuple[int, int]:
    """Width and height of the video's frames, pixels."""
    return self.info.width, self.info.height

  def fields(self) -> dict[str, Any]:
    """Returns what every file says about itself."""
    video = self.title or self.info.path.name
    about = {"video": video, "source": self.source, "model": self.model, "trained_on": self.trained_on}
    return {**about, "rate": self.rate, "size": list(self.size)}


@dataclass(frozen=True)
class Frame:
  """A native frame of a video.

  Attributes:
    number: The frame's index from 0.
    time: Seconds.
    picture: (H, W, 3) uint8 RGB; None where no output needs it.
    saliency: The map (h, w) float32 at this time, at most 1.
    size: The (width, height) of the video's frames, in pixels.
  """

  number: int
  time: float
  picture: np.ndarray | None
  saliency: np.ndarray
  size: tuple[int, int]

  @functools.cached_property
  def numbers(self) -> dict[str, Any]:
    """Where people look, in four numbers: see `stajax.maps.statistics`."""
    return frame_statistics(self.saliency, self.size)


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


class MapParts(Output):
  """The maps as npz files of at most `MAPS_PER_PART` maps, each written as soon as it is full."""

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
    path = self._folder / f"{self._name}.maps-{self._num_parts:03d}.npz"
    write_maps(path, self._maps[: len(self._times)], self._times, self._provenance)
    self._num_parts += 1
    self._times = []


class MapImages(Output):
  """The maps as grey PNG files in a folder, each with its time in seconds as its name; the folder appears when it is
  complete.
  """

  def __init__(self, folder: Path) -> None:
    self._folder = folder

  @contextlib.contextmanager
  def opened(self) -> Generator[None]:
    """Completes the folder."""
    with atomic_folder(self._folder) as self._partial:
      yield

  def add_map(self, time: float, saliency: np.ndarray) -> None:
    """Writes an image."""
    Image.fromarray(to_uint8(saliency)).save(self._partial / f"{time:010.3f}.png")


def to_uint8(saliency: np.ndarray) -> np.ndarray:
  """Returns maps in [0, 1] as uint8 from 0 to 255."""
  return np.round(saliency * 255).astype(np.uint8)


def write_maps(path: Path, maps: np.ndarray, times: list[float] | np.ndarray, provenance: Provenance) -> None:
  """Writes maps (n, h, w) uint8 and their times, in seconds, as an npz file."""
  with atomic_file(path) as partial, partial.open("wb") as file:
    np.savez_compressed(file, maps=maps, times=np.asarray(times, np.float64), **provenance.fields())


class FrameNumbers(Output):
  """A JSON object whose list `frames` says, in four numbers for each native frame, where people look."""

  def __init__(self, path: Path, provenance: Provenance, has_frames: bool = True):
    self._path, self._provenance, self._has_frames = path, provenance, has_frames
    self._num_maps = self._num_frames = 0
    self._confidences: list[float] = []

  @contextlib.contextmanager
  def opened(self) -> Generator[None]:
    """Writes what comes before the list of frames, and what comes after it."""
    # A file name that is not UTF-8 becomes a JSON escape.
    with (
      atomic_file(self._path) as partial,
      partial.open("w", encoding="utf-8", errors="backslashreplace") as self._file,
    ):
      about = self._provenance
      fields = {**about.fields(), "every_frame": about.every_frame, "settings": about.settings}
      self._file.write(_dumps(fields)[:-1] + FRAMES)
      yield
      ends: dict[str, Any] = {"maps": self._num_maps, "notes": self._provenance.notes}
      if self._confidences:
        ends = {"confidence": round(float(np.mean(self._confidences)), 4), **ends}
      self._file.write("\n], " * self._has_frames + "], " * (not self._has_frames) + _dumps(ends)[1:] + "\n")

  def add_map(self, time: float, saliency: np.ndarray) -> None:
    """Counts the map."""
    self._num_maps += 1

  def add_frame(self, frame: Frame) -> None:
    """Writes an entry of the list."""
    if self._has_frames:
      entry = {"frame": frame.number, "time": round(frame.time, 6), **frame.numbers}
      if self._provenance.confidence is not None:
        self._confidences.append(float(self._provenance.confidence.of(frame.saliency[None])[0]))
        entry["confidence"] = round(self._confidences[-1], 4)
      self._file.write(("\n" if frame.number == 0 else ",\n") + _dumps(entry))


class FrameTable(Output):
  """The numbers of every native frame as a table, CSV."""

  def __init__(self, path: Path) -> None:
    self._path = path

  @contextlib.contextmanager
  def opened(self) -> Generator[None]:
    """Writes the header, and closes the file."""
    with atomic_file(self._path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
      self._rows = csv.writer(file)
      self._rows.writerow(["frame", "time", "peak_x", "peak_y", "centroid_x", "centroid_y", "spread", "entropy"])
      yield

  def add_frame(self, frame: Frame) -> None:
    """Writes a row."""
    numbers = frame.numbers
    values = *numbers["peak"], *numbers["centroid"], numbers["spread"], numbers["entropy"]
    self._rows.writerow([frame.number, round(frame.time, 6), *values])


class OverlayVideo(Output):
  """The video with its sound and the maps drawn over it, labelled `synthetic` if the model knows only such clips."""

  needs_pictures = True

  def __init__(self, path: Path, provenance: Provenance, look: Look = USUAL):
    self._writer = VideoWriter(path, provenance.info, provenance.notes, isolated.add_sound)
    self._look = look
    self._label = "synthetic" if provenance.trained_on == "synthetic" else ""

  @contextlib.contextmanager
  def opened(self) -> Generator[None]:
    """Opens the video. A thread of its own encodes a frame while the next one is drawn."""
    with self._writer, ThreadPoolExecutor(1, "encoder") as self._thread:
      self._encoded: Future[None] | None = None
      yield
      self._wait()

  def add_frame(self, frame: Frame) -> None:
    """Draws the map over the frame. What the encoder raises is raised here at the next frame, or in the end."""
    assert frame.picture is not None
    drawn = heat_overlay(frame.picture, frame.saliency, self._look)
    drawn = caption(drawn, self._label) if self._label else drawn
    self._wait()
    self._encoded = self._thread.submit(self._writer.write, frame.time, drawn)

  def _wait(self) -> None:
    """Waits until the last frame is encoded."""
    if self._encoded is not None:
      self._encoded.result()


def _dumps(fields: dict[str, Any]) -> str:
  return json.dumps(fields, ensure_ascii=False, allow_nan=False)
