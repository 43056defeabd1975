"""The maps of frames and sound that are given as arrays."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stajax.hints import check_type
from stajax.media.arrays import sound_blocks, squashed
from stajax.media.sound_windows import file_windows
from stajax.media.video import MediaInfo, on_grid
from stajax.predict.outputs import Provenance
from stajax.predict.per_video import USUAL, MapStream, Pictures, Sampling

if TYPE_CHECKING:
  from stajax.inference.predictor import Predictor

NAME = "arrays"
"""What predictions give as the name of their video."""


def open_arrays(
  predictor: "Predictor",
  frames: Sequence[np.ndarray] | np.ndarray,
  rate: float,
  sound: np.ndarray | None = None,
  sound_rate: int | None = None,
  sampling: Sampling = USUAL,
  model: str = "",
) -> MapStream:
  """Opens a video that is given as arrays; `stajax.predict.api.SaliencyModel.predict_arrays` has the arguments.

  Raises:
    ValueError: An array is not of a form that can be used; one line.
  """
  height, width = _check_frames(frames, rate)
  notes, windows = list[str](), None
  if sound is not None:
    samples, samples_a_second = _check_sound(sound, sound_rate)

    def read(_path: str | Path, _notes: list[str] | None) -> Iterator[np.ndarray]:
      return sound_blocks(samples, samples_a_second)

    windows = file_windows(NAME, notes, len(frames) / rate, read)
  info = MediaInfo(Path(NAME), width, height, rate, len(frames) / rate, False, 0.0, Fraction(1))
  maps_a_second = sampling.rate(rate, predictor.rate)
  about = info, windows is not None, model, predictor.trained_on, maps_a_second, sampling.every == 1
  timed = array_pictures(frames, rate)

  def chosen() -> Iterator[tuple[float, np.ndarray]]:
    if sampling.every is None:
      return on_grid(((time, frame, 1 / rate) for time, frame in timed()), maps_a_second)
    return (item for number, item in enumerate(timed()) if number % (sampling.every or 1) == 0)

  return MapStream(
    predictor,
    Provenance(*about, notes, confidence=predictor.confidence),
    lambda: squashed(chosen(), predictor.side),
    windows,
    sampling.smooth,
  )


def array_pictures(frames: Sequence[np.ndarray] | np.ndarray, rate: float) -> Pictures:
  """Returns a function that yields the frames with their times in seconds, and checks each of them."""

  def pictures() -> Iterator[tuple[float, np.ndarray]]:
    for number, frame in enumerate(frames):
      _check_frame(frame, f"frames[{number}]", frames[0].shape)
      yield number / rate, frame

  return pictures


def _check_frames(frames: Sequence[np.ndarray] | np.ndarray, rate: float) -> tuple[int, int]:
  """Returns the height and width of the frames."""
  check_type("rate", rate, "a number")
  if not 0 < rate <= 1000:
    raise ValueError(f"rate {rate:g}: expected frames a second, more than 0 and at most 1000")
  if not hasattr(frames, "__len__"):
    raise ValueError(f"frames: found {type(frames).__name__}, expected an array or a list of arrays")
  if not len(frames):
    raise ValueError("frames: found none, expected at least one")
  _check_frame(frames[0], "frames[0]", None)
  return frames[0].shape[0], frames[0].shape[1]


def _check_frame(frame: np.ndarray, name: str, shape: tuple[int, ...] | None) -> None:
  found = f"{getattr(frame, 'dtype', type(frame).__name__)} {getattr(frame, 'shape', '')}"
  if getattr(frame, "ndim", 0) != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
    raise ValueError(f"{name}: found {found}, expected uint8 (height, width, 3) RGB")
  if shape is not None and frame.shape != shape:
    raise ValueError(f"{name}: found {found}, expected {shape} as the first frame")


def _check_sound(sound: np.ndarray, rate: int | None) -> tuple[np.ndarray, int]:
  samples = np.asarray(sound)
  if samples.dtype.kind != "f" and samples.dtype.name not in ("int16", "int32"):
    raise ValueError(f"sound: found {samples.dtype}, expected float in [-1, 1], int16 or int32")
  if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[1] > max(64, samples.shape[0])):
    raise ValueError(f"sound: found the shape {samples.shape}, expected (samples,) or (samples, channels)")
  if samples.dtype.kind == "f" and not np.isfinite(samples).all():
    raise ValueError("sound: found values that are not finite, expected float in [-1, 1]")
  if rate is not None:
    check_type("sound_rate", rate, "a number")
  if rate is None or not 1000 <= rate <= 768000:
    raise ValueError(f"sound_rate {rate}: expected samples a second of the sound, 1000 to 768000")
  return samples, rate
