"""Networks that are retrained for the ablation: always hearing (rows 9 and 22), or without the FRL (row 21).

Each is trained like its usual counterpart, from the same networks and with the same random numbers, into
`ablation/VARIANT/NAME/` of the work folder of a finished training. Finished networks are not trained again.
"""

import functools
from collections.abc import Callable
from pathlib import Path

from stajax import config as configuration
from stajax import model as models
from stajax import networks
from stajax.files import FileError
from stajax.files.manifest import check_digest, digests, read_manifest, write_manifest
from stajax.inference.class_maps import Sources, make_dense, stored_pool
from stajax.inference.dense import DenseNetwork
from stajax.report.table_1 import Variant
from stajax.train import train_network
from stajax.train.loop import TrainingError
from stajax.train.run import Run, open_run
from stajax.train.stages import stage_files
from stajax.train.stages.companion_pools import compute_companions
from stajax.train.stages.graph import make_graph
from stajax.train.workdir import WEIGHTS
from stajax.weights import store

RETRAINED: dict[Variant, tuple[str, ...]] = {
  "always_heard": ("sa", "sa_plus_long", "sa_plus_cross"),
  "no_frl": networks.GRANULAR,
}


class RetrainingError(ValueError):
  """A network of the ablation that cannot be trained; one line."""


def retrain(workdir: Path, base: Sources, batch: int) -> dict[Variant, Sources]:
  """Trains the networks of all variants that are not trained yet.

  Args:
    workdir: The work folder of a finished training.
    base: Its usual sources.
    batch: The number of frames that are computed together.

  Returns:
    The sources of each variant, with the variant's networks in place of the usual ones.

  Raises:
    RetrainingError: The folder is not that of a finished training, or retraining failed.
    ConfigError, RecordError, WeightsError: A file in it cannot be used.
  """
  run = open_finished(workdir)
  with run.workdir.lock():
    return {variant: _retrain_variant(variant, run, base, batch) for variant in RETRAINED}


def open_finished(workdir: Path) -> Run:
  """Returns the run of a work folder whose pseudo-fixations are made.

  Raises:
    RetrainingError: It is no such folder.
    ConfigError: Its configuration cannot be used.
  """
  path = workdir / "config.json"
  try:
    run = open_run(configuration.loads(path.read_text(encoding="utf-8"), str(path)), workdir)
  except (OSError, UnicodeDecodeError) as error:
    raise RetrainingError(f"{path}: cannot be read ({error}), expected the work folder of a training") from None
  if run.workdir.done("scam_plus") is None:
    raise RetrainingError(f"{workdir}: stage scam_plus is not done, expected the work folder of a finished training")
  stage_files.check(make_graph(run.config), run.workdir)
  return run


def _retrain_variant(variant: Variant, run: Run, base: Sources, batch: int) -> Sources:
  folder, refine = run.workdir.variant(variant), False if variant == "no_frl" else None
  names = [name for name in RETRAINED[variant] if name in networks.sources_of(run.config)]
  for name in names:
    settings = train_network.Variant(folder / name, always_heard=variant == "always_heard", refine=refine)
    try:
      _make_once(folder / name / WEIGHTS, functools.partial(train_network.train, name, run, settings))
    except TrainingError as error:
      raise RetrainingError(f"ablation/{variant}: {error}") from None

  @functools.cache
  def retrained(name: str) -> DenseNetwork:
    variables, num_categories = run.trained.variables(name, folder / name), len(run.data.records.categories)
    return make_dense(name, variables, run.config, num_categories, batch, refine)

  def network(name: str, requested: bool | None) -> DenseNetwork:
    return retrained(name) if name in names else base.network(name, requested)

  # Companions of other clips are fragments as this variant's networks see them.
  pool = folder / models.COMPANIONS

  def make_pool() -> None:
    crossing = networks.granular_of(run.config)
    store.save(pool, compute_companions(run.data, run.config.seed, lambda name: network(name, refine), crossing))

  _make_once(pool, make_pool)
  return Sources(network, functools.partial(stored_pool, store.read(pool)), base.maps, base.seed, base.crops)


def _make_once(path: Path, make: Callable[[], object]) -> None:
  """Makes a file that is not there yet, and writes its SHA-256 beside it, or compares that.

  Raises:
    RetrainingError: The file is another one than that which was made.
  """
  manifest = path.with_name(f"{path.name}.json")
  if not manifest.exists():
    make()
    write_manifest(manifest, {}, digests(path.parent, [path]))
  try:
    for name, sha256 in read_manifest(manifest)[1].items():
      check_digest(path.parent / name, sha256)
  except FileError as error:
    raise RetrainingError(f"{error}; delete {manifest} to have it made again") from None
