"""A part of the report: held-out clips with viewers, scored by every method, and what each sense adds.

CAMs and SCAM use a clip's true tag; students never see one.
"""

from collections.abc import Iterator, Mapping, Sequence

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
from stajax.report.accuracy import ClipAnswers, measure_accuracy, names_tag
from stajax.report.senses import FOREIGN, RIVALS, compare_senses
from stajax.scoring.protocol import Settings
from stajax.scoring.videos import evaluate_videos
from stajax.senses import OWN, choose_donors, split_method
from stajax.train.run import Run
from stajax.train.stages.report_examples import ABLATED, Gallery, Scored, tag_names
from stajax.train.training_data import clip_tags

_CHUNK = 64
_NOTES = (
  "CAMs, SCAM and SCAM+ use the true tag of a held-out clip; the students see none.",
  "Rows of the ablation: the audio switch and the FRL are toggled at inference, the networks are the same.",
)


def score_heldout(run: Run, settings: Settings) -> Scored | None:
  """Scores the held-out clips beside the training clips; returns None if there are none."""
  folder = run.data.folder / "heldout_tree"
  if not folder.is_dir():
    return None
  tree, groups = read_tree(folder), read_groups(folder)
  heldout = Records.open(run.data.folder / "heldout")
  methods = _Methods(run, heldout)
  gallery = Gallery(heldout, tree.videos, _decisive_clips(groups), methods.describe_donor)

  def method_maps(video: StavisVideo, frames: Sequence[int]) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    maps = methods.compute(heldout.names.index(video.name))
    gallery.add(video, maps)
    for start in range(0, len(frames), _CHUNK):
      chunk = list(frames[start : start + _CHUNK])
      yield chunk, {name: x[chunk] for name, x in maps.items()}

  evaluation = evaluate_videos(tree.videos, method_maps, settings, groups=groups, progress=True)
  sounding = {(video.database, video.name) for video in tree.videos if methods.has_sound(video.name)}
  compared = compare_senses(evaluation, methods.senses, sounding)
  if len(methods.senses) < len(ABLATED):
    compared["says"].insert(0, "Only one held-out clip has sound, so no sound can be exchanged.")
  for line in compared["says"]:
    tqdm.write(line)
  accuracy = measure_accuracy(evaluation, methods.answers, len(heldout.categories))
  about = {"senses": compared, "accuracy": accuracy}
  return Scored(evaluation, gallery.examples(), tree.fold_lists, tree.skipped, _NOTES, about)


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
    self.senses = ABLATED[1:] if len(sounding) == 1 else ABLATED
    model = models.load(run.workdir.model)
    self._predictor = Predictor(model, run.config.inference_batch, senses=self.senses)

  def has_sound(self, name: str) -> bool:
    """Returns whether a clip has sound."""
    return bool(self._records.has_sound[self._records.names.index(name)])

  def describe_donor(self, name: str) -> str:
    """Returns a line that says whose sound the clip's other sound is, "" if it has none."""
    records = self._records
    donor = self._donors.get(records.names.index(name))
    return "" if donor is None else f"The other sound is that of {records.names[donor]}: {tag_names(records, donor)}."

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
