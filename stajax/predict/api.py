"""Prediction from Python, as `stajax.load` offers it; the command `stajax predict` is a thin layer over it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from stajax import runtime
from stajax.predict.outputs import FrameNumbers, Output, OverlayVideo, Provenance, to_uint8, write_maps
from stajax.predict.per_video import MapStream, write_outputs

if TYPE_CHECKING:
  from stajax.inference.predictor import Predictor

StudentName = Literal["sta", "sta_plus_short", "sta_plus_long"]


SHIPPED_NAME = "stajax's own"
"""What predictions call the model that the package comes with."""


def load(
  path: str | Path | None = None, student: StudentName | None = None, centre: bool | None = None, batch: int = 8
) -> "SaliencyModel":
  """Loads a trained model.

  Args:
    path: A model folder, or the work folder of its training, which has one; None for the model that the package
      comes with.
    student: One student, whose maps are then the final ones; None: all three, whose maps are fused.
    centre: Whether a Gaussian at the centre, 0.2 of the frame wide, multiplies the maps; None: as the model was
      configured.
    batch: The number of frames that are computed together.

  Raises:
    ValueError: The folder has no model that can be used; a line that names the file. Or an argument is not one of
      those that are possible.
  """
  if student is not None and student not in get_args(StudentName):
    raise ValueError(f"student {student!r}: expected one of {', '.join(get_args(StudentName))}, or None")
  if batch < 1:
    raise ValueError(f"batch {batch}: expected at least 1")
  runtime.configure()
  from stajax import model  # JAX takes a second to load
  from stajax.inference.predictor import load_predictor

  folder, name = (model.SHIPPED, SHIPPED_NAME) if path is None else (path, str(path))
  return SaliencyModel(load_predictor(folder, batch, student, centre), name)


@dataclass(frozen=True, eq=False)
class SaliencyModel:
  """A trained model, which predicts where people look in videos.

  Attributes:
    predictor: The model's networks.
    name: The name that its predictions give for it.
  """

  predictor: "Predictor"
  name: str = ""

  @property
  def rate(self) -> float:
    """The frame rate of the grid that the model was trained on, frames a second."""
    return self.predictor.rate

  @property
  def trained_on(self) -> str:
    """What the model was trained on, `synthetic` for the embedded clips."""
    return self.predictor.trained_on

  @property
  def notes(self) -> list[str]:
    """Lines for people about the model."""
    return self.predictor.notes

  def stream(self, video: str | Path, every_frame: bool = False, sound_stream: int | None = None) -> MapStream:
    """Opens a video of any length, whose maps are computed while one iterates over the stream.

    Args:
      video: A video file.
      every_frame: Whether a map is computed for each native frame, instead of each frame of the model's grid.
      sound_stream: The number of the sound stream to hear, counted from 1; None for the one that the file prefers.

    Raises:
      MediaError: The video cannot be used.
    """
    return MapStream(self.predictor, video, every_frame, self.name, sound_stream)

  def predict(self, video: str | Path, every_frame: bool = False, sound_stream: int | None = None) -> "Prediction":
    """Computes the maps of a video, and keeps them all in memory: an hour at 8 maps a second of 256×256 takes 7.5 GB.

    Args:
      video: A video file.
      every_frame: Whether a map is computed for each native frame, instead of each frame of the model's grid.
      sound_stream: The number of the sound stream to hear, counted from 1; None for the one that the file prefers.

    Raises:
      MediaError: The video cannot be used.
      ValueError: There is no map, or one is not finite.
    """
    stream = self.stream(video, every_frame, sound_stream)
    timed_maps = list(stream)
    if not timed_maps:
      raise ValueError(f"{video}: the model gave no map")
    times = np.array([time for time, _ in timed_maps], np.float64)
    return Prediction(np.stack([saliency for _, saliency in timed_maps]), times, stream.provenance)


@dataclass(frozen=True, eq=False)
class Prediction:
  """Where people look in a video.

  Attributes:
    maps: (n, h, w) float32, each with a maximum of 1 unless it is 0 everywhere.
    times: (n,) float64, seconds on the clock of the video, whose first frame is at 0.
    provenance: What was predicted, and by what.
  """

  maps: np.ndarray
  times: np.ndarray
  provenance: Provenance

  @property
  def rate(self) -> float:
    """Maps a second."""
    return self.provenance.rate

  @property
  def size(self) -> tuple[int, int]:
    """Width and height of the video's frames, pixels."""
    return self.provenance.size

  @property
  def has_sound(self) -> bool:
    """Whether the model heard the video."""
    return self.provenance.has_sound

  @property
  def trained_on(self) -> str:
    """What the model was trained on, `synthetic` for the embedded clips."""
    return self.provenance.trained_on

  @property
  def notes(self) -> tuple[str, ...]:
    """A line for each thing that had to be left out."""
    return tuple(self.provenance.notes)

  def save_npz(self, path: str | Path) -> None:
    """Writes all maps as one npz file: `maps` uint8 from 0 to 255, `times`, `rate`, `size` and the model."""
    write_maps(Path(path), to_uint8(self.maps), self.times, self.provenance)

  def save_json(self, path: str | Path) -> None:
    """Writes four numbers for each native frame; the video is read again for that."""
    self._write(FrameNumbers(Path(path), self.provenance))

  def save_overlay(self, path: str | Path) -> None:
    """Writes an mp4 file of the video with its sound and the maps drawn over it; the video is read again for that."""
    self._write(OverlayVideo(Path(path), self.provenance))

  def _write(self, output: Output) -> None:
    write_outputs(zip(self.times.tolist(), self.maps, strict=True), self.provenance, [output])
