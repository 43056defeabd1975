"""The events of a synthetic clip: its objects, their places in each frame, and the sound.

Lengths and positions are fractions of the frame's side, (x, y) with x to the right and y down; angles are radians.
Legend: n frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stajax.prepare.synthetic.categories import REPEAT_KINDS, REPEAT_PERCENT, TABLE, Category, Plan, plan_clip
from stajax.prepare.synthetic.design import Design, draw_colour, draw_design, pick
from stajax.prepare.synthetic.motion import MOTIONS, bounce, find_way_out, make_motion, rotate
from stajax.prepare.synthetic.textures import HELDOUT_TEXTURES, PLAIN_PARTS, TRAIN_TEXTURES

Part = Literal["train", "heldout"]
PARTS: tuple[str, ...] = ("train", "heldout")

BODY_DIAMETER = (0.25, 0.35)
DISTRACTOR_DIAMETER = (0.2, 0.33)
SILENT_ACTIVITY = 0.75  # where no object sounds, all of them move less
DISTRACTOR_ACTIVITY = 0.6
WANDER = 0.09  # the largest slow drift of an object along each axis during the whole clip
MOVER_SPEED = (0.18, 0.35)  # per second
BACKGROUND_SPEED = (0.02, 0.08)  # per second
MIN_FRAMES = 8


@dataclass(frozen=True)
class Settings:
  """The settings of rendering.

  Attributes:
    size: The side of the frames in pixels.
    rate: The frames per second.
    seconds: The length of a clip.
    viewers: The number of viewers of a held-out clip.
  """

  size: int = 128
  rate: float = 8.0
  seconds: float = 3.0
  viewers: int = 10

  def __post_init__(self) -> None:
    if self.size < 16 or self.viewers < 1 or self.num_frames < MIN_FRAMES:
      raise ValueError(f"synthetic clips need size >= 16, viewers >= 1 and {MIN_FRAMES} frames or more, got {self}")

  @property
  def num_frames(self) -> int:
    """The number of frames."""
    return round(self.seconds * self.rate)


@dataclass(frozen=True)
class Thing:
  """An object with its path through the clip.

  Attributes:
    design: The appearance of the object.
    centre: (n, 2) The centre of the body.
    angle: (n,) The angle.
    scale: (n,) The scale.
    drawn: (n,) bool, whether it is drawn, which includes one frame on its way in or out.
    present: (n,) bool, whether its part is inside the frame.
  """

  design: Design
  centre: np.ndarray
  angle: np.ndarray
  scale: np.ndarray
  drawn: np.ndarray
  present: np.ndarray

  @property
  def part_centre(self) -> np.ndarray:
    """The centre of its part, (n, 2)."""
    return self.centre + self.scale[:, None] * rotate(self.design.part_offset, self.angle)


@dataclass(frozen=True)
class Background:
  """The background.

  Attributes:
    texture: The family of its texture.
    texture_scale: The size of the texture's features in frame sides.
    colours: (2, 3) RGB in [0, 1].
    velocity: (2,) The velocity in frame sides per second.
  """

  texture: str
  texture_scale: float
  colours: np.ndarray
  velocity: np.ndarray


@dataclass(frozen=True)
class Scene:
  """A whole clip before it is rendered.

  Attributes:
    seed: The seed of all clips.
    index: The index of the clip.
    part: "train" or "heldout".
    settings: The settings of rendering.
    plan: The clip's tag and difficulty.
    background: The background.
    objects: The appearances of the tagged object in the order in which they come, all of one design.
    rivals: The appearances of every rival, alike.
    order: The order in which the tagged object (0) and the rivals (1, 2) are drawn.
    distractors: The distractors in the order in which they are drawn, all behind the objects.
    movers: (n,) The index of the moving or new distractor that viewers look at.
    activity: (n,) in [0, 1], the activity of the tagged object, which drives its motion and loudness.
    foreign: The other timbre that covers the track, or None.
  """

  seed: int
  index: int
  part: Part
  settings: Settings
  plan: Plan
  background: Background
  objects: tuple[Thing, ...]
  rivals: tuple[tuple[Thing, ...], ...]
  order: tuple[int, ...]
  distractors: tuple[Thing, ...]
  movers: np.ndarray
  activity: np.ndarray
  foreign: str | None

  @property
  def sounds(self) -> bool:
    """Whether the tagged object itself can be heard."""
    return self.plan.foreign != "instead"

  @property
  def things(self) -> tuple[Thing, ...]:
    """All that is drawn over the background, from back to front."""
    candidates = (self.objects, *self.rivals)
    return (*self.distractors, *(thing for place in self.order for thing in candidates[place]))

  @property
  def present(self) -> np.ndarray:
    """(n,) bool, whether any appearance of the tagged object is in the frame."""
    return np.any([thing.present for thing in self.objects], axis=0)

  @property
  def appearances(self) -> np.ndarray:
    """(n,) int, the number of times that the tagged object has appeared so far, at least 1."""
    return np.sum([np.maximum.accumulate(thing.present) for thing in self.objects], axis=0)


def make_generator(seed: int, index: int, part: str, purpose: str) -> np.random.Generator:
  """Returns a generator of random numbers for one purpose in one clip, independent of all other clips and purposes."""
  if part not in PARTS:
    raise ValueError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
  if seed < 0 or index < 0:
    raise ValueError(f"seed and index must not be negative, got {seed} and {index}")
  purpose_code = ("scene", "pixels", "sound", "viewers").index(purpose)
  return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, PARTS.index(part), index, purpose_code])))


def _draw_intervals(repeat: str | None, rng: np.random.Generator, n: int) -> list[tuple[int, int]]:
  """Draws the first frame and the end of each appearance of an object, at least 60% of the frames in total."""
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


def _draw_activity(rng: np.random.Generator, times: np.ndarray, level: float) -> np.ndarray:
  """Draws an object's rhythm: its activity (n,), which swells and falls around 0.85 times the level."""
  return level * (0.85 + 0.15 * np.sin(2 * np.pi * (rng.uniform(0.3, 0.6) * times + rng.random())))


def _draw_appearance(
  rng: np.random.Generator,
  category: Category,
  design: Design,
  times: np.ndarray,
  activity: np.ndarray,
  interval: tuple[int, int],
  others: Sequence[Thing],
) -> Thing:
  """Draws the path of an object within an interval of frames; it slides in and out over the nearest side."""
  start, stop = interval
  offset, angle, scale = make_motion(category.motion, rng, times, activity, design.part_offset)
  offset = offset + rng.uniform(-WANDER, WANDER, 2) * np.linspace(-0.5, 0.5, times.size)[:, None]
  part = offset + scale[:, None] * rotate(design.part_offset, angle)
  radius = 0.5 * design.part_diameter * scale.max()
  low = radius - part[start:stop].min(axis=0)
  high = 1 - radius - part[start:stop].max(axis=0)
  candidates = rng.uniform(low, high, (4 if others else 1, 2))
  if others:  # objects and later appearances are apart: each takes the farthest of four uniform places
    earlier = np.stack([thing.centre[thing.present].mean(axis=0) for thing in others])
    distance = np.linalg.norm(candidates[:, None] - earlier, axis=-1).min(axis=1)
    candidates = candidates[[np.argmax(distance)]]
  centre = candidates[0] + offset
  frames = np.arange(times.shape[0])
  present = (frames >= start) & (frames < stop)
  drawn = (frames >= start - 1) & (frames <= stop)
  for frame in (start - 1, stop):
    if 0 <= frame < frames.size:
      centre[frame] += find_way_out(candidates[0] + part[frame], radius)
  return Thing(design, centre, angle, scale, drawn, present)


def _draw_drifter(rng: np.random.Generator, design: Design, times: np.ndarray) -> Thing:
  """Draws the path of a distractor that moves across the frame during the whole clip."""
  direction, speed = rng.uniform(0, 2 * np.pi), rng.uniform(*MOVER_SPEED)
  path = rng.random(2) + speed * times[:, None] * np.array([np.cos(direction), np.sin(direction)])
  angle = rng.uniform(0, 2 * np.pi) + rng.uniform(-1.5, 1.5) * times
  always = np.ones(times.shape, bool)
  return Thing(design, bounce(path, 0.08, 0.92), angle, np.ones_like(times), always, always)


def _draw_bystander(rng: np.random.Generator, design: Design, times: np.ndarray, entry: int) -> Thing:
  """Draws the path of a distractor that stays in its place, still or in motion, and slides in at frame `entry`."""
  kind = pick(rng, ["still", "still", *MOTIONS])
  offset, angle, scale = make_motion(kind, rng, times, np.full(times.shape, DISTRACTOR_ACTIVITY), design.part_offset)
  place = rng.uniform(0.08, 0.92, 2)
  centre = place + offset
  frames = np.arange(times.shape[0])
  if entry > 0:
    remaining = np.clip(1 - (frames - entry) / 3, 0, 1)
    centre = centre + remaining[:, None] * find_way_out(place, 0.0)
  drawn = frames >= entry
  return Thing(design, centre, angle, scale, drawn, drawn)


def _draw_distractors(
  rng: np.random.Generator, part: Part, settings: Settings, times: np.ndarray
) -> tuple[list[Thing], np.ndarray]:
  """Draws one distractor that moves across and up to two that stay; returns them, and the index of the mover (n,)."""

  def draw_distractor() -> Design:
    return draw_design(rng, part, pick(rng, [*PLAIN_PARTS, None]), DISTRACTOR_DIAMETER)

  n = settings.num_frames
  distractors = [_draw_drifter(rng, draw_distractor(), times)]
  movers = np.zeros(n, int)
  for _ in range(rng.integers(0, 3)):
    is_new = movers.max() == 0 and rng.random() < 0.5
    entry = round(n * rng.uniform(0.2, 0.7)) if is_new else 0
    distractors.append(_draw_bystander(rng, draw_distractor(), times, entry))
    if is_new:
      movers[entry:] = len(distractors) - 1
  return distractors, movers


def _draw_background(rng: np.random.Generator, part: Part) -> Background:
  colour = draw_colour(rng, (0.0, 0.7), (0.3, 0.75))
  direction, speed = rng.uniform(0, 2 * np.pi), rng.uniform(*BACKGROUND_SPEED)
  return Background(
    texture=pick(rng, TRAIN_TEXTURES if part == "train" else HELDOUT_TEXTURES),
    texture_scale=rng.uniform(0.12, 0.4),
    colours=np.stack([colour, np.clip(colour + rng.uniform(-0.22, 0.22, 3), 0, 1)]),
    velocity=speed * np.array([np.cos(direction), np.sin(direction)]),
  )


def _draw_objects(
  rng: np.random.Generator, part: Part, plan: Plan, times: np.ndarray
) -> tuple[list[tuple[Thing, ...]], tuple[int, ...], np.ndarray]:
  """Draws the tagged object and its rivals by the same rules and in a random order, so that nothing tells them apart.

  Returns:
    The appearances of the tagged object and of each rival, the order in which they were drawn, and the activity (n,) of
    the tagged object.
  """
  categories = (plan.category, *plan.rivals)
  level = SILENT_ACTIVITY if plan.foreign == "instead" else 1.0
  order = tuple(int(place) for place in rng.permutation(len(categories)))
  drawn: dict[int, list[Thing]] = {}
  activities: dict[int, np.ndarray] = {}
  for place in order:
    category = categories[place]
    repeat = plan.repeat if place == 0 else _draw_repeat(rng)
    activities[place], drawn[place] = _draw_activity(rng, times, level), []
    design = draw_design(rng, part, category.look, BODY_DIAMETER)
    for interval in _draw_intervals(repeat, rng, times.size):
      others = [thing for things in drawn.values() for thing in things]
      drawn[place].append(_draw_appearance(rng, category, design, times, activities[place], interval, others))
  return [tuple(drawn[place]) for place in range(len(categories))], order, activities[0]


def _draw_repeat(rng: np.random.Generator) -> str | None:
  """Draws the repetition of a rival, which is as frequent as that of a tagged object."""
  return pick(rng, REPEAT_KINDS) if rng.random() < REPEAT_PERCENT / 100 else None


def make_scene(seed: int, index: int, part: Part, settings: Settings) -> Scene:
  """Decides everything that is seen and heard in a clip, except pixels and samples; it is a pure function.

  Raises:
    ValueError: `part` is unknown, or `seed` or `index` is negative.
  """
  rng = make_generator(seed, index, part, "scene")
  plan = plan_clip(index)
  times = np.arange(settings.num_frames) / settings.rate
  (objects, *rivals), order, activity = _draw_objects(rng, part, plan, times)
  distractors, movers = _draw_distractors(rng, part, settings, times)
  visible = {category.timbre for category in (plan.category, *plan.rivals)}
  timbres = sorted({category.timbre for category in TABLE} - visible)
  return Scene(
    seed=seed,
    index=index,
    part=part,
    settings=settings,
    plan=plan,
    background=_draw_background(rng, part),
    objects=objects,
    rivals=tuple(rivals),
    order=order,
    distractors=tuple(distractors),
    movers=movers,
    activity=activity,
    foreign=pick(rng, timbres) if plan.foreign else None,
  )
