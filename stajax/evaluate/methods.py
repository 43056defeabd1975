"""Where the maps to score come from: a model, the rows of an ablation, or a folder of files."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from stajax import runtime
from stajax.evaluate.map_files import find_splits
from stajax.evaluate.map_sources import find_source, sources_in
from stajax.evaluate.value_ranges import Ranges
from stajax.eyetracking import StavisError, StavisVideo
from stajax.maps.baselines import spectral_residual
from stajax.maps.scale import threshold_maps
from stajax.prepare.video_tags import read_tags, tags_of
from stajax.report.table_1 import NOTE
from stajax.scoring.protocols import to_8_bits
from stajax.scoring.videos import MethodMaps
from stajax.senses import Senses

THRESHOLDS = (0.3, 0.5, 0.7)
THRESHOLDS_NOTE = (
  "thresholds: The maps of NAME have none (0.0 in the paper's Table 3); those of NAME_0.3 have their values below 0.3 "
  "set to 0 after each map is scaled to [0, 1], and so on."
)
_CHUNK_FRAMES = 64
_CHUNK_BYTES = 2**25
"""A chunk has at most so many bytes, or one map, so that large maps do not fill the memory."""
_FRAME_SIDE = 256


@dataclass(frozen=True)
class Methods:
  """Maps to score, and what a report says of them.

  Attributes:
    title: The title of the report.
    maps: The maps, by split: 0 for maps that serve every test list.
    notes: Lines for people. Reading the maps may add to them.
    row_titles: The titles of the ablation's rows by method; empty for anything else.
    senses: What the maps of some methods ablate beside the usual ones.
    sounding: The (database, name) of the videos that have sound, where that matters for `senses`.
    packs: The videos, those together whose maps are computed together; empty if each is by itself.
    threads: How many packs' maps may be asked for at the same time: the number of devices.
    made_with: What a model's maps depend on beside the videos, as JSON values; None for maps that are read.
  """

  title: str
  maps: Mapping[int, MethodMaps]
  notes: list[str] = field(default_factory=list)
  row_titles: Mapping[str, str] = field(default_factory=dict)
  senses: Sequence[Senses] = ()
  sounding: frozenset[tuple[str, str]] = frozenset()
  packs: Sequence[Sequence[StavisVideo]] = ()
  threads: int = 1
  made_with: Mapping[str, Any] | None = None


def model_methods(
  model: Path, batch: int, videos: Sequence[StavisVideo], senses: Sequence[Senses] = (), seed: int = 0
) -> Methods:
  """Returns the maps that a model predicts for the videos.

  Args:
    model: The model's folder, or the work folder of its training.
    batch: The number of frames that are computed together.
    videos: The videos whose maps will be asked for.
    senses: What the maps of further methods ablate.
    seed: The seed of the choice whose sound another sound is.

  Raises:
    ValueError: Another sound is asked for, and only one video has sound.
  """
  runtime.configure()
  from stajax.inference import dataset, predictor  # JAX is loaded only where a model runs
  from stajax.inference.local_devices import local_devices
  from stajax.model import SHIPPED

  heard = {each.sound for each in senses}
  sounding = dataset.sounding_videos(videos) if heard - {"own"} else []
  donors = dataset.find_donors(sounding, seed) if "other" in heard else {}
  loaded = predictor.load_predictor(model, batch, senses=senses)
  packs = dataset.make_packs(loaded, videos)
  others = {f"{database}/{name}": f"{x.database}/{x.name}" for (database, name), x in donors.items()}
  return Methods(
    f"Scores of {'the model that stajax comes with' if model == SHIPPED else model.resolve().name}",
    {0: dataset.method_maps(loaded, videos, donors)},
    list(loaded.notes),
    senses=senses,
    sounding=frozenset((video.database, video.name) for video in sounding),
    packs=packs,
    threads=len(local_devices(len(packs))),
    made_with={**loaded.made_with, "batch": batch, "senses": [each.suffix for each in senses], "donors": others},
  )


def ablation_methods(
  model: Path,
  batch: int,
  retrain: bool,
  root: Path,
  videos: Sequence[StavisVideo],
  table: Path | None = None,
) -> Methods:
  """Returns the maps of all rows of the paper's Table 1.

  Args:
    model: The model's folder, or the work folder of its training.
    batch: The number of frames that are computed together.
    retrain: Whether the networks that some rows strictly need are trained, in the work folder.
    root: The tree of the videos, which may name their tags.
    videos: The videos whose maps will be asked for.
    table: A table of their tags elsewhere; None for the tree's own, if it has one.

  Raises:
    ValueError: The model has no classifiers.
  """
  runtime.configure()
  from stajax import model as models  # JAX is loaded only where a model runs
  from stajax import networks
  from stajax.inference import ablation
  from stajax.inference.local_devices import local_devices

  loaded = models.load(model, networks.tag_networks)
  if loaded.config.is_distilled:
    raise ValueError(
      f"{model}: has no classifiers, as it learned from a finished model: --ablation needs one with them"
    )
  retrained = {}
  if retrain:
    from stajax.train import ablation_variants  # loads TensorFlow, as training does

    retrained = ablation_variants.retrain(model, ablation.make_sources(loaded, batch), batch)
  tags = read_tags(root, loaded.categories, table)
  num_predicted = sum(tags_of(tags, video.database, video.name) is None for video in videos)
  titles = {
    row.method: row.retrained_title if row.variant in retrained else row.title
    for row in ablation.rows_of(loaded.config)
  }
  if num_predicted:
    suffix = "predicted tag" if num_predicted == len(videos) else "some tags predicted"
    titles = {method: f"{title} ({suffix})" for method, title in titles.items()}
  notes = ["synthetic: the model was trained on rendered clips."] if loaded.trained_on == "synthetic" else []
  notes += [_note_on_tags(num_predicted, len(videos)), NOTE]
  maps = ablation.method_maps(loaded, batch, tags, retrained)
  return Methods(
    f"Ablation of {model.resolve().name}",
    {0: maps},
    notes,
    titles,
    threads=len(local_devices(len(videos))),
    made_with={
      "sha256": dict(loaded.sha256),
      "config": loaded.config.model_dump(mode="json"),
      "batch": batch,
      "tags": {name: list(of) for name, of in tags.items()},
      "retrained": sorted(retrained),
    },
  )


def _note_on_tags(num_predicted: int, num_videos: int) -> str:
  if not num_predicted:
    return "Rows use the true tag of every video."
  return (
    f"predicted tag: {num_predicted} of {num_videos} videos have no tag that the model knows; for them the rows use "
    "the category with the largest mean confidence of the coarse sources over the video."
  )


Splits = Literal["auto", "all", "own"]
"""Whether one set of maps serves all test lists, or each list has its own; `auto` goes by the folders' names."""


def file_methods(root: Path, videos: Sequence[StavisVideo], expected: Splits = "auto") -> Methods:
  """Returns the maps in a folder, as the method `maps`.

  Args:
    root: The folder.
    videos: The videos whose maps will be asked for.
    expected: Which kind of folder it has to be.

  Raises:
    StavisError: There is no such folder, it is of the other kind, or it is not clear which database a video's maps
      belong to.
  """
  splits = find_splits(root)
  count = Counter(video.name for video in videos)
  for name, folder in itertools.product(sorted(name for name in count if count[name] > 1), splits.values()):
    if sources_in(folder, name):
      raise StavisError(f"{folder / name}: two databases have this video, expected {folder}/<database>/{name}")
  if expected == "own" and 0 in splits:
    raise StavisError(f"{root}: no folder split1_results, expected one for each test list (--splits own)")
  if expected == "all" and 0 not in splits:
    found = ", ".join(path.name for path in splits.values())
    raise StavisError(f"{root}: found {found}, expected one set of maps for all test lists (--splits all)")
  notes: list[str] = []
  if 0 not in splits:
    notes.append(f"Each test list is scored with its own maps: {', '.join(path.name for path in splits.values())}")
  maps = {split: _folder_maps(folder, notes) for split, folder in splits.items()}
  return Methods(f"Scores of the maps in {root.resolve().name}", maps, notes)


def _folder_maps(folder: Path, notes: list[str]) -> MethodMaps:
  """Returns a function that reads the maps of a video, and adds remarks about the files to `notes`."""
  ranges = Ranges(notes)

  def method_maps(video: StavisVideo, frames: Sequence[int]) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    yield from _chunks(find_source(folder, video, notes).read(frames), ranges, f"{video.database}/{video.name}")

  return method_maps


def _chunks(
  found: Iterable[tuple[int, np.ndarray, str]], ranges: Ranges, key: str
) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
  """Yields the (frame, map, name for messages) of a video in chunks, as the method `maps`; raises StavisError."""
  size, chunk = None, list[tuple[int, np.ndarray]]()
  for i, values, name in found:
    size = size or values.shape
    if values.shape != size:
      raise StavisError(f"{name}: {values.shape}, expected {size} like the video's other maps")
    values = ranges.convert(values, key, name)
    room = min(_CHUNK_FRAMES, _CHUNK_BYTES // values.nbytes)
    if chunk and (len(chunk) >= room or values.dtype != chunk[0][1].dtype):  # pictures may lie beside arrays
      yield _stack(chunk)
      chunk = []
    chunk.append((i, values))
  if chunk:
    yield _stack(chunk)
  ranges.finish(key)


def _stack(chunk: Sequence[tuple[int, np.ndarray]]) -> tuple[list[int], dict[str, np.ndarray]]:
  return [i for i, _ in chunk], {"maps": np.stack([values for _, values in chunk])}


def array_methods(maps: Mapping[str, np.ndarray], videos: Sequence[StavisVideo]) -> Methods:
  """Returns arrays (n, h, w) of maps, by `VIDEO` or `DATABASE/VIDEO`, as the method `maps`.

  Raises:
    StavisError: An array belongs to no video or to two, or does not hold maps (n, h, w) of real numbers.
  """
  for key, values in maps.items():
    named = [f"{video.database}/{video.name}" for video in videos if key in _keys_of(video)]
    if len(named) != 1:
      raise StavisError(f"maps of {key}: found {', '.join(named) or 'no such video'}, expected one video")
    if values.ndim != 3 or values.dtype.kind not in "buif":
      raise StavisError(f"maps of {key}: found {values.dtype} {values.shape}, expected real numbers (n, h, w)")

  notes: list[str] = []
  ranges = Ranges(notes)

  def method_maps(video: StavisVideo, frames: Sequence[int]) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    key = next((key for key in _keys_of(video) if key in maps), None)
    if key is None:
      raise StavisError(f"{video.database}/{video.name}: there are no maps of it")
    present = ((i, maps[key][i], f"maps of {key}, frame {i}") for i in frames if i < len(maps[key]))
    yield from _chunks(present, ranges, key)

  return Methods("Scores of maps", {0: method_maps}, notes)


def _keys_of(video: StavisVideo) -> tuple[str, str]:
  return f"{video.database}/{video.name}", video.name


def with_thresholds(methods: Methods, names: Collection[str] | None = None) -> Methods:
  """Adds methods for each threshold, such as `NAME_0.3`, whose maps have the values below it set to 0.

  Args:
    methods: The methods.
    names: The names of those that get thresholds; None for all.
  """
  methods.notes.append(THRESHOLDS_NOTE)  # not a copy: reading the maps may add further notes
  return replace(methods, maps={split: _with_thresholds(maps, names) for split, maps in methods.maps.items()})


def _with_thresholds(method_maps: MethodMaps, names: Collection[str] | None) -> MethodMaps:
  def maps(video: StavisVideo, frames: Sequence[int]) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    for chunk, found in method_maps(video, frames):
      cut = {}
      for method, values in found.items():
        cut[method] = values
        for level in THRESHOLDS if names is None or method in names else ():
          cut[f"{method}_{level}"] = np.round(threshold_maps(values, level) * 255).astype(np.uint8)
      yield chunk, cut

  return maps


def with_spectral_residual(methods: Methods) -> Methods:
  """Adds the baseline `spectral_residual` of each frame's image, for maps that come without it."""
  return replace(methods, maps={split: _with_spectral_residual(maps) for split, maps in methods.maps.items()})


def _with_spectral_residual(method_maps: MethodMaps) -> MethodMaps:
  def maps(video: StavisVideo, frames: Sequence[int]) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    for chunk, found in method_maps(video, frames):
      residuals = [spectral_residual(_read_frame(video.frame_paths[i])) for i in chunk]
      yield chunk, {"spectral_residual": np.stack([to_8_bits(x / max(x.max(), 1e-30)) for x in residuals]), **found}

  return maps


def _read_frame(path: Path) -> np.ndarray:
  """Returns a frame as (256, 256, 3) uint8, of which spectral residual sees less; raises StavisError."""
  try:
    with Image.open(path) as image:
      image.draft("RGB", (_FRAME_SIDE, _FRAME_SIDE))
      return np.asarray(image.convert("RGB").resize((_FRAME_SIDE, _FRAME_SIDE), Image.Resampling.BICUBIC))
  except (OSError, ValueError, Image.DecompressionBombError) as error:
    raise StavisError(f"{path}: not a readable frame ({error})") from None
