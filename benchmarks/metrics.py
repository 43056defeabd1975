"""Measures how fast maps are scored by the five metrics, against their definitions in plain NumPy.

  python -m benchmarks.metrics [--size 720 1280] [--viewers 30] [--frames 8] [--rounds 5] [--processes 2] [--json FILE]

Both blur the same predicted maps, resize them to the ground truth's size and score them, with 100 draws of s-AUC: maps
of smooth noise, with fixations where a smooth density is high. One line has frames in memory. The other reads maps,
densities and fixations from files, the fixations first, because the protocol needs those of all frames. stajax works in
as many processes as `stajax evaluate` would; the plain side is a loop. The scores of both are compared: all must be
equal, except s-AUC, which averages over different random draws.
"""

import argparse
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.ndimage
from PIL import Image

from benchmarks import measure
from benchmarks.measure import Contestant
from benchmarks.peers import scores as peer
from stajax.evaluate.map_files import read_map
from stajax.eyetracking import read_density, read_fixations
from stajax.scoring import protocol
from stajax.scoring.frame import FrameMap, FrameTruth, without

_MAP = 256
"""The side of predicted maps."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--size", type=int, nargs=2, default=(720, 1280), help="height and width of the ground truth")
  parser.add_argument("--viewers", type=int, default=30, help="fixations of a frame")
  parser.add_argument("--frames", type=int, default=8)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="of stajax")
  parser.add_argument("--json", type=Path)
  arguments = parser.parse_args(argv)
  size, number = tuple(arguments.size), arguments.frames
  spawn = multiprocessing.get_context("spawn")  # as the command does
  with tempfile.TemporaryDirectory() as folder:
    frames = make_frames(number, size, arguments.viewers)
    _write(Path(folder), *frames)
    _load(Path(folder), frames)
    with ProcessPoolExecutor(arguments.processes, spawn, _load, (Path(folder), frames)) as pool:

      def spread(score: Callable[[int], tuple[float, ...]]) -> Callable[[], np.ndarray]:
        return lambda: np.array(list(pool.map(score, range(number))))

      def from_disk() -> np.ndarray:
        positions = list(pool.map(_read_positions, range(number)))
        union = np.unique(np.concatenate(positions))
        return np.array(list(pool.map(_score_files, range(number), positions, [union] * number)))

      agreement = _compare(spread(_score)(), _plain_scores())
      _compare(from_disk(), _plain_scores_of_files())
      contestants = {
        "stajax": _repeat(spread(_score), number),
        "stajax, one process": _repeat(lambda: [_score(i) for i in range(number)], number),
        "plain NumPy": _repeat(_plain_scores, number),
      }
      on_disk = {
        "stajax, from disk": _repeat(from_disk, number),
        "plain NumPy, from disk": _repeat(_plain_scores_of_files, number),
      }
      memory = measure.measure(contestants, arguments.rounds, 1)
      disk = measure.measure(on_disk, arguments.rounds, 1)
  compared = [measure.ratios(found, dict.fromkeys(found, float(number))) for found in (memory, disk)]
  result = {
    "benchmark": "metrics",
    "title": f"five metrics of {size[0]}×{size[1]} frames with {arguments.viewers} fixations, with blur and resize",
    "arguments": measure.settings_of(arguments),
    "unit": "frames/s",
    **measure.about(),
    "agreement": agreement,
    "results": memory | disk,
    "ratios": compared[0] | compared[1],
  }
  measure.finish(result, arguments.json)
  return 0


_LOADED: dict[str, Any] = {}
"""What a process scores: the frames in memory, and the folder of the files with the same frames."""


def _load(folder: Path, frames: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
  _, fixations, _ = frames
  positions = [np.flatnonzero(x) for x in fixations]
  _LOADED.update(
    folder=folder,
    frames=frames,
    positions=positions,
    union=np.unique(np.concatenate(positions)),
    buffer=np.empty(fixations.shape[1:]),
  )


def _score(i: int) -> tuple[float, ...]:
  """Scores a frame in memory as a worker of `stajax evaluate` does."""
  maps, _, densities = _LOADED["frames"]
  return _score_one(maps[i], densities[i], _LOADED["positions"][i], _LOADED["union"], i)


def _score_one(values: np.ndarray, density: np.ndarray, positions: np.ndarray, union: np.ndarray, seed: int):
  prepared = FrameMap(protocol.prepare_map(values, density.shape, _LOADED["buffer"]))
  return tuple(protocol.score(prepared, FrameTruth(positions, density, without(union, positions)), seed).values())


def _read_positions(i: int) -> np.ndarray:
  return np.flatnonzero(read_fixations(_LOADED["folder"] / f"fixMap_{i}.mat"))


def _score_files(i: int, positions: np.ndarray, union: np.ndarray) -> tuple[float, ...]:
  folder = _LOADED["folder"]
  return _score_one(read_map(folder / f"map_{i}.png"), read_density(folder / f"eyeMap_{i}.png"), positions, union, i)


def _plain_scores() -> np.ndarray:
  """Returns the scores (n, 5) of the frames in memory by the peer."""
  maps, fixations, densities = _LOADED["frames"]
  union, size = fixations.any(axis=0), fixations.shape[1:]
  rows = [(peer.prepare_map(maps[i], size), fixations[i], densities[i], union, i) for i in range(len(maps))]
  return np.array([peer.score_frame(*row) for row in rows])


def _plain_scores_of_files() -> np.ndarray:
  """Returns the scores (n, 5) of the frames in files by the peer."""
  folder, number = _LOADED["folder"], len(_LOADED["frames"][0])
  fixations = [read_fixations(folder / f"fixMap_{i}.mat") for i in range(number)]
  union = np.any(fixations, axis=0)
  rows = []
  for i in range(number):
    density = read_density(folder / f"eyeMap_{i}.png")
    prepared = peer.prepare_map(read_map(folder / f"map_{i}.png"), density.shape)
    rows.append(peer.score_frame(prepared, fixations[i], density, union, i))
  return np.array(rows)


def _write(folder: Path, maps: np.ndarray, fixations: np.ndarray, densities: np.ndarray) -> None:
  """Writes frames as files, without loss."""
  for i in range(len(maps)):
    Image.fromarray(maps[i]).save(folder / f"map_{i}.png")
    Image.fromarray(densities[i]).save(folder / f"eyeMap_{i}.png")
    scipy.io.savemat(folder / f"fixMap_{i}.mat", {"eyeMap": fixations[i].astype(np.uint8)}, do_compression=True)


def _compare(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
  """Returns the largest difference of each metric between scores (n, 5).

  Raises:
    ArithmeticError: The scores are not equal; s-AUC may differ a little.
  """
  differences = dict(zip(protocol.METRICS, np.abs(ours - theirs).max(axis=0).tolist(), strict=True))
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
