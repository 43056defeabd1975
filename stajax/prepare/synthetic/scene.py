"""What happens in a synthetic clip: which objects there are, where each is at each frame, what sounds.

Lengths and positions are fractions of the frame's side, (x, y) with x to the right and y down; angles are radians.
Legend: n frames.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from stajax.prepare.synthetic.categories import TABLE, Plan, plan
from stajax.prepare.synthetic.motion import MOTIONS, bounce, motion, rotate, way_out
from stajax.prepare.synthetic.textures import HELDOUT_TEXTURES, OUTLINES, PLAIN_PARTS, TRAIN_TEXTURES

Part = Literal["train", "heldout"]
PARTS: tuple[str, ...] = ("train", "heldout")

BODY_DIAMETER = (0.25, 0.35)
PART_DIAMETER = (0.085, 0.11)
DISTRACTOR_DIAMETER = (0.2, 0.33)
SILENT_ACTIVITY = 0.75  # a silent object moves less than a sounding one
DISTRACTOR_ACTIVITY = 0.6
WANDER = 0.09  # largest slow drift of an object along each axis, in the whole clip
MOVER_SPEED = (0.18, 0.35)  # a second
BACKGROUND_SPEED = (0.02, 0.08)  # a second
MIN_FRAMES = 8


@dataclass(frozen=True)
class Settings:
  """How clips are rendered: side in pixels, frames a second, length in seconds, viewers of a held-out clip."""

  size: int = 128
  rate: float = 8.0
  seconds: float = 3.0
  viewers: int = 10

  def __post_init__(self) -> None:
    if self.size < 16 or self.viewers < 1 or self.num_frames < MIN_FRAMES:
      raise ValueError(f"synthetic clips need size >= 16, viewers >= 1 and {MIN_FRAMES} frames or more, got {self}")

  @property
  def num_frames(self) -> int:
    return round(self.seconds * self.rate)


@dataclass(frozen=True)
class Design:
  """How an object looks. `part` is a look, the plain part of a distractor, or None; colours are RGB in [0, 1]."""

  outline: str
  diameter: float
  texture: str
  texture_scale: float  # in body diameters
  texture_seed: int
  colours: np.ndarray  # (4, 3): two of the body, light and dark of the part
  part: str | None
  part_diameter: float
  part_offset: np.ndarray  # (2,) from the body's centre at angle 0 and scale 1
  part_angle: float


@dataclass(frozen=True)
class Thing:
  """A design and its way through the clip: centre (n, 2), angle (n,), scale (n,), drawn (n,) and present (n,) bool.

  It is present where its part is inside the frame; it is also drawn for a frame on its way in or out.
  """

  design: Design
  centre: np.ndarray
  angle: np.ndarray
  scale: np.ndarray
  drawn: np.ndarray
  present: np.ndarray

  @property
  def part_centre(self) -> np.ndarray:
    """(n, 2)"""
    return self.centre + self.scale[:, None] * rotate(self.design.part_offset, self.angle)


@dataclass(frozen=True)
class Background:
  """What is behind everything; `velocity` in frame sides."""

  texture: str
  texture_scale: float
  colours: np.ndarray  # (2, 3)
  velocity: np.ndarray  # (2,) a second


@dataclass(frozen=True)
class Scene:
  """A whole clip before it is rendered.

  objects: the appearances of the tagged object in order of coming, all of one design.
  distractors: in order of drawing, all behind the objects.
  movers: (n,) which distractor is the moving or new one that viewers look at.
  activity: (n,) of the tagged object, in [0, 1]; drives its motion and its loudness.
  foreign: the other timbre that covers the track, or None.
  """

  seed: int
  index: int
  part: Part
  settings: Settings
  plan: Plan
  background: Background
  objects: tuple[Thing, ...]
  distractors: tuple[Thing, ...]
  movers: np.ndarray
  activity: np.ndarray
  foreign: str | None

  @property
  def sounds(self) -> bool:
    """Whether the tagged object itself can be heard."""
    return self.plan.foreign != "instead"

  @property
  def present(self) -> np.ndarray:
    """(n,) bool: some appearance of the tagged object is in the frame."""
    return np.any([thing.present for thing in self.objects], axis=0)

  @property
  def appearances(self) -> np.ndarray:
    """(n,) int: how many times the tagged object has appeared so far, at least 1."""
    return np.sum([np.maximum.accumulate(thing.present) for thing in self.objects], axis=0)


def generator(seed: int, index: int, part: str, purpose: str) -> np.random.Generator:
  """The random numbers for one purpose in one clip: no other clip or purpose shares them."""
  if part not in PARTS:
    raise ValueError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
  if seed < 0 or index < 0:
    raise ValueError(f"seed and index must not be negative, got {seed} and {index}")
  purpose_code = ("scene", "pixels", "sound", "viewers").index(purpose)
  return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, PARTS.index(part), index, purpose_code])))


def random_colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> np.ndarray:
  """(3,) RGB in [0, 1] of any hue."""
  hue, s, v = rng.uniform(0, 6), rng.uniform(*saturation), rng.uniform(*value)
  distance = np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3)
  return v * (1 - s + s * np.clip(distance - 1, 0, 1))


def _pick(rng: np.random.Generator, names) -> str:
  return list(names)[rng.integers(len(names))]


def _design(rng: np.random.Generator, part: str, look: str | None, diameter: tuple[float, float]) -> Design:
  outline = _pick(rng, OUTLINES)
  across = rng.uniform(*diameter)
  direction = rng.uniform(0, 2 * np.pi)
  rim = 0.5 * across * OUTLINES[outline](np.array([direction]))[0]
  return Design(
    outline=outline,
    diameter=across,
    texture=_pick(rng, TRAIN_TEXTURES if part == "train" else HELDOUT_TEXTURES),
    texture_scale=rng.uniform(0.25, 0.6),
    texture_seed=int(rng.integers(2**31)),
    colours=np.stack(
      [
        random_colour(rng, (0.2, 0.9), (0.3, 0.8)),
        random_colour(rng, (0.2, 0.9), (0.3, 0.8)),
        random_colour(rng, (0.0, 0.35), (0.92, 1.0)),
        random_colour(rng, (0.3, 1.0), (0.05, 0.2)),
      ]
    ),
    part=look,
    part_diameter=rng.uniform(*PART_DIAMETER),
    part_offset=rng.uniform(0.75, 1.0) * rim * np.array([np.cos(direction), np.sin(direction)]),
    part_angle=rng.uniform(0, 2 * np.pi),
  )


def _intervals(repeat: str | None, rng: np.random.Generator, n: int) -> list[tuple[int, int]]:
  """First frame and end of each appearance of the tagged object. Together they cover at least 60% of the frames."""
  if repeat == "leaves":
    return [(0, round(n * rng.uniform(0.65, 0.85)))]
  if repeat == "copies":
    starts = [0, round(n * rng.uniform(0.3, 0.45)), round(n * rng.uniform(0.6, 0.75))]
    return [(start, n) for start in starts[: rng.integers(2, 4)]]
  if repeat == "returns" and n >= 20 and rng.random() < 0.5:
    first, gap = round(n * rng.uniform(0.2, 0.35)), max(2, round(n * rng.uniform(0.08, 0.15)))
    second, other = round(n * rng.uniform(0.65, 0.75)), max(2, round(n * rng.uniform(0.08, 0.15)))
    return [(0, first), (first + gap, second), (second + other, n)]
  if repeat == "returns":
    first, gap = round(n * rng.uniform(0.3, 0.55)), max(2, round(n * rng.uniform(0.1, 0.3)))
    return [(0, first), (first + gap, n)]
  return [(0, n)]


def _appearance(
  rng: np.random.Generator,
  design: Design,
  kind: str,
  times: np.ndarray,
  activity: np.ndarray,
  interval: tuple[int, int],
  others: list[Thing],
) -> Thing:
  """The tagged object from frame `interval[0]` up to `interval[1]`, sliding in and out over the nearest side."""
  start, stop = interval
  offset, angle, scale = motion(kind, rng, times, activity, design.part_offset)
  offset = offset + rng.uniform(-WANDER, WANDER, 2) * np.linspace(-0.5, 0.5, times.size)[:, None]
  part = offset + scale[:, None] * rotate(design.part_offset, angle)
  radius = 0.5 * design.part_diameter * scale.max()
  low = radius - part[start:stop].min(axis=0)
  high = 1 - radius - part[start:stop].max(axis=0)
  candidates = rng.uniform(low, high, (4 if others else 1, 2))
  if others:  # a further appearance is somewhere else: the farthest of four uniform places
    earlier = np.stack([thing.centre[thing.present].mean(axis=0) for thing in others])
    distance = np.linalg.norm(candidates[:, None] - earlier, axis=-1).min(axis=1)
    candidates = candidates[[np.argmax(distance)]]
  centre = candidates[0] + offset
  frames = np.arange(times.shape[0])
  present = (frames >= start) & (frames < stop)
  drawn = (frames >= start - 1) & (frames <= stop)
  for frame in (start - 1, stop):
    if 0 <= frame < frames.size:
      centre[frame] += way_out(candidates[0] + part[frame], radius)
  return Thing(design, centre, angle, scale, drawn, present)


def _drifter(rng: np.random.Generator, design: Design, times: np.ndarray) -> Thing:
  """A distractor that moves across the frame for the whole clip."""
  direction, speed = rng.uniform(0, 2 * np.pi), rng.uniform(*MOVER_SPEED)
  path = rng.random(2) + speed * times[:, None] * np.array([np.cos(direction), np.sin(direction)])
  angle = rng.uniform(0, 2 * np.pi) + rng.uniform(-1.5, 1.5) * times
  always = np.ones(times.shape, bool)
  return Thing(design, bounce(path, 0.08, 0.92), angle, np.ones_like(times), always, always)


def _bystander(rng: np.random.Generator, design: Design, times: np.ndarray, entry: int) -> Thing:
  """A distractor that stays in its place, with some motion of its own or none; it slides in at frame `entry`."""
  kind = _pick(rng, ["still", "still", *MOTIONS])
  offset, angle, scale = motion(kind, rng, times, np.full(times.shape, DISTRACTOR_ACTIVITY), design.part_offset)
  place = rng.uniform(0.08, 0.92, 2)
  centre = place + offset
  frames = np.arange(times.shape[0])
  if entry > 0:
    remaining = np.clip(1 - (frames - entry) / 3, 0, 1)
    centre = centre + remaining[:, None] * way_out(place, 0.0)
  drawn = frames >= entry
  return Thing(design, centre, angle, scale, drawn, drawn)


def make_scene(seed: int, index: int, part: Part, settings: Settings) -> Scene:
  """Decides everything that is seen and heard in a clip, except pixels and samples. A pure function.

  Raises:
    ValueError: `part` is unknown, or `seed` or `index` is negative.
  """
  rng = generator(seed, index, part, "scene")
  decided = plan(index)
  n = settings.num_frames
  times = np.arange(n) / settings.rate
  activity = 0.85 + 0.15 * np.sin(2 * np.pi * (rng.uniform(0.3, 0.6) * times + rng.random()))
  if decided.foreign == "instead":
    activity = activity * SILENT_ACTIVITY

  design = _design(rng, part, decided.category.look, BODY_DIAMETER)
  objects: list[Thing] = []
  for interval in _intervals(decided.repeat, rng, n):
    objects.append(_appearance(rng, design, decided.category.motion, times, activity, interval, objects))

  def distractor_design() -> Design:
    return _design(rng, part, _pick(rng, [*PLAIN_PARTS, None]), DISTRACTOR_DIAMETER)

  distractors = [_drifter(rng, distractor_design(), times)]
  movers = np.zeros(n, int)
  for _ in range(rng.integers(0, 3)):
    is_new = movers.max() == 0 and rng.random() < 0.5
    entry = round(n * rng.uniform(0.2, 0.7)) if is_new else 0
    distractors.append(_bystander(rng, distractor_design(), times, entry))
    if is_new:
      movers[entry:] = len(distractors) - 1

  colour = random_colour(rng, (0.0, 0.7), (0.3, 0.75))
  direction, speed = rng.uniform(0, 2 * np.pi), rng.uniform(*BACKGROUND_SPEED)
  background = Background(
    texture=_pick(rng, TRAIN_TEXTURES if part == "train" else HELDOUT_TEXTURES),
    texture_scale=rng.uniform(0.12, 0.4),
    colours=np.stack([colour, np.clip(colour + rng.uniform(-0.22, 0.22, 3), 0, 1)]),
    velocity=speed * np.array([np.cos(direction), np.sin(direction)]),
  )
  timbres = sorted({category.timbre for category in TABLE} - {decided.category.timbre})
  foreign = _pick(rng, timbres) if decided.foreign else None
  return Scene(
    seed, index, part, settings, decided, background, tuple(objects), tuple(distractors), movers, activity, foreign
  )
