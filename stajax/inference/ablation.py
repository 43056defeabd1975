"""The ablation of the paper's Table 1: the maps of its rows, for videos and for clips of records.

`stajax.report.table_1` says how the rows are read. A network is the same in all rows; what a row leaves out is left
out at inference, and its title says so: the audio switch is forced to 1 (rows 9 and 22; in row 9 for the coarse SA
too, so its crops may differ), the FRL is removed (row 21) or added (row 12). `stajax.train.ablation_variants`
trains what rows 9, 21 and 22 really need. No TensorFlow is needed here.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stajax import networks
from stajax.eyetracking import StavisVideo
from stajax.inference.class_maps import (
  ClipSources,
  Sources,
  Toggles,
  make_dense,
  stored_pool,
  switch_values,
  top_tag,
)
from stajax.inference.clip import Clip, Sample, windows
from stajax.inference.dense import DenseNetwork
from stajax.inference.local_devices import Device, OfThread, local_devices
from stajax.inference.predictor import to_uint8
from stajax.inference.tree_video import reach_of, video_samples
from stajax.model import Model
from stajax.report.table_1 import ROWS, Row, Variant
from stajax.scoring.videos import MethodMaps

if TYPE_CHECKING:  # as in stajax.model
  from stajax.config import Config

_CHUNK = 64

Retrained = Mapping[Variant, Sources]
"""For the rows that have a variant, the sources that were trained for it."""


class RetrainedSources(ClipSources):
  """Sources some of which were trained for a variant; those that see crops were trained on the usual crops."""

  def boxes(self, always_heard: bool = False) -> np.ndarray:
    """Returns the boxes (n, 4) with the audio switch as it is."""
    return super().boxes()


def row_maps(sources: ClipSources, row: Row) -> np.ndarray:
  """Returns the maps (n, H, W) float32 in [0, 1] of one row for the clip's targets."""
  toggles = Toggles(row.always_heard, row.frl)
  match row.fusion:
    case "cam":
      return sources.cam(row.sources[0], toggles)
    case "average":
      return sources.averaged(row.sources, toggles)
    case "select":
      return sources.selected(row.sources, toggles)[0]


def rows_of(config: "Config") -> tuple[Row, ...]:
  """Returns the rows whose networks a configuration trains: rows 1 to 12 for STANet."""
  return tuple(row for row in ROWS if set(row.sources) <= set(networks.sources_of(config)))


def clip_maps(
  sources: ClipSources, retrained: Mapping[Variant, ClipSources] | None = None, rows: Sequence[Row] = ROWS
) -> dict[str, np.ndarray]:
  """Returns the maps (n, H, W) uint8 of rows for the clip's targets, each with a maximum of 255, by method.

  Args:
    sources: The usual sources.
    retrained: For the rows that have a variant, the sources that were trained for it.
    rows: The rows.
  """

  def maps(row: Row) -> np.ndarray:
    trained = None if retrained is None or row.variant is None else retrained.get(row.variant)
    return to_uint8(row_maps(trained or sources, row))

  return {row.method: maps(row) for row in rows}


def make_sources(model: Model, batch: int) -> Sources:
  """Returns the sources of a loaded model.

  Args:
    model: The model, with at least `stajax.networks.tag_networks` loaded.
    batch: The number of frames that are computed together.
  """

  @functools.cache
  def network(name: str, refine: bool | None) -> DenseNetwork:
    return make_dense(name, model.variables[name], model.config, len(model.categories), batch, refine)

  pool, crops = functools.partial(stored_pool, model.companions), networks.on_crops(model.config)
  return Sources(network, pool, model.config.maps, model.config.seed, crops)


def method_maps(
  model: Model, batch: int, tags: Mapping[str, tuple[int, ...]], retrained: Retrained | None = None
) -> MethodMaps:
  """Returns a function that computes the maps of all rows for native frames of a video.

  The frames of a fragment are the native ones that are nearest to the grid's spacing. Several threads may ask at the
  same time; each gets a device.

  Args:
    model: The model, with at least `stajax.networks.tag_networks` loaded.
    batch: The number of frames that are computed together.
    tags: The true tags by `DATABASE/VIDEO` or `VIDEO`; others get the category that
      `stajax.inference.class_maps.top_tag` predicts.
    retrained: For the rows that have a variant, the sources that were trained for it.
  """
  sources, rows = make_sources(model, batch), rows_of(model.config)
  variables = model.variables[networks.SWITCH]
  switch = make_dense(networks.SWITCH, variables, model.config, len(model.categories), batch)

  def on(device: Device) -> tuple[Sources, DenseNetwork, Retrained]:
    variants: Retrained = {variant: found.on(device) for variant, found in (retrained or {}).items()}
    return sources.on(device), switch.on(device), variants

  networks_of_thread = OfThread(on, local_devices())

  def maps(video: StavisVideo, frames: Sequence[int]) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    reach, of_video = reach_of(video, model.rate), tags.get(f"{video.database}/{video.name}", tags.get(video.name))

    own_sources, own_switch, variants = networks_of_thread.get()

    def clips() -> Iterator[Clip]:
      return switched_windows(video_samples(video, model.side), reach, own_switch)

    yield from select_frames(video_maps(own_sources, clips, of_video, variants, rows), frames)

  return maps


def switched_windows(samples: Iterable[Sample], reach: int, switch: DenseNetwork) -> Iterator[Clip]:
  """Divides a video into windows whose audio switch is set by a network."""
  for clip in windows(samples, reach):
    yield clip.with_switch(switch_values(switch, clip))


def video_maps(
  sources: Sources,
  clips: Callable[[], Iterable[Clip]],
  tags: tuple[int, ...] | None,
  retrained: Retrained | None = None,
  rows: Sequence[Row] = ROWS,
) -> Iterator[tuple[range, dict[str, np.ndarray]]]:
  """Computes the maps of a video of any length, in parts.

  Args:
    sources: The usual sources.
    clips: A function that opens the video as windows with their switch; it is called twice to predict a tag.
    tags: The true tags as category indices; None to predict one.
    retrained: For the rows that have a variant, the sources that were trained for it.
    rows: The rows.

  Yields:
    The numbers of frames in the video, and what `clip_maps` returns for them.
  """
  if tags is None:
    tags = (top_tag(sources.network, clips()),)
  for clip in clips():
    variants: dict[Variant, ClipSources] = {}
    for variant, found in (retrained or {}).items():
      variants[variant] = RetrainedSources(found, clip, tags)
    first, count = clip.first + clip.targets.start, len(clip.targets)
    yield range(first, first + count), clip_maps(ClipSources(sources, clip, tags), variants, rows)


def select_frames(
  parts: Iterable[tuple[range, dict[str, np.ndarray]]], frames: Sequence[int]
) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
  """Selects the maps of some frames, in chunks."""
  wanted = set(frames)
  for found, maps in parts:
    chosen = [i for i in found if i in wanted]
    for start in range(0, len(chosen), _CHUNK):
      chunk = chosen[start : start + _CHUNK]
      at = np.array(chunk) - found.start
      yield chunk, {method: values[at] for method, values in maps.items()}
