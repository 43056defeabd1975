"""The report at the end of a run: every method scored on the held-out clips, learning curves, a gallery.

CAMs and SCAM use a clip's true tag; students never see one.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from stajax import model as models
from stajax import networks
from stajax.data.records import Records
from stajax.eyetracking import StavisVideo, read_groups, read_tree
from stajax.inference.ablation import row_maps
from stajax.inference.class_maps import ClipSources
from stajax.inference.predictor import Predictor, to_uint8
from stajax.report.page import Example, Page, write_page
from stajax.report.score_files import describe, write_scores
from stajax.report.table_1 import ROWS
from stajax.scoring.protocol import Settings
from stajax.scoring.videos import evaluate_videos
from stajax.train import logs, train_network
from stajax.train.stages import graph
from stajax.train.workdir import Run, clip_tags

_EXAMPLES = 10
_CHUNK = 64


def write(run: Run) -> dict[str, Any]:
  """Writes `report/` in the work folder; returns what `done.json` says."""
  out = run.workdir / "report"
  tree_folder = run.data / "heldout_tree"
  if not tree_folder.is_dir():
    reason = f"{tree_folder}: no held-out clips with viewers (a tree in the STAViS layout), so no report"
    tqdm.write(reason)
    return {"skipped": reason}
  tree = read_tree(tree_folder)
  heldout = Records.open(run.data / "heldout")
  gallery, methods = _Gallery(heldout, tree.videos), _Methods(run, heldout)

  def method_maps(video: StavisVideo, frames: Sequence[int]) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    maps = methods.maps(heldout.names.index(video.name))
    gallery.add(video, maps)
    for start in range(0, len(frames), _CHUNK):
      chunk = list(frames[start : start + _CHUNK])
      yield chunk, {name: x[chunk] for name, x in maps.items()}

  evaluation = evaluate_videos(
    tree.videos,
    method_maps,
    Settings(seed=run.config.seed, stride=run.config.score_stride),
    groups=read_groups(tree_folder),
    progress=True,
  )
  notes = [
    "CAMs, SCAM and SCAM+ use the true tag of a held-out clip; the students see none.",
    "Rows of the ablation: the audio switch and the FRL are toggled at inference, the networks are the same.",
  ]
  about = describe(evaluation, notes, tree.fold_lists, tree.skipped)
  scores = write_scores(evaluation, about, out)
  page = Page(
    title=f"Report of {run.config.name}",
    subtitle=(
      f"Learned from the tags of {run.records.num_clips} clips, without eye tracking; scored on "
      f"{len(evaluation.videos)} other clips with viewers."
    ),
    scores=scores,
    about=about,
    curves={name: logs.read(run.folder(name) / "log.jsonl") for name in train_network.TRAINED},
    examples=gallery.examples(),
    facts=_facts(run),
  )
  write_page(out, page)
  database = next(iter(scores))
  return {"scores": scores[database]}


class _Methods:
  """Maps of every method for held-out clips."""

  def __init__(self, run: Run, records: Records) -> None:
    self._run, self._records = run, records
    self._predictor = Predictor(models.load(run.workdir / "model"), run.config.inference_batch)

  def maps(self, index: int) -> dict[str, np.ndarray]:
    """{method: (n, h, w) uint8, each with a maximum of 255} of one clip."""
    clip = self._predictor.with_switch(self._run.clip(self._records, index))
    sources = ClipSources(self._run.networks, clip, clip_tags(self._records, index))
    maps = {f"cam_{name}": sources.cam(name) for name in networks.COARSE}
    maps["scam_coarse"], _ = sources.selected(networks.COARSE)
    maps |= {f"cam_{name}": sources.cam(name) for name in networks.FINE}
    maps["scam_average"] = sources.averaged(networks.FINE)
    maps["scam"], _ = sources.selected(networks.FINE)
    maps["scam_plus"], _ = sources.selected((*networks.FINE, *networks.GRANULAR))
    maps |= self._predictor.clip_maps(clip)
    maps |= {f"row_{row.number:02}": row_maps(sources, row) for row in ROWS}
    return {name: to_uint8(x) for name, x in maps.items()}


class _Gallery:
  """Keeps the middle frame of the first clips of every tag, with its maps."""

  def __init__(self, records: Records, videos: Sequence[StavisVideo]) -> None:
    self._records = records
    of_tag: dict[tuple[int, ...], list[str]] = {}
    named = {video.name for video in videos}
    for clip, name in enumerate(records.names):
      if name in named:
        of_tag.setdefault(clip_tags(records, clip)[:1], []).append(name)
    # Round robin over the tags: all of them first, then second clips.
    rounds = [clips[i] for i in range(max(map(len, of_tag.values()))) for clips in of_tag.values() if i < len(clips)]
    self._chosen = rounds[:_EXAMPLES]
    self._examples: dict[str, Example] = {}

  def add(self, video: StavisVideo, maps: dict[str, np.ndarray]) -> None:
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
    )

  def examples(self) -> list[Example]:
    return [self._examples[name] for name in self._chosen if name in self._examples]


def _facts(run: Run) -> dict[str, str]:
  facts = {"Work folder": Path(run.workdir).name}
  data = run.done("data") or {}
  facts["Training clips"] = f"{data['clips']} clips, {data['frames']} frames, {data['provenance']}"
  maps = run.done("scam_plus") or {}
  facts["Pseudo-fixations"] = (
    f"{maps['frames']} frames; {maps['frames_without_target']} where no source found the tag, not learned from"
  )
  boxes, switch = run.done("scam_coarse") or {}, run.done("switch_values") or {}
  facts["Fine crops"] = f"{boxes['mean_area']:.0%} of the frame on average; {boxes['whole_frames']} whole frames"
  facts["Audio switch"] = (
    f"on in {switch['on']} of {switch['frames']} frames; as the tagger says in {switch['agrees_with_tagger']:.0%}"
  )
  cross = run.done("s_plus_cross") or {}
  facts["Clips alone in their tag"] = f"{cross['clips_alone_in_tag']}, with long companions for cross ones"
  if "says" in (heard := run.done("tag_heard") or {}):
    facts["Sound tagger"] = heard["says"]
  for stage in graph(run.config)[:-2]:
    done = run.done(stage.name) or {}
    steps = f", {done['steps']} steps, SHA-256 {done['sha256'][:12]}…" if "steps" in done else ""
    facts[f"Stage {stage.name}"] = f"{done['seconds']:.0f} s{steps}"
  environment = (run.done("sta") or {}).get("environment", {})
  facts["Environment"] = ", ".join(f"{key} {value}" for key, value in environment.items() if value)
  return facts
