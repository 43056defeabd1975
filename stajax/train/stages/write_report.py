"""The stage `report`: what methods score on the held-out clips, what each sense adds, who names the tag, and a gallery.

CAMs and SCAM use a clip's true tag; students never see one.
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from stajax import model as models
from stajax import networks
from stajax.data.records import Records
from stajax.eyetracking import StavisVideo, read_groups, read_tree
from stajax.inference.ablation import row_maps, rows_of
from stajax.inference.class_maps import ClipSources
from stajax.inference.clip import Clip, clip_samples, clip_sound
from stajax.inference.predictor import Predictor, to_uint8
from stajax.media.spectrogram import window_columns
from stajax.report.accuracy import ClipAnswers, measure_accuracy, names_tag
from stajax.report.page import Example, Page, write_page
from stajax.report.score_files import describe, write_scores
from stajax.report.senses import FOREIGN, RIVALS, compare_senses
from stajax.report.tables import ABLATION_METHODS
from stajax.scoring.protocol import Settings
from stajax.scoring.videos import evaluate_videos
from stajax.senses import OWN, Senses, choose_donors, split_method
from stajax.train.logs import read_log
from stajax.train.run import Run
from stajax.train.stages.graph import make_graph
from stajax.train.training_data import clip_tags

_EXAMPLES = 10
_CHUNK = 64
_NOTES = (
  "CAMs, SCAM and SCAM+ use the true tag of a held-out clip; the students see none.",
  "Rows of the ablation: the audio switch and the FRL are toggled at inference, the networks are the same.",
)
_WITHOUT_SENSES = (Senses(sound="other"), Senses(sound="none"), Senses(motion="none"), Senses(companions="none"))
_COMPARED = ("scam", "final", *(f"final{senses.suffix}" for senses in _WITHOUT_SENSES[:2]))
"""The methods that stand side by side in the gallery."""


def write_report(run: Run) -> dict[str, Any]:
  """Writes `report/` in the work folder; returns what `done.json` says."""
  tree_folder = run.data.folder / "heldout_tree"
  if not tree_folder.is_dir():
    reason = f"{tree_folder}: no held-out clips with viewers (a tree in the STAViS layout), so there is no report"
    tqdm.write(reason)
    return {"skipped": reason}
  tree = read_tree(tree_folder)
  heldout = Records.open(run.data.folder / "heldout")
  groups = read_groups(tree_folder)
  methods = _Methods(run, heldout)
  gallery = Gallery(heldout, tree.videos, _decisive_clips(groups), methods.describe_donor)

  def method_maps(video: StavisVideo, frames: Sequence[int]) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    maps = methods.compute(heldout.names.index(video.name))
    gallery.add(video, maps)
    for start in range(0, len(frames), _CHUNK):
      chunk = list(frames[start : start + _CHUNK])
      yield chunk, {name: x[chunk] for name, x in maps.items()}

  settings = Settings(seed=run.config.seed, stride=run.config.score_stride)
  evaluation = evaluate_videos(tree.videos, method_maps, settings, groups=groups, progress=True)
  about = describe(evaluation, list(_NOTES), tree.fold_lists, tree.skipped)
  sounding = {(video.database, video.name) for video in tree.videos if methods.has_sound(video.name)}
  about["senses"] = compare_senses(evaluation, methods.senses, sounding)
  if len(methods.senses) < len(_WITHOUT_SENSES):
    about["senses"]["says"].insert(0, "Only one held-out clip has sound, so no sound can be exchanged.")
  for line in about["senses"]["says"]:
    tqdm.write(line)
  about["accuracy"] = measure_accuracy(evaluation, methods.answers, len(heldout.categories))
  scores = write_scores(evaluation, about, run.workdir.report)
  subtitle = (
    f"Learned from the tags of {run.data.records.num_clips} clips, without eye tracking; scored on "
    f"{len(evaluation.videos)} other clips with viewers."
  )
  page = Page(
    title=f"Report of {run.config.name}",
    subtitle=subtitle,
    scores=scores,
    about=about,
    curves={name: read_log(run.workdir.stage(name) / "log.jsonl") for name in networks.NETWORKS},
    examples=gallery.examples(),
    facts=collect_facts(run),
  )
  write_page(run.workdir.report, page)
  return {"scores": next(iter(scores.values())), "senses": about["senses"]["says"]}


def _decisive_clips(groups: Mapping[str, Sequence[str]]) -> set[str]:
  """Returns the clips in which only the sound says who counts: those with rivals and without foreign sound."""

  def named(kind: str) -> set[str]:
    return {name for key, names in groups.items() if key.endswith(f"/{kind}") for name in names}

  return named(RIVALS) - named(FOREIGN)


class _Methods:
  """Computes the maps of every method for held-out clips.

  Attributes:
    senses: What is taken from the students; another sound only if there are at least two, or none at all.
    answers: Who names the tag, for each clip whose maps have been computed and which has a tag, by the clip's name.
  """

  def __init__(self, run: Run, records: Records) -> None:
    self._run, self._records = run, records
    self.answers: dict[str, ClipAnswers] = {}
    sounding = np.flatnonzero(records.has_sound).tolist()
    self._donors = choose_donors(sounding, run.config.seed) if len(sounding) > 1 else {}
    self.senses = _WITHOUT_SENSES[1:] if len(sounding) == 1 else _WITHOUT_SENSES
    model = models.load(run.workdir.model)
    self._predictor = Predictor(model, run.config.inference_batch, senses=self.senses)

  def has_sound(self, name: str) -> bool:
    """Returns whether a clip has sound."""
    return bool(self._records.has_sound[self._records.names.index(name)])

  def describe_donor(self, name: str) -> str:
    """Returns a line that says whose sound the clip's other sound is, "" if it has none."""
    records = self._records
    donor = self._donors.get(records.names.index(name))
    return "" if donor is None else f"The other sound is that of {records.names[donor]}: {_tag_names(records, donor)}."

  def compute(self, index: int) -> dict[str, np.ndarray]:
    """Returns the maps of one clip, {method: (n, h, w) uint8, each with a maximum of 255}."""
    records = self._records
    clip = Clip(clip_samples(records, index, records.side))
    if index in self._donors:
      times = np.arange(len(clip)) / records.rate[index]
      clip.other_sound = clip_sound(records, self._donors[index], times, loop=True)
    clip = self._predictor.with_switch(clip)
    sources = ClipSources(self._run.trained.sources(), clip, clip_tags(records, index))
    maps = {f"cam_{name}": sources.cam(name) for name in networks.COARSE}
    maps["scam_coarse"], _ = sources.selected(networks.COARSE)
    maps |= {f"cam_{name}": sources.cam(name) for name in networks.FINE}
    maps["scam_average"] = sources.averaged(networks.FINE)
    maps["scam"], _ = sources.selected(networks.FINE)
    if granular := networks.granular_of(self._run.config):
      maps["scam_plus"], _ = sources.selected((*networks.FINE, *granular))
    maps |= {name: x for name, x in self._predictor.clip_maps(clip).items() if _is_reported(name)}
    maps |= {row.method: row_maps(sources, row) for row in rows_of(self._run.config)}
    if sources.tags:
      self.answers[records.names[index]] = self._check_answers(sources, clip)
    return {name: to_uint8(x) for name, x in maps.items()}

  def _check_answers(self, sources: ClipSources, clip: Clip) -> ClipAnswers:
    """Returns which networks name a tag of a clip; all but a tagger have been computed for the maps already."""
    is_right: dict[str, np.ndarray] = {}
    if self._run.config.hearing.kind == "trained":
      first = networks.TAGGERS[0]
      is_right[first] = names_tag(self._run.trained.tagger(first)(clip), sources.tags) & clip.has_sound
    is_right |= {
      name: names_tag(sources.source(name)[1], sources.tags) for name in networks.sources_of(self._run.config)
    }
    return ClipAnswers(is_right, clip.switch > 0)


def _is_reported(method: str) -> bool:
  """Returns whether maps are scored: of the students alone only those with changed sound are, beside the usual ones."""
  name, senses = split_method(method)
  return name == "final" or senses == OWN or senses.sound != "own"


class Gallery:
  """Keeps the middle frame of the first clips of every tag, with its maps.

  Args:
    records: The held-out clips.
    videos: Their videos with viewers.
    preferred: The names of clips that come before all others.
    describe: A function of a clip's name that returns a line about it.
  """

  def __init__(
    self,
    records: Records,
    videos: Sequence[StavisVideo],
    preferred: Collection[str] = (),
    describe: Callable[[str], str] = lambda name: "",
  ) -> None:
    self._records, self._describe = records, describe
    named = {video.name for video in videos}
    first = [name for name in records.names if name in named and name in preferred]
    then = [name for name in records.names if name in named and name not in preferred]
    self._chosen = [*_alternate_tags(records, first), *_alternate_tags(records, then)][:_EXAMPLES]
    self._examples: dict[str, Example] = {}

  def add(self, video: StavisVideo, maps: dict[str, np.ndarray]) -> None:
    """Keeps the middle frame of a clip, if the clip is one of those that are shown."""
    if video.name not in self._chosen:
      return
    records, clip = self._records, self._records.names.index(video.name)
    frame = video.num_frames // 2
    flags = f" ({', '.join(records.flags[clip])})" if records.flags[clip] else ""
    self._examples[video.name] = Example(
      title=f"{video.name}, frame {frame + 1}: {_tag_names(records, clip)}{flags}",
      frame=records.clip_frames(clip)[frame],
      maps={name: x[frame] for name, x in maps.items() if _is_drawn(name)},
      viewers=video.density(frame),
      fixations=video.fixations(frame),
      sound=_second_of_sound(records, clip, frame),
      note=self._describe(video.name),
      compared=_COMPARED,
    )

  def examples(self) -> list[Example]:
    """Returns the frames in the order in which they are shown."""
    return [self._examples[name] for name in self._chosen if name in self._examples]


def _alternate_tags(records: Records, names: Sequence[str]) -> list[str]:
  """Returns the first clips of all tags, then the second ones, and so on."""
  clips_of_tag: dict[tuple[int, ...], list[str]] = {}
  for name in names:
    clips_of_tag.setdefault(clip_tags(records, records.names.index(name))[:1], []).append(name)
  rounds = itertools.zip_longest(*clips_of_tag.values())
  return [name for of_round in rounds for name in of_round if name is not None]


def _is_drawn(method: str) -> bool:
  """Returns whether the gallery has a method: neither rows of Table 1 nor, beside those compared, ablated senses."""
  return method in _COMPARED or (method not in ABLATION_METHODS and split_method(method)[1] == OWN)


def _tag_names(records: Records, clip: int) -> str:
  return ", ".join(records.categories[tag] for tag in clip_tags(records, clip)) or "no tag"


def _second_of_sound(records: Records, clip: int, frame: int) -> np.ndarray | None:
  """Returns the log-spectrogram of the second around a frame, (257, 98); None where the clip has no sound."""
  columns = records.clip_columns(clip)
  if not columns.shape[1]:
    return None
  return columns[:, window_columns(frame / float(records.rate[clip]), columns.shape[1])]


def collect_facts(run: Run) -> dict[str, str]:
  """Returns what the finished stages reported, as texts by name."""
  outcome = run.workdir.outcome
  data, maps, boxes = outcome("data"), outcome("scam_plus"), outcome("scam_coarse")
  switch = outcome("switch_values")
  facts = {
    "Work folder": run.workdir.path.name,
    "Training clips": f"{data['clips']} clips, {data['frames']} frames, {data['provenance']}",
    "Pseudo-fixations": (
      f"{maps['frames']} frames; {maps['frames_without_target']} have no target, as no source found the tag"
    ),
    "Fine crops": f"{boxes['mean_area']:.0%} of the frame on average; {boxes['whole_frames']} whole frames",
    "Audio switch": (
      f"on in {switch['on']} of {switch['frames']} frames; agrees with the tagger in {switch['agrees_with_tagger']:.0%}"
    ),
  }
  if networks.granular_of(run.config):
    alone = outcome("s_plus_cross")["clips_alone_in_tag"]
    facts["Clips alone in their tag"] = f"{alone}, which get long companions instead of cross-clip ones"
  if "says" in (heard := outcome("tag_heard")):
    facts["Sound tagger"] = heard["says"]
  return facts | _stage_facts(run)


def _stage_facts(run: Run) -> dict[str, str]:
  """Returns how long each stage before the model took, and what the networks were computed with."""
  facts = {}
  for stage in make_graph(run.config):
    if stage.work not in ("save model", "write report"):
      done = run.workdir.outcome(stage.name)
      steps = f", {done['steps']} steps, SHA-256 {done['sha256'][:12]}…" if "steps" in done else ""
      facts[f"Stage {stage.name}"] = f"{done['seconds']:.0f} s{steps}"
  environment = run.workdir.outcome("sta").get("environment", {})
  facts["Environment"] = ", ".join(f"{key} {value}" for key, value in environment.items() if value)
  return facts
