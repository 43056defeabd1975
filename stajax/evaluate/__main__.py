"""python -m stajax.evaluate: scores a model, or a folder of maps, on eye-tracking videos by the `stavis` protocol.

  python -m stajax.evaluate --model DIR --data stavis:ROOT --out DIR
  python -m stajax.evaluate --maps DIR --data stavis:ROOT --out DIR
  python -m stajax.evaluate --ablation --model DIR --data stavis:ROOT --out DIR

Writes `scores.json`, `evaluation.json`, `per_video.csv` and `index.html`. Exit codes: 0 done, 1 nothing could be
scored, 2 bad input.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from stajax import runtime
from stajax.evaluate.map_files import find_maps, find_splits, read_map
from stajax.eyetracking import StavisError, StavisVideo, parse_data, read_groups, read_tree
from stajax.maps.scale import threshold_maps
from stajax.report.page import write_report
from stajax.report.score_files import describe, format_table, write_scores
from stajax.report.table_1 import ROWS
from stajax.scoring.protocol import NanPolicy
from stajax.scoring.videos import Evaluation, MethodMaps, evaluate_videos

CHUNK_FRAMES = 64
THRESHOLDS = (0.3, 0.5, 0.7)
THRESHOLDS_NOTE = (
  "thresholds: NAME is without one (0.0 in the paper's Table 3); NAME_0.3 has its values below 0.3 set to 0 after each "
  "map is scaled to [0, 1], and so on."
)
MAX_NOTES = 10  # on the terminal


@dataclass(frozen=True)
class Arguments:
  """Scores a model, or a folder of maps, on eye-tracking videos: AUC-J, s-AUC, NSS, SIM and CC."""

  data: str
  """stavis:ROOT, a tree in the STAViS layout (any database names)."""
  out: Path
  """Folder for scores.json, evaluation.json, per_video.csv and index.html."""
  model: Path | None = None
  """A model, or the work folder that it was trained in."""
  maps: Path | None = None
  """Maps that were made elsewhere: split{1,2,3}_results/<db>/<video>/*, <db>/<video>/* or <video>/*; png, jpg, npy."""
  ablation: bool = False
  """Score the rows of the paper's Table 1 instead of the model's own predictions."""
  retrain: bool = False
  """With --ablation and a work folder as --model: train the networks that rows 9, 21 and 22 really need."""
  thresholds: bool = False
  """Score all maps also with values below 0.3, 0.5 and 0.7 set to 0 (the paper's Table 3), as NAME_0.3 and so on."""
  databases: tuple[str, ...] = ()
  """Which databases of the tree; all if none is named."""
  stride: int = 1
  """Score every n-th frame."""
  first_frame: int = 1
  """The first frame that is scored, counted from 1."""
  seed: int = 0
  """Of the random parts of AUC-J (ties) and s-AUC (draws)."""
  nan_policy: NanPolicy = "stavis"
  """Undefined scores: left out (stavis) or counted as zero."""
  batch: int = 8
  """Frames that a model computes together."""
  processes: int | None = None
  """Processes that score; as many as there are cores if not given."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  arguments = tyro.cli(Arguments, args=argv, prog="stajax evaluate", description=__doc__)
  try:
    return _evaluate(arguments)
  except (ValueError, OSError) as error:
    print(f"stajax evaluate: {error}", file=sys.stderr)
    return 2


def _evaluate(arguments: Arguments) -> int:
  _check(arguments)
  root = parse_data(arguments.data)
  tree = read_tree(root, arguments.databases or None, need_frames=arguments.model is not None)
  groups = read_groups(root)
  notes, titles = list(tree.notes), {}
  method_maps: MethodMaps | Mapping[int, MethodMaps]
  if arguments.ablation:
    method_maps, titles = ablation_method_maps(arguments, root, tree.videos, notes)
    title = f"Ablation of {arguments.model.resolve().name}"
  elif arguments.model is not None:
    method_maps, model_notes = model_method_maps(arguments.model, arguments.batch, tree.videos)
    title = f"Scores of {arguments.model.resolve().name}"
    notes += model_notes
  else:
    method_maps = file_method_maps(arguments.maps, tree.videos, notes)
    title = f"Scores of the maps in {arguments.maps.resolve().name}"
  if arguments.thresholds:
    notes.append(THRESHOLDS_NOTE)
    method_maps = with_thresholds(method_maps)
  evaluation = evaluate_videos(
    tree.videos,
    method_maps,
    seed=arguments.seed,
    stride=arguments.stride,
    first_frame=arguments.first_frame,
    nan_policy=arguments.nan_policy,
    groups=groups,
    processes=arguments.processes,
    progress=True,
  )
  skipped = (*tree.skipped, *evaluation.skipped)
  for database, video, reason in skipped:
    print(f"skipped {database}/{video}: {reason}", file=sys.stderr)
  if not evaluation.videos:
    print(f"stajax evaluate: {root}: none of {len(skipped)} videos could be scored", file=sys.stderr)
    return 1
  about = describe(evaluation, notes, tree.fold_lists, tree.skipped) | ({"rows": titles} if titles else {})
  scores = write_scores(evaluation, about, arguments.out)
  write_report(arguments.out, title=title, scores=scores, about=about, titles=titles)
  for note in notes[:MAX_NOTES]:
    print(f"note: {note}")
  if len(notes) > MAX_NOTES:
    print(f"note: … and {len(notes) - MAX_NOTES} more in {arguments.out / 'evaluation.json'}")
  print(format_table(scores))
  print(_summary(evaluation, len(skipped), arguments.out))
  return 0


def _check(arguments: Arguments) -> None:
  if (arguments.model is None) == (arguments.maps is None):
    raise StavisError("give either --model DIR or --maps DIR")
  if arguments.ablation and arguments.model is None:
    raise StavisError("--ablation takes a model: give --model DIR instead of --maps")
  if arguments.retrain and not arguments.ablation:
    raise StavisError("--retrain is for --ablation, which is not given")
  if arguments.retrain and not (arguments.model / "stages").is_dir():
    raise StavisError(f"--retrain: {arguments.model} is not the work folder of a training: it has no folder 'stages'")
  if arguments.ablation and arguments.thresholds:
    raise StavisError("--thresholds and --ablation: give one of them")
  if arguments.stride < 1 or arguments.first_frame < 1 or (arguments.processes or 1) < 1:
    raise StavisError("--stride, --first-frame and --processes must be at least 1")


def model_method_maps(model: Path, batch: int, videos: Sequence[StavisVideo]) -> tuple[MethodMaps, list[str]]:
  """The maps that a model predicts, and notes about it (such as what it was trained on)."""
  runtime.configure()
  from stajax.inference import dataset
  from stajax.inference import predictor as prediction  # JAX starts only where a model runs

  predictor = prediction.load_predictor(model, batch)
  return dataset.method_maps(predictor, videos), predictor.notes


def ablation_method_maps(
  arguments: Arguments, root: Path, videos: Sequence[StavisVideo], notes: list[str]
) -> tuple[MethodMaps, dict[str, str]]:
  """The maps of all rows of Table 1, and the rows' titles by method; `notes` grows by what is to be known of them."""
  runtime.configure()
  from stajax import model  # JAX starts only where a model runs
  from stajax.inference import ablation  # JAX starts only where a model runs

  loaded = model.load(arguments.model, ablation.NEEDED)
  if loaded.trained_on == "synthetic":
    notes.append("synthetic: the model was trained on rendered clips.")
  retrained = {}
  if arguments.retrain:
    from stajax.train import ablation_variants  # loads TensorFlow, as training does

    retrained = ablation_variants.retrain(
      arguments.model, ablation.make_networks(loaded, arguments.batch), arguments.batch
    )
  tags = ablation.read_tags(root, loaded.categories)
  predicted = sum(video.name not in tags for video in videos)
  if not predicted:
    notes.append("Rows use the true tag of every video.")
  else:
    notes.append(
      f"predicted tag: {predicted} of {len(videos)} videos have no tag that the model knows; the rows use the category "
      "with the largest mean confidence of the coarse sources over the video."
    )
  titles = {row.method: row.retrained_title if row.variant in retrained else row.title for row in ROWS}
  if predicted:
    suffix = " (predicted tag)" if predicted == len(videos) else " (some tags predicted)"
    titles = {method: title + suffix for method, title in titles.items()}
  return ablation.method_maps(loaded, arguments.batch, tags, retrained), titles


def with_thresholds(method_maps: MethodMaps | Mapping[int, MethodMaps]) -> MethodMaps | Mapping[int, MethodMaps]:
  """The same maps, and as methods of their own those with values below a threshold set to 0: `NAME_0.3` and so on."""
  if isinstance(method_maps, Mapping):
    return {split: with_thresholds(maps) for split, maps in method_maps.items()}

  def maps(video: StavisVideo, frames: Sequence[int]) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    for chunk, found in method_maps(video, frames):
      cut = {}
      for method, values in found.items():
        cut[method] = values
        for level in THRESHOLDS:
          cut[f"{method}_{level}"] = np.round(threshold_maps(values, level) * 255).astype(np.uint8)
      yield chunk, cut

  return maps


def file_method_maps(root: Path, videos: Sequence[StavisVideo], notes: list[str]) -> dict[int, MethodMaps]:
  """The maps in a folder, as the method `maps`, by split; `notes` grows as files are found."""
  names = Counter(video.name for video in videos)
  doubled = sorted({video.name for video in videos if names[video.name] > 1 and (root / video.name).is_dir()})
  if doubled:
    raise StavisError(f"{root / doubled[0]}: two databases have this video, expected {root}/<database>/{doubled[0]}")
  splits = find_splits(root)
  if 0 not in splits:
    notes.append(f"each test list is scored with its own maps: {', '.join(path.name for path in splits.values())}")

  def make(folder: Path) -> MethodMaps:
    def method_maps(video: StavisVideo, frames: Sequence[int]) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
      files, found = find_maps(folder, video.database, video.name, video.num_frames)
      notes.extend(found)
      present = [i for i in frames if i in files]
      size = None
      for start in range(0, len(present), CHUNK_FRAMES):
        chunk = present[start : start + CHUNK_FRAMES]
        maps = [read_map(files[i]) for i in chunk]
        for i, values in zip(chunk, maps):
          size = size or values.shape
          if values.shape != size:
            raise StavisError(f"{files[i]}: {values.shape}, expected {size} as the video's other maps")
        yield chunk, {"maps": np.stack(maps)}

    return method_maps

  return {split: make(folder) for split, folder in splits.items()}


def _summary(evaluation: Evaluation, num_skipped: int, out: Path) -> str:
  frames = sum(len(video.frames) for video in evaluation.videos)
  videos = len({(video.database, video.name) for video in evaluation.videos})
  missing = sum(video.num_asked - len(video.frames) for video in evaluation.videos)
  without = f" ({missing} more have no map)" if missing else ""
  return f"{videos} videos, {frames} frames scored{without}, {num_skipped} videos skipped; see {out / 'index.html'}"


if __name__ == "__main__":
  sys.exit(main())
