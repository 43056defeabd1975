"""The five metrics as the MIT benchmark defines them, in plain NumPy, with a loop over thresholds and draws.

The blur and the resizing before them are plain too: SciPy's Gaussian and one sparse product for each axis, which is how
stajax itself did it when this was written.
"""

import numpy as np
import scipy.ndimage

from stajax.scoring.resize import resize_weights


def auc(positive: np.ndarray, negative: np.ndarray, thresholds: np.ndarray) -> float:
  """Returns the area under the ROC curve of values (p,) against (q,) at falling thresholds, corners included."""
  hits, alarms = [0.0], [0.0]
  for threshold in thresholds:
    hits.append(np.mean(positive >= threshold))
    alarms.append(np.mean(negative >= threshold))
  return float(np.trapezoid([*hits, 1.0], [*alarms, 1.0]))


def auc_judd(prediction: np.ndarray, fixations: np.ndarray, rng: np.random.Generator) -> float:
  """Compares fixated pixels with all others, with the fixated values as thresholds."""
  values = prediction + rng.random(prediction.size).reshape(prediction.shape) * 1e-7
  values = (values - values.min()) / (values.max() - values.min())
  fixated = values[fixations]
  return auc(fixated, values[~fixations], np.sort(fixated)[::-1])


def s_auc(
  prediction: np.ndarray,
  fixations: np.ndarray,
  other: np.ndarray,
  rng: np.random.Generator,
  splits: int = 100,
  step: float = 0.1,
) -> float:
  """Compares fixated pixels with random ones of those that are fixated at other times."""
  values = (prediction - prediction.min()) / (prediction.max() - prediction.min())
  fixated, elsewhere = values[fixations], values[other]
  number = min(len(fixated), len(elsewhere))
  thresholds = np.arange(0, 1 + step / 2, step)[::-1]
  draws = (rng.choice(elsewhere, number, replace=False) for _ in range(splits))
  return float(np.mean([auc(fixated, draw, thresholds) for draw in draws]))


def nss(prediction: np.ndarray, fixations: np.ndarray) -> float:
  """Returns the mean standardised value of fixated pixels."""
  return float(((prediction - prediction.mean()) / prediction.std(ddof=1))[fixations].mean())


def cc(prediction: np.ndarray, density: np.ndarray) -> float:
  """Returns Pearson's correlation."""
  return float(np.corrcoef(prediction.ravel(), density.ravel())[0, 1])


def sim(prediction: np.ndarray, density: np.ndarray) -> float:
  """Returns the common part of both as distributions."""
  first, second = ((x - x.min()) / (x.max() - x.min()) for x in (prediction, density.astype(np.float64)))
  return float(np.minimum(first / first.sum(), second / second.sum()).sum())


def prepare_map(prediction: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Returns a map (h, w) uint8, not constant, scaled to [0, 1], blurred and resized to `size`."""
  values = prediction.astype(np.float64)
  values = values / values.max()
  values = (values - values.min()) / (values.max() - values.min())
  values = scipy.ndimage.gaussian_filter(values, 2.0, mode="reflect", radius=6)
  values = resize_weights(values.shape[0], size[0]) @ values
  return np.ascontiguousarray((resize_weights(values.shape[1], size[1]) @ values.T).T)


def score_frame(
  prediction: np.ndarray, fixations: np.ndarray, density: np.ndarray, union: np.ndarray, seed: int
) -> tuple[float, ...]:
  """Returns the five scores of a frame, as `stajax.scoring.protocol.score_frame` does."""
  rng = np.random.default_rng(seed)
  return (
    auc_judd(prediction, fixations, rng),
    s_auc(prediction, fixations, union & ~fixations, rng),
    nss(prediction, fixations),
    sim(prediction, density),
    cc(prediction, density),
  )
