"""Says how far trainings of one configuration on different devices lie apart.

  python -m helpers.compare_runs WORKDIR WORKDIR …

Every other work folder is compared with the first one: the losses of all steps, the parameters and the batch statistics
of every network as vectors, relative to the first one's length, and the bytes of the tables and the
pseudo-fixations, whose pixels are counted that differ.
"""

import json
import sys
from pathlib import Path

import numpy as np

from stajax.data.map_set import MapSet
from stajax.data.records import Records
from stajax.train.logs import read_log
from stajax.train.workdir import WEIGHTS
from stajax.weights import store


def distance(left, right) -> float:
  """Returns the distance of two vectors, relative to the first one's length."""
  return float(np.linalg.norm(left - right) / max(np.linalg.norm(left), 1e-30))


def vectors(path: Path) -> dict[str, np.ndarray]:
  """Returns the parameters and the batch statistics of a network, each as one vector, in float64."""
  parts: dict[str, list[np.ndarray]] = {}
  for name, values in sorted(store.read(path).items()):
    parts.setdefault(name.split("/")[0], []).append(np.ravel(values).astype(np.float64))
  return {part: np.concatenate(of) for part, of in parts.items()}


def losses(folder: Path) -> np.ndarray:
  """Returns the losses in the log of a stage."""
  return np.array([line["loss"] for line in read_log(folder / "log.jsonl")])


def compare(first: Path, other: Path) -> list[str]:
  """Returns a line for each network that both have finished, and for each table and map set."""
  lines = []
  networks = sorted(path.parent.name for path in first.glob(f"stages/*/{WEIGHTS}"))
  for name in networks:
    folders = [run / "stages" / name for run in (first, other)]
    if not all((folder / "done.json").is_file() for folder in folders):
      lines.append(f"{name}: not finished in both")
      continue
    values = [{"losses": losses(folder), **vectors(folder / WEIGHTS)} for folder in folders]
    apart = [f"{part} {distance(found, values[1][part]):.1e}" for part, found in values[0].items()]
    lines.append(f"{name}: {len(values[0]['losses'])} steps logged; {', '.join(apart)}")
  for path in sorted((*first.glob("tables/**/*"), *first.glob("maps/**/*"))):
    same = other / path.relative_to(first)
    if path.is_file():
      is_equal = same.is_file() and path.read_bytes() == same.read_bytes()
      lines.append(f"{path.relative_to(first)}: {'equal' if is_equal else 'not equal'}")
  if all((run / "maps" / "scam_plus" / "summary.json").is_file() for run in (first, other)):
    maps, others = map(pseudo_fixations, (first, other))
    apart = np.abs(maps.astype(int) - others)
    lines.append(f"pseudo-fixations: {np.mean(apart > 0):.1e} of {apart.size} pixels differ, by at most {apart.max()}")
  return lines


def pseudo_fixations(run: Path) -> np.ndarray:
  """Returns the pseudo-fixations (n, h, w) uint8 of all frames of a run."""
  config = json.loads((run / "config.json").read_text())
  records = Records.open(Path(config["data"]["path"]) / "train")
  maps = MapSet.open(run / "maps" / "scam_plus", records)
  return np.concatenate([maps.clip_maps(records, clip)[0] for clip in range(records.num_clips)])


if __name__ == "__main__":
  first, *others = map(Path, sys.argv[1:])
  for other in others:
    print(f"{other} beside {first}")
    print("\n".join(f"  {line}" for line in compare(first, other)))
