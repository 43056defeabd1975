"""Measures how fast the five metrics score a frame, against their definitions in plain NumPy.

  python -m benchmarks.metrics [--size 480 640] [--viewers 15] [--frames 8] [--rounds 5] [--json FILE]

Both score the same maps, which have the ground truth's size already: smooth noise, with fixations where a smooth
density is high. Blurring and resizing, which come first in the protocol, have a line of their own. The scores of
both are compared: all must be equal, except s-AUC, which averages over different random draws.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage

from benchmarks import measure
from benchmarks.measure import Contestant
from benchmarks.peers import scores as peer
from stajax.scoring.protocol import METRICS, prepare_map, score_frame

_MAP = 256
"""The side of predicted maps."""

Score = Callable[..., tuple[float, ...]]
"""A function of a map, fixations, a density, the fixations of all frames and a seed that returns the five scores."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--size", type=int, nargs=2, default=(480, 640), help="height and width of the ground truth")
  parser.add_argument("--viewers", type=int, default=15, help="fixations of a frame")
  parser.add_argument("--frames", type=int, default=8)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--json", type=Path)
  arguments = parser.parse_args(argv)
  height, width = arguments.size
  maps, fixations, densities = make_frames(arguments.frames, (height, width), arguments.viewers)
  prepared, union = [prepare_map(x, (height, width)) for x in maps], fixations.any(axis=0)

  def score_all(score: Score) -> np.ndarray:
    """Returns the scores (n, 5) of all frames."""
    return np.array([score(prepared[i], fixations[i], densities[i], union, i) for i in range(len(maps))])

  agreement = _compare(score_all(_score), score_all(peer.score_frame))
  contestants = {
    "stajax": _repeat(lambda: score_all(_score), len(maps)),
    "plain NumPy": _repeat(lambda: score_all(peer.score_frame), len(maps)),
  }
  results = measure.measure(contestants, arguments.rounds, 1)
  preparing = {"blur and resize": _repeat(lambda: [prepare_map(x, (height, width)) for x in maps], len(maps))}
  result = {
    "benchmark": "metrics",
    "title": f"five metrics of {height}×{width} frames with {arguments.viewers} fixations",
    "arguments": measure.settings_of(arguments),
    "unit": "frames/s",
    **measure.about(),
    "agreement": agreement,
    "results": results | measure.measure(preparing, arguments.rounds, 1),
    "ratios": measure.ratios(results, {name: x.work for name, x in contestants.items()}),
  }
  measure.finish(result, arguments.json)
  return 0


def _score(*frame: Any) -> tuple[float, ...]:
  return tuple(score_frame(*frame).values())


def _compare(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
  """Returns the largest difference of each metric between scores (n, 5).

  Raises:
    ArithmeticError: The scores are not equal; s-AUC may differ a little.
  """
  differences = dict(zip(METRICS, np.abs(ours - theirs).max(axis=0).tolist(), strict=True))
  # A draw of s-AUC has few pixels, so the mean of a hundred draws varies by a percent or two.
  if any(x > (0.05 if name == "s_auc" else 1e-6) for name, x in differences.items()):
    raise ArithmeticError(f"the scores differ by {differences}")
  return differences


def _repeat(work: Callable[[], object], frames: int) -> Contestant:
  def run(times: int) -> None:
    for _ in range(times):
      work()

  return Contestant(run, frames)


def make_frames(number: int, size: tuple[int, int], viewers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns predicted maps (n, 256, 256) uint8, fixations (n, *size) bool, and densities (n, *size) uint8."""
  generator = np.random.default_rng(0)

  def smooth(shape: tuple[int, int]) -> np.ndarray:
    noise = scipy.ndimage.gaussian_filter(generator.normal(size=shape), [x / 12 for x in shape])
    scaled = (noise - noise.min()) / (noise.max() - noise.min())
    return np.round(255 * scaled**3).astype(np.uint8)

  maps, densities = (np.stack([smooth(shape) for _ in range(number)]) for shape in ((_MAP, _MAP), size))
  fixations = np.zeros((number, *size), bool)
  for fixated, density in zip(fixations, densities):
    chance = density.ravel() / density.sum()
    fixated.ravel()[generator.choice(density.size, viewers, replace=False, p=chance)] = True
  return maps, fixations, densities


if __name__ == "__main__":
  raise SystemExit(main())
