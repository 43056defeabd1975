"""Class activation maps of a clip from all sources, of which SCAM, SCAM+ and the ablation's rows are made.

Axes: n samples of a clip, H W map, k the clip's tags, c categories, P companions from other clips.
"""

# pyright: reportUnknownMemberType=false
# JAX annotates its functions in part.

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from stajax import companions, model, networks
from stajax.companions import Granularity
from stajax.inference.clip import Clip
from stajax.inference.dense import DenseNetwork, Groups, fetch
from stajax.inference.local_devices import Device
from stajax.inference.programs import ClassMaps
from stajax.maps.boxes import coarse_boxes
from stajax.maps.scam import average, average_over_tags, select, source_maps

if TYPE_CHECKING:  # as in stajax.model
  from stajax.config import Config, Maps

SURELY_FOREIGN = 0.25
"""The confidence of the audio switch's network up to which a sound is not heard.

Silencing a sound that belongs costs more than hearing one that does not. On rendered clips, 0.5 silenced 10% of the
frames whose sound belongs and 46% of those with wholly foreign sound; 0.3 and 0.2 silence at most 1%, and 30 and 28%.
"""

Pool = tuple[np.ndarray, np.ndarray]
"""Fragments of other clips (P, h, w, c), and the number of each one's clip (P,)."""


@dataclass(frozen=True)
class Toggles:
  """What the ablation changes about sources at inference; by default nothing.

  Attributes:
    always_heard: Whether the audio switch is forced to 1.
    refine: Whether networks have fixation refine layers; see `stajax.networks.make_network`.
    companions: The number of companions of a target.
  """

  always_heard: bool = False
  refine: bool | None = None
  companions: int = 2


USUAL = Toggles()


@dataclass(frozen=True)
class Sources:
  """The networks whose class maps are fused, and what they need.

  Attributes:
    network: A function of a network's name, and of whether it has fixation refine layers, that returns the network.
    pool: A function of a network's name, the tags, and whether sound is always heard, that returns companions from
      other clips.
    maps: The sizes and thresholds.
    seed: The seed of the companions.
    crops: The names of the networks that see the fine crops.
  """

  network: Callable[[str, bool | None], DenseNetwork]
  pool: Callable[[str, Sequence[int], bool], Pool]
  maps: "Maps"
  seed: int
  crops: Collection[str] = networks.FINE

  def on(self, device: Device) -> "Sources":
    """Returns the same sources on another device of this process; None for where they are."""
    if device is None:
      return self
    here = self.network

    @functools.cache
    def network(name: str, refine: bool | None) -> DenseNetwork:
      return here(name, refine).on(device)

    return replace(self, network=network)


def make_dense(
  name: str,
  variables: Mapping[str, Any],
  config: "Config",
  num_categories: int,
  batch: int,
  refine: bool | None = None,
  device: Device = None,
  int8: bool = False,
  keeps_traces: bool = False,
  shares: bool = True,
) -> DenseNetwork:
  """Returns a trained network, compiled for whole clips.

  Args:
    name: The network's name.
    variables: Its variables.
    config: The configuration of its training.
    num_categories: The number of tags.
    batch: The number of frames that are computed together.
    refine: Whether it has fixation refine layers; see `stajax.networks.make_network`.
    device: Where it computes; None for JAX's default device.
    int8: Whether its variables are for 8-bit integers.
    keeps_traces: Whether the next process shall find its programs traced.
    shares: Whether other networks with the same backbone take its stages from the clip, where they are kept then.
  """
  return DenseNetwork(
    networks.make_network(name, config, num_categories, refine, int8),
    dict(variables),
    networks.training_of(name, config).size,
    batch,
    cropped=networks.sees_crops(name, config),
    keep_stages=networks.shared_stages(name, config) if shares else (),
    device=device,
    keeps_traces=keeps_traces,
  )


class ClipSources:
  """Activation maps and confidences of one clip, each computed when it is first asked for.

  Attributes:
    tags: The k category indices.

  Args:
    sources: The networks.
    clip: The clip. Its fine crops are those that it has, or else those that its coarse maps give.
    tags: The k category indices.
    index: The number of the clip in its set, -1 for a clip that no pool has.
  """

  def __init__(self, sources: Sources, clip: Clip, tags: Sequence[int], index: int = -1) -> None:
    # Neighbours count too: smoothing needs their maps.
    self._clip = replace(clip, targets=range(len(clip)))
    self._sources, self.tags, self._index = sources, tuple(tags), index
    self._targets = slice(clip.targets.start, clip.targets.stop)
    self._found: dict[tuple[str, Toggles], tuple[np.ndarray, np.ndarray]] = {}
    self._boxes: dict[bool, np.ndarray] = {}
    self._heard_features: dict[str, dict[str, jax.Array]] = {}

  def source(self, name: str, toggles: Toggles = USUAL) -> tuple[np.ndarray, np.ndarray]:
    """Returns Φ (n, H, W, k) in [0, 1], and confidences (n, c), of one of `stajax.networks.SOURCES`.

    Args:
      name: The source's name.
      toggles: What is changed; what a source does not have is ignored.
    """
    self._compute([name], toggles)
    return self._found[self._key(name, toggles)]

  def stacked(self, names: Sequence[str], toggles: Toggles = USUAL) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns Φ (n, H, W, k) of each of j sources, and their confidences (j, n, c)."""
    self._compute(names, toggles)
    parts = [self.source(name, toggles) for name in names]
    return [maps for maps, _ in parts], np.stack([confidences for _, confidences in parts])

  def selected(self, names: Sequence[str], toggles: Toggles = USUAL) -> tuple[np.ndarray, np.ndarray]:
    """Returns Eq. 1 or 4 over sources for the clip's targets: (n, H, W), and (n,) whether any of them is right."""
    maps, found = select(*self.stacked(names, toggles), self.tags)
    return maps[self._targets], found[self._targets]

  def averaged(self, names: Sequence[str], toggles: Toggles = USUAL) -> np.ndarray:
    """Returns AC of sources for the clip's targets: (n, H, W)."""
    return average(self.stacked(names, toggles)[0])[self._targets]

  def cam(self, name: str, toggles: Toggles = USUAL) -> np.ndarray:
    """Returns the CAM of one source for the clip's targets, averaged over the tags: (n, H, W)."""
    return average_over_tags(self.source(name, toggles)[0])[self._targets]

  def boxes(self, always_heard: bool = False) -> np.ndarray:
    """Returns the boxes (n, 4) of the clip's samples: those that the clip has, or that its coarse SCAM gives."""
    if self._clip.boxes is not None and not always_heard:
      return self._clip.boxes
    if always_heard not in self._boxes:
      settings = self._sources.maps
      maps, _ = select(*self.stacked(networks.COARSE, Toggles(always_heard)), self.tags)
      self._boxes[always_heard] = coarse_boxes(maps, settings.reach * self._clip.reach, settings.box_threshold)
    return self._boxes[always_heard]

  def _key(self, name: str, toggles: Toggles) -> tuple[str, Toggles]:
    """Returns the key of a source's results: its name, and those toggles that change it."""
    spec, refine = networks.NETWORKS[name], toggles.refine
    if spec.refine == "never" or refine is (spec.refine == "usually"):
      refine = None  # this is what is usual anyway
    number = USUAL.companions if spec.companions is None else toggles.companions
    # Crops depend on what is heard.
    return name, Toggles(toggles.always_heard and (spec.hears or name in self._sources.crops), refine, number)

  def _compute(self, names: Iterable[str], toggles: Toggles) -> None:
    """Computes the sources that are not there yet; all are launched before the first one is waited for."""
    keys = dict.fromkeys(self._key(name, toggles) for name in names)
    waiting = {key: self._launch(*key) for key in keys if key not in self._found}
    self._found |= {key: wait() for key, wait in waiting.items()}

  def _launch(self, name: str, toggles: Toggles) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """Starts the computation of a source, and returns a function that waits for it."""
    network, clip = self._sources.network(name, toggles.refine), self._clip_for(name, toggles.always_heard)
    launched = network.launch(clip, self.tags, self._groups(name, network, toggles))

    def wait() -> tuple[np.ndarray, np.ndarray]:
      result: ClassMaps = fetch(launched, len(clip.targets))
      side = self._sources.maps.size
      return source_maps(np.asarray(result.class_maps), (side, side), clip.boxes), np.asarray(result.confidences)

    return wait

  def _clip_for(self, name: str, always_heard: bool) -> Clip:
    """Returns the clip as a source takes it: with its switch, and with boxes where it sees crops."""
    clip = replace(self._clip, boxes=None)
    if always_heard:
      clip = clip.with_all_heard()
    if name not in self._sources.crops:
      return clip
    boxes = self.boxes(always_heard)
    if always_heard and not np.array_equal(boxes, self.boxes()):
      # Crops from other boxes are other images.
      return replace(clip, boxes=boxes, features=self._heard_features, stored=None)
    return replace(clip, boxes=boxes)

  def _groups(self, name: str, network: DenseNetwork, toggles: Toggles) -> Groups | None:
    """Returns the groups of all samples for a source, None where it has no companions."""
    granularity, num_times = networks.NETWORKS[name].companions, network.network.num_times
    seed, number = self._sources.seed, toggles.companions
    if granularity is None:
      return None
    if granularity != "cross":
      found = make_groups(self._clip, granularity, num_times, seed, self._index, number)
      return Groups(found, num_companions=number)
    pool, pool_clips = self._sources.pool(name, self.tags, toggles.always_heard)
    samples = np.arange(len(self._clip))

    def draw(seed: int) -> np.ndarray:
      return companions.pool_companions(seed, self._index, samples, pool_clips)

    chosen = companions.repeat_draw(draw, seed, number)
    across = np.concatenate([samples[:, None], len(self._clip) + chosen], axis=1)
    instead = make_groups(self._clip, "long", num_times, seed, self._index, number)
    return Groups(np.where(chosen[:, :1] < 0, instead, across), pool, num_companions=number)


def make_groups(
  clip: Clip, granularity: Granularity, num_times: int, seed: int, index: int = -1, number: int = 2
) -> np.ndarray:
  """Returns the samples (n, 1 + number) of the groups of a clip's targets, with short or long companions.

  Args:
    clip: The clip.
    granularity: `short` or `long`.
    num_times: The number of frames in a fragment.
    seed: The seed of long companions.
    index: The number of the clip in its set, -1 for a clip of a video.
    number: The number of companions of a target.
  """
  targets = np.asarray(clip.targets)
  begin, count = clip.bounds(targets)
  if granularity == "short":
    chosen = companions.short_companions(targets - begin, count, num_times * clip.reach, number)
  else:
    key, gap = np.asarray(clip.first if index < 0 else index), companions.LONG_GAP * clip.reach

    def draw(seed: int) -> np.ndarray:
      return companions.long_companions(seed, key, targets - begin, count, gap)

    chosen = companions.repeat_draw(draw, seed, number)
  return np.concatenate([targets[:, None], begin[:, None] + chosen], axis=1)


def top_tag(network: Callable[[str, bool | None], DenseNetwork], clips: Iterable[Clip]) -> int:
  """Returns the category with the largest mean confidence by the coarse sources in the clips of a video."""
  total = 0.0
  for clip in clips:
    for name in networks.COARSE:
      total = total + network(name, None).run(clip).confidences.sum(axis=0)
  return int(np.argmax(total))


def switch_values(network: DenseNetwork, clip: Clip) -> np.ndarray:
  """Returns the audio switch φ of every sample (n,): 0 or 1, 0 where there is no sound.

  It is off only where the network is sure, see `SURELY_FOREIGN`.
  """
  heard = replace(clip, targets=range(len(clip))).with_all_heard()
  confidences: np.ndarray = network.run(heard).confidences
  return (confidences[:, 0] > SURELY_FOREIGN).astype(np.float32) * heard.switch


def stored_pool(stored: Mapping[str, np.ndarray], name: str, tags: Sequence[int], always_heard: bool = False) -> Pool:
  """Returns a network's companions from training clips that have one of the tags.

  Args:
    stored: `stajax.model.Model.companions`.
    name: The network's name.
    tags: The category indices.
    always_heard: Whether the audio switch is forced to 1.
  """
  suffix = model.HEARD if always_heard and networks.NETWORKS[name].hears else ""
  clips, of_tags = stored["clips"], np.asarray(tags, np.int64)
  there = clips[of_tags] >= 0
  return stored[name + suffix][of_tags][there], clips[of_tags][there]
