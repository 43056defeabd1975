"""Trained students on whole videos: what `predict` and `evaluate` run, and the Python API. TensorFlow is not needed.

  predictor = load_predictor("runs/quickstart", batch=8)
  for saliency in predictor.maps(samples, reach=1): ...

`stajax.inference.dataset` computes the maps of a data set's videos.
"""

# pyright: reportUnknownMemberType=false
# JAX annotates its functions in part.

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from stajax import model as models
from stajax import networks
from stajax.files.manifest import sha256_of_json
from stajax.inference import Precision
from stajax.inference.class_maps import make_dense, make_groups, switch_values
from stajax.inference.clip import MARGIN, SHORT_WINDOW, WINDOW, Clip, Sample, windows
from stajax.inference.dense import DenseNetwork, Groups, fetch, take
from stajax.inference.local_devices import Device
from stajax.inference.pending import Pending, finish_in_turn
from stajax.inference.precision import at_precision
from stajax.inference.reservoir import Fragments, Reservoir
from stajax.inference.senses import ALWAYS_HEARD, USUAL, Condition, apply, same_sample_groups
from stajax.maps import baselines
from stajax.maps.final import NO_CENTRE, blur_maps, centre_factor, final_map
from stajax.maps.pseudo import resize
from stajax.maps.time_blur import SomePart, blur_in_time
from stajax.senses import OWN, Senses

if TYPE_CHECKING:
  from stajax.config import Config

_BASELINES = (_SPECTRAL_RESIDUAL, _FEATURE_DISTANCE) = ("spectral_residual", "feature_distance")

Launched = dict[str, list[jax.Array]]
"""For every student the maps (B, H, W) of successive targets on the device; the last ones are repeated to fill B."""


class Predictor:
  """The students of a model folder, and its audio switch.

  Attributes:
    rate: Frames a second of the grid that they were trained on.
    side: The side of the square frames that they take, in pixels.
    trained_on: What they were trained on, `synthetic` for the embedded clips.
    batch: The number of frames that are computed together.
    seed: The seed of companions.
    made_with: What the maps depend on besides the video, as values for JSON.
    notes: Lines for people about the model.
    centre: Whether `maps` have the centre factor of `stajax.maps.final`.
    senses: The ablations that the methods' maps have beside the usual ones.
    confidence: What the maps can be expected to gain over the centre prior, where that was measured for such maps.

  Args:
    model: The loaded model.
    batch: The number of frames that are computed together.
    students: The names of the students, by default all that the model has. The maps of one alone are the final ones,
      those of all three are fused.
    centre: Whether maps have the centre factor; None for what the model's configuration says.
    senses: What `clip_maps` and `start_method_maps` shall ablate.
  """

  def __init__(
    self,
    model: models.Model,
    batch: int,
    students: Sequence[str] | None = None,
    centre: bool | None = None,
    senses: Sequence[Senses] = (),
  ) -> None:
    self.rate, self.trained_on = model.rate, model.trained_on
    self.seed, self.batch, self._settings = model.config.seed, batch, model.config.maps
    self.centre = self._settings.centre if centre is None else centre
    self.senses = tuple(senses)
    all_students = networks.students_of(model.config)
    students = all_students if students is None else tuple(students)
    names = (*students, networks.SWITCH) if networks.SWITCH in model.variables else students
    self.side = model.side_of_frames(names)
    self._are_all = set(students) == set(all_students)
    self.made_with: dict[str, Any] = {
      "trained_on": model.trained_on,
      "sha256": {name: model.sha256[name] for name in names if name in model.sha256},
      "blur": self._settings.blur,
      "time_blur": self._settings.time_blur,
      "centre": self.centre,
    }
    if model.precision is not None:
      self.made_with["precision"] = model.precision
    if model.is_int8:
      self.made_with["calibration"] = sha256_of_json(dict(model.calibration))
    self.confidence = model.confidence if self._are_all and self.centre == self._settings.centre else None
    self.notes = ["synthetic: the model was trained on rendered clips."] if model.trained_on == "synthetic" else []

    def dense(name: str, shares: bool) -> DenseNetwork:
      given = name, model.variables[name], model.config, len(model.categories), batch, None, None, model.is_int8
      return make_dense(*given, keeps_traces=True, shares=shares)

    # Without companions, only the frames of a fragment are read beside a target.
    is_local = not any(networks.NETWORKS[name].companions for name in names)
    self._window = (1, max(SHORT_WINDOW, batch)) if is_local else (MARGIN, WINDOW)
    made = {name: dense(name, shares=len(names) > 1) for name in names}
    self._backbone = None if len(names) > 1 else cache(partial(dense, students[0], shares=True))
    self._switch, self._students = made.pop(networks.SWITCH, None), made
    self._is_pretrained = model.config.has_frozen_backbone

  @property
  def students(self) -> tuple[str, ...]:
    """The names of the students."""
    return tuple(self._students)

  def on(self, device: Device) -> "Predictor":
    """Returns the same students on another device of this process; None for JAX's default one, where they are."""
    if device is None:
      return self
    other = copy.copy(self)
    other._students = {name: student.on(device) for name, student in self._students.items()}
    other._switch = None if self._switch is None else self._switch.on(device)
    return other

  def maps(
    self, samples: Iterable[Sample], reach: int = 1, fragments: Callable[[], Fragments] | None = None
  ) -> Iterator[np.ndarray]:
    """Yields the final maps (size, size) float32 in [0, 1] of a video, one for each sample, in order.

    A bounded number of samples is read ahead.

    Args:
      samples: The video's frames (side, side, 3) uint8, each with its normalised second of sound (257, 98) float32 or
        None, in order.
      reach: The number of samples between neighbours in time.
      fragments: A function that finds the fragments from all over the video that long companions are drawn from. It is
        called once, and only if the video is longer than a window. None if long companions are from the same window.
    """
    reservoir = None if fragments is None else self.make_reservoir(fragments)

    def started() -> Iterator[Pending[np.ndarray]]:
      for clip in windows(samples, reach, *self._window):
        pending = self.start_final_maps(clip, reservoir)
        del clip  # while the next one is read nothing needs its samples
        yield pending

    for part in self.blur_in_time(finish_in_turn(started()), reach):
      yield from part

  def views(
    self, samples: Iterable[Sample], reach: int = 1, fragments: Callable[[], Fragments] | None = None
  ) -> Iterator[dict[str, np.ndarray]]:
    """Yields, for each sample of a video, what `maps` yields beside what single students and changed senses give.

    Frames are encoded once for all of them. The arguments are those of `maps`.

    Yields:
      Maps (size, size) float32 in [0, 1]: `final`; each student's by its name where there are several; and each of
      these with the suffix of each of `senses`.
    """
    reservoir = None if fragments is None else self.make_reservoir(fragments)

    def started() -> Iterator[Pending[dict[str, np.ndarray]]]:
      for clip in windows(samples, reach, *self._window):
        pending = self._start_views(clip, reservoir)
        del clip
        yield pending

    for part in self.blur_in_time(finish_in_turn(started()), reach):
      for number in range(len(part["final"])):
        yield {name: maps[number] for name, maps in part.items()}

  def with_senses(self, senses: Sequence[Senses]) -> "Predictor":
    """Returns the same students, of which `senses` are ablated."""
    other = copy.copy(self)
    other.senses = tuple(senses)
    return other

  def make_reservoir(self, fragments: Callable[[], Fragments]) -> Reservoir:
    """Returns the reservoir of a video, which the windows of the video share."""
    with_companions = [Condition(senses) for senses in self.senses if senses.companions == "own"]
    conditions = (USUAL, ALWAYS_HEARD, *with_companions)
    return Reservoir(fragments, lambda clip: {condition: self.show(clip, condition) for condition in conditions})

  def blur_in_time(self, parts: Iterable[SomePart], reach: int) -> Iterator[SomePart]:
    """Blurs the maps of a video in time as the configuration says, and yields them in other parts.

    Args:
      parts: The maps of one video in order, as `start_final_maps` or `start_method_maps` compute them.
      reach: The number of the video's frames between neighbours in time.
    """
    if not self._settings.time_blur:
      return iter(parts)
    return blur_in_time(parts, self._settings.time_blur * self.rate * reach, unchanged=_BASELINES)

  def start_final_maps(self, clip: Clip, reservoir: Reservoir | None = None) -> Pending[np.ndarray]:
    """Starts the computation of the final maps (n, size, size) of the clip's targets.

    They are not blurred in time, as the clip may be a part of a video: `blur_in_time` does that.

    Args:
      clip: The clip.
      reservoir: The reservoir of its video, if it has one.
    """
    final = self._final_maps(self.launch(self.show(clip), reservoir), self.centre)
    count = len(clip.targets)
    return lambda: fetch(final, count)

  def _start_views(self, clip: Clip, reservoir: Reservoir | None) -> Pending[dict[str, np.ndarray]]:
    results, count = dict[str, list[jax.Array]](), len(clip.targets)
    for condition in (USUAL, *map(Condition, self.senses)):
      maps, suffix = self.launch(self.show(clip, condition), reservoir, condition), condition.senses.suffix
      results[f"final{suffix}"] = self._final_maps(maps, self.centre)
      if len(maps) > 1:
        alone = {name: self._final_maps({name: batches}, self.centre) for name, batches in maps.items()}
        results |= {f"{name}{suffix}": batches for name, batches in alone.items()}
    return lambda: {name: fetch(batches, count) for name, batches in results.items()}

  def start_method_maps(self, clip: Clip, reservoir: Reservoir | None = None) -> Pending[dict[str, np.ndarray]]:
    """Starts the computation of the maps (n, H, W) of every method: those of `clip_maps`, and of baselines.

    They are not blurred in time either. The arguments are those of `start_final_maps`.
    """
    pending = self._start_student_maps(clip, reservoir)
    return lambda: pending() | self._baseline_maps(clip)

  def clip_maps(self, clip: Clip) -> dict[str, np.ndarray]:
    """Returns the maps (n, H, W) of every student and of their fusion for all frames of a clip.

    With the centre factor, each method is there without it, too. Every method that an ablation of `senses` changes
    has the ablation's suffix in its name.
    """
    parts = list(self.blur_in_time([self._start_student_maps(clip)()], clip.reach))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

  def _start_student_maps(self, clip: Clip, reservoir: Reservoir | None = None) -> Pending[dict[str, np.ndarray]]:
    maps, count = self.launch(self.show(clip), reservoir), len(clip.targets)
    methods: dict[str, Launched] = {name: {name: batches} for name, batches in maps.items()}
    if self._are_all:
      methods["final"] = maps
      methods["final_no_switch"] = self.launch(self.show(clip, ALWAYS_HEARD), reservoir, ALWAYS_HEARD)
    endings = {"": True, NO_CENTRE: False} if self.centre else {"": False}
    results = {
      f"{name}{ending}": self._final_maps(launched, centre)
      for ending, centre in endings.items()
      for name, launched in methods.items()
    }
    for senses in self.senses:
      ablated = self._ablate(senses, clip, reservoir, maps)
      results |= {f"{name}{senses.suffix}": self._final_maps(x, self.centre) for name, x in ablated.items()}
    return lambda: {name: fetch(batches, count) for name, batches in results.items()}

  def _ablate(self, senses: Senses, clip: Clip, reservoir: Reservoir | None, usual: Launched) -> dict[str, Launched]:
    """Starts the maps of every method that an ablation changes, by the method's usual name.

    Args:
      senses: What is changed.
      clip: The clip.
      reservoir: The reservoir of its video, if it has one.
      usual: The usual maps of the students, which those that are not changed keep.
    """
    needs_companions = replace(senses, companions="own") == OWN
    changed = [name for name in usual if not needs_companions or networks.NETWORKS[name].companions is not None]
    condition = Condition(senses)
    maps = usual | self.launch(self.show(clip, condition), reservoir, condition, changed)
    methods: dict[str, Launched] = {name: {name: maps[name]} for name in changed}
    return methods | {"final": maps} if self._are_all else methods

  def _baseline_maps(self, clip: Clip) -> dict[str, np.ndarray]:
    """Computes maps that need no training: from the frames alone, and from the features of an ImageNet backbone."""
    frames = [clip.samples[at][0] for at in clip.targets]
    maps = {_SPECTRAL_RESIDUAL: np.stack([baselines.spectral_residual(frame) for frame in frames])}
    if self._is_pretrained:
      backbone = self._backbone() if self._backbone else next(iter(self._students.values()))
      size = (backbone.size, backbone.size)
      f5 = np.asarray(take(backbone.stages(clip)["f5"], backbone.put(np.asarray(clip.targets))), np.float32)
      maps[_FEATURE_DISTANCE] = resize(baselines.feature_distance(f5), size) * centre_factor(size)
    return maps

  def with_switch(self, clip: Clip) -> Clip:
    """Returns the clip with its audio switch as the switch network sets it; on wherever there is sound without one."""
    if self._switch is None:
      return clip.with_all_heard()
    return clip.with_switch(switch_values(self._switch, clip))

  def show(self, clip: Clip, condition: Condition = USUAL) -> Clip:
    """Returns the clip as the students see and hear it, with the audio switch that follows from that."""
    shown = apply(condition.senses, clip)
    return shown if condition.always_heard else self.with_switch(shown)

  def launch(
    self,
    clip: Clip,
    reservoir: Reservoir | None = None,
    condition: Condition = USUAL,
    students: Collection[str] | None = None,
  ) -> Launched:
    """Starts the computation of students' maps of the clip's targets.

    Args:
      clip: The clip as it is shown under the condition.
      reservoir: The reservoir of its video, for long companions where the clip is only a part of the video.
      condition: The condition, under which the fragments of the reservoir are shown too.
      students: The names of the students; None for all.
    """
    return {
      name: student.launch(clip, groups=self._groups(name, clip, reservoir, condition))
      for name, student in self._students.items()
      if students is None or name in students
    }

  def _groups(self, name: str, clip: Clip, reservoir: Reservoir | None, condition: Condition) -> Groups | None:
    """Returns the groups of the clip's targets for a student, None where it has no companions."""
    student, granularity = self._students[name], networks.NETWORKS[name].companions
    if granularity is None:
      return None
    if condition.senses.companions == "none":
      return Groups(same_sample_groups(clip, student.network.num_nodes))
    samples = make_groups(clip, granularity, student.network.num_times, self.seed)
    if granularity == "long" and reservoir is not None and clip.is_part:
      chosen, are_two = reservoir.companions(self.seed, clip)
      if are_two.any():
        samples[are_two, 1:] = len(clip) + chosen[are_two]
        return Groups(samples, reservoir.nodes(student, condition, clip))
    return Groups(samples)

  def _final_maps(self, launched: Launched, centre: bool) -> list[jax.Array]:
    return final_maps(launched, centre, self._settings.blur)


def final_maps(launched: Launched, centre: bool = False, blur: float = 0.0) -> list[jax.Array]:
  """Computes the final maps on the device: Eq. 17, or the maps of one student where it is alone.

  Args:
    launched: The students' maps.
    centre: Whether the final maps have the centre factor.
    blur: The standard deviation of `stajax.maps.final.blur_maps` for each student's maps; 0 for none.

  Returns:
    As many batches as each student has.
  """
  return [_final(batch, centre, blur) for batch in zip(*launched.values(), strict=True)]


@partial(jax.jit, static_argnums=(1, 2))
def _final(maps: tuple[jax.Array, ...], centre: bool, blur: float) -> jax.Array:
  if blur:
    maps = tuple(blur_maps(x, blur) for x in maps)
  first, *others = maps
  _, height, width = first.shape
  factor = centre_factor((height, width)) if centre else None
  if not others:
    return first if factor is None else first * factor
  resized: list[jax.Array] = [jax.image.resize(x, first.shape, "bilinear") for x in maps]
  sta, short, long = resized
  return final_map(sta, short, long, factor)


def load_predictor(
  folder: str | Path,
  batch: int = 8,
  only: str | None = None,
  centre: bool | None = None,
  senses: Sequence[Senses] = (),
  precision: Precision | None = None,
) -> Predictor:
  """Loads the students of a model folder, or of the work folder of its training.

  Args:
    folder: The folder.
    batch: The number of frames that are computed together.
    only: One of the students, whose maps are then the final ones; None for all that the model has.
    centre: Whether maps have the centre factor; None for what the model's configuration says.
    senses: The ablations that the methods' maps have beside the usual ones.
    precision: The number format that it computes in; None for the one of the model's configuration.

  Raises:
    ModelError, ConfigError, WeightsError: The model cannot be used; a line that names the file.
  """

  def chosen(config: "Config") -> tuple[str, ...]:
    if only is not None and only not in networks.students_of(config):
      raise models.ModelError(f"{folder}: has no student {only}, only {', '.join(networks.students_of(config))}")
    return networks.predicting_networks(config, only)

  model = models.load(folder, chosen)
  model = at_precision(model, precision, str(folder))
  return Predictor(model, batch, None if only is None else (only,), centre, senses)


def to_uint8(maps: np.ndarray) -> np.ndarray:
  """Converts maps (n, h, w) of values ≥ 0 to uint8, each scaled to a maximum of 255."""
  peak = maps.max(axis=(1, 2), keepdims=True)
  scaled: np.ndarray = maps * (255 / np.maximum(peak, 1e-12))
  return np.round(scaled).astype(np.uint8)
