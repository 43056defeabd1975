"""python -m stajax.evaluate: scores a model, or a folder of maps, on eye-tracking videos by the `stavis` protocol.

  python -m stajax.evaluate --model DIR --data stavis:ROOT --out DIR
  python -m stajax.evaluate --maps DIR --data stavis:ROOT --out DIR

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
from stajax.data.map_files import find_maps, find_splits, read_map
from stajax.data.stavis import StavisError, StavisVideo, read_tree
from stajax.data.stavis_write import read_groups
from stajax.evaluation import Evaluation, MethodMaps, evaluate_videos
from stajax.metrics.protocol import NanPolicy
from stajax.report.page import write_report
from stajax.report.score_files import describe, format_table, write_scores

PROTOCOLS = ("stavis",)
CHUNK_FRAMES = 64
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
  if (arguments.model is None) == (arguments.maps is None):
    raise StavisError("give either --model DIR or --maps DIR")
  if arguments.stride < 1 or arguments.first_frame < 1 or (arguments.processes or 1) < 1:
    raise StavisError("--stride, --first-frame and --processes must be at least 1")
  root = parse_data(arguments.data)
  tree = read_tree(root, arguments.databases or None, need_frames=arguments.model is not None)
  groups = read_groups(root)
  notes = list(tree.notes)
  method_maps: MethodMaps | Mapping[int, MethodMaps]
  if arguments.model is not None:
    method_maps, model_notes = model_method_maps(arguments.model, arguments.batch)
    title = f"Scores of {arguments.model.resolve().name}"
    notes += model_notes
  else:
    method_maps = file_method_maps(arguments.maps, tree.videos, notes)
    title = f"Scores of the maps in {arguments.maps.resolve().name}"
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
  about = describe(evaluation, notes, tree.fold_lists, tree.skipped)
  scores = write_scores(evaluation, about, arguments.out)
  write_report(arguments.out, title=title, scores=scores, about=about)
  for note in notes[:MAX_NOTES]:
    print(f"note: {note}")
  if len(notes) > MAX_NOTES:
    print(f"note: … and {len(notes) - MAX_NOTES} more in {arguments.out / 'evaluation.json'}")
  print(format_table(scores))
  print(_summary(evaluation, len(skipped), arguments.out))
  return 0


def parse_data(data: str) -> Path:
  """`stavis:ROOT` → ROOT; a bare ROOT that is a tree in the STAViS layout is taken too. Raises StavisError."""
  name, separator, root = data.partition(":")
  if separator and name in PROTOCOLS and root:
    return Path(root)
  if (Path(data) / "annotations").is_dir():
    return Path(data)
  raise StavisError(f"--data {data}: expected NAME:ROOT with NAME one of {', '.join(PROTOCOLS)}")


def model_method_maps(model: Path, batch: int) -> tuple[MethodMaps, list[str]]:
  """The maps that a model predicts, and notes about it (such as what it was trained on)."""
  runtime.configure()
  from stajax import prediction  # JAX starts only where a model runs

  predictor = prediction.load_predictor(model, batch)
  return prediction.method_maps(predictor), predictor.notes


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
