"""Staged inference equals the whole network: for every network and kind of companion, for videos of 1 to 300 frames.

Videos go through `windows`, as in prediction; both ends and what lies around each window's border are compared.
"""

import functools

import numpy as np
import pytest

from helpers import tiny
from helpers.tiny import CATEGORIES, CONFIG, SIZE, make_boxes, make_samples, whole
from stajax import companions, networks
from stajax.grid import reflect
from stajax.inference.class_maps import make_groups
from stajax.inference.clip import Clip, windows
from stajax.inference.dense import DenseNetwork, Groups

NAMES = (*networks.FINE, *networks.GRANULAR, networks.SWITCH, *networks.STUDENTS)
SEED, BATCH, LENGTH = 5, 16, 128
COUNTS = (1, 2, 5, 300)
FINE_READ_OUT = CONFIG.model_copy(update={"network": CONFIG.network.model_copy(update={"fine_read_out": True})})
CROPPED = {*networks.FINE, *networks.GRANULAR}

small_programs = tiny.small_programs
pytestmark = pytest.mark.usefixtures("small_programs")


@functools.cache
def make(network, random_variables, cropped):
  """Makes variables and the dense network; networks that differ in their companions only are equal."""
  variables = random_variables(network, SIZE, seed=1)
  return variables, DenseNetwork(network, variables, SIZE, BATCH, cropped)


@functools.cache
def make_video(count, cropped):
  clip = Clip(make_samples(count, seed=count), boxes=make_boxes(count) if cropped else None)
  return clip.with_switch(np.random.default_rng(count).integers(0, 2, count))


def companions_of(name, network, clip, frame, number, first, count):
  """Returns the frames of the group of a video's frame `first + frame`, by the paper's words.

  Long companions are drawn from the `number` frames of the window that begins with `first`, cross ones are in another
  video.
  """
  match networks.NETWORKS[name].companions:
    case None:
      return [(clip, first + frame)]
    case "short":
      found = reflect(first + frame + np.array([-1, 1]) * network.num_times, count)
    case "long":
      found = first + companions.long_companions(SEED, first, np.array(frame), np.array(number))
    case "cross":
      other = make_video(3, True)
      return [(clip, first + frame), (other, frame % 3), (other, (frame + 1) % 3)]
  return [(clip, first + frame), *((clip, at) for at in found.tolist())]


def relative(found, expected):
  """Returns the largest difference, as a part of the largest value where that is above 1."""
  return np.abs(found - expected).max() / max(1, np.abs(expected).max())


FINE = ("sta_plus_short", FINE_READ_OUT)
# Every source, every kind of companions and every student is there once.
_QUICK = ("sa", "st_plus_short", "s_plus_cross", "sa_plus_long", networks.SWITCH, "sta", "sta_plus_long")


def _marks(name):
  return () if name in _QUICK else (pytest.mark.slow,)


@pytest.mark.parametrize(
  ("name", "config"), [*(pytest.param(name, CONFIG, marks=_marks(name)) for name in NAMES), FINE], ids=[*NAMES, "fine"]
)
def test_staged_equals_whole(name, config, random_variables):
  network, cropped = networks.make_network(name, config, len(CATEGORIES)), name in CROPPED
  variables, dense = make(network, random_variables, cropped)
  categories = range(len(CATEGORIES) if name != networks.SWITCH else 1)
  for count in COUNTS:
    video = make_video(count, cropped)
    found, gathered, compared = [], [], []
    for window in windows(video.samples, length=LENGTH):
      first, number = window.first, len(window)
      window.boxes = video.boxes[first : first + number] if cropped else None
      window = window.with_switch(video.switch[first : first + number])
      groups, granularity, targets = None, networks.NETWORKS[name].companions, np.array(window.targets)
      if granularity == "cross":
        chosen = number + np.stack([targets % 3, (targets + 1) % 3], axis=1)
        pool = dense.nodes(make_video(3, cropped))
        groups = Groups(np.concatenate([targets[:, None], chosen], axis=1), pool)
      elif granularity:
        groups = Groups(make_groups(window, granularity, network.num_times, SEED))
      found.append(dense.run(window, categories, groups))
      ends = targets if count < 10 else targets[[0, 1, 4, -5, -2, -1]]
      compared += (first + ends).tolist()
      gathered += [companions_of(name, network, video, int(at), number, first, count) for at in ends]
    # In portions of one shape.
    parts = [whole(network, variables, gathered[at : at + 12]) for at in range(0, len(gathered), 12)]
    if name in networks.STUDENTS:
      found, expected = [np.concatenate(found)], [np.concatenate(parts)]
    else:
      found, expected = ([np.concatenate(x) for x in zip(*values, strict=True)] for values in (found, parts))
    for staged, direct in zip(found, expected, strict=True):
      assert len(staged) == count and staged.dtype == np.float32
      assert relative(staged[compared], direct) < 1e-5, f"{count} frames"
      assert count == 1 or np.std(direct, axis=0).max() > 1e-4
