"""The metrics of `stajax.scoring.metrics` as one jitted program for batches of maps on any device.

For maps that are on an accelerator already, as in validation while a network trains. The commands use
`stajax.scoring.fast`, which has the random parts of the protocols and is faster on a CPU. This is the only module of
`stajax.scoring` that loads JAX.

Frames are scored one after the other inside the program, so a score does not depend on the batch it is in. All is
computed in the precision of the maps: for float64 enable JAX's 64 bits.
"""

import jax
import jax.numpy as jnp
import numpy as np

from stajax.scoring.metrics import EPSILON

STEP = 0.1
"""The distance between the thresholds of s-AUC."""
_COMPARED = 128
"""Up to so many fixations are compared with all pixels; for more, pixels are sorted."""


def score_batch(
  maps: jax.Array,
  density: jax.Array,
  fixations: jax.Array,
  other: jax.Array,
  baseline: jax.Array | None = None,
) -> dict[str, jax.Array]:
  """Scores n maps that have the size of their ground truth.

  Args:
    maps: The maps (n, H, W), float.
    density: The densities of the fixations, (n, H, W), not negative.
    fixations: The fixated positions in each flattened frame, (n, k) int32, filled up with −1; `pad` makes it.
    other: The positions that s-AUC compares them with, (n, m) int32, likewise.
    baseline: A density (H, W) that information gain is measured from; None for a constant one.

  Returns:
    {metric: (n,)} with `auc_judd` (without jitter), `s_auc` (its exact expectation), `nss`, `sim`, `cc`, `kl` and
    `information_gain` (bits per fixation); NaN where the definition is.

  Raises:
    ValueError: The arrays do not belong together.
  """
  found = {"density": density.shape, "fixations": fixations.shape, "other": other.shape}
  if maps.ndim != 3 or density.shape != maps.shape or {fixations.shape[:1], other.shape[:1]} != {maps.shape[:1]}:
    raise ValueError(f"found maps {maps.shape}, {found}, expected (n, H, W) twice, (n, k) and (n, m)")
  baseline = jnp.ones(maps.shape[1:], maps.dtype) if baseline is None else baseline
  return _score_batch(maps, density.astype(maps.dtype), fixations, other, baseline.astype(maps.dtype))


def pad(positions: list[np.ndarray], length: int | None = None) -> np.ndarray:
  """Returns lists of positions as one array (n, length) int32, filled up with −1."""
  length = max((len(x) for x in positions), default=0) if length is None else length
  padded = np.full((len(positions), max(1, length)), -1, np.int32)
  for row, x in zip(padded, positions, strict=True):
    row[: len(x)] = x
  return padded


@jax.jit
def _score_batch(
  maps: jax.Array, density: jax.Array, fixations: jax.Array, other: jax.Array, baseline: jax.Array
) -> dict[str, jax.Array]:
  def score(frame: tuple[jax.Array, jax.Array, jax.Array, jax.Array]) -> dict[str, jax.Array]:
    return _score(frame[0], frame[1], frame[2], frame[3], baseline)

  return jax.lax.map(score, (maps, density, fixations, other))


def _score(
  values: jax.Array, density: jax.Array, fixations: jax.Array, other: jax.Array, baseline: jax.Array
) -> dict[str, jax.Array]:
  flat, constant = values.ravel(), values.min() == values.max()
  is_fixation, is_other = fixations >= 0, other >= 0
  number = is_fixation.sum()

  def where_defined(score: jax.Array, defined: jax.Array) -> jax.Array:
    return jnp.where(defined, score, jnp.nan)

  def at_fixations(pixels: jax.Array) -> jax.Array:
    return jnp.where(is_fixation, pixels[fixations], 0)

  unit, unit_density = _unit(values), _unit(density)
  shares, density_shares = values / values.sum(), density / density.sum()
  centred, centred_density = values - values.mean(), density - density.mean()
  deviation = jnp.sqrt((centred**2).sum() / (values.size - 1))
  products = (centred * centred_density).sum()
  similarity = jnp.minimum(unit / unit.sum(), unit_density / unit_density.sum()).sum()
  gain = jnp.log2(shares.ravel() + EPSILON) - jnp.log2((baseline / baseline.sum()).ravel() + EPSILON)
  has_both = (shares.sum() > 0) & (density_shares.sum() > 0)
  divergence = (density_shares * jnp.log(EPSILON + density_shares / (shares + EPSILON))).sum()
  flat_density = density.min() == density.max()
  return {
    "auc_judd": where_defined(
      _auc_judd(flat, fixations, is_fixation, number), (number > 0) & (number < values.size) & ~constant
    ),
    "s_auc": where_defined(
      _s_auc(unit.ravel(), fixations, is_fixation, other, is_other), (number > 0) & is_other.any() & ~constant
    ),
    "nss": where_defined(at_fixations(centred.ravel()).sum() / number / deviation, (number > 0) & ~constant),
    "sim": where_defined(
      jnp.where((density == 0).all(), 0.0, similarity), ~constant & (~flat_density | (density == 0).all())
    ),
    "cc": where_defined(
      products / jnp.sqrt((centred**2).sum() * (centred_density**2).sum()), ~constant & ~flat_density
    ),
    "kl": where_defined(divergence, has_both),
    "information_gain": where_defined(at_fixations(gain).sum() / number, (number > 0) & (shares.sum() > 0)),
  }


def _auc_judd(flat: jax.Array, fixations: jax.Array, is_fixation: jax.Array, number: jax.Array) -> jax.Array:
  """Returns the area under the curve through the fixated values (k,), of which `number` are real."""
  thresholds = -jnp.sort(-jnp.where(is_fixation, flat[fixations], -jnp.inf))  # falling, the others last
  rank = jnp.arange(1, len(thresholds) + 1)
  if len(thresholds) <= _COMPARED:
    above = (flat[None, :] >= thresholds[:, None]).sum(axis=1)
  else:
    above = flat.size - jnp.searchsorted(jnp.sort(flat), thresholds, side="left")
  false_positives = jnp.where(rank <= number, (above - rank) / (flat.size - number), 0.0)
  steps = jnp.diff(false_positives, prepend=0.0)
  area = jnp.where(rank <= number, steps * (2 * rank - 1) / (2 * number), 0.0).sum()
  return area + 1 - false_positives[number - 1]


def _s_auc(
  unit: jax.Array, fixations: jax.Array, is_fixation: jax.Array, other: jax.Array, is_other: jax.Array
) -> jax.Array:
  """Returns the mean over the other pixels of the area that each adds, see `metrics.s_auc_bins`."""
  thresholds = jnp.asarray(STEP * np.arange(int(np.floor(1 / STEP + 1e-9)) + 1), unit.dtype)

  def bins(positions: jax.Array) -> jax.Array:
    return jnp.searchsorted(thresholds, unit[positions], side="right")

  counts = jnp.zeros(len(thresholds) + 2, unit.dtype).at[bins(fixations)].add(is_fixation)
  reach = jnp.cumsum(counts[::-1])[::-1] / is_fixation.sum()
  area = (reach[:-1] + reach[1:]) / 2
  return jnp.where(is_other, area[bins(other)], 0.0).sum() / is_other.sum()


def _unit(values: jax.Array) -> jax.Array:
  span = jnp.broadcast_to(values.max() - values.min(), values.shape)
  # XLA would multiply by the inverse of a number, which can lift a value over a threshold of s-AUC, or let it drop.
  return (values - values.min()) / jax.lax.optimization_barrier(span)
