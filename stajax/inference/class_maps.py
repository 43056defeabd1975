"""Class activation maps of a clip by all sources: what SCAM and SCAM+ are made of, and the ablation's rows.

Axes: n samples of a clip, H W map, k the clip's tags, c categories, P companions of other clips.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stajax import companions as groups
from stajax import model, networks
from stajax.config import Config, Maps
from stajax.inference.clip import Clip
from stajax.inference.dense import DenseNetwork
from stajax.maps.boxes import coarse_boxes
from stajax.maps.scam import average, average_over_tags, select, source_maps

Pool = tuple[jax.Array, np.ndarray]
"""Fragments of other clips (P, h, w, c), and of which clip each is (P,)."""


@dataclass(frozen=True)
class Networks:
  """Where the sources come from.

  Attributes:
    network: of its name, and whether it has fixation refine layers (see `stajax.networks.make_network`).
    pool: of a network's name, the tags and whether sound is always heard: companions of other clips.
    maps: sizes and thresholds.
    seed: of the companions.
    crops: names of those that see the fine crops.
  """

  network: Callable[[str, bool | None], DenseNetwork]
  pool: Callable[[str, Sequence[int], bool], Pool]
  maps: Maps
  seed: int
  crops: Collection[str] = networks.FINE


def make_dense(
  name: str, variables: Mapping[str, Any], config: Config, num_categories: int, batch: int, frl: bool | None = None
) -> DenseNetwork:
  """A trained network, compiled for whole clips.

  Args:
    name, frl: of `stajax.networks.make_network`.
    batch: frames that are computed together.
  """
  network, size = networks.make_network(name, config, num_categories, frl), networks.training_of(name, config).size
  cropped, shared = networks.sees_crops(name, config), networks.shared_stages(name, config)
  return DenseNetwork(network, variables, size, batch, cropped, keep_stages=shared)


class ClipSources:
  """Activation maps and confidences of one clip, each computed when first asked for.

  Args:
    clip: its fine crops are those that it has, or else those that its coarse maps give.
    tags: k category indices.
    index: number of the clip in its set, -1 for a clip that no pool has.
  """

  def __init__(self, networks: Networks, clip: Clip, tags: Sequence[int], index: int = -1) -> None:
    # Neighbours count too: smoothing needs their maps.
    self._clip = replace(clip, targets=range(len(clip)))
    self._networks, self.tags, self._index, self._targets = networks, tuple(tags), index, clip.targets
    self._sources: dict[tuple[str, bool, bool | None], tuple[np.ndarray, np.ndarray]] = {}
    self._boxes: dict[bool, np.ndarray] = {}
    self._heard_features: dict[str, dict[str, jax.Array]] = {}

  def source(self, name: str, always_heard: bool = False, frl: bool | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Φ (n, H, W, k) in [0, 1], and confidences (n, c), of one source.

    Args:
      name: of `stajax.networks.SOURCES`.
      always_heard: forces the audio switch to 1.
      frl: whether it has fixation refine layers: of `stajax.networks.make_network`. Networks without any ignore it.
    """
    key = self._key(name, always_heard, frl)
    self._compute([key])
    return self._sources[key]

  def stacked(self, names: Sequence[str], **toggles: bool | None) -> tuple[list[np.ndarray], np.ndarray]:
    """j times Φ (n, H, W, k), and confidences (j, n, c), of several sources."""
    self._compute([self._key(name, **toggles) for name in names])
    parts = [self.source(name, **toggles) for name in names]
    return [maps for maps, _ in parts], np.stack([confidences for _, confidences in parts])

  def selected(self, names: Sequence[str], **toggles: bool | None) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 1 or 4 over the named sources for the clip's targets: (n, H, W), and (n,) whether any of them is right."""
    maps, found = select(*self.stacked(names, **toggles), self.tags)
    return maps[self._wanted], found[self._wanted]

  def averaged(self, names: Sequence[str], **toggles: bool | None) -> np.ndarray:
    """AC of the named sources for the clip's targets: (n, H, W)."""
    return average(self.stacked(names, **toggles)[0])[self._wanted]

  def cam(self, name: str, **toggles: bool | None) -> np.ndarray:
    """The CAM of one source for the clip's targets, averaged over the tags: (n, H, W)."""
    return average_over_tags(self.source(name, **toggles)[0])[self._wanted]

  def boxes(self, always_heard: bool = False) -> np.ndarray:
    """The boxes (n, 4) of the clip's samples: those that the clip has, or that its coarse SCAM gives."""
    if self._clip.boxes is not None and not always_heard:
      return self._clip.boxes
    if always_heard not in self._boxes:
      settings = self._networks.maps
      maps, _ = select(*self.stacked(networks.COARSE, always_heard=always_heard), self.tags)
      self._boxes[always_heard] = coarse_boxes(maps, settings.reach * self._clip.reach, settings.box_threshold)
    return self._boxes[always_heard]

  @property
  def _wanted(self) -> slice:
    return slice(self._targets.start, self._targets.stop)

  def _key(self, name: str, always_heard: bool = False, frl: bool | None = None) -> tuple[str, bool, bool | None]:
    """What tells sources apart: arguments of `source`, without toggles that change nothing."""
    spec = networks.NETWORKS[name]
    if spec.refine == "never" or frl is (spec.refine == "usually"):
      frl = None  # as it is anyway
    # Crops depend on what is heard.
    return name, always_heard and (spec.hears or name in self._networks.crops), frl

  def _compute(self, keys: Iterable[tuple[str, bool, bool | None]]) -> None:
    """Computes the sources that are not there yet; all are started before the first one is waited for."""
    started = {key: self._start(*key) for key in keys if key not in self._sources}
    self._sources |= {key: finish() for key, finish in started.items()}

  def _start(self, name: str, always_heard: bool, frl: bool | None) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    clip, network = replace(self._clip, boxes=None), self._networks.network(name, frl)
    if always_heard:
      clip = clip.with_switch(np.ones(len(clip), np.float32))
    if name in self._networks.crops:
      boxes = self.boxes(always_heard)
      # Crops of other boxes are other images.
      other = always_heard and not np.array_equal(boxes, self.boxes())
      kept = {"features": self._heard_features, "stored": None} if other else {}
      clip = replace(clip, boxes=boxes, **kept)
    companions = {} if networks.NETWORKS[name].companions is None else self._companions(name, network, always_heard)
    wait = network.start(clip, self.tags, **companions)

    def finish() -> tuple[np.ndarray, np.ndarray]:
      result = wait()
      return source_maps(result.class_maps, (self._networks.maps.size,) * 2, clip.boxes), result.confidences

    return finish

  def _companions(self, name: str, network: DenseNetwork, always_heard: bool) -> dict[str, np.ndarray | jax.Array]:
    granularity = networks.NETWORKS[name].companions
    if granularity != "cross":
      return {"groups": self._groups(granularity, network)}
    pool, pool_clips = self._networks.pool(name, self.tags, always_heard)
    chosen = groups.pool_companions(self._networks.seed, self._index, np.arange(len(self._clip)), pool_clips)
    apart = self._groups("long", network)
    targets = np.arange(len(self._clip))[:, None]
    across = np.concatenate([targets, len(self._clip) + chosen], axis=1)
    return {"groups": np.where(chosen[:, :1] < 0, apart, across), "pool": pool}

  def _groups(self, granularity: groups.Granularity, network: DenseNetwork) -> np.ndarray:
    return make_groups(self._clip, granularity, network.network.num_times, self._networks.seed, self._index)


def make_groups(clip: Clip, granularity: groups.Granularity, num_times: int, seed: int, index: int = -1) -> np.ndarray:
  """Samples (n, 3) of the groups of a clip's targets, with short or long companions; `index` as of `ClipSources`."""
  targets = np.asarray(clip.targets)
  begin, count = clip.bounds(targets)
  if granularity == "short":
    companions = groups.short_companions(targets - begin, count, groups.short_spacing(num_times) * clip.reach)
  else:
    number, gap = clip.first if index < 0 else index, groups.LONG_GAP * clip.reach
    companions = groups.long_companions(seed, number, targets - begin, count, gap)
  return np.concatenate([targets[:, None], begin[:, None] + companions], axis=1)


def top_tag(network: Callable[[str, bool | None], DenseNetwork], clips: Iterable[Clip]) -> int:
  """The category with the largest mean confidence of a video by the coarse sources."""
  total = 0.0
  for clip in clips:
    for name in networks.COARSE:
      total = total + network(name, None).run(clip).confidences.sum(axis=0)
  return int(np.argmax(total))


def switch_values(network: DenseNetwork, clip: Clip) -> np.ndarray:
  """The audio switch φ of every sample (n,): 0 or 1, 0 where there is no sound."""
  everything = replace(clip, targets=range(len(clip)))
  confident = network.run(everything.with_switch(np.ones(len(clip), np.float32))).confidences[:, 0] > 0.5
  return confident.astype(np.float32) * clip.with_switch(np.ones(len(clip))).switch


def stored_pool(
  companions: Mapping[str, np.ndarray], name: str, tags: Sequence[int], always_heard: bool = False
) -> Pool:
  """A network's companions of training clips that have one of the tags, from `stajax.model.Model.companions`."""
  suffix = model.HEARD if always_heard and networks.NETWORKS[name].hears else ""
  clips, of_tags = companions["clips"], np.asarray(tags, np.int64)
  there = clips[of_tags] >= 0
  return jnp.asarray(companions[name + suffix][of_tags][there]), clips[of_tags][there]
