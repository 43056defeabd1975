"""Parts that networks begin with: files of trained weights (`--init NAME=FILE`), which become part of the work folder.

What is read of them lies in `init/NAME.safetensors` of the work folder from the beginning, so a run goes on without the
files; a file that is there and differs from what the run began with is refused.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from stajax import networks
from stajax.config import Config
from stajax.weights import convert, store
from stajax.weights.store import WeightsError


def check(config: Config, workdir: Path) -> dict[str, convert.Converted]:
  """Reads the files that the configuration names, unless the work folder has them, and holds them against the networks.

  Returns:
    What `keep` writes, by part; only arrays of that part.

  Raises:
    WeightsError: unreadable or of unknown kind, it does not fit, or the run began with another file; one line.
  """
  found = {}
  for part, file in config.init.items():
    kept = path(workdir, part)
    if kept.is_file():
      began = store.read_about(kept).get("sha256")
      if Path(file).is_file() and (sha256 := convert.digest(file)) != began:
        raise WeightsError(f"{file}: has SHA-256 {sha256}, but {workdir} began with {began}; use another --workdir")
    else:
      made = convert.read(file)
      # All networks that have a part have it in the same sizes, and this one has all parts.
      network, size = networks.make_network("sa_coarse", config, 1), config.sa_coarse.size
      arrays = store.select(file, made.arrays, part, networks.expected_variables(network, size))
      found[part] = convert.Converted(arrays, made.kind, made.left_out, made.sha256)
  return found


def keep(found: Mapping[str, convert.Converted], config: Config, workdir: Path) -> None:
  """Writes what `check` read into the work folder, on the first host."""
  if jax.process_index() != 0:
    return
  for part, made in found.items():
    target = path(workdir, part)
    target.parent.mkdir(parents=True, exist_ok=True)
    about = {"source": Path(config.init[part]).name, "sha256": made.sha256, "kind": made.kind}
    store.save(target, store.unflatten(made.arrays), about)


def path(workdir: Path, part: str) -> Path:
  """Where a part lies in a work folder."""
  return workdir / "init" / f"{part}.safetensors"


def begin(
  name: str, config: Config, workdir: Path, variables: Mapping[str, Any], own: Collection[str]
) -> tuple[dict[str, Any], dict[str, str]]:
  """Puts the parts of the files in the place of random ones.

  Args:
    name: of the network, for the line that is printed.
    variables: its initial ones.
    own: names of those that are random still; what comes from a finished network descends from the file already.

  Returns:
    The variables, and the SHA-256 of the file of every part that was taken from one.

  Raises:
    WeightsError: a part does not fit.
  """
  flat, taken = store.flatten(variables), {}
  for part in config.init:
    random = [key for key in own if key.split("/")[1] == part]
    if random:
      kept = path(workdir, part)
      arrays = store.select(kept, store.read(kept), part, variables)
      flat |= {key: arrays[key] for key in random}
      taken[part] = store.read_about(kept)["sha256"]
  if taken:
    tqdm.write(f"{name}: {', '.join(taken)} from {', '.join(config.init[part] for part in taken)}")
  return store.unflatten(flat), taken
