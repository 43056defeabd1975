"""Trained students on whole videos: what `predict` and `evaluate` run, and the Python API. Needs no TensorFlow.

  predictor = load_predictor("runs/quickstart", batch=8)
  for saliency in predictor.maps(samples, reach=1): ...
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from stajax import model as models
from stajax.clip import Clip, Sample, windows
from stajax.data.media_file import MediaError
from stajax.data.sound import file_windows
from stajax.data.stavis import StavisError, StavisVideo
from stajax.dense import DenseNetwork
from stajax.evaluation import MethodMaps
from stajax.maps import baselines
from stajax.maps.final import centre_factor, final_map
from stajax.maps.pseudo import resize
from stajax.report.names import NO_CENTRE
from stajax.sources import make_dense, make_groups, switch_values

FAST = ("sta",)
_CHUNK = 64


class Predictor:
  """The students of a model folder, and its audio switch.

  Attributes:
    rate: frames a second of the grid that they were trained on.
    side: they take square frames of this size, pixels.
    trained_on: what they were trained on, `synthetic` for the embedded clips.
    hears: whether they take sound.
    notes: lines for people about the model.
    centre: whether `maps` have the centre factor of `stajax.maps.final`.
  """

  def __init__(
    self,
    model: models.Model,
    batch: int,
    students: Sequence[str] = models.STUDENTS,
    centre: bool | None = None,
  ) -> None:
    self._seed = model.config.seed
    self.centre = model.config.maps.centre if centre is None else centre

    def dense(name: str) -> DenseNetwork:
      return make_dense(name, model.variables[name], model.config, len(model.categories), batch)

    self._students, self._switch = {name: dense(name) for name in students}, dense(models.SWITCH)
    self.rate, self.side, self.trained_on, self.hears = model.rate, model.side, model.trained_on, True
    self._pretrained = models.is_frozen(model.config)
    self.notes = [f"{model.trained_on}: the model was trained on rendered clips."] if self._is_synthetic else []

  @property
  def _is_synthetic(self) -> bool:
    return self.trained_on == "synthetic"

  def maps(self, samples: Iterable[Sample], reach: int = 1) -> Iterator[np.ndarray]:
    """Final maps (size, size) float32 in [0, 1], one a sample, in order; a bounded number of samples is read ahead.

    Args:
      samples: frame (side, side, 3) uint8 and its normalised second of sound (257, 98) float32 or None, in order.
      reach: neighbours in time are this many samples apart.
    """
    for clip in windows(samples, reach):
      maps = fused(self.student_maps(self.with_switch(clip)))
      yield from maps * centre_factor(maps.shape[1:]) if self.centre else maps

  def method_maps(self, samples: Iterable[Sample], reach: int = 1) -> Iterator[dict[str, np.ndarray]]:
    """Of successive chunks of samples the maps (n, size, size) of every student, of their fusion and of baselines."""
    for clip in windows(samples, reach):
      maps = self.clip_maps(clip)
      yield maps | self._baseline_maps(clip)

  def clip_maps(self, clip: Clip) -> dict[str, np.ndarray]:
    """Maps (n, size, size) of every method for the targets of one clip; with the centre factor also without it."""
    maps = self.student_maps(self.with_switch(clip))
    if len(maps) > 1:
      heard = self.student_maps(clip.with_switch(np.ones(len(clip))))
      maps = {**maps, "final": fused(maps), "final_no_switch": fused(heard)}
    if not self.centre:
      return maps
    with_factor = {name: x * centre_factor(x.shape[1:]) for name, x in maps.items()}
    return with_factor | {f"{name}{NO_CENTRE}": x for name, x in maps.items()}

  def _baseline_maps(self, clip: Clip) -> dict[str, np.ndarray]:
    """What is there without any training: of the frames alone, and of what an ImageNet backbone makes of them."""
    frames = [clip.samples[at][0] for at in clip.targets]
    maps = {"spectral_residual": np.stack([baselines.spectral_residual(frame) for frame in frames])}
    if self._pretrained:
      sta = self._students["sta"]
      f5 = np.asarray(sta.stages(clip)["f5"][np.asarray(clip.targets)], np.float32)
      distance = resize(baselines.feature_distance(f5), (sta.size,) * 2)
      maps["feature_distance"] = distance * centre_factor(distance.shape[1:])
    return maps

  def with_switch(self, clip: Clip) -> Clip:
    """The clip with its audio switch as the switch network sets it."""
    return clip.with_switch(switch_values(self._switch, clip))

  def student_maps(self, clip: Clip) -> dict[str, np.ndarray]:
    """Maps (n, size, size) of every student."""
    started = {}
    for name, dense in self._students.items():
      granularity = models.granularity_of(name)
      apart = make_groups(clip, granularity, dense.network.num_times, self._seed) if granularity else None
      started[name] = dense.start(clip, groups=apart)
    return {name: wait() for name, wait in started.items()}


def fused(maps: dict[str, np.ndarray]) -> np.ndarray:
  """The final map (n, H, W) of the students' maps: Eq. 17, or STA's alone where it is alone."""
  if len(maps) == 1:
    return maps["sta"]
  size = maps["sta"].shape[1:]
  return final_map(*(x if x.shape[1:] == size else resize(x, size) for x in maps.values()))


def load_predictor(
  folder: str | Path, batch: int = 8, fast: bool = False, centre: bool | None = None
) -> Predictor:
  """Loads the students of a model folder, or of the work folder of its training.

  Args:
    batch: frames that are computed together.
    fast: STA alone.
    centre: whether maps have the centre factor; None: as the model's configuration says.

  Raises:
    ModelError, ConfigError, WeightsError: one line that names the file.
  """
  students = FAST if fast else models.STUDENTS
  return Predictor(models.load(folder, (models.SWITCH, *students)), batch, students, centre)


def to_uint8(maps: np.ndarray) -> np.ndarray:
  """(n, h, w) of values ≥ 0 to uint8, each map scaled to a maximum of 255."""
  peak = maps.max(axis=(1, 2), keepdims=True)
  return np.round(maps * (255 / np.maximum(peak, 1e-12))).astype(np.uint8)


def method_maps(predictor: Predictor) -> MethodMaps:
  """All students' maps on every native frame of a video, with neighbours nearest to the grid's spacing."""

  def maps(video: StavisVideo, frames: Sequence[int]) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    rate = video.rate()
    reach, wanted, first = max(1, round(rate / predictor.rate)), set(frames), 0
    for found in predictor.method_maps(video_samples(video, rate, predictor.side), reach):
      count = len(found["sta"])
      chosen = [i for i in range(first, first + count) if i in wanted]
      for start in range(0, len(chosen), _CHUNK):
        chunk = chosen[start : start + _CHUNK]
        at = np.array(chunk) - first
        yield chunk, {name: to_uint8(x[at]) for name, x in found.items()}
      first += count

  return maps


def video_samples(video: StavisVideo, rate: float, side: int) -> Iterator[Sample]:
  """Every frame of a video, squashed to side × side, and its second of sound."""
  try:
    sound = None if video.wav is None else file_windows(video.wav, [], video.num_frames / rate)
  except MediaError as error:
    raise StavisError(str(error)) from None
  for index, path in enumerate(video.frame_paths):
    try:
      with Image.open(path) as image:
        frame = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
      raise StavisError(f"{path}: not a readable frame ({error})") from None
    yield frame, None if sound is None else sound.window(index / rate)
