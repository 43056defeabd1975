"""Trained students on whole videos: what `predict` and `evaluate` run, and the Python API. Needs no TensorFlow.

  predictor = load_predictor("runs/quickstart", batch=8)
  for saliency in predictor.maps(samples, reach=1): ...

The videos of a data set: `stajax.inference.dataset`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from stajax import model as models
from stajax import networks
from stajax.inference.class_maps import make_dense, make_groups, switch_values
from stajax.inference.clip import Clip, Sample, windows
from stajax.inference.dense import DenseNetwork, fetch
from stajax.inference.reservoir import Fragments, Reservoir
from stajax.maps import baselines
from stajax.maps.final import NO_CENTRE, blur_maps, centre_factor, final_map
from stajax.maps.pseudo import resize
from stajax.maps.time_blur import Part, blur_in_time

_BASELINES = (_SPECTRAL_RESIDUAL, _FEATURE_DISTANCE) = ("spectral_residual", "feature_distance")

Result = TypeVar("Result")
Maps = TypeVar("Maps", bound=Part)
Launched = dict[str, list[jax.Array]]
"""Of every student the maps (B, H, W) of successive targets, on the device; more of the last ones than there are."""


class Predictor:
  """The students of a model folder, and its audio switch.

  Attributes:
    rate: frames a second of the grid that they were trained on.
    side: they take square frames of this size, pixels.
    trained_on: what they were trained on, `synthetic` for the embedded clips.
    hears: whether they take sound.
    batch: frames that are computed together.
    seed: of companions.
    made_with: what tells its maps from those of another one, for JSON.
    notes: lines for people about the model.
    centre: whether `maps` have the centre factor of `stajax.maps.final`.
  """

  def __init__(
    self,
    model: models.Model,
    batch: int,
    students: Sequence[str] = networks.STUDENTS,
    centre: bool | None = None,
  ) -> None:
    self.seed, self.batch = model.config.seed, batch
    self.centre = model.config.maps.centre if centre is None else centre
    self._final_maps = partial(final_maps, blur=model.config.maps.blur)
    sha256 = {name: model.sha256.get(name) for name in (networks.SWITCH, *students)}
    made_by = {"trained_on": model.trained_on, "sha256": sha256}
    self._time_blur = model.config.maps.time_blur
    blurs = {"blur": model.config.maps.blur, "time_blur": self._time_blur}
    self.made_with = {**made_by, **blurs, "centre": self.centre}

    def dense(name: str) -> DenseNetwork:
      return make_dense(name, model.variables[name], model.config, len(model.categories), batch)

    self._students, self._switch = {name: dense(name) for name in students}, dense(networks.SWITCH)
    self.rate, self.side, self.trained_on, self.hears = model.rate, model.side, model.trained_on, True
    self._pretrained = model.config.has_frozen_backbone
    self.notes = [f"{model.trained_on}: the model was trained on rendered clips."] if self._is_synthetic else []

  @property
  def _is_synthetic(self) -> bool:
    return self.trained_on == "synthetic"

  def maps(
    self, samples: Iterable[Sample], reach: int = 1, fragments: Callable[[], Fragments] | None = None
  ) -> Iterator[np.ndarray]:
    """Final maps (size, size) float32 in [0, 1], one a sample, in order; a bounded number of samples is read ahead.

    Args:
      samples: frame (side, side, 3) uint8 and its normalised second of sound (257, 98) float32 or None, in order.
      reach: neighbours in time are this many samples apart.
      fragments: finds those from all over the video that long companions are drawn from; asked once, and only if the
        video is longer than a window. None: long companions are of the same window.
    """
    reservoir = None if fragments is None else self.reservoir(fragments)
    parts = overlapped(_begun(partial(self.begin_final, reservoir=reservoir), windows(samples, reach)))
    for maps in self.steadied(parts, reach):
      yield from maps

  def reservoir(self, fragments: Callable[[], Fragments]) -> Reservoir:
    """The reservoir of a video, for `begin_final` and `begin_methods` of its windows."""
    return Reservoir(fragments, self.with_switch)

  def steadied(self, parts: Iterable[Maps], reach: int) -> Iterator[Maps]:
    """The maps of a video with the configuration's blur in time, in other parts.

    Args:
      parts: of one video, in order, of `begin_final` or `begin_methods`.
      reach: neighbours in time are this many of its frames apart.
    """
    if not self._time_blur:
      return iter(parts)
    return blur_in_time(parts, self._time_blur * self.rate * reach, unchanged=_BASELINES)

  def begin_final(self, clip: Clip, reservoir: Reservoir | None = None) -> Callable[[], np.ndarray]:
    """Has the device begin, and returns what waits for the final maps (n, size, size) of the clip's targets.

    Before the blur in time, as the clip may be a part of a video: `steadied`.
    """
    final, count = self._final_maps(self.launch(self.with_switch(clip), reservoir), self.centre), len(clip.targets)
    return lambda: fetch(final, count)

  def method_maps(self, samples: Iterable[Sample], reach: int = 1) -> Iterator[dict[str, np.ndarray]]:
    """Of successive chunks of samples the maps (n, size, size) of every student, of their fusion and of baselines."""
    return self.steadied(overlapped(_begun(self.begin_methods, windows(samples, reach))), reach)

  def begin_methods(self, clip: Clip, reservoir: Reservoir | None = None) -> Callable[[], dict[str, np.ndarray]]:
    """Has the device begin, and returns what waits for the maps of `method_maps`, before the blur in time."""
    wait = self._begin_students(clip, reservoir)
    return lambda: wait() | self._baseline_maps(clip)

  def clip_maps(self, clip: Clip) -> dict[str, np.ndarray]:
    """Maps (n, size, size) of every method for all frames of a clip; with the centre factor also without it."""
    parts = list(self.steadied([self._begin_students(clip)()], clip.reach))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

  def _begin_students(self, clip: Clip, reservoir: Reservoir | None = None) -> Callable[[], dict[str, np.ndarray]]:
    maps, count = self.launch(self.with_switch(clip), reservoir), len(clip.targets)
    methods = {name: {name: chunks} for name, chunks in maps.items()}
    if len(maps) > 1:
      heard = self.launch(clip.with_switch(np.ones(len(clip))), reservoir, always_heard=True)
      methods |= {"final": maps, "final_no_switch": heard}
    kinds = {"": True, NO_CENTRE: False} if self.centre else {"": False}
    made = {f"{name}{kind}": self._final_maps(of, kinds[kind]) for kind in kinds for name, of in methods.items()}
    return lambda: {name: fetch(chunks, count) for name, chunks in made.items()}

  def _baseline_maps(self, clip: Clip) -> dict[str, np.ndarray]:
    """What is there without any training: of the frames alone, and of what an ImageNet backbone makes of them."""
    frames = [clip.samples[at][0] for at in clip.targets]
    maps = {_SPECTRAL_RESIDUAL: np.stack([baselines.spectral_residual(frame) for frame in frames])}
    if self._pretrained:
      student = next(iter(self._students.values()))
      f5 = np.asarray(_rows(student.stages(clip)["f5"], jax.device_put(np.asarray(clip.targets))), np.float32)
      distance = resize(baselines.feature_distance(f5), (student.size,) * 2)
      maps[_FEATURE_DISTANCE] = distance * centre_factor(distance.shape[1:])
    return maps

  def with_switch(self, clip: Clip) -> Clip:
    """The clip with its audio switch as the switch network sets it."""
    return clip.with_switch(switch_values(self._switch, clip))

  def launch(self, clip: Clip, reservoir: Reservoir | None = None, always_heard: bool = False) -> Launched:
    """Has the device begin with every student's maps of the clip's targets.

    Args:
      reservoir: of its video, for long companions where the clip is only a part of that.
      always_heard: whether the clip's switch is forced to 1, as then that of the reservoir is.
    """
    launched = {}
    for name, dense in self._students.items():
      granularity, given = networks.NETWORKS[name].companions, {}
      if granularity:
        given["groups"] = make_groups(clip, granularity, dense.network.num_times, self.seed)
      if granularity == "long" and reservoir is not None and clip.is_part:
        chosen, are_two = reservoir.companions(self.seed, clip)
        if are_two.any():
          given["groups"][are_two, 1:] = len(clip) + chosen[are_two]
          given["pool"] = reservoir.nodes(dense, always_heard, clip)
      launched[name] = dense.launch(clip, **given)
    return launched


def final_maps(launched: Launched, centre: bool = False, blur: float = 0.0) -> list[jax.Array]:
  """The final maps of the students' on the device, as many chunks: Eq. 17, or those of one student where it is alone.

  Args:
    centre: whether they have the centre factor.
    blur: of `stajax.maps.final.blur_maps`, of each student's; 0 for none.
  """
  return [_final(chunk, centre, blur) for chunk in zip(*launched.values(), strict=True)]


@partial(jax.jit, static_argnums=(1, 2))
def _final(maps: tuple[jax.Array, ...], centre: bool, blur: float) -> jax.Array:
  if blur:
    maps = tuple(blur_maps(x, blur) for x in maps)
  count, *size = maps[0].shape
  factor = centre_factor(tuple(size)) if centre else None
  if len(maps) > 1:
    return final_map(*(jax.image.resize(x, (count, *size), "bilinear") for x in maps), factor)
  return maps[0] if factor is None else maps[0] * factor


@jax.jit
def _rows(x: jax.Array, at: jax.Array) -> jax.Array:
  return x[at]


def _begun(begin: Callable[[Clip], Callable[[], Result]], clips: Iterable[Clip]) -> Iterator[Callable[[], Result]]:
  for clip in clips:
    wait = begin(clip)
    del clip  # while the next one is read nothing needs its samples
    yield wait


def overlapped(begun: Iterable[Callable[[], Result]]) -> Iterator[Result]:
  """The results of what was begun, in order, each waited for when the next one has begun: the device need not wait."""
  waiting = None
  for wait in begun:
    if waiting is not None:
      yield waiting()
    waiting = wait
  if waiting is not None:
    yield waiting()


def load_predictor(
  folder: str | Path, batch: int = 8, only: str | None = None, centre: bool | None = None
) -> Predictor:
  """Loads the students of a model folder, or of the work folder of its training.

  Args:
    batch: frames that are computed together.
    only: one of the students, whose maps are then the final ones; None: all three, whose maps are fused.
    centre: whether maps have the centre factor; None: as the model's configuration says.

  Raises:
    ModelError, ConfigError, WeightsError: one line that names the file.
  """
  students = networks.STUDENTS if only is None else (only,)
  return Predictor(models.load(folder, (networks.SWITCH, *students)), batch, students, centre)


def to_uint8(maps: np.ndarray) -> np.ndarray:
  """(n, h, w) of values ≥ 0 to uint8, each map scaled to a maximum of 255."""
  peak = maps.max(axis=(1, 2), keepdims=True)
  return np.round(maps * (255 / np.maximum(peak, 1e-12))).astype(np.uint8)
