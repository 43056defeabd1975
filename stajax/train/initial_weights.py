"""Parts that networks begin with: files of trained weights (`--init NAME=FILE`), which are copied to the work folder.

The copies lie in `init/NAME.safetensors` of the work folder from the beginning, so a run goes on without the files. A
file that is still there but differs from the one that the run began with is refused.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from stajax import networks, runtime
from stajax.config import Config, Part
from stajax.files import make_folder
from stajax.train.workdir import Workdir
from stajax.weights import convert, store
from stajax.weights.store import WeightsError


def read(config: Config, workdir: Workdir) -> dict[Part, convert.Converted]:
  """Reads the files that the configuration names and the work folder does not have, and checks that they fit.

  Returns:
    What `save` writes, by part; each has only the arrays of its part.

  Raises:
    WeightsError: A file is unreadable, of an unknown kind, does not fit, or is not the one that the run began with; one
      line.
  """
  parts: dict[Part, convert.Converted] = {}
  for part, file in config.init_files.items():
    copy = workdir.initial_part(part)
    if copy.is_file():
      began = store.read_about(copy).get("sha256")
      if Path(file).is_file() and (sha256 := convert.digest(file)) != began:
        raise WeightsError(
          f"{file}: has SHA-256 {sha256}, but {workdir.path} began with {began}; use another --workdir"
        )
    else:
      converted = convert.read(_find(file))
      # A part has the same sizes in every network, and this network has all parts.
      network, size = networks.make_network("sa_coarse", config, 1), config.sa_coarse.size
      arrays = store.select(file, converted.arrays, part, networks.expected_variables(network, size))
      parts[part] = convert.Converted(arrays, converted.kind, converted.left_out, converted.sha256)
  return parts


def _find(file: str) -> Path:
  """Returns a file, which may be named as `stajax weights fetch` names what it has put into the cache."""
  from stajax.weights.fetch import PUBLICATIONS  # late, because it loads what downloads need

  if Path(file).exists() or file not in PUBLICATIONS:
    return Path(file)
  path = runtime.cache("weights") / PUBLICATIONS[file].name
  if not path.is_file():
    raise WeightsError(f"{file}: is not in the cache yet: stajax weights fetch {file}")
  return path


def save(parts: Mapping[Part, convert.Converted], config: Config, workdir: Workdir) -> None:
  """Writes what `read` returned into the work folder, on the first host."""
  if jax.process_index() != 0:
    return
  for part, converted in parts.items():
    copy = workdir.initial_part(part)
    make_folder(copy.parent)
    about = {"source": Path(config.init[part]).name, "sha256": converted.sha256, "kind": converted.kind}
    store.save(copy, store.unflatten(converted.arrays), about)


def insert(
  name: str, config: Config, workdir: Workdir, variables: Mapping[str, Any], random: Collection[str]
) -> tuple[dict[str, Any], dict[str, str]]:
  """Replaces random parts by those of the files.

  Args:
    name: The name of the network, for the line that is printed.
    config: The configuration, which names the files.
    workdir: The work folder, which has copies of the files.
    variables: The network's initial variables.
    random: The names of the variables that are still random. Those of a finished network descend from the files
      already.

  Returns:
    The variables, and the SHA-256 of the file of every part that was taken from one.

  Raises:
    WeightsError: A part does not fit.
  """
  flat, taken = store.flatten(variables), {}
  for part in config.init_files:
    replaced = [key for key in random if key.split("/")[1] == part]
    if replaced:
      copy = workdir.initial_part(part)
      arrays = store.select(copy, store.read(copy), part, variables)
      flat |= {key: arrays[key] for key in replaced}
      taken[part] = store.read_about(copy)["sha256"]
  if taken:
    files = [file for part, file in config.init_files.items() if part in taken]
    tqdm.write(f"{name}: {', '.join(taken)} from {', '.join(files)}")
  return store.unflatten(flat), taken
