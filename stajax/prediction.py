"""A trained student on whole videos: what `predict` and `evaluate` run, and the Python API. Needs no TensorFlow.

  predictor = load_predictor("runs/quickstart", batch=8)
  for saliency in predictor.maps(samples, reach=1): ...
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from stajax import model as models
from stajax.data.media import MediaError
from stajax.data.sound import file_windows
from stajax.data.stavis import StavisError, StavisVideo
from stajax.dense import DenseNetwork, Sample
from stajax.evaluation import MethodMaps

_CHUNK = 64


class Predictor:
  """The student STA of a model folder.

  Attributes:
    rate: frames a second of the grid that it was trained on.
    side: it takes square frames of this size, pixels.
    trained_on: what it was trained on, `synthetic` for the embedded clips.
    hears: whether it takes sound.
    notes: lines for people about the model.
  """

  def __init__(self, model: models.Model, batch: int) -> None:
    network = models.make_network("sta", model.config, len(model.categories))
    self._dense = DenseNetwork(network, model.variables["sta"], model.config.sta.size, batch)
    self.rate, self.side, self.trained_on, self.hears = model.rate, model.side, model.trained_on, network.hears
    self.notes = [f"{model.trained_on}: the model was trained on rendered clips."] if self._is_synthetic else []

  @property
  def _is_synthetic(self) -> bool:
    return self.trained_on == "synthetic"

  def maps(self, samples: Iterable[Sample], reach: int = 1) -> Iterator[np.ndarray]:
    """Maps (size, size) float32 in [0, 1], one a sample, in order; a bounded number of samples is read ahead.

    Args:
      samples: frame (side, side, 3) uint8 and its normalised second of sound (257, 98) float32 or None, in order.
      reach: neighbours in time are this many samples apart.
    """
    return itertools.chain.from_iterable(self._dense.run(samples, reach))


def load_predictor(folder: str | Path, batch: int = 8) -> Predictor:
  """Loads the student of a model folder, or of the work folder of its training.

  Args:
    batch: frames that are computed together.

  Raises:
    ModelError, ConfigError, WeightsError: one line that names the file.
  """
  return Predictor(models.load(folder), batch)


def to_uint8(maps: np.ndarray) -> np.ndarray:
  """(n, h, w) of values ≥ 0 to uint8, each map scaled to a maximum of 255."""
  peak = maps.max(axis=(1, 2), keepdims=True)
  return np.round(maps * (255 / np.maximum(peak, 1e-12))).astype(np.uint8)


def method_maps(predictor: Predictor) -> MethodMaps:
  """`sta` on every native frame of a video, with neighbours nearest to the grid's spacing."""

  def maps(video: StavisVideo, frames: Sequence[int]) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    rate = video.rate()
    wanted = set(frames)
    predicted = predictor.maps(_video_samples(video, rate, predictor.side), max(1, round(rate / predictor.rate)))
    chosen = ((frame, saliency) for frame, saliency in enumerate(predicted) if frame in wanted)
    while chunk := list(itertools.islice(chosen, _CHUNK)):
      yield [frame for frame, _ in chunk], {"sta": to_uint8(np.stack([saliency for _, saliency in chunk]))}

  return maps


def _video_samples(video: StavisVideo, rate: float, side: int) -> Iterator[Sample]:
  """Every frame of a video, squashed to side × side, and its second of sound."""
  try:
    sound = None if video.wav is None else file_windows(video.wav, [])
  except MediaError as error:
    raise StavisError(str(error)) from None
  for index, path in enumerate(video.frame_paths):
    try:
      with Image.open(path) as image:
        frame = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
      raise StavisError(f"{path}: not a readable frame ({error})") from None
    yield frame, None if sound is None else sound.window(index / rate)
