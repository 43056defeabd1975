"""When a method is right and when it is wrong: scores over the time of each video, and its best and worst frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import escape
from PIL import Image

from stajax.eyetracking import StavisVideo
from stajax.files import numbered_files
from stajax.report.names import title_of
from stajax.report.page import Example
from stajax.scoring.protocol import METRICS
from stajax.scoring.protocols import to_8_bits
from stajax.scoring.results import Evaluation
from stajax.scoring.videos import MethodMaps

METRIC = "nss"
"""The metric by which moments are judged."""
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
    lines = {name: video.scores[name][METRIC] for name in (method, reference) if name in video.scores}
    known = np.concatenate([values[~np.isnan(values)] for values in lines.values()])
    if len(video.frames) > 1 and known.size:
      low, high = min(0.0, float(known.min())), float(known.max())
      title = f"{video.database}/{video.name}"
      label = f"{METRICS[METRIC].title} of {title} over {len(video.frames)} frames, from {low:.2f} to {high:.2f}"
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


def best_and_worst(
  evaluation: Evaluation, videos: Sequence[StavisVideo], maps: Mapping[int, MethodMaps], method: str, root: Path
) -> list[Example]:
  """Returns the frames that a method scores best and worst by NSS, with what it predicted and where viewers looked.

  Args:
    evaluation: The scores.
    videos: The videos of the tree.
    maps: The method's maps by split, which are asked for these frames again.
    method: Its name.
    root: The tree, whose frames are shown where it has any.
  """
  by_name = {(video.database, video.name): video for video in videos}
  extremes: list[_Moment] = []
  for scored in evaluation.videos:
    values = scored.scores.get(method, {}).get(METRIC, np.empty(0))
    if values.size and not np.isnan(values).all():
      for k in {int(np.nanargmax(values)), int(np.nanargmin(values))}:
        video = by_name[scored.database, scored.name]
        extremes.append(_Moment(float(values[k]), int(scored.frames[k]), video, scored.split))
  extremes.sort(key=lambda each: (-each.score, each.video.name))
  chosen = [("Best", each) for each in _of_different_videos(extremes)]
  shown = {(each.video.name, each.frame) for _, each in chosen}
  worst = [each for each in _of_different_videos(extremes[::-1]) if (each.video.name, each.frame) not in shown]
  chosen += [("Worst", each) for each in worst]
  return [_example(word, each, maps[each.split], method, root) for word, each in chosen]


@dataclass(frozen=True)
class _Moment:
  """A frame of a video, and its score by the maps of a split."""

  score: float
  frame: int
  video: StavisVideo
  split: int


def _of_different_videos(ordered: Sequence[_Moment]) -> list[_Moment]:
  first: dict[tuple[str, str], _Moment] = {}
  for each in ordered:
    first.setdefault((each.video.database, each.video.name), each)
  return list(first.values())[:NUM_FRAMES]


def _example(word: str, moment: _Moment, maps: MethodMaps, method: str, root: Path) -> Example:
  video, frame = moment.video, moment.frame
  _, found = next(maps(video, [frame]))
  density = video.density(frame)
  title = f"{word}: {video.database}/{video.name}, frame {frame + 1}, {METRICS[METRIC].title} {moment.score:.2f}"
  picture = _picture(root / "video_frames" / video.database / video.name, frame, density.shape)
  return Example(title, picture, {method: to_8_bits(found[method][0])}, to_8_bits(density), video.fixations(frame))


def _picture(folder: Path, frame: int, size: tuple[int, ...]) -> np.ndarray:
  """Returns the frame's image, or a grey one where the tree has none."""
  paths = numbered_files(folder, (".jpg", ".jpeg", ".png"), "img_").get(frame + 1)
  if not paths:
    return np.full((*size[:2], 3), 128, np.uint8)
  with Image.open(paths[0]) as image:
    return np.asarray(image.convert("RGB"))
