"""When a method is right and when it is wrong: scores over the time of each video, and its best and worst frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from markupsafe import escape
from PIL import Image

from stajax.eyetracking import StavisVideo
from stajax.eyetracking.spelling import find_name
from stajax.files import numbered_files
from stajax.report.names import title_of
from stajax.report.page import Example
from stajax.scoring.extremes import JUDGED_BY
from stajax.scoring.protocol import METRICS
from stajax.scoring.protocols import to_8_bits
from stajax.scoring.results import Evaluation, Moment

MAX_VIDEOS = 40
"""The most videos whose curves are drawn."""
NUM_FRAMES = 3
"""How many of the best frames are shown, and how many of the worst; each of another video."""
_MAX_POINTS = 120
_WIDTH, _HEIGHT, _EDGE = 320, 90, 4
_COLOURS = ("var(--accent)", "var(--soft)")


def time_curves(evaluation: Evaluation, method: str, reference: str = "centre") -> list[tuple[str, str]]:
  """Returns (title, `<svg>`) for the first `MAX_VIDEOS` videos: the scores of a method over its frames, and a reference
  in grey."""
  curves = []
  for video in evaluation.videos[:MAX_VIDEOS]:
    if method not in video.scores:
      continue
    lines = {name: video.scores[name][JUDGED_BY] for name in (method, reference) if name in video.scores}
    known = np.concatenate([values[~np.isnan(values)] for values in lines.values()])
    if len(video.frames) > 1 and known.size:
      low, high = min(0.0, float(known.min())), float(known.max())
      title = f"{video.database}/{video.name}"
      label = f"{METRICS[JUDGED_BY].title} of {title} over {len(video.frames)} frames, from {low:.2f} to {high:.2f}"
      curves.append((f"{title}: {low:.2f} to {high:.2f}", _svg(lines, video.frames, (low, high), label)))
  return curves


def _svg(lines: Mapping[str, np.ndarray], frames: np.ndarray, limits: tuple[float, float], label: str) -> str:
  low, high = limits
  parts = []
  for (name, values), colour in reversed(list(zip(lines.items(), _COLOURS))):
    points = []
    for chunk in np.array_split(np.flatnonzero(~np.isnan(values)), min(_MAX_POINTS, len(values))):
      if chunk.size:
        x = _EDGE + (frames[chunk].mean() - frames[0]) / max(1, frames[-1] - frames[0]) * (_WIDTH - 2 * _EDGE)
        y = _HEIGHT - _EDGE - (values[chunk].mean() - low) / max(high - low, 1e-9) * (_HEIGHT - 2 * _EDGE)
        points.append(f"{x:.1f},{y:.1f}")
    line = f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{" ".join(points)}">'
    parts.append(f"{line}<title>{escape(title_of(name))}</title></polyline>")
  box = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}"'
  return f"<svg {box}>{''.join(parts)}</svg>"


def best_and_worst(evaluation: Evaluation, videos: Sequence[StavisVideo], method: str, root: Path) -> list[Example]:
  """Returns the frames that a method scores best and worst by NSS, with what it predicted and where viewers looked.

  Args:
    evaluation: The scores.
    videos: The videos of the tree.
    method: The method of `VideoScores.extremes`.
    root: The tree, whose frames are shown where it has any.
  """
  by_name = {(video.database, video.name): video for video in videos}
  extremes = [(by_name[x.database, x.name], moment) for x in evaluation.videos for moment in x.extremes]
  extremes.sort(key=lambda each: (-each[1].score, each[0].name))
  best, worst = _of_different_videos(extremes), _of_different_videos(extremes[::-1])
  shown = [(video.database, video.name, moment.frame) for video, moment in best]
  worst = [(video, moment) for video, moment in worst if (video.database, video.name, moment.frame) not in shown]
  return [_example(word, *each, method, root) for word, found in (("Best", best), ("Worst", worst)) for each in found]


def _of_different_videos(ordered: Sequence[tuple[StavisVideo, Moment]]) -> list[tuple[StavisVideo, Moment]]:
  first: dict[tuple[str, str], tuple[StavisVideo, Moment]] = {}
  for video, moment in ordered:
    first.setdefault((video.database, video.name), (video, moment))
  return list(first.values())[:NUM_FRAMES]


def _example(word: str, video: StavisVideo, moment: Moment, method: str, root: Path) -> Example:
  density = video.density(moment.frame)
  score = f"{METRICS[JUDGED_BY].title} {moment.score:.2f}"
  title = f"{word}: {video.database}/{video.name}, frame {moment.frame + 1}, {score}"
  frames = root / "video_frames" / video.database
  picture = _picture(frames / find_name(frames, video.name), moment.frame, density.shape)
  return Example(title, picture, {method: moment.prediction}, to_8_bits(density), video.fixations(moment.frame))


def _picture(folder: Path, frame: int, size: tuple[int, ...]) -> np.ndarray:
  """Returns the frame's image, or a grey one where the tree has none."""
  paths = numbered_files(folder, (".jpg", ".jpeg", ".png"), "img_").get(frame + 1)
  if not paths:
    return np.full((*size[:2], 3), 128, np.uint8)
  with Image.open(paths[0]) as image:
    return np.asarray(image.convert("RGB"))
