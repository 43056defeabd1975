"""The stage `report`: what methods score on videos with viewers, how the networks learned, and what their maps show."""

from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from stajax import model as models
from stajax import networks
from stajax.eyetracking import read_groups
from stajax.inference import dataset
from stajax.inference.predictor import Predictor
from stajax.report.log_lines import read_log
from stajax.report.page import Page, write_page
from stajax.report.score_files import describe, write_scores
from stajax.scoring.protocol import Settings
from stajax.scoring.results import Evaluation
from stajax.scoring.videos import evaluate_videos, frames_to_score
from stajax.train.run import Run
from stajax.train.stages.checks import trees_to_score
from stajax.train.stages.graph import make_graph
from stajax.train.stages.report_examples import Scored, TreeGallery, training_examples
from stajax.train.stages.report_heldout import score_heldout

_NO_SCORES = "Nothing is scored: name eye-tracking sets by `--score-data stavis:ROOT`, or use `stajax evaluate`."


def write_report(run: Run) -> dict[str, Any]:
  """Writes `report/` in the work folder; returns what `done.json` says.

  The scores are those of the held-out clips, if the data have any, and of the sets that the configuration names. Where
  no clips are held out, the gallery has training clips.
  """
  settings = Settings(seed=run.config.seed, stride=run.config.score_stride)
  heldout = None if run.config.is_distilled else score_heldout(run, settings)
  predictor = Predictor(models.load(run.workdir.model), run.config.inference_batch)
  trees = _score_trees(run, predictor, settings)
  parts = [part for part in (heldout, trees) if part is not None]
  examples = [example for part in parts for example in part.examples]
  if heldout is None and not run.config.is_distilled:
    tqdm.write("report: maps of training clips")
    examples += training_examples(run, predictor)
  evaluation = _join(parts, settings)
  notes = [*predictor.notes, *(note for part in parts for note in part.notes)]
  fold_lists = [path for part in parts for path in part.fold_lists]
  about = describe(evaluation, notes, fold_lists, [row for part in parts for row in part.skipped])
  for part in parts:
    about |= part.about
  scores = write_scores(evaluation, about, run.workdir.report)
  trained = [stage.name for stage in make_graph(run.config) if stage.work == "train"]
  page = Page(
    title=f"Report of {run.config.name}",
    subtitle=_subtitle(run, evaluation),
    notes=[] if scores else [*predictor.notes, _NO_SCORES],
    scores=scores,
    about=about,
    curves={name: read_log(run.workdir.stage(name) / "log.jsonl") for name in trained},
    examples=examples,
    facts=collect_facts(run),
  )
  write_page(run.workdir.report, page)
  done: dict[str, Any] = {"scores": next(iter(scores.values()), {})}
  return done | ({"senses": about["senses"]["says"]} if "senses" in about else {})


def _score_trees(run: Run, predictor: Predictor, settings: Settings) -> Scored | None:
  """Scores the students on the sets that the configuration names; returns None if it names none."""
  trees = trees_to_score(run.config)
  if not trees:
    return None
  videos = [video for tree in trees for video in tree.videos]
  groups: dict[str, list[str]] = {}
  for tree in trees:
    groups |= read_groups(tree.root)
  gallery = TreeGallery([(video, frames_to_score(video, settings)) for video in videos])
  maps = gallery.watch(dataset.method_maps(predictor, videos))
  evaluation = evaluate_videos(videos, maps, settings, groups=groups, progress=True)
  fold_lists = [path for tree in trees for path in tree.fold_lists]
  return Scored(evaluation, gallery.examples(), fold_lists, [row for tree in trees for row in tree.skipped])


def _join(parts: list[Scored], settings: Settings) -> Evaluation:
  """Returns the scores of all parts, which have different databases."""
  evaluations = [part.evaluation for part in parts]
  return Evaluation(
    tuple(video for one in evaluations for video in one.videos),
    tuple(row for one in evaluations for row in one.skipped),
    settings,
    {name: videos for one in evaluations for name, videos in one.groups.items()},
  )


def _subtitle(run: Run, evaluation: Evaluation) -> str:
  teacher = "what a model predicts for" if run.config.is_distilled else "the tags of"
  learned = f"Learned from {teacher} {run.data.records.num_clips} clips, without eye tracking"
  count = len(evaluation.videos)
  if not count:
    return f"{learned}."
  noun = "clips" if (run.data.folder / "heldout_tree").is_dir() and not run.config.score_data else "videos"
  return f"{learned}; scored on {count} other {noun} with viewers."


def collect_facts(run: Run) -> dict[str, str]:
  """Returns what the finished stages reported, as texts by name."""
  outcome = run.workdir.outcome
  data = outcome("data")
  if run.config.is_distilled:
    clips = f"{data['clips']} clips, {data['frames']} frames, {data['provenance']}"
    return {"Work folder": run.workdir.path.name, "Training clips": clips} | _stage_facts(run)
  maps, boxes, heard = outcome("scam_plus"), outcome("scam_coarse"), outcome("tag_heard")
  facts = {
    "Work folder": run.workdir.path.name,
    "Training clips": f"{data['clips']} clips, {data['frames']} frames, {data['provenance']}",
    "Pseudo-fixations": (
      f"{maps['frames']} frames; {maps['frames_without_target']} have no target, as no source found the tag"
    ),
    "Fine crops": f"{boxes['mean_area']:.0%} of the frame on average; {boxes['whole_frames']} whole frames",
    "Audio switch": (
      f"on in {heard['tag_heard'] + heard['unlabelled']} of {heard['frames']} training frames, "
      f"{heard['unlabelled']} of which have no label"
    ),
  }
  if networks.granular_of(run.config):
    alone = outcome("s_plus_cross")["clips_alone_in_tag"]
    facts["Clips alone in their tag"] = f"{alone}, which get long companions instead of cross-clip ones"
  if "says" in heard:
    facts["Sound tagger"] = heard["says"]
  return facts | _stage_facts(run)


def _stage_facts(run: Run) -> dict[str, str]:
  """Returns how long each stage before the model took, and what the networks were computed with."""
  facts = {}
  for stage in make_graph(run.config):
    if stage.work not in ("save model", "write report"):
      done = run.workdir.outcome(stage.name)
      steps = f", {done['steps']} steps, SHA-256 {done['sha256'][:12]}…" if "steps" in done else ""
      facts[f"Stage {stage.name}"] = f"{done['seconds']:.0f} s{steps}{_on_left_out(done)}"
  environment = run.workdir.outcome("sta").get("environment", {})
  facts["Environment"] = ", ".join(f"{key} {value}" for key, value in environment.items() if value)
  return facts


def _on_left_out(done: Mapping[str, Any]) -> str:
  """Returns what a network scores on the clips that are left out of learning; "" if there are none."""
  metrics = {name: value for name, value in done.get("left_out", {}).items() if name != "clips"}
  if not metrics:
    return ""
  values = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in metrics.items())
  return f"; on clips left out: {values}"
