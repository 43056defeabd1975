"""How far maps can be trusted over the centre prior."""

import numpy as np
import pytest
import scipy.stats

from stajax.maps import confidence
from stajax.maps.confidence import Confidence
from stajax.maps.final import centre_factor


def blob(y, x, size=24):
  rows, columns = np.mgrid[:size, :size] / size
  return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 0.02)


def test_departure_is_zero_for_the_centre_prior_and_grows_as_a_spot_moves_away():
  centre = centre_factor((24, 24))
  moved = [blob(0.5, x) for x in (0.5, 0.65, 0.8, 0.95)]
  found = confidence.departure(np.stack([centre, 3 * centre + 1, np.ones((24, 24)), *moved]))
  np.testing.assert_allclose(found[:3], 0, atol=1e-12)
  assert (np.diff(found[3:]) > 0).all()


def test_correlation_is_pearson_s():
  generator = np.random.default_rng(0)
  maps, targets = generator.random((2, 5, 6, 7))
  expected = [scipy.stats.pearsonr(x.ravel(), y.ravel()).statistic for x, y in zip(maps, targets)]
  np.testing.assert_allclose(confidence.correlation(maps, targets), expected)
  assert confidence.correlation(np.ones((1, 6, 7)), targets[:1]) == 0


def test_the_fit_recovers_what_maps_gain_at_their_departure():
  """Maps that find a spot beside the centre gain by it, and the more so the further it is away."""
  generator = np.random.default_rng(1)
  places = generator.uniform(0.1, 0.9, (400, 2))
  targets = np.stack([blob(*place) for place in places])
  maps = targets + 0.1 * generator.random(targets.shape)
  found = confidence.fit(maps, targets)
  assert len(found.departures) == confidence.KNOTS
  expected = confidence.correlation(maps, targets)
  expected -= confidence.correlation(np.broadcast_to(centre_factor((24, 24)), targets.shape), targets)
  assert scipy.stats.spearmanr(found.of(maps), expected).statistic > 0.9
  assert abs(found.of(maps).mean() - expected.mean()) < 0.05


def test_maps_that_depart_in_vain_earn_no_confidence():
  generator = np.random.default_rng(2)
  maps, targets = (np.stack([blob(*place) for place in generator.uniform(0.1, 0.9, (200, 2))]) for _ in range(2))
  assert confidence.fit(maps, targets).of(maps).mean() < 0.05


@pytest.mark.parametrize(
  "departures, gains", [((), ()), ((0.1, 0.1), (0, 1)), ((0.1, 0.2), (1, 0)), ((0.1,), (np.nan,)), ((0.1,), (0, 1))]
)
def test_a_curve_that_is_none_is_refused(departures, gains):
  with pytest.raises(ValueError, match="curve of confidence"):
    Confidence(departures, gains)


def test_too_few_maps_are_refused():
  with pytest.raises(ValueError, match="expected at least 8"):
    confidence.fit(np.ones((3, 4, 4)), np.ones((3, 4, 4)))
