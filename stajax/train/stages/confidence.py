"""What the final maps gain over the centre prior, measured on the clips that were left out; see `maps.confidence`."""

import numpy as np

from stajax import model as models
from stajax import networks
from stajax.inference.clip import clip_samples
from stajax.inference.predictor import Predictor
from stajax.maps import confidence
from stajax.maps.confidence import Confidence
from stajax.maps.final import centre_factor
from stajax.maps.pseudo import resize
from stajax.train.run import Run


def measure_confidence(run: Run) -> Confidence | None:
  """Compares the students' final maps with pseudo-fixations, or a teacher's maps; None where no clip was left out.

  Maps that the configuration multiplies by the centre factor are compared with targets that have it, too.
  """
  clips = np.flatnonzero(run.data.is_validation)
  if not len(clips):
    return None
  predictor, fixations = _students(run), run.data.pseudo_fixations()
  size = run.config.maps.size, run.config.maps.size
  factor = centre_factor(size) if predictor.centre else np.float32(1)
  maps: list[np.ndarray] = []
  targets: list[np.ndarray] = []
  for clip in clips:
    found, weights = fixations.clip_maps(run.data.records, int(clip))
    final = np.stack(list(predictor.maps(clip_samples(run.data.records, int(clip), predictor.side))))
    maps.append(resize(final, size)[weights > 0])
    targets.append((found / np.float32(255) * factor)[weights > 0])
  if sum(map(len, maps)) < confidence.KNOTS:
    return None
  return confidence.fit(np.concatenate(maps), np.concatenate(targets))


def _students(run: Run) -> Predictor:
  names, records = networks.predicting_networks(run.config), run.data.records
  variables = {name: run.trained.variables(name) for name in names}
  about = records.categories, run.config.data.rate, records.side, records.provenance, variables
  return Predictor(models.Model(run.config, *about, sha256={}, companions={}), run.config.inference_batch)
