"""Prediction from Python, as `stajax.load` offers it; the command `stajax predict` is a thin layer over it."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from stajax import hints, runtime
from stajax.inference import Precision
from stajax.maps.regions import BoxTracker, block_weights
from stajax.maps.statistics import frame_statistics
from stajax.media.file import Decoding
from stajax.predict.arrays import array_pictures, open_arrays
from stajax.predict.crop import Crop, CropWindows
from stajax.predict.notebook import prediction_html, with_progress
from stajax.predict.outputs import FrameNumbers, Output, OverlayVideo, Provenance, to_uint8, write_maps
from stajax.predict.per_video import MAX_SECONDS, MapStream, Pictures, Sampling, open_video, write_outputs

if TYPE_CHECKING:
  from stajax.inference.predictor import Predictor

StudentName = Literal["sta", "sta_plus_short", "sta_plus_long"]


SHIPPED_NAME = "stajax's own"
"""What predictions call the model that the package comes with."""
_MOST_BOXES = 1000


def load(
  path: str | Path | None = None,
  student: StudentName | None = None,
  centre: bool | None = None,
  batch: int = 8,
  precision: Precision | None = None,
) -> "SaliencyModel":
  """Loads a trained model.

  Args:
    path: A model folder, or the work folder of its training, which has one; the address of a model, `https://…` or
      `hf://owner/name`; None for the model that the package comes with.
    student: One student, whose maps are then the final ones; None: all three, whose maps are fused.
    centre: Whether a Gaussian at the centre, 0.2 of the frame wide, multiplies the maps; None: as the model was
      configured.
    batch: The number of frames that are computed together.
    precision: The type in which convolutions compute, `float32`, `bfloat16` or, for what encodes frames, `int8`, which
      needs a calibrated model; None for the type of the model's configuration.

  Raises:
    ValueError: The folder or the address has no model that can be used; a line that names the file. Or an argument is
      not one of those that are possible.
    TypeError: An argument is of another type; one line, here and in what follows.
  """
  given = {"path": path, "student": student, "precision": precision}
  for name, value in given.items():
    if value is not None:
      hints.check_type(name, value, "a path" if name == "path" else "a text")
  hints.check_type("batch", batch, "a whole number")
  if student is not None and student not in get_args(StudentName):
    raise ValueError(f"student {student!r}: {hints.expected(student, get_args(StudentName))}")
  if precision is not None and precision not in get_args(Precision):
    raise ValueError(f"precision {precision!r}: {hints.expected(precision, get_args(Precision))}")
  if batch < 1:
    raise ValueError(f"batch {batch}: expected at least 1")
  runtime.configure()
  from stajax import model  # JAX takes a second to load
  from stajax.inference.predictor import load_predictor
  from stajax.weights.locate import locate

  folder, name = (model.SHIPPED, SHIPPED_NAME) if path is None else (locate(path), str(path))
  return SaliencyModel(load_predictor(folder, batch, student, centre, precision=precision), name)


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
  def students(self) -> tuple[str, ...]:
    """The names of its students, whose maps are fused where there are several."""
    return self.predictor.students

  @property
  def notes(self) -> list[str]:
    """Lines for people about the model."""
    return self.predictor.notes

  def stream(
    self,
    video: str | Path,
    every_frame: bool = False,
    sound_stream: int | None = None,
    *,
    every: int | None = None,
    fps: float | None = None,
    smooth: float = 0.0,
    max_seconds: float = MAX_SECONDS,
  ) -> MapStream:
    """Opens a video of any length, whose maps are computed while one iterates over the stream.

    Args:
      video: A video file.
      every_frame: Whether a map is computed for each native frame, instead of each frame of the model's grid.
      sound_stream: The number of the sound stream to hear, counted from 1; None for the one that the file prefers.
      every: A map is computed for each native frame whose number is a multiple of this.
      fps: Maps a second; None for the rate of the model's grid.
      smooth: The standard deviation, in seconds, of a Gaussian that smooths the maps in time; 0 for none.
      max_seconds: A longer video is refused.

    Raises:
      MediaError: The video cannot be used.
      ValueError: An argument is not possible; one line.
    """
    sampling = Sampling(1 if every_frame and every is None else every, fps, smooth)
    hints.check_type("video", video, "a path")
    hints.check_type("max_seconds", max_seconds, "a number")
    if sound_stream is not None:
      hints.check_type("sound_stream", sound_stream, "a whole number")
    return open_video(self.predictor, video, sampling, self.name, Decoding(sound=sound_stream), max_seconds)

  def predict(
    self,
    video: str | Path,
    every_frame: bool = False,
    sound_stream: int | None = None,
    *,
    every: int | None = None,
    fps: float | None = None,
    smooth: float = 0.0,
    progress: bool | None = None,
  ) -> "Prediction":
    """Computes the maps of a video, and keeps them all in memory: an hour at 8 maps a second of 256×256 takes 7.5 GB.

    Args:
      video: A video file.
      every_frame: That of `stream`, like the other arguments.
      sound_stream: Likewise.
      every: Likewise.
      fps: Likewise.
      smooth: Likewise.
      progress: Whether a progress bar is shown; None: only in a notebook.

    Raises:
      MediaError: The video cannot be used.
      ValueError: There is no map, one is not finite, or an argument is not possible.
    """
    stream = self.stream(video, every_frame, sound_stream, every=every, fps=fps, smooth=smooth)
    return _collect(stream, progress)

  def predict_arrays(
    self,
    frames: Sequence[np.ndarray] | np.ndarray,
    rate: float,
    sound: np.ndarray | None = None,
    sound_rate: int | None = None,
    *,
    every: int | None = None,
    fps: float | None = None,
    smooth: float = 0.0,
    progress: bool | None = None,
  ) -> "Prediction":
    """Computes the maps of frames and sound in memory, as `predict` does those of a file.

    What the prediction writes is made from the same frames, which therefore stay in memory; overlays have no sound.
    Where there are more than 128 maps, long companions are from the same 128, not from all over the video.

    Args:
      frames: (n, height, width, 3) uint8 RGB, or a list of n such frames, of any size.
      rate: Frames a second.
      sound: (samples,) or (samples, channels), float in [-1, 1], int16 or int32, from the first frame on; or None.
      sound_rate: Samples a second.
      every: That of `stream`, like the other arguments.
      fps: Likewise.
      smooth: Likewise.
      progress: That of `predict`.

    Raises:
      ValueError: An array or another argument is not of a form that can be used; one line.
    """
    sampling = Sampling(every, fps, smooth)
    stream = open_arrays(self.predictor, frames, rate, sound, sound_rate, sampling, self.name)
    return _collect(stream, progress, array_pictures(frames, rate))


def _collect(stream: MapStream, progress: bool | None, pictures: Pictures | None = None) -> "Prediction":
  timed_maps = list(with_progress(stream, progress))
  if not timed_maps:
    raise ValueError(f"{stream.provenance.info.path}: the model gave no map")
  times = np.array([time for time, _ in timed_maps], np.float64)
  return Prediction(np.stack([saliency for _, saliency in timed_maps]), times, stream.provenance, pictures)


@dataclass(frozen=True, eq=False)
class Prediction:
  """Where people look in a video.

  Attributes:
    maps: (n, h, w) float32, each with a maximum of 1 unless it is 0 everywhere.
    times: (n,) float64, seconds on the clock of the video, whose first frame is at 0.
    provenance: What was predicted, and by what.
    pictures: Returns the frames of the video, if they are not those of a file.
  """

  maps: np.ndarray
  times: np.ndarray
  provenance: Provenance
  pictures: Pictures | None = None

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

  @functools.cached_property
  def peak(self) -> np.ndarray:
    """Where each map has its maximum: (n, 2) int64, x and y in pixels of the video."""
    return np.array([frame_statistics(saliency, self.size)["peak"] for saliency in self.maps], np.int64)

  @functools.cached_property
  def centroid(self) -> np.ndarray:
    """The centre of mass of each map: (n, 2) float64, x and y in pixels of the video."""
    return np.array([frame_statistics(saliency, self.size)["centroid"] for saliency in self.maps], np.float64)

  @property
  def confidence(self) -> np.ndarray | None:
    """What each map can be expected to gain over a spot at the centre, (n,) float64; `stajax.maps.confidence` says how.

    It is 0 where the spot would do as well. None where it was not measured for the model, or for maps like these.
    """
    curve = self.provenance.confidence
    return None if curve is None else curve.of(self.maps)

  def boxes(self, count: int) -> np.ndarray:
    """Finds boxes that cover what is above half of each map's maximum, smoothed in time.

    Args:
      count: The largest number of boxes of a map, 1 to 1,000.

    Returns:
      (n, count, 4) int32, x, y, width and height in pixels of the video. A box keeps its place from map to map while
      it is followed; places without a box are 0.
    """
    hints.check_type("boxes", count, "a whole number")
    if count > _MOST_BOXES:
      raise ValueError(f"{count} boxes: expected at most {_MOST_BOXES}")
    tracker = BoxTracker(count, self.size)
    return np.stack([tracker.add(*timed) for timed in zip(self.times.tolist(), self.maps, strict=True)])

  def block_weights(self, side: int = 16) -> np.ndarray:
    """Returns the mean of each map in every block of `side` × `side` pixels: (n, rows, columns) float32 in [0, 1]."""
    hints.check_type("side", side, "a whole number")
    return block_weights(self.maps, self.size, side)

  def crop(self, aspect: str) -> Crop:
    """Finds where to crop each frame to another shape; the video is read again, because its shots matter.

    Args:
      aspect: The shape as width:height, such as "9:16".

    Returns:
      The times of all native frames, and their windows.

    Raises:
      ValueError: The shape is of another form.
    """
    hints.check_type("aspect", aspect, "a text")
    windows = CropWindows(aspect, self.provenance)
    self._write(windows)
    return windows.found

  def __repr__(self) -> str:
    count, height, width = self.maps.shape
    name, first, last = self.provenance.info.path.name, self.times[0], self.times[-1]
    return f"<Prediction of {name}: {count} maps of {width}×{height}, {first:.2f} to {last:.2f} s>"

  def _repr_html_(self) -> str:
    return prediction_html(self.maps, self.times, self.provenance)

  def save_npz(self, path: str | Path) -> None:
    """Writes all maps as one npz file: `maps` uint8 from 0 to 255, `times`, `rate`, `size` and the model."""
    write_maps(Path(path), to_uint8(self.maps), self.times, self.provenance)

  def save_json(self, path: str | Path) -> None:
    """Writes four numbers for each native frame; the video is read again for that."""
    self._write(FrameNumbers(Path(path), self.provenance))

  def save_overlay(self, path: str | Path) -> None:
    """Writes an mp4 file of the video with its sound and the maps drawn over it; the video is read again for that.

    Raises:
      ValueError: The name does not end in .mp4, so that players would take it for another kind of file.
    """
    if Path(path).suffix.lower() != ".mp4":
      raise ValueError(f"{path}: expected a name that ends in .mp4, as that is what is written")
    self._write(OverlayVideo(Path(path), self.provenance))

  def _write(self, output: Output) -> None:
    write_outputs(zip(self.times.tolist(), self.maps, strict=True), self.provenance, [output], self.pictures)
