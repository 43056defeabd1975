"""The stage `report`: every method scored on the held-out clips, with learning curves and a gallery.

CAMs and SCAM use a clip's true tag; students never see one.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from stajax import model as models
from stajax import networks
from stajax.data.records import Records
from stajax.eyetracking import StavisVideo, read_groups, read_tree
from stajax.inference.ablation import row_maps
from stajax.inference.class_maps import ClipSources
from stajax.inference.clip import Clip, clip_samples
from stajax.inference.predictor import Predictor, to_uint8
from stajax.media.spectrogram import window_columns
from stajax.report.page import Example, Page, write_page
from stajax.report.score_files import describe, write_scores
from stajax.report.table_1 import ROWS
from stajax.scoring.protocol import Settings
from stajax.scoring.videos import evaluate_videos
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


def write_report(run: Run) -> dict[str, Any]:
  """Writes `report/` in the work folder; returns what `done.json` says."""
  tree_folder = run.data.folder / "heldout_tree"
  if not tree_folder.is_dir():
    reason = f"{tree_folder}: no held-out clips with viewers (a tree in the STAViS layout), so there is no report"
    tqdm.write(reason)
    return {"skipped": reason}
  tree = read_tree(tree_folder)
  heldout = Records.open(run.data.folder / "heldout")
  gallery, methods = Gallery(heldout, tree.videos), _Methods(run, heldout)

  def method_maps(video: StavisVideo, frames: Sequence[int]) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    maps = methods.compute(heldout.names.index(video.name))
    gallery.add(video, maps)
    for start in range(0, len(frames), _CHUNK):
      chunk = list(frames[start : start + _CHUNK])
      yield chunk, {name: x[chunk] for name, x in maps.items()}

  settings = Settings(seed=run.config.seed, stride=run.config.score_stride)
  evaluation = evaluate_videos(tree.videos, method_maps, settings, groups=read_groups(tree_folder), progress=True)
  about = describe(evaluation, list(_NOTES), tree.fold_lists, tree.skipped)
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
  return {"scores": next(iter(scores.values()))}


class _Methods:
  """Computes the maps of every method for held-out clips."""

  def __init__(self, run: Run, records: Records) -> None:
    self._run, self._records = run, records
    self._predictor = Predictor(models.load(run.workdir.model), run.config.inference_batch)

  def compute(self, index: int) -> dict[str, np.ndarray]:
    """Returns the maps of one clip, {method: (n, h, w) uint8, each with a maximum of 255}."""
    records = self._records
    clip = self._predictor.with_switch(Clip(clip_samples(records, index, records.side)))
    sources = ClipSources(self._run.trained.sources(), clip, clip_tags(records, index))
    maps = {f"cam_{name}": sources.cam(name) for name in networks.COARSE}
    maps["scam_coarse"], _ = sources.selected(networks.COARSE)
    maps |= {f"cam_{name}": sources.cam(name) for name in networks.FINE}
    maps["scam_average"] = sources.averaged(networks.FINE)
    maps["scam"], _ = sources.selected(networks.FINE)
    maps["scam_plus"], _ = sources.selected((*networks.FINE, *networks.GRANULAR))
    maps |= self._predictor.clip_maps(clip)
    maps |= {f"row_{row.number:02}": row_maps(sources, row) for row in ROWS}
    return {name: to_uint8(x) for name, x in maps.items()}


class Gallery:
  """Keeps the middle frame of the first clips of every tag, with its maps."""

  def __init__(self, records: Records, videos: Sequence[StavisVideo]) -> None:
    self._records = records
    named = {video.name for video in videos}
    clips_of_tag: dict[tuple[int, ...], list[str]] = {}
    for clip, name in enumerate(records.names):
      if name in named:
        clips_of_tag.setdefault(clip_tags(records, clip)[:1], []).append(name)
    # The first clips of all tags come first, then the second ones.
    most = max(map(len, clips_of_tag.values()))
    chosen = [clips[i] for i in range(most) for clips in clips_of_tag.values() if i < len(clips)]
    self._chosen = chosen[:_EXAMPLES]
    self._examples: dict[str, Example] = {}

  def add(self, video: StavisVideo, maps: dict[str, np.ndarray]) -> None:
    """Keeps the middle frame of a clip, if the clip is one of those that are shown."""
    if video.name not in self._chosen:
      return
    records, clip = self._records, self._records.names.index(video.name)
    frame = video.num_frames // 2
    tags = ", ".join(records.categories[tag] for tag in clip_tags(records, clip)) or "no tag"
    flags = f" ({', '.join(records.flags[clip])})" if records.flags[clip] else ""
    self._examples[video.name] = Example(
      title=f"{video.name}, frame {frame + 1}: {tags}{flags}",
      frame=records.clip_frames(clip)[frame],
      maps={name: x[frame] for name, x in maps.items() if not name.startswith("row_")},
      viewers=video.density(frame),
      fixations=video.fixations(frame),
      sound=_second_of_sound(records, clip, frame),
    )

  def examples(self) -> list[Example]:
    """Returns the frames in the order in which they are shown."""
    return [self._examples[name] for name in self._chosen if name in self._examples]


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
  switch, cross = outcome("switch_values"), outcome("s_plus_cross")
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
    "Clips alone in their tag": f"{cross['clips_alone_in_tag']}, which get long companions instead of cross-clip ones",
  }
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
