"""How fast a frame is scored by the five metrics, against their definitions in plain NumPy.

  python -m benchmarks.metrics [--size 480 640] [--viewers 15] [--frames 8] [--rounds 5] [--json FILE]

Both score the same maps, which are at the ground truth's size already: smooth noise, and fixations where a smooth
density is high. What comes before, blurring and resizing as the protocol does, has a line of its own. The scores of
both are compared: s-AUC is a mean over other random draws, all others must be equal.
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

_MAP = 256  # side of predicted maps


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--size", type=int, nargs=2, default=(480, 640), help="height and width of the ground truth")
  parser.add_argument("--viewers", type=int, default=15, help="fixations of a frame")
  parser.add_argument("--frames", type=int, default=8)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--json", type=Path)
  arguments = parser.parse_args(argv)
  maps, fixations, densities = make_frames(arguments.frames, tuple(arguments.size), arguments.viewers)
  union = fixations.any(axis=0)
  prepared = [prepare_map(x, union.shape) for x in maps]

  def scored(score: Callable[..., tuple[float, ...]]) -> list[tuple[float, ...]]:
    return [score(prepared[i], fixations[i], densities[i], union, i) for i in range(len(maps))]

  def repeat(work: Callable[[], object]) -> Contestant:
    def run(times: int) -> None:
      for _ in range(times):
        work()

    return Contestant(run, len(maps))

  def score(*arguments: Any) -> tuple[float, ...]:
    return tuple(score_frame(*arguments).values())

  difference = np.abs(np.array(scored(score)) - np.array(scored(peer.score_frame))).max(axis=0)
  agreement = dict(zip(METRICS, difference.tolist(), strict=True))
  # A draw has few pixels; the mean of a hundred moves by a percent or two.
  if max(x for name, x in agreement.items() if name != "s_auc") > 1e-6 or agreement["s_auc"] > 0.05:
    raise ArithmeticError(f"the scores differ by {agreement}")
  contestants = {
    "stajax": repeat(lambda: scored(score)),
    "plain NumPy": repeat(lambda: scored(peer.score_frame)),
  }
  results = measure.measure(contestants, arguments.rounds, 1)
  preparing = {"blur and resize": repeat(lambda: [prepare_map(x, union.shape) for x in maps])}
  result = {
    "benchmark": "metrics",
    "title": f"five metrics of {arguments.size[0]}×{arguments.size[1]} frames with {arguments.viewers} fixations",
    "arguments": {name: value for name, value in vars(arguments).items() if name != "json"},
    "unit": "frames/s",
    **measure.about(),
    "agreement": agreement,
    "results": results | measure.measure(preparing, arguments.rounds, 1),
    "ratios": measure.ratios(results, {name: x.work for name, x in contestants.items()}),
  }
  measure.finish(result, arguments.json)
  return 0


def make_frames(number: int, size: tuple[int, int], viewers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Predicted maps (n, 256, 256) uint8, fixations (n, *size) bool, and densities (n, *size) uint8."""
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
