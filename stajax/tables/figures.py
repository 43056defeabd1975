"""The pseudo-fixations of a run as pictures, and as files for other programs."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from stajax import config as configuration
from stajax import runtime
from stajax.data.records import Records
from stajax.files import write_bytes
from stajax.report.overlay import heat_overlay
from stajax.report.table_files import Figure
from stajax.train.run import Run, open_run
from stajax.train.training_data import clip_tags

_SIDE = 256


def open_workdir(path: Path) -> Run:
  """Opens the run of a work folder.

  Raises:
    ConfigError: Its configuration cannot be used.
    OSError: It has none.
  """
  file = path / "config.json"
  return open_run(configuration.loads(file.read_text(encoding="utf-8"), str(file)), path)


def draw_figures(run: Run, out: Path, number: int) -> list[Figure]:
  """Draws the pseudo-fixation of the middle frame of some training clips, of all tags in turn.

  Args:
    run: The run, whose pseudo-fixations are made.
    out: The folder of the page; the pictures go into `figures/` in it.
    number: The most clips that are drawn.

  Returns:
    For each picture its path relative to `out`, and a line about it.
  """
  records, maps, figures = run.data.records, run.data.pseudo_fixations(), list[Figure]()
  for clip in _chosen(records, number):
    middle = int(records.num_frames[clip]) // 2
    values, weights = maps.clip_maps(records, clip)
    frame = records.clip_frames(clip, _SIDE)[middle]
    drawn = np.concatenate([frame, heat_overlay(frame, values[middle] / 255)], axis=1)
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, "JPEG", quality=85)
    path = f"figures/clip_{clip:06d}.jpg"
    (out / "figures").mkdir(parents=True, exist_ok=True)
    write_bytes(out / path, file.getvalue())
    tags = ", ".join(records.categories[tag] for tag in clip_tags(records, clip)) or "no tag"
    unused = "" if weights[middle] else "; no source found the tag, so nothing is learned from it"
    figures.append((path, f"{records.names[clip]}, frame {middle + 1}: {tags}{unused}"))
  return figures


def _chosen(records: Records, number: int) -> list[int]:
  """Returns clips, the first one of each tag, then the second ones, and so on."""
  seen: dict[tuple[int, ...], int] = {}
  rounds: list[tuple[int, int]] = []
  for clip in range(records.num_clips):
    tags = clip_tags(records, clip)[:1]
    seen[tags] = seen.get(tags, 0) + 1
    rounds.append((seen[tags], clip))
  return [clip for _, clip in sorted(rounds)[:number]]


def export_maps(run: Run, out: Path) -> int:
  """Writes all pseudo-fixations as grey png files, `CLIP/00001.png` and so on, one for every frame of the grid.

  Frames from which nothing is learned have a file too, so that numbers are those of the frames.

  Returns:
    The number of files.
  """
  records, maps, count = run.data.records, run.data.pseudo_fixations(), 0
  for clip in runtime.progress("export", records.num_clips, "clip", iterable=range(records.num_clips)):
    folder = out / records.names[clip]
    folder.mkdir(parents=True, exist_ok=True)
    for number, values in enumerate(maps.clip_maps(records, clip)[0], 1):
      file = io.BytesIO()
      Image.fromarray(values).save(file, "PNG")
      write_bytes(folder / f"{number:05d}.png", file.getvalue())
      count += 1
  return count
