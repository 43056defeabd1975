"""The places where viewers look in a synthetic clip: a density that a rule fixes, and fixations drawn from it.

The density of a frame is a mixture of Gaussians that are cut off at the frame's sides. 60% of the viewers look at the
distinctive part of the sounding tagged object, 15% at its body, 10% at the mover (the distractor that came last, or
else the one that moves across) and 15% at the middle.

The object's 75% shrink with every appearance (`REPEAT_FACTORS`) and are split among its copies in the frame. They are
0 while the object makes no sound of its own or is out of the frame. What the object loses goes to the mover.
Legend: n frames, k components, v viewers.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr, ndtri

from stajax.prepare.synthetic.scene import Scene, make_generator

PART_SHARE = 0.60
BODY_SHARE = 0.15
MOVER_SHARE = 0.10
CENTRE_SHARE = 0.15
REPEAT_FACTORS = (1.0, 0.5, 0.25)  # factors of the object's share at its first, second and third appearance

# Standard deviations as fractions of an object's diameter or of the frame's side.
PART_SIGMA = 0.5
BODY_SIGMA = 0.3
CENTRE_SIGMA = 0.2
DENSITY_SIGMA = 1 / 40  # for the Gaussian that turns fixations into a density map, in frame sides
HOLD_FRAMES = (2, 4)  # a viewer stays with what they look at for 2 to 4 frames


@dataclass(frozen=True)
class Mixture:
  """The mixtures of Gaussians of all frames.

  Attributes:
    weight: (n, k) The weights, which sum to 1 over k.
    mean: (n, k, 2) The means as (x, y).
    sigma: (n, k) The standard deviations.
  """

  weight: np.ndarray
  mean: np.ndarray
  sigma: np.ndarray


@dataclass(frozen=True)
class Viewing:
  """The fixations of a clip's viewers.

  Attributes:
    fixations: (n, size, size) bool.
    density: (n, size, size) uint8; the maximum of each map is 255.
  """

  fixations: np.ndarray
  density: np.ndarray


def make_mixture(scene: Scene) -> Mixture:
  """Returns the mixtures: the part and the body of each appearance of the object, then the mover and the middle."""
  n = scene.settings.num_frames
  present = np.stack([thing.present for thing in scene.objects], axis=1)
  factor = np.asarray(REPEAT_FACTORS)[scene.appearances - 1] * (present.any(axis=1) & scene.sounds)
  each = present * (factor / np.maximum(present.sum(axis=1), 1))[:, None]
  weights, means, sigmas = [], [], []
  for i, thing in enumerate(scene.objects):
    weights += [PART_SHARE * each[:, i], BODY_SHARE * each[:, i]]
    means += [thing.part_centre, thing.centre]
    sigmas += [PART_SIGMA * thing.design.part_diameter * thing.scale, BODY_SIGMA * thing.design.diameter * thing.scale]
  frames = np.arange(n)
  weights += [MOVER_SHARE + (PART_SHARE + BODY_SHARE) * (1 - factor), np.full(n, CENTRE_SHARE)]
  movers = np.stack([thing.centre for thing in scene.distractors])[scene.movers, frames]
  diameters = np.stack([thing.design.diameter * thing.scale for thing in scene.distractors])[scene.movers, frames]
  means += [movers, np.full((n, 2), 0.5)]
  sigmas += [BODY_SIGMA * diameters, np.full(n, CENTRE_SIGMA)]
  return Mixture(np.stack(weights, axis=1), np.stack(means, axis=1), np.stack(sigmas, axis=1))


def sample_positions(scene: Scene, num_viewers: int, rng: np.random.Generator) -> np.ndarray:
  """Draws the place where each viewer looks in each frame, (n, v, 2) in [0, 1) as (x, y).

  A viewer keeps three uniform numbers for 2 to 4 frames: one chooses the component, and two are quantiles that choose
  the place within it, so that the gaze follows a moving object. The times of new numbers do not depend on the numbers;
  therefore these are uniform in every frame, and the gaze has exactly the density of the frame.
  """
  mixture = make_mixture(scene)
  n = scene.settings.num_frames
  held = np.empty((n, num_viewers, 3))
  for viewer in range(num_viewers):
    frame = -int(rng.integers(HOLD_FRAMES[1]))
    while frame < n:
      end = frame + int(rng.integers(HOLD_FRAMES[0], HOLD_FRAMES[1], endpoint=True))
      held[max(frame, 0) : max(end, 0), viewer] = rng.random(3)
      frame = end
  choice = np.sum(held[..., :1] >= np.cumsum(mixture.weight, axis=1)[:, None, :-1], axis=-1)  # (n, v)
  mean = np.take_along_axis(mixture.mean, choice[..., None], axis=1)
  sigma = np.take_along_axis(mixture.sigma, choice, axis=1)[..., None]
  low, high = ndtr(-mean / sigma), ndtr((1 - mean) / sigma)
  return np.clip(mean + sigma * ndtri(low + held[..., 1:] * (high - low)), 0, np.nextafter(1, 0))


def make_viewing(scene: Scene) -> Viewing:
  """Draws one fixation of each viewer for every frame, and blurs the fixations as eye-tracking sets do."""
  size, n = scene.settings.size, scene.settings.num_frames
  rng = make_generator(scene.seed, scene.index, scene.part, "viewers")
  pixel = (sample_positions(scene, scene.settings.viewers, rng) * size).astype(int)
  counts = np.zeros((n, size, size))
  np.add.at(counts, (np.arange(n)[:, None], pixel[..., 1], pixel[..., 0]), 1)
  sigma = DENSITY_SIGMA * size
  density = gaussian_filter(counts, (0, sigma, sigma), mode="constant")
  density *= 255 / density.max(axis=(1, 2), keepdims=True)
  return Viewing(counts > 0, np.round(density).astype(np.uint8))
