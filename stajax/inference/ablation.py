"""The ablation of the paper's Table 1: the maps of its rows, for videos and for clips of records. Needs no TensorFlow.

How the rows are read is in `stajax.report.table_1`. A network is the same in all rows; what a row leaves out is left
out at inference, and its title says so: the audio switch is forced to 1 (rows 9 and 22; in row 9 for the coarse SA
too, so its crops may differ), the FRL is removed (row 21) or added (row 12). `stajax.train.ablation_variants`
trains what rows 9, 21 and 22 really need.
"""

import csv
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from stajax import model as models
from stajax import networks
from stajax.eyetracking import StavisError, StavisVideo
from stajax.inference.class_maps import ClipSources, Networks, make_dense, stored_pool, switch_values, top_tag
from stajax.inference.clip import Clip, Sample, windows
from stajax.inference.dataset import reach_of, video_samples
from stajax.inference.dense import DenseNetwork
from stajax.inference.predictor import to_uint8
from stajax.report.table_1 import ROWS, Row, Variant
from stajax.scoring.videos import MethodMaps

NEEDED = (*networks.SOURCES, networks.SWITCH)
"""What of a model is to be loaded."""
_CHUNK = 64


class RetrainedSources(ClipSources):
  """Sources of which some were trained otherwise; those that see crops were trained on the crops of all others."""

  def boxes(self, always_heard: bool = False) -> np.ndarray:
    """The boxes (n, 4) with the audio switch as it is."""
    return super().boxes()


def row_maps(sources: ClipSources, row: Row) -> np.ndarray:
  """The maps (n, H, W) float32 in [0, 1] of one row for the clip's targets."""
  toggles = {"always_heard": row.always_heard, "frl": row.frl}
  match row.fusion:
    case "cam":
      return sources.cam(row.sources[0], **toggles)
    case "average":
      return sources.averaged(row.sources, **toggles)
    case "select":
      return sources.selected(row.sources, **toggles)[0]


def clip_maps(sources: ClipSources, retrained: Mapping[Variant, ClipSources] | None = None) -> dict[str, np.ndarray]:
  """The maps (n, H, W) uint8 of every row for the clip's targets, each with a maximum of 255, by method.

  Args:
    retrained: for the rows that have a variant the sources that were trained so.
  """
  retrained = retrained or {}
  return {row.method: to_uint8(row_maps(retrained.get(row.variant, sources), row)) for row in ROWS}


def make_networks(model: models.Model, batch: int) -> Networks:
  """The sources of a loaded model.

  Args:
    model: with at least `NEEDED` loaded.
    batch: frames that are computed together.
  """

  @functools.cache
  def network(name: str, frl: bool | None) -> DenseNetwork:
    return make_dense(name, model.variables[name], model.config, len(model.categories), batch, frl)

  pool, crops = functools.partial(stored_pool, model.companions), networks.on_crops(model.config)
  return Networks(network, pool, model.config.maps, model.config.seed, crops)


def read_tags(root: Path, categories: Sequence[str]) -> dict[str, tuple[int, ...]]:
  """The true tags of a tree's videos as category indices, from its `clips.csv`: columns `video` and `tag`.

  A video is left out if one of its tags is no category; without the file there are none.

  Raises:
    StavisError: a table of another form.
  """
  path = Path(root) / "clips.csv"
  if not path.is_file():
    return {}
  try:
    with path.open(newline="", encoding="utf-8") as file:
      reader = csv.DictReader(file)
      if not {"video", "tag"} <= set(reader.fieldnames or ()):
        raise StavisError(f"{path}: found columns {reader.fieldnames}, expected video and tag")
      named = {row["video"]: row["tag"] or "" for row in reader}
  except (UnicodeDecodeError, csv.Error) as error:
    raise StavisError(f"{path}: not a table ({error})") from None
  numbers = {category: index for index, category in enumerate(categories)}
  tags = {}
  for video, text in named.items():
    parts = [text] if text in numbers else text.split()  # a category may be of several words
    if parts and all(part in numbers for part in parts):
      tags[video] = tuple(dict.fromkeys(numbers[part] for part in parts))
  return tags


def method_maps(
  model: models.Model,
  batch: int,
  tags: Mapping[str, tuple[int, ...]],
  retrained: Mapping[Variant, Networks] | None = None,
) -> MethodMaps:
  """The maps of all rows on every native frame of a video, with neighbours nearest to the grid's spacing.

  Args:
    model: with at least `NEEDED` loaded.
    batch: frames that are computed together.
    tags: true tags by video; others get the category that `stajax.inference.class_maps.top_tag` predicts.
    retrained: see `clip_maps`.
  """
  sources = make_networks(model, batch)
  variables = model.variables[networks.SWITCH]
  switch = make_dense(networks.SWITCH, variables, model.config, len(model.categories), batch)

  def maps(video: StavisVideo, frames: Sequence[int]) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    rate = video.rate()
    reach = reach_of(video, model.rate)

    def samples() -> Iterable[Sample]:
      return video_samples(video, rate, model.side)

    yield from _chosen(video_maps(sources, switch, samples, reach, tags.get(video.name), retrained), frames)

  return maps


def video_maps(
  networks: Networks,
  switch: DenseNetwork,
  samples: Callable[[], Iterable[Sample]],
  reach: int,
  tags: tuple[int, ...] | None,
  retrained: Mapping[Variant, Networks] | None = None,
) -> Iterator[tuple[range, dict[str, np.ndarray]]]:
  """A video of any length, in parts: their frames in the video, and `clip_maps` of them.

  Args:
    switch: the network that sets the audio switch.
    samples: opens the video; it is gone through twice where the tag is to be predicted.
    reach: samples between the frames of a fragment.
    tags: true tags as category indices; None: the predicted one.
    retrained: see `clip_maps`.
  """

  def clips() -> Iterator[Clip]:
    for clip in windows(samples(), reach):
      yield clip.with_switch(switch_values(switch, clip))

  if tags is None:
    tags = (top_tag(networks.network, clips()),)
  for clip in clips():
    variants = {variant: RetrainedSources(found, clip, tags) for variant, found in (retrained or {}).items()}
    first, count = clip.first + clip.targets.start, len(clip.targets)
    yield range(first, first + count), clip_maps(ClipSources(networks, clip, tags), variants)


def _chosen(
  parts: Iterable[tuple[range, dict[str, np.ndarray]]], frames: Sequence[int]
) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
  """Of maps of all frames those of some, in chunks."""
  wanted = set(frames)
  for found, maps in parts:
    chosen = [i for i in found if i in wanted]
    for start in range(0, len(chosen), _CHUNK):
      chunk = chosen[start : start + _CHUNK]
      at = np.array(chunk) - found.start
      yield chunk, {method: values[at] for method, values in maps.items()}
