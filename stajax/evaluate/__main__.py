"""Scores a model, or a folder of maps, on eye-tracking videos by a published protocol, `stavis` by default.

  stajax evaluate [--model DIR] --data stavis:ROOT --out DIR
  stajax evaluate --maps DIR --data stavis:ROOT --out DIR
  stajax evaluate --ablation --model DIR --data stavis:ROOT --out DIR
  stajax evaluate --model DIR --data stavis:ROOT --out DIR --sense sound=other --sense motion=none

The metrics are AUC-J, s-AUC, NSS, SIM and CC. It writes `scores.json`, `evaluation.json`, `per_video.csv`,
`intervals.csv`, `paired_tests.csv` and `index.html`. Exit codes: 0 all videos are scored, 1 some could not be scored,
2 bad input, 3 no video could be scored, 75 after SIGTERM, 130 after Ctrl-C.
"""

import dataclasses
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

import stajax
from stajax import cli, screen, senses
from stajax.evaluate import methods
from stajax.evaluate.kept_scores import KeptScores
from stajax.eyetracking import StavisError, StavisTree, is_avimos, parse_data, read_groups, read_tree
from stajax.files import make_folder, sync
from stajax.report.moments import best_and_worst, time_curves
from stajax.report.page import Page, write_page
from stajax.report.score_files import add_uncertainty, describe, write_scores
from stajax.report.senses import compare_senses, format_comparison
from stajax.report.tables import Scores, format_table
from stajax.scoring.extremes import SHOWN
from stajax.scoring.protocol import NanPolicy, Settings
from stajax.scoring.results import Evaluation
from stajax.scoring.videos import Share, evaluate_videos, join_outcomes
from stajax.weights.locate import locate

PROGRAM = "stajax evaluate"
Baseline = Literal["centre_learned", "spectral_residual", "inter_observer"]
_MAX_NOTES = 10
"""The most notes that are printed; `evaluation.json` has all of them."""


@dataclass(frozen=True)
class Arguments:
  """The options of `stajax evaluate`."""

  data: str
  """The videos: stavis:ROOT, a tree in the STAViS layout (any database names); avimos:ROOT, one that `prepare avimos`
  wrote, scored as that challenge does."""
  out: Path
  """The folder for scores.json, evaluation.json, per_video.csv and index.html."""
  model: str | None = None
  """The model to score: its folder, the work folder of its training, or its address, https://… or hf://owner/name; by
  default, without --maps, the model that the package comes with."""
  maps: Path | None = None
  """A folder of maps made elsewhere: split{1,2,3}_results/<db>/<video>, <db>/<video> or <video>, each a folder of
  numbered png, jpg or npy files, an npz file as `predict` writes it, or a grey video."""
  splits: methods.Splits = "auto"
  """With --maps: whether each test list has maps of its own (own), or one set serves all (all)."""
  ablation: bool = False
  """Score the rows of the paper's Table 1 instead of the model's own predictions."""
  retrain: bool = False
  """With --ablation and a work folder as --model: train the networks that rows 9, 21 and 22 really need."""
  tags: Path | None = None
  """With --ablation: a table of the videos' tags (columns video, tag and, if names repeat, database); by default
  clips.csv in the tree, if it is there."""
  thresholds: bool = False
  """Score all maps also with values below 0.3, 0.5 and 0.7 set to 0 (the paper's Table 3), as NAME_0.3 and so on."""
  sense: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
  """Score the model also with a sense taken away, and compare: sound=other (that of another video, by --seed),
  sound=none, motion=none, companions=none, or several at once, such as sound=none,motion=none. May be repeated."""
  databases: tuple[str, ...] = ()
  """The databases of the tree to score; all if none is named."""
  stride: int = 1
  """Score every n-th frame."""
  first_frame: int = 1
  """The first frame that is scored, counted from 1."""
  seed: int = 0
  """The seed of the random parts of AUC-J (ties) and s-AUC (draws), and of who gets whose sound."""
  nan_policy: NanPolicy = "stavis"
  """Whether undefined scores are left out (stavis) or count as zero."""
  protocol: Literal["stavis", "dhf1k", "pysaliency", "avimos"] | None = None
  """How maps are scored; numbers of different protocols cannot be compared. The paper's are by stavis, the default;
  --data avimos:ROOT is scored by avimos."""
  further: tuple[Literal["s_auc_expected", "kl", "information_gain"], ...] = ()
  """Metrics beside the five: the exact expectation of s-AUC, KL divergence (lower is better), and information gain over
  a constant map in bits."""
  baselines: tuple[Baseline, ...] = ()
  """Further baselines, beside the fixed centre and the constant map: centre_learned (where viewers of the other videos
  look), spectral_residual (with --maps; models have it anyway), inter_observer (how well viewers predict each other).
  With inter_observer each method's share of the way from the centre to it is shown."""
  batch: int = 8
  """The number of frames that a model computes together."""
  processes: int | None = None
  """The number of processes that score; one per core by default."""
  part: str | None = None
  """With --model: the share of this process, if several on one or more machines evaluate into the same --out: 0/4, 1/4,
  2/4 or 3/4. The one that is last writes the scores."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run(PROGRAM, lambda: evaluate(cli.parse(PROGRAM, Arguments, argv, description=__doc__)))


def evaluate(arguments: Arguments) -> int:
  """Scores what the arguments name, and writes and prints the scores; returns the exit code.

  Raises:
    ValueError, OSError: The arguments or the data cannot be used; one line that says why.
  """
  if arguments.model is None and arguments.maps is None:
    from stajax.model import SHIPPED  # JAX takes a second to load

    arguments = dataclasses.replace(arguments, model=str(SHIPPED))
    screen.say("note: neither --model nor --maps: this scores the model that stajax comes with")
  _check(arguments)
  root = parse_data(arguments.data)
  need_frames = arguments.model is not None or "spectral_residual" in arguments.baselines
  tree = read_tree(root, arguments.databases or None, need_frames=need_frames)
  with cli.ended_by_interrupts(PROGRAM):
    chosen = _choose_methods(arguments, root, tree)
  protocol = arguments.protocol or ("avimos" if is_avimos(arguments.data) else "stavis")
  settings = Settings(
    arguments.seed, arguments.stride, arguments.first_frame, arguments.nan_policy, protocol, arguments.further
  )
  groups, part = read_groups(root), cli.read_part(arguments.part)
  kept = _open_kept(arguments, chosen, settings, tree)
  share = Share(part.take(chosen.packs or [[video] for video in tree.videos]), chosen.threads, kept)
  evaluation = evaluate_videos(
    tree.videos, chosen.maps, settings, groups, arguments.processes, True, arguments.baselines, share
  )
  if kept is not None and part != cli.WHOLE:
    outcomes = kept.load_all(tree.videos)
    if len(outcomes) < len(tree.videos):
      screen.say(f"part {part}: {_describe_part(evaluation, len(tree.videos) - len(outcomes), kept)}")
      return cli.exit_code(len(evaluation.skipped), len(evaluation.skipped) + len(evaluation.videos))
    evaluation = join_outcomes(tree.videos, outcomes, settings, groups)
  skipped = (*tree.skipped, *evaluation.skipped)
  for database, video, reason in skipped:
    screen.say(f"skipped {database}/{video}: {reason}", is_about_a_fault=True)
  if not evaluation.videos:
    return cli.fail(PROGRAM, f"{root}: none of {len(skipped)} videos could be scored", code=3)
  _write(arguments.out, chosen, evaluation, tree)
  if kept is not None:
    kept.remove()
  screen.say(_summary(evaluation, len(skipped), arguments.out))
  return cli.exit_code(len(skipped), len(skipped) + len(evaluation.videos))


def _open_kept(
  arguments: Arguments, chosen: methods.Methods, settings: Settings, tree: StavisTree
) -> KeptScores | None:
  """Opens the scores of a model that was stopped; None where maps are only read."""
  if chosen.made_with is None:
    return None
  return KeptScores.open(
    arguments.out,
    {
      "stajax": stajax.__version__,
      "made_with": chosen.made_with,
      "settings": dataclasses.asdict(settings),
      "thresholds": arguments.thresholds,
      "baselines": sorted(arguments.baselines),
      "videos": [[video.database, video.name, video.num_frames] for video in tree.videos],
    },
  )


def _describe_part(evaluation: Evaluation, num_missing: int, kept: KeptScores) -> str:
  if not kept.folder.is_dir():
    return "another process has written the scores of all parts"
  done = len({(video.database, video.name) for video in evaluation.videos}) + len(evaluation.skipped)
  return f"{done} videos are done, {num_missing} of all are not; the process that is last writes the scores"


def _check(arguments: Arguments) -> None:
  if arguments.model is not None and arguments.maps is not None:
    raise StavisError("give either --model DIR or --maps DIR")
  if arguments.ablation and arguments.model is None:
    raise StavisError("--ablation takes a model: give --model DIR instead of --maps")
  if arguments.retrain and not arguments.ablation:
    raise StavisError("--retrain needs --ablation")
  if arguments.retrain and arguments.model is not None and not Path(arguments.model, "stages").is_dir():
    raise StavisError(f"--retrain: {arguments.model} is not the work folder of a training: it has no folder 'stages'")
  if arguments.tags is not None and not arguments.ablation:
    raise StavisError("--tags needs --ablation: students never see a tag")
  if arguments.ablation and arguments.thresholds:
    raise StavisError("--thresholds and --ablation: give one of them")
  if arguments.sense and (arguments.model is None or arguments.ablation):
    what = "--ablation, whose rows" if arguments.ablation else "--maps, which"
    raise StavisError(f"--sense takes the model's own predictions: give --model DIR without {what} cannot be made anew")
  cli.read_part(arguments.part)  # a wrong one is said before the model is loaded
  if arguments.part is not None and arguments.model is None:
    raise StavisError(f"--part {arguments.part} takes a model: give --model DIR instead of --maps")
  if arguments.stride < 1 or arguments.first_frame < 1 or (arguments.processes or 1) < 1:
    raise StavisError("--stride, --first-frame and --processes must be at least 1")
  existing = next(path for path in (arguments.out.absolute(), *arguments.out.absolute().parents) if path.exists())
  if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
    raise StavisError(f"--out {arguments.out}: {existing} is not a folder in which files can be written")


def _choose_methods(arguments: Arguments, root: Path, tree: StavisTree) -> methods.Methods:
  if arguments.maps is not None:
    chosen = methods.file_methods(arguments.maps, tree.videos, arguments.splits)
    if "spectral_residual" in arguments.baselines:
      chosen = methods.with_spectral_residual(chosen)
  else:
    assert arguments.model is not None, "`_check` refuses arguments without --maps and --model"
    model = locate(arguments.model)
    if arguments.ablation:
      chosen = methods.ablation_methods(model, arguments.batch, arguments.retrain, root, tree.videos, arguments.tags)
    else:
      chosen = methods.model_methods(model, arguments.batch, tree.videos, _read_senses(arguments.sense), arguments.seed)
  return methods.with_thresholds(chosen) if arguments.thresholds else chosen


def _read_senses(texts: Sequence[str]) -> tuple[senses.Senses, ...]:
  return tuple(dict.fromkeys(senses.parse(text) for text in texts))


def _write(out: Path, chosen: methods.Methods, evaluation: Evaluation, tree: StavisTree) -> None:
  """Writes the scores and the page; prints the first notes and the scores."""
  notes = [*tree.notes, *chosen.notes]
  about = describe(evaluation, notes, tree.fold_lists, tree.skipped)
  add_uncertainty(about, evaluation)
  if chosen.row_titles:
    about["rows"] = dict(chosen.row_titles)
  if chosen.senses:
    about["senses"] = compare_senses(evaluation, chosen.senses, chosen.sounding)
  make_folder(out)
  for name in ("intervals.csv", "paired_tests.csv"):  # too few videos have none, and those of others must not stay
    (out / name).unlink(missing_ok=True)
  with tempfile.TemporaryDirectory(prefix=".writing.", dir=out) as folder:  # another process may do the same
    scores = write_scores(evaluation, about, folder)
    write_page(folder, _page(chosen, evaluation, tree, scores, about))
    for path in sorted(Path(folder).iterdir()):
      os.replace(path, out / path.name)
    sync(out)
  for note in notes[:_MAX_NOTES]:
    screen.say(f"note: {note}")
  if len(notes) > _MAX_NOTES:
    screen.say(f"note: … and {len(notes) - _MAX_NOTES} more in {out / 'evaluation.json'}")
  screen.say(format_table(scores))
  if chosen.senses:
    screen.say(format_comparison(about["senses"]))


def _page(
  chosen: methods.Methods, evaluation: Evaluation, tree: StavisTree, scores: Scores, about: Mapping[str, Any]
) -> Page:
  """Returns the page, with curves over time and the best and worst frames where maps are not rows of an ablation."""
  page = Page(chosen.title, scores, about, row_titles=chosen.row_titles)
  shown = next((name for name in SHOWN if name in evaluation.methods), None)
  if shown is None:
    return page
  examples = best_and_worst(evaluation, tree.videos, shown, tree.root)
  return dataclasses.replace(page, moments=time_curves(evaluation, shown), examples=examples)


def _summary(evaluation: Evaluation, num_skipped: int, out: Path) -> str:
  frames = sum(len(video.frames) for video in evaluation.videos)
  videos = len({(video.database, video.name) for video in evaluation.videos})
  missing = sum(video.num_requested - len(video.frames) for video in evaluation.videos)
  without = f" (there is no map for {missing} more)" if missing else ""
  scored = f"{screen.counted(videos, 'video')}, {screen.counted(frames, 'frame')} scored{without}"
  return f"{scored}, {screen.counted(num_skipped, 'video')} skipped; see {out / 'index.html'}"


if __name__ == "__main__":
  sys.exit(main())
