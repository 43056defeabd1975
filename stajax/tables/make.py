"""What `stajax tables` does, table by table."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stajax import model as models
from stajax import networks, runtime, screen
from stajax.evaluate import methods
from stajax.evaluate.methods import Methods
from stajax.eyetracking import parse_data, read_tree
from stajax.inference import ablation, cam_baselines, dataset, predictor, sweeps
from stajax.inference.local_devices import local_devices
from stajax.model import Model
from stajax.plan.per_network import plan_networks
from stajax.prepare.video_tags import read_tags
from stajax.report import paper_tables
from stajax.report.paper_tables import CAM_BASELINES, PaperTable
from stajax.report.table_1 import ROWS
from stajax.report.table_files import Figure, write_tables
from stajax.report.tables import Scores
from stajax.scoring.protocol import Settings
from stajax.tables.arguments import Arguments
from stajax.tables.runs import ModelRun, open_run
from stajax.tables.scored import Scorer, Tree, merge, renamed

_THRESHOLDED = {
  "layer_cam": "LCAM of our S",
  "smooth_grad_cam_pp": "SGradCAMpp of our S",
  "row_11": "SCAM, pseudo-fixations of the run",
  "row_25": "SCAM+, pseudo-fixations of the run",
}
"""The methods of Table 3, and their titles."""


def make_tables(arguments: Arguments) -> int:
  """Makes and writes all tables; prints what is missing; returns 1 if a video could not be scored, and otherwise 0.

  Raises:
    ValueError, OSError: An argument, a run or a tree cannot be used.
  """
  runtime.configure()
  if not arguments.runs:
    raise ValueError("no run: expected the work folder of a finished training, or a model folder")
  runs = [open_run(path) for path in arguments.runs]
  roots = [parse_data(data) for data in arguments.data]
  trees = [Tree(root, read_tree(root, None, need_frames=True)) for root in roots]
  settings = Settings(seed=arguments.seed, stride=arguments.stride)
  scorer = Scorer(arguments.out / "evaluations", settings, arguments.processes, arguments.tags)
  made = _Tables(arguments, runs, trees, scorer)
  tables = [made.table_1(), made.table_2(), made.table_3(), made.table_4(), made.table_5(), made.appendix()]
  figures = _figures(arguments, runs[0])
  banners = [
    f"synthetic: {run.name} was trained on rendered clips; its numbers are no reproduction of the paper."
    for run in runs
    if run.model.trained_on == "synthetic"
  ]
  title = f"The paper's tables, from {', '.join(run.name for run in runs)}"
  write_tables(arguments.out, title, tables, figures, banners)
  missing = [f"{table.name}: {line}" for table in tables for line in table.missing]
  for line in missing:
    screen.say(f"missing: {line}")
  for name in sorted(scorer.failed):
    screen.say(f"stajax tables: {name} could not be scored", is_about_a_fault=True)
  screen.say(f"{len(tables)} tables, {len(missing)} things missing; see {arguments.out / 'index.html'}")
  return 1 if scorer.failed else 0


def _figures(arguments: Arguments, run: ModelRun) -> list[Figure]:
  if not arguments.figures and arguments.export is None:
    return []
  from stajax.tables import figures  # loads TensorFlow, as training does

  if not run.is_workdir:
    raise ValueError(f"--figures and --export: {run.path} is a model folder, expected the work folder of a training")
  opened = figures.open_workdir(run.path)
  if arguments.export is not None:
    screen.say(f"{figures.export_maps(opened, arguments.export)} pseudo-fixations written to {arguments.export}")
  return figures.draw_figures(opened, arguments.out, arguments.figures)


class _Tables:
  """Makes the tables; whatever several of them need is scored once."""

  def __init__(self, arguments: Arguments, runs: Sequence[ModelRun], trees: Sequence[Tree], scorer: Scorer) -> None:
    self._arguments, self._runs, self._trees, self._scorer = arguments, runs, trees, scorer
    self._main = runs[0]
    found = [tree for tree in trees if arguments.database in tree.databases]
    self._tree = None if not found else Tree(found[0].root, read_tree(found[0].root, [arguments.database]))
    self._reason = "" if found else f"no tree that was given has the set {arguments.database} (--data, --database)"
    self._rows, self._titles = self._score_rows()
    self._students = {run.title: self._score_students(run) for run in runs}
    self._cams = self._score_cams()

  def table_1(self) -> PaperTable:
    return paper_tables.table_1(self._rows, self._titles, self._arguments.database, self._reason)

  def table_2(self) -> PaperTable:
    reasons: dict[str, str] = {}
    for role, how in (
      ("STANet", "train one with --students.learn-from scam"),
      ("STANet+", "train one with configs/ave.py"),
      ("STANet+♭", "train one with configs/vggsound.py"),
    ):
      if not any(run.role == role for run in self._runs):
        reasons[role] = f"no such run was given; {how}"
    ours = {run.title: self._students[run.title] for run in self._runs if run.role != "re-trained"}
    return paper_tables.table_2(ours, self._cams, reasons)

  def table_3(self) -> PaperTable:
    scores = merge([self._rows, self._cams])
    return paper_tables.table_3(scores, self._arguments.database, _THRESHOLDED, self._reason)

  def table_4(self) -> PaperTable:
    tagged = {run.title: self._students[run.title] for run in self._runs if run.role == "re-trained"}
    others = {run.title: self._students[run.title] for run in self._runs if run.role == "STANet+"}
    reason = (
      ""
      if tagged
      else (
        "no run was given that learned from tagged clips of eye-tracking sets; prepare them with "
        "`stajax prepare stavis --split 1 --tags TABLE`"
      )
    )
    if tagged and not any("AVAD" in tree.databases for tree in self._trees):
      reason = "no tree that was given has the set AVAD"
    return paper_tables.table_4({**others, **tagged}, reason)

  def table_5(self) -> PaperTable:
    number = self._arguments.categories or len(self._main.model.categories)
    return paper_tables.table_5(plan_networks(self._main.model.config, number))

  def appendix(self) -> PaperTable:
    reason, scores = self._reason, Scores()
    if not self._arguments.sweeps:
      reason = "not asked for; --sweeps makes it"
    elif self._main.model.config.is_stanet:
      reason = f"{self._main.name} is STANet, which has no C-GCN"
    elif self._tree is not None:
      tree = self._tree

      def make() -> Methods:
        model = self._load(networks.tag_networks)
        maps = sweeps.method_maps(model, self._arguments.batch, self._tags(tree, model))
        return Methods("", {0: maps}, threads=len(local_devices(len(tree.tree.videos))))

      depends = [self._main.model.sha256, sorted(sweeps.titles())]
      scores, _ = self._scorer.score(f"{self._main.name}_sweeps", tree, depends, make)
    return paper_tables.appendix(scores, self._arguments.database, sweeps.titles(), reason)

  def _score_rows(self) -> tuple[Scores, Mapping[str, str]]:
    """Scores the rows of Table 1, with thresholds for Table 3, and the students of rows."""
    tree, arguments, run = self._tree, self._arguments, self._main
    if tree is None:
      return {}, {}
    if (arguments.retrain or arguments.students) and not run.is_workdir:
      raise ValueError(
        f"--retrain and --students: {run.path} is a model folder, expected the work folder of a training"
      )

    def make() -> Methods:
      found = methods.ablation_methods(
        run.path, arguments.batch, arguments.retrain, tree.root, tree.tree.videos, arguments.tags
      )
      return methods.with_thresholds(found, _THRESHOLDED)

    depends = [run.model.sha256, arguments.retrain]
    scores, about = self._scorer.score(f"{run.name}_rows", tree, depends, make)
    return merge([scores, *self._score_row_students(tree)]), about["rows"]

  def _score_row_students(self, tree: Tree) -> list[Scores]:
    rows = [row for row in ROWS if row.number in self._arguments.students]
    unknown = set(self._arguments.students) - {row.number for row in ablation.rows_of(self._main.model.config)}
    if unknown:
      raise ValueError(f"--students {min(unknown)}: {self._main.name} has no such row of Table 1")
    if not rows:
      return []
    from stajax.train import row_students  # loads TensorFlow, as training does

    weights = row_students.train_students(self._main.path, rows)
    return [self._score_row_student(tree, method, path) for method, path in weights.items()]

  def _score_row_student(self, tree: Tree, method: str, weights: Path) -> Scores:
    student, name = networks.STUDENTS[0], f"{method}_student"

    def make() -> Methods:
      model = self._load((networks.SWITCH, student))
      own = models.load_network(student, model.config, len(model.categories), weights)
      if model.config.has_frozen_backbone:
        own = models.with_visual(own, model.variables[student]["params"]["visual"])
      model = dataclasses.replace(model, variables={**model.variables, student: own})
      predicting = predictor.Predictor(model, self._arguments.batch, (student,))
      return Methods("", {0: renamed(dataset.method_maps(predicting, tree.tree.videos), {student: name})})

    depends = [self._main.model.sha256, method]
    return self._scorer.score(f"{self._main.name}_{name}", tree, depends, make)[0]

  def _score_students(self, run: ModelRun) -> Scores:
    """Scores a run's students on all trees."""
    return merge([
      self._scorer.score(
        f"{run.name}_students_{number}",
        tree,
        run.model.sha256,
        lambda tree=tree: methods.model_methods(run.path, self._arguments.batch, tree.tree.videos),
      )[0]
      for number, tree in enumerate(self._trees)
    ])  # fmt: skip

  def _score_cams(self) -> Scores:
    """Scores the CAM baselines on all trees, with thresholds where Table 3 needs them."""
    found: list[Scores] = []
    for number, tree in enumerate(self._trees):

      def make(tree: Tree = tree) -> Methods:
        model = self._load(networks.tag_networks)
        maps = cam_baselines.method_maps(model, self._arguments.batch, self._tags(tree, model))
        made = Methods("", {0: maps}, threads=len(local_devices(len(tree.tree.videos))))
        has_table_3 = self._arguments.database in tree.databases
        return methods.with_thresholds(made, _THRESHOLDED) if has_table_3 else made

      depends = [self._main.model.sha256, sorted(CAM_BASELINES), self._arguments.database]
      found.append(self._scorer.score(f"{self._main.name}_cams_{number}", tree, depends, make)[0])
    return merge(found)

  def _load(self, names: Any) -> Model:
    return models.load(self._main.path, names)

  def _tags(self, tree: Tree, model: Model) -> Mapping[str, tuple[int, ...]]:
    return read_tags(tree.root, model.categories, self._arguments.tags)
