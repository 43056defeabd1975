"""Networks of the ablation that are trained otherwise: always hearing (rows 9 and 22), without FRL (row 21).

Each is trained as its usual one, from the same networks and the same random numbers, into `ablation/VARIANT/NAME/` of
the work folder of a finished training. What is there already is not trained again.
"""

import functools
from pathlib import Path

from stajax import config as configuration
from stajax import model as models
from stajax import networks
from stajax.inference.class_maps import Networks, make_dense, stored_pool
from stajax.inference.dense import DenseNetwork
from stajax.report.table_1 import Variant
from stajax.train import stages, train_network
from stajax.train.loop import TrainingError
from stajax.train.workdir import Run
from stajax.weights import store

RETRAINED: dict[Variant, tuple[str, ...]] = {
  "always_heard": ("sa", "sa_plus_long", "sa_plus_cross"),
  "no_frl": networks.GRANULAR,
}


class RetrainingError(ValueError):
  """A network of the ablation that cannot be trained; one line."""


def retrain(workdir: Path, base: Networks, batch: int) -> dict[Variant, Networks]:
  """Trains what is not trained yet; returns for each variant the sources, which have its networks in their places.

  Args:
    workdir: work folder of a finished training.
    base: its usual sources.
    batch: frames that are computed together.

  Raises:
    RetrainingError: not such a folder, or the training failed.
    ConfigError, RecordError, WeightsError: a file in it that cannot be used.
  """
  path = workdir / "config.json"
  try:
    run = Run(configuration.loads(path.read_text(encoding="utf-8"), str(path)), workdir)
  except (OSError, UnicodeDecodeError) as error:
    raise RetrainingError(f"{path}: cannot be read ({error}), expected the work folder of a training") from None
  if run.done("scam_plus") is None:
    raise RetrainingError(f"{workdir}: stage scam_plus is not done, expected the work folder of a finished training")
  return {variant: _variant(variant, run, base, batch) for variant in RETRAINED}


def _variant(variant: Variant, run: Run, base: Networks, batch: int) -> Networks:
  folder, frl = run.workdir / "ablation" / variant, False if variant == "no_frl" else None
  num_categories = len(run.records.categories)
  for name in RETRAINED[variant]:
    if (folder / name / "weights.safetensors").is_file():
      continue
    how = train_network.Variant(folder / name, always_heard=variant == "always_heard", frl=frl)
    try:
      train_network.train(name, run, how)
    except TrainingError as error:
      raise RetrainingError(f"ablation/{variant}: {error}") from None

  @functools.cache
  def retrained(name: str) -> DenseNetwork:
    return make_dense(name, run.variables(name, folder / name), run.config, num_categories, batch, frl)

  def network(name: str, asked: bool | None) -> DenseNetwork:
    return retrained(name) if name in RETRAINED[variant] else base.network(name, asked)

  # Companions of other clips are fragments as this variant's networks see them.
  pool = folder / models.COMPANIONS
  if not pool.is_file():
    store.save(pool, stages.stored_companions(run, lambda name: network(name, frl)))
  return Networks(network, functools.partial(stored_pool, store.read(pool)), base.maps, base.seed, base.crops)
