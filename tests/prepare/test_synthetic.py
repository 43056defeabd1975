"""Synthetic clips are reproducible and as difficult as documented, and viewers look where the rule says."""

import collections
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import chisquare

from helpers.paths import ROOT
from stajax.prepare.synthetic import CATEGORIES, Part, Settings, draw_viewing, make_clip, make_scene
from stajax.prepare.synthetic.categories import TABLE, plan_clip
from stajax.prepare.synthetic.render import render
from stajax.prepare.synthetic.textures import HELDOUT_TEXTURES, LOOKS, PLAIN_PARTS, TRAIN_TEXTURES
from stajax.prepare.synthetic.timbre import TIMBRES, synthesise
from stajax.prepare.synthetic.viewers import make_mixture, sample_positions

SETTINGS = Settings(size=64)
SEED = 5


def first_index(**wanted) -> int:
  """Returns the index of the first clip whose plan has these values."""
  return next(i for i in range(100) if all(getattr(plan_clip(i), name) == value for name, value in wanted.items()))


def digest(index: int, part: Part) -> str:
  clip = make_clip(SEED, index, part, SETTINGS)
  return hashlib.sha256(clip.frames.tobytes() + clip.samples.tobytes()).hexdigest()


def test_clips_have_the_documented_form():
  clip = make_clip(SEED, 3, "train", SETTINGS)
  assert clip.frames.shape == (24, 64, 64, 3) and clip.frames.dtype == np.uint8
  assert clip.samples.shape == (48000,) and clip.samples.dtype == np.float32
  assert np.abs(clip.samples).max() <= 1 and np.abs(clip.samples).max() > 0.1
  assert clip.tag == "rocker" and clip.rate == 8.0 and clip.flags == ("foreign", "repeat", "rivals")
  short = make_clip(SEED, 3, "train", Settings(size=20, rate=10, seconds=1.25))
  assert short.frames.shape == (12, 20, 20, 3) and short.samples.shape == (20000,)
  assert make_clip(SEED, 0, "train", Settings(size=20, seconds=30)).frames.shape[0] == 240


def test_clips_are_pure_functions_of_their_arguments():
  cases: list[tuple[int, Part]] = [(3, "train"), (13, "heldout"), (1, "train")]
  here = [digest(*case) for case in cases]
  assert [digest(*case) for case in reversed(cases)] == here[::-1]
  assert len({*here, digest(3, "heldout"), digest(103, "train")}) == 5
  code = f"from tests.prepare.test_synthetic import digest; print([digest(*case) for case in {cases}])"
  tests = ROOT / "tests"
  python_path = {"PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
  elsewhere = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | python_path
  ).stdout
  assert elsewhere.strip() == str(here)
  first, again = (draw_viewing(SEED, 13, "heldout", SETTINGS) for _ in range(2))
  np.testing.assert_array_equal(first.fixations, again.fixations)
  np.testing.assert_array_equal(first.density, again.density)


@pytest.mark.parametrize("start", [0, 1, 37, 250])
def test_difficulties_have_exact_shares_whatever_the_tag(start):
  plans = [plan_clip(i) for i in range(start, start + 100)]
  foreign = [p for p in plans if p.foreign]
  repeat = [p for p in plans if p.repeat]
  assert len(foreign) == 36 and sum(p.foreign == "instead" for p in foreign) == 18
  assert len(repeat) == 24 and {sum(p.repeat == kind for p in repeat) for kind in ("returns", "copies", "leaves")} == {
    7,
    8,
    9,
  }
  assert sum(1 for p in foreign if p.repeat) == 9  # independent: 36% of 24 are 8.64
  for tag in CATEGORIES:
    assert sum(p.category.tag == tag for p in plans) == 10
    assert sum(p.category.tag == tag for p in foreign) in (3, 4)
    assert sum(p.category.tag == tag for p in repeat) in (2, 3)


def test_a_small_held_out_part_has_its_difficulties_too():
  plans = [plan_clip(i) for i in range(60)]
  assert sum(p.foreign is not None for p in plans) >= 18 and sum(p.repeat is not None for p in plans) >= 12


def visible(index: int) -> frozenset[str]:
  plan = plan_clip(index)
  return frozenset([plan.category.tag, *(rival.tag for rival in plan.rivals)])


def right_by_sight(indices: range, num_visible: int) -> float:
  """Returns how often the best rule is right about the tag that knows the visible categories, but not the sound."""
  counts: dict[frozenset[str], collections.Counter[str]] = {}
  for index in indices:
    if len(visible(index)) == num_visible:
      counts.setdefault(visible(index), collections.Counter())[plan_clip(index).category.tag] += 1
  return sum(max(of.values()) for of in counts.values()) / sum(sum(of.values()) for of in counts.values())


def test_what_is_visible_does_not_say_which_object_the_tag_is_about():
  assert right_by_sight(range(1200), 2) == 1 / 2 and right_by_sight(range(1200), 3) == 1 / 3
  assert right_by_sight(range(400), 2) == 1 / 2 and right_by_sight(range(300), 3) == 1 / 3
  # Categories are equally often rivals, and so they are tags; all pairs and threes that can be are there.
  rivals = collections.Counter(rival.tag for index in range(1200) for rival in plan_clip(index).rivals)
  assert rivals == dict.fromkeys(CATEGORIES, 120)
  sets = {visible(index) for index in range(1200)}
  assert sorted(collections.Counter(map(len, sets)).items()) == [(1, 10), (2, 40), (3, 80)]


@pytest.mark.parametrize("start", [0, 20, 150])
def test_most_clips_have_rivals_whatever_their_difficulty(start):
  plans = [plan_clip(i) for i in range(start, start + 100)]
  numbers = collections.Counter(len(p.rivals) for p in plans)
  assert numbers == {0: 20, 1: 60, 2: 20}
  for difficulty in ("foreign", "repeat"):
    hard = [p for p in plans if getattr(p, difficulty)]
    assert abs(sum(bool(p.rivals) for p in hard) / len(hard) - 0.8) < 0.06


def test_own_sound_names_the_tag_among_what_is_visible():
  for plan in map(plan_clip, range(1200)):
    assert not {plan.category.look, plan.category.timbre} & {x for r in plan.rivals for x in (r.look, r.timbre)}
    assert len({r.look for r in plan.rivals}) == len(plan.rivals)


def test_rivals_look_and_move_like_tagged_objects():
  """Nothing but the category differs: a rule that has learned from many clips picks the tagged object by chance."""

  def features(scene, place: int) -> list[float]:
    things = (scene.objects, *scene.rivals)[place]
    first, path = things[0], things[0].part_centre
    design, steps = first.design, np.linalg.norm(np.diff(path, axis=0), axis=1)
    present = np.any([thing.present for thing in things], axis=0)
    whole = [design.diameter, design.part_diameter, design.texture_scale, *design.colours.ravel()]
    place_and_path = [*path[0], *np.abs(path[0] - 0.5), steps.mean(), steps.std(), np.ptp(first.scale)]
    return [*whole, *place_and_path, len(things), present.mean(), float(scene.order.index(place))]

  scenes = [make_scene(SEED, i, "train", SETTINGS) for i in range(1200)]
  scenes = [scene for scene in scenes if len(scene.rivals) == 1]
  difference = np.array([np.subtract(features(scene, 0), features(scene, 1)) for scene in scenes])
  difference /= difference.std(axis=0)
  half = len(scenes) // 2
  rule = np.linalg.lstsq(difference[:half], np.ones(half), rcond=None)[0]
  right = np.mean(difference[half:] @ rule > 0)
  assert abs(right - 0.5) < 3 * 0.5 / half**0.5
  assert np.abs(difference.mean(axis=0)).max() < 4 / len(scenes) ** 0.5


def test_look_alikes_differ_in_one_source_only():
  assert len(CATEGORIES) == len({*CATEGORIES}) == 10
  by_look = {look: [c for c in TABLE if c.look == look] for look in LOOKS}
  twins = [pair for pair in by_look.values() if len(pair) == 2]
  assert sorted(len(group) for group in by_look.values()) == [1, 1, 2, 2, 2, 2]
  differences = sorted((a.motion != b.motion, a.timbre != b.timbre) for a, b in twins)
  assert differences == [(False, True), (False, True), (True, False), (True, False)]
  assert not {*LOOKS} & {*PLAIN_PARTS}


def test_bodies_colours_and_backgrounds_do_not_reveal_the_tag():
  def features(scene) -> np.ndarray:
    design, background = scene.objects[0].design, scene.background
    outline, fill, behind = (hash_to_unit(name) for name in (design.outline, design.texture, background.texture))
    numbers = [design.diameter, design.part_diameter, design.texture_scale, len(scene.distractors)]
    colours = design.colours.ravel(), background.colours.ravel()
    return np.concatenate([numbers, [outline, fill, behind], *colours, scene.objects[0].centre[0]])

  def hash_to_unit(name: str) -> float:
    return hashlib.sha256(name.encode()).digest()[0] / 256

  scenes = [make_scene(SEED, i, "train", SETTINGS) for i in range(500)]
  x, tags = np.stack([features(scene) for scene in scenes]), np.arange(500) % 10
  x = (x - x.mean(axis=0)) / x.std(axis=0)
  centroids = np.stack([x[:250][tags[:250] == tag].mean(axis=0) for tag in range(10)])
  guess = np.argmin(((x[250:, None] - centroids) ** 2).sum(axis=-1), axis=1)
  assert np.mean(guess == tags[250:]) < 0.17  # chance is 0.1 with a standard deviation of 0.019


def test_held_out_textures_are_new():
  assert not {*TRAIN_TEXTURES} & {*HELDOUT_TEXTURES}
  of_parts: dict[Part, set[str]] = {"train": {*TRAIN_TEXTURES}, "heldout": {*HELDOUT_TEXTURES}}
  for part, families in of_parts.items():
    used = set()
    for index in range(40):
      scene = make_scene(SEED, index, part, SETTINGS)
      used |= {thing.design.texture for thing in (*scene.objects, *scene.distractors)} | {scene.background.texture}
    assert used == families


@pytest.mark.parametrize("part", ["train", "heldout"])
def test_objects_are_in_the_frame_when_present(part):
  cells = np.zeros((3, 3))
  for index in range(200):
    scene = make_scene(SEED, index, part, SETTINGS)
    assert scene.present.mean() >= 0.6
    assert 1 <= len(scene.distractors) <= 3
    for thing in (thing for things in (scene.objects, *scene.rivals) for thing in things):
      radius = 0.5 * thing.design.part_diameter * thing.scale[:, None]
      inside = np.all((thing.part_centre >= radius - 1e-9) & (thing.part_centre <= 1 - radius + 1e-9), axis=1)
      outside = np.any((thing.part_centre <= -radius + 1e-9) | (thing.part_centre >= 1 + radius - 1e-9), axis=1)
      assert inside[thing.present].all()
      assert outside[thing.drawn & ~thing.present].all()
    kind = scene.plan.repeat
    assert scene.present.all() == (kind in (None, "copies"))
    assert (scene.appearances.max() >= 2) == (kind in ("returns", "copies"))
    moves = np.linalg.norm(np.diff(scene.distractors[0].centre, axis=0), axis=1)
    assert moves.mean() > 0.015  # there is always a mover
    column, row = (scene.objects[0].part_centre[0] * 3).astype(int)
    cells[row, column] += 1
  assert cells.min() > 200 * 0.05  # a ninth would be uniform


def test_parts_of_moving_objects_move_far_enough_to_be_seen():
  for digit, category in enumerate(TABLE):
    steps = []
    for index in range(digit, 200, 10):
      thing = make_scene(SEED, index, "train", SETTINGS).objects[0]
      path = thing.centre if category.motion == "rock" else thing.part_centre
      steps.append(np.linalg.norm(np.diff(path[thing.present], axis=0), axis=1).mean())
    assert np.mean(steps) > (0.025 if category.motion == "pulse" else 0.04)
  shaker, hopper = (make_scene(SEED, digit, "train", SETTINGS).objects[0].part_centre for digit in (0, 1))
  assert np.ptp(shaker[:, 0]) > 2 * np.ptp(shaker[:, 1]) and np.ptp(hopper[:, 1]) > 2 * np.ptp(hopper[:, 0])
  rocker = make_scene(SEED, 33, "train", SETTINGS).objects[0]
  assert np.ptp(rocker.part_centre, axis=0).max() < 0.1 < np.ptp(rocker.centre, axis=0).max()


def test_parts_are_drawn_at_their_centres():
  settings = Settings()
  y, x = (np.mgrid[:128, :128] + 0.5) / 128
  for index in range(10):
    scene = make_scene(SEED, index, "heldout", settings)
    frames = render(scene) / 255
    thing = scene.objects[-1]
    for frame in np.flatnonzero(thing.present)[[0, -1]]:
      centre = thing.part_centre[frame]
      near = np.hypot(x - centre[0], y - centre[1]) < 0.5 * thing.design.part_diameter * thing.scale[frame] * 0.95
      brightness = frames[frame].max(axis=-1)[near]
      assert near.sum() > 50 and brightness.max() > 0.85 and brightness.min() < 0.3
      assert 0.15 < np.mean(brightness > 0.6) < 0.75  # a figure on a ground, both large


def density_of(scene, frame: int) -> np.ndarray:
  """Returns the mixture's probability of a fixation in each pixel of a frame, (size, size) float64 that sum to 1."""
  mixture = make_mixture(scene)
  edges = np.linspace(0, 1, scene.settings.size + 1)
  z = (edges - mixture.mean[frame][..., None]) / mixture.sigma[frame][:, None, None]  # (k, 2, size + 1)
  mass = np.diff(ndtr(z), axis=-1)
  mass /= mass.sum(axis=-1, keepdims=True)
  return np.einsum("k,kw,kh->hw", mixture.weight[frame], mass[:, 0], mass[:, 1])


def slow_density(scene, frame: int) -> np.ndarray:
  """Returns the density according to the rule: Gaussians at nine points of each pixel, each normalised in the frame."""
  size, fine = scene.settings.size, 3 * scene.settings.size
  y, x = (np.mgrid[:fine, :fine] + 0.5) / fine

  def bump(centre, sigma):
    values = np.exp(-0.5 * ((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / sigma**2)
    return values.reshape(size, 3, size, 3).sum(axis=(1, 3)) / values.sum()

  visible = [thing for thing in scene.objects if thing.present[frame]]
  so_far = sum(thing.present[: frame + 1].any() for thing in scene.objects)
  factor = {1: 1.0, 2: 0.5, 3: 0.25}[int(so_far)] if visible and scene.plan.foreign != "instead" else 0.0
  density = 0.15 * bump((0.5, 0.5), 0.2)
  for thing in visible:
    scale = thing.scale[frame]
    part = bump(thing.part_centre[frame], 0.5 * thing.design.part_diameter * scale)
    body = bump(thing.centre[frame], 0.3 * thing.design.diameter * scale)
    density += factor * (0.6 * part + 0.15 * body) / len(visible)
  newest = max((d for d in scene.distractors if d.drawn[frame]), key=lambda d: int(np.argmax(d.drawn)))
  across = newest.design.diameter * newest.scale[frame]
  return density + (0.1 + 0.75 * (1 - factor)) * bump(newest.centre[frame], 0.3 * across)


@pytest.mark.parametrize(
  "wanted",
  [
    {"foreign": None, "repeat": None},
    {"foreign": "over", "repeat": None},
    {"foreign": "instead", "repeat": None},
    {"foreign": None, "repeat": "returns"},
    {"foreign": None, "repeat": "copies"},
    {"foreign": None, "repeat": "leaves"},
    {"foreign": "over", "repeat": "returns"},
  ],
)
def test_density_is_the_fixed_mixture(wanted):
  scene = make_scene(SEED, first_index(**wanted), "heldout", SETTINGS)
  for frame in (0, 11, 23):
    density = density_of(scene, frame)
    assert density.shape == (64, 64) and density.dtype == np.float64 and density.min() >= 0
    assert density.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(density, slow_density(scene, frame), atol=0.01 * density.max())


def test_most_of_the_density_lies_on_the_part_where_nothing_disturbs():
  scene = make_scene(SEED, first_index(foreign=None, repeat=None), "heldout", SETTINGS)
  y, x = (np.mgrid[:64, :64] + 0.5) / 64
  thing = scene.objects[0]
  distance = np.hypot(x - thing.part_centre[5, 0], y - thing.part_centre[5, 1])
  share = density_of(scene, 5)[distance < 1.25 * thing.design.part_diameter].sum()  # 2.5 standard deviations
  assert 0.57 < share < 0.8


@pytest.mark.parametrize("wanted", [{"foreign": None, "repeat": None}, {"foreign": None, "repeat": "copies"}])
def test_viewers_follow_the_density_at_every_frame(wanted):
  scene = make_scene(SEED, first_index(**wanted), "heldout", SETTINGS)
  viewers = 4000
  gaze = sample_positions(scene, viewers, np.random.default_rng(0))
  assert gaze.shape == (24, viewers, 2) and gaze.min() >= 0 and gaze.max() < 1
  for frame in (0, 1, 12, 23):
    expected = density_of(scene, frame).reshape(16, 4, 16, 4).sum(axis=(1, 3)).ravel() * viewers
    pixel = (gaze[frame] * 16).astype(int)
    counts = np.bincount(pixel[:, 1] * 16 + pixel[:, 0], minlength=256)
    rare = expected < 8
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    assert chisquare(counts, expected).pvalue > 1e-3
  # They hold a target for 2 to 4 frames: in two of three steps the gaze only follows it.
  steps = np.linalg.norm(np.diff(gaze, axis=0), axis=-1)
  assert 0.6 < np.mean(steps < 0.13) < 0.95


def test_viewing_is_blurred_fixations():
  settings = Settings(size=64, viewers=4)
  viewing = draw_viewing(SEED, 1, "heldout", settings)
  assert viewing.fixations.shape == viewing.density.shape == (24, 64, 64)
  assert viewing.fixations.dtype == bool and viewing.density.dtype == np.uint8
  counts = viewing.fixations.sum(axis=(1, 2))
  assert counts.min() >= 1 and counts.max() == 4
  assert (viewing.density.max(axis=(1, 2)) == 255).all()
  y, x = np.mgrid[:64, :64]
  frame = int(np.argmax(counts))  # no two viewers share a pixel here
  rows, columns = np.nonzero(viewing.fixations[frame])
  bumps = [np.exp(-((x - c) ** 2 + (y - r) ** 2) / (2 * (64 / 40) ** 2)) for r, c in zip(rows, columns)]
  expected = np.sum(bumps, axis=0)
  np.testing.assert_allclose(viewing.density[frame], 255 * expected / expected.max(), atol=3)


def test_timbres_differ_in_every_second():
  def features(sound: np.ndarray) -> np.ndarray:
    power = np.abs(np.fft.rfft(sound.reshape(50, 320) * np.hanning(320), axis=1)) ** 2
    return np.log(power + 1e-2).reshape(50, 161)[:, 1:].reshape(50, 20, 8).mean(axis=2)

  def describe(timbre: str, part: str, number: int) -> np.ndarray:
    rng = np.random.default_rng([number, len(timbre), part == "train"])
    sound = synthesise(timbre, rng, part, 48000) + 0.1 * rng.standard_normal(48000)
    spectra = features(sound[(start := 16000 * (number % 3)) : start + 16000])
    return np.concatenate([spectra.mean(axis=0), spectra.std(axis=0)])

  centroids = np.stack([np.mean([describe(t, "train", k) for k in range(12)], axis=0) for t in TIMBRES])
  right = []
  for expected, timbre in enumerate(TIMBRES):
    for number in range(6):
      right.append(np.argmin(((centroids - describe(timbre, "heldout", number)) ** 2).sum(axis=1)) == expected)
  assert np.mean(right) > 0.8


def test_foreign_sound_is_another_timbre():
  for index in range(100):
    scene = make_scene(SEED, index, "train", SETTINGS)
    assert (scene.foreign is not None) == (scene.plan.foreign is not None)
    assert scene.foreign not in {scene.plan.category.timbre, *(rival.timbre for rival in scene.plan.rivals)}


def test_bad_arguments_are_named():
  with pytest.raises(ValueError, match="part must be one of train, heldout, got 'test'"):
    make_clip(0, 0, "test", SETTINGS)  # pyright: ignore[reportArgumentType]  # which is the mistake
  with pytest.raises(ValueError, match="must not be negative, got -1 and 0"):
    make_clip(-1, 0, "train", SETTINGS)
  with pytest.raises(ValueError, match="only clips of the part 'heldout' have viewers"):
    draw_viewing(0, 0, "train", SETTINGS)
  with pytest.raises(ValueError, match="8 frames or more"):
    Settings(seconds=0.5)
